//! One connection to the mail server's IMAP, as a mailbox's owner by way of a master user: asks for flags, changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use tokio::net::TcpStream;

use super::complete::Known;
use super::tls::{Stream, Tls};
use crate::imap::client::{Client, ImapError, Refusal};
use crate::mail::flags::Flags;
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid, UidValidity};
use crate::mail::user::UserNames;
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::namespace::Namespaces;
use crate::wire::imap::response::{Code, Untagged, words};
use crate::wire::imap::{set, write};

/// A connection, logged in.
pub struct Connection {
    client: Client<Box<dyn Stream>>,
    condstore: bool,
    /// `None`: the server does not tell, so all is personal.
    told: Option<Namespaces>,
    delimiter: Option<u8>,
}

impl Connection {
    /// Connects and logs in as `owner`. Bounded by the caller's time-out.
    pub async fn open(address: &str, tls: &Tls, credentials: &Credentials, owner: &str) -> Result<Self, ImapError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Client::over(tls.at_once(Box::new(stream)).await?);
        client.greeting().await?;
        if tls.is_starttls() {
            client.command(b"STARTTLS", |_| {}).await?;
            client = Client::over(tls.after_starttls(client.into_stream()).await?);
        }
        client.login(credentials, owner).await?;
        let mut condstore = false;
        let asked = client.command(b"CAPABILITY", |untagged| {
            if let Untagged::Capability(list) = untagged {
                condstore |= words(list).any(|word| word.eq_ignore_ascii_case(b"CONDSTORE"));
            }
        });
        match asked.await {
            Ok(()) | Err(ImapError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
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
        match asked.await {
            Ok(()) | Err(ImapError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        let (mut delimiter, mut is_of_the_root) = (None, false);
        if told.is_none() {
            let asked = client.command(b"LIST \"\" \"\"", |untagged| {
                if let Untagged::List(list) = untagged
                    && !is_of_the_root
                {
                    // The name that stands for the root is empty.
                    (delimiter, is_of_the_root) = (list.delimiter, list.name.is_empty());
                }
            });
            asked.await?;
        }
        Ok(Self { client, condstore, told, delimiter })
    }

    /// The owner's namespaces, if the server tells of them.
    pub fn namespaces(&self) -> Option<&Namespaces> {
        self.told.as_ref()
    }

    /// What the mailbox's owner, who is the user of this connection, calls it.
    fn name(&self, mailbox: &MailboxPath, names: &UserNames) -> Option<Vec<u8>> {
        let owner = mailbox.owner_name()?;
        match &self.told {
            Some(told) => told.imap_name(mailbox, false, &owner, names),
            None => Namespaces::personal_only(self.delimiter).imap_name(mailbox, false, &owner, names),
        }
    }

    /// The flags of those of these messages that are there.
    pub async fn flags(
        &mut self,
        mailbox: &MailboxPath,
        names: &UserNames,
        uidvalidity: Option<UidValidity>,
        uids: &BTreeSet<Uid>,
    ) -> Result<BTreeMap<Uid, Known>, ImapError> {
        let refused = |reason: String| ImapError::Refused(Refusal::new(reason));
        let name = self.name(mailbox, names).ok_or_else(|| refused("its owner has no name for it".to_owned()))?;
        let mut examine = b"EXAMINE ".to_vec();
        write::astring(&mut examine, &name, false).map_err(|error| refused(error.to_string()))?;
        let mut told = None;
        self.client
            .command(&examine, |untagged| {
                if let Untagged::Status { code: Some(Code::UidValidity(number)), .. } = untagged {
                    told = Some(*number);
                }
            })
            .await?;
        if uidvalidity.is_some() && told != uidvalidity {
            return Err(refused("its UIDVALIDITY is another".to_owned()));
        }
        let mut fetch = b"UID FETCH ".to_vec();
        set::write(&mut fetch, &uids.iter().map(|uid| uid.get()).collect::<RoaringBitmap>());
        fetch.extend_from_slice(if self.condstore { b" (FLAGS MODSEQ)" } else { b" (FLAGS)" });
        let mut told: BTreeMap<Uid, (Option<Flags>, Option<ModSeq>)> = BTreeMap::new();
        self.client
            .command(&fetch, |untagged| {
                if let Untagged::Fetch(fetch) = untagged
                    && let Some(uid) = fetch.uid.filter(|uid| uids.contains(uid))
                {
                    // What is said of one message may come in several responses; said again, the last counts.
                    let (flags, modseq) = told.entry(uid).or_default();
                    if fetch.flags.is_some() {
                        flags.clone_from(&fetch.flags);
                    }
                    *modseq = fetch.modseq.or(*modseq);
                }
            })
            .await?;
        let known = told.into_iter().filter_map(|(uid, (flags, modseq))| Some((uid, Known { flags: flags?, modseq }))).collect();
        Ok(known)
    }
}

#[cfg(test)]
#[path = "imap_tests.rs"]
mod tests;
