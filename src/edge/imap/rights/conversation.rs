//! One connection as one user: what is asked there, and what the answers mean.

use std::collections::BTreeSet;

use crate::edge::imap::stream::Stream;
use crate::edge::imap::upstream::Connected;
use crate::imap::client::{Client, ImapError, Refusal};
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::mail::user::{UserName, UserNames};
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::namespace::Namespaces;
use crate::wire::imap::response::{List, Untagged, words};
use crate::wire::imap::write;

/// Response codes of a NO that another time may be none (RFC 5530). They say nothing about the
/// mailbox.
pub(super) const PASSING: &[&str] = &["UNAVAILABLE", "INUSE", "LIMIT"];
/// Mailboxes of others, and bytes of their paths, that are taken in.
const SHARED: (usize, usize) = (65_536, 16 * 1024 * 1024);

/// One connection on which rights are asked for as one user.
pub(super) struct Conversation<'a> {
    client: Client<Stream>,
    user: UserName,
    names: &'a UserNames,
    /// `None`: the server does not tell.
    namespaces: Option<Namespaces>,
    missing: Option<&'static str>,
}

impl<'a> Conversation<'a> {
    /// `known_as`: what the server calls the user.
    pub async fn open(
        (stream, said): Connected,
        master: &Credentials,
        (user, known_as): (&UserName, &str),
        names: &'a UserNames,
    ) -> Result<Self, ImapError> {
        let mut client = Client::greeted(stream, &said)?;
        client.login(master, known_as).await?;
        let mut told: Option<Namespaces> = None;
        let asked = client.command(b"NAMESPACE", |untagged| {
            if let Untagged::Namespace(namespaces) = untagged {
                // One answer may come in parts.
                match &mut told {
                    Some(told) => told.unite(namespaces.clone()),
                    None => told = Some(namespaces.clone()),
                }
            }
        });
        let (namespaces, missing) = match asked.await {
            Ok(()) => (Some(told.ok_or(ImapError::Protocol("no answer to NAMESPACE"))?), None),
            // Without it nobody knows what mailboxes of others are called.
            Err(ImapError::Refused(refusal)) if refusal.bad => (None, Some("NAMESPACE")),
            Err(error) => return Err(error),
        };
        Ok(Self { client, user: user.clone(), names, namespaces, missing })
    }

    /// The extension without which the server cannot say anything, if it was found to lack one.
    pub fn missing(&self) -> Option<&'static str> {
        self.missing
    }

    /// The user's rights; none where there is no such mailbox. [`ImapError::Refused`]: it cannot be
    /// told now.
    pub async fn rights(&mut self, mailbox: &MailboxPath) -> Result<Rights, ImapError> {
        let spellings = self.namespaces.as_ref().map(|namespaces| spellings(namespaces, mailbox, &self.user, self.names));
        for name in spellings.unwrap_or_default() {
            let rights = self.my_rights(&name).await?;
            // Whoever may not know of the mailbox has none (RFC 4314 6).
            if rights.know() {
                return Ok(rights);
            }
        }
        Ok(Rights::NONE)
    }

    /// Whether the server goes by the user's rights: whoever is the user may read their own INBOX.
    /// `None`: it cannot say.
    pub async fn is_the_user(&mut self) -> Result<Option<bool>, ImapError> {
        let rights = self.my_rights(b"INBOX").await?;
        Ok(self.missing.is_none().then(|| rights.contains(Rights::READ)))
    }

    async fn my_rights(&mut self, name: &[u8]) -> Result<Rights, ImapError> {
        let mut command = b"MYRIGHTS ".to_vec();
        if write::astring(&mut command, name, false).is_err() {
            return Ok(Rights::NONE);
        }
        let (mut told, mut is_of_it) = (None, false);
        let asked = self.client.command(&command, |untagged| {
            if let Untagged::MyRights(answer) = untagged {
                // It may be said more than once, and of other mailboxes: the last word of this one
                // counts. A server that spells the name in another way is believed where nothing
                // better comes.
                let is_same = answer.mailbox == name;
                if is_same || !is_of_it {
                    (told, is_of_it) = (Some(answer.rights), is_same);
                }
            }
        });
        match asked.await {
            Ok(()) => told.ok_or(ImapError::Protocol("no answer to MYRIGHTS")),
            Err(ImapError::Refused(refusal)) if refusal.bad => self.not_understood(refusal).await,
            Err(ImapError::Refused(refusal)) if refusal.is(PASSING) => Err(ImapError::Refused(refusal)),
            // Dovecot says so if there is no such owner, and if something is wrong with a mailbox
            // that is there. The first is an answer, and must be the same as for every mailbox that
            // is not there (I-9): else a stranger could find out who is a user. So it is trouble
            // only for who may look the mailbox up.
            Err(ImapError::Refused(refusal)) if refusal.is(&["SERVERBUG"]) => match self.is_listed(name).await? {
                true => Err(ImapError::Refused(refusal)),
                false => Ok(Rights::NONE),
            },
            Err(ImapError::Refused(_)) => Ok(Rights::NONE),
            Err(error) => Err(error),
        }
    }

    /// MYRIGHTS was called bad: is it unknown?
    async fn not_understood(&mut self, refusal: Refusal) -> Result<Rights, ImapError> {
        let mut has_acl = false;
        let asked = self.client.command(b"CAPABILITY", |untagged| {
            if let Untagged::Capability(list) = untagged {
                has_acl |= words(list).any(|word| word.eq_ignore_ascii_case(b"ACL"));
            }
        });
        asked.await?;
        if has_acl {
            return Err(ImapError::Refused(refusal));
        }
        self.missing = Some("ACL");
        Ok(Rights::NONE)
    }

    async fn is_listed(&mut self, name: &[u8]) -> Result<bool, ImapError> {
        let mut listed = false;
        match self.list(name, |list| listed |= is_there(list) && list.name == name).await {
            Ok(()) => Ok(listed),
            Err(ImapError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Those mailboxes of others that the user may look up.
    pub async fn shared(&mut self) -> Result<Vec<MailboxPath>, ImapError> {
        let Some(namespaces) = self.namespaces.clone() else { return Ok(Vec::new()) };
        let (user, names) = (self.user.clone(), self.names);
        let mut found = BTreeSet::new();
        let (mut bytes, mut too_many) = (0, false);
        for space in namespaces.other_users.iter().chain(&namespaces.shared) {
            let pattern = [&space.prefix[..], b"*"].concat();
            let take = |list: &List<'_>| {
                let path = namespaces.path(&list.name, false, &user, names);
                let Some(path) = path.filter(|path| is_there(list) && !path.is_owned_by(&user)) else { return };
                too_many |= found.len() >= SHARED.0 || bytes + path.as_str().len() > SHARED.1;
                if !too_many {
                    bytes += path.as_str().len();
                    found.insert(path);
                }
            };
            self.list(&pattern, take).await?;
        }
        if too_many {
            return Err(ImapError::Protocol("it lists too many mailboxes of others"));
        }
        Ok(found.into_iter().collect())
    }

    async fn list(&mut self, pattern: &[u8], mut take: impl FnMut(&List<'_>)) -> Result<(), ImapError> {
        let mut command = b"LIST \"\" ".to_vec();
        if write::astring(&mut command, pattern, false).is_err() {
            return Ok(());
        }
        let asked = self.client.command(&command, |untagged| {
            if let Untagged::List(list) = untagged {
                take(list);
            }
        });
        asked.await
    }
}

/// It is a mailbox, not only something above one.
fn is_there(list: &List<'_>) -> bool {
    let says = |name: &str| list.attributes.iter().any(|attribute| attribute.eq_ignore_ascii_case(name.as_bytes()));
    !says("\\NonExistent") && !says("\\NoSelect")
}

/// What the user may call the mailbox, the likeliest first. All of them mean this mailbox and no
/// other.
fn spellings(namespaces: &Namespaces, mailbox: &MailboxPath, user: &UserName, names: &UserNames) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut add = |mailbox: &MailboxPath, names: &UserNames| {
        let Some(name) = namespaces.imap_name(mailbox, false, user, names) else { return };
        let space = namespaces.other_users.iter().find(|space| name.starts_with(&space.prefix));
        // Some servers know an owner's INBOX by the owner's name alone, others by its own name
        // below that.
        let inbox = match space.and_then(|space| space.delimiter) {
            Some(delimiter) if mailbox.name() == "INBOX" && !mailbox.is_owned_by(user) => {
                Some([&name[..], &[delimiter], b"INBOX"].concat())
            }
            _ => None,
        };
        found.push(name);
        found.extend(inbox);
    };
    add(mailbox, names);
    // The server may know its users without their domain. To a user of another domain a bare name
    // could be another owner's.
    if let (Some(owner), Some(_)) = (names.without_domain(mailbox.owner()), names.without_domain(user.as_str()))
        && let Ok(bare) = MailboxPath::new(mailbox.namespace(), owner, mailbox.name())
    {
        add(&bare, &UserNames { default_domain: None, ..names.clone() });
    }
    found
}
