//! All mailboxes of all users, who may do what with them, and the events that their changes make.
//!
//! A change is made first and its event lies in [`Model::outbox`] afterwards, in the order of the
//! changes (I-5).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::mailbox::{Mailbox, Stamp};
use super::names::Style;
use crate::cluster::acls::AclNews;
use crate::mail::event::Status;
use crate::mail::rights::{Acl, AclEdit, Entry, Identifier, Rights, RightsChange};
use crate::mail::user::UserNames;
use crate::mail::{Change, Event, Flags, MailboxPath, UidValidity, UserName};
use crate::push::clock::new_event_id;

/// What the store holds at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of one message, in bytes.
    pub message_bytes: usize,
    /// Of all messages together, in bytes.
    pub total_bytes: usize,
    /// Messages in one mailbox.
    pub messages: usize,
    /// Mailboxes, and subscribed names, of one user.
    pub mailboxes: usize,
    /// Keywords of one mailbox.
    pub keywords: usize,
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 32 << 20,
            total_bytes: 512 << 20,
            messages: 100_000,
            mailboxes: 1_000,
            keywords: 200,
            connections: 1_000,
        }
    }
}

/// How the store misbehaves, for tests; can be changed while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// A selected mailbox shows other sessions' changes only after so long; their events are
    /// published at once.
    pub lag: Duration,
    /// SELECT, EXAMINE and STATUS show the mailbox of so long ago too, as a replica that lags
    /// would.
    pub lag_at_select: bool,
    /// Connections are taken in and bytes are read from nobody: a server that hangs.
    pub hold: bool,
    /// Every login is refused (RFC 5530 UNAVAILABLE).
    pub refuse_logins: bool,
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is none, or the user may not know that there is one (I-9).
    Nonexistent,
    NoPerm,
    AlreadyExists,
    Limit(&'static str),
    OverQuota,
    Cannot(&'static str),
}

impl Refusal {
    /// The response code (RFC 5530, RFC 9208) and the words.
    pub fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Nonexistent => ("NONEXISTENT", "There is no such mailbox"),
            Self::NoPerm => ("NOPERM", "You lack the right to do that"),
            Self::AlreadyExists => ("ALREADYEXISTS", "There is such a mailbox already"),
            Self::Limit(words) => ("LIMIT", words),
            Self::OverQuota => ("OVERQUOTA", "The store is full"),
            Self::Cannot(words) => ("CANNOT", words),
        }
    }
}

/// The whole store: users, mailboxes, and what waits to be published. Pure: the time comes in as a
/// [`Stamp`].
#[derive(Debug)]
pub struct Model {
    pub users: Vec<UserName>,
    pub style: Style,
    pub limits: Limits,
    pub faults: Faults,
    /// Events of changes that have been made, oldest first.
    pub outbox: VecDeque<Event>,
    /// What has happened to rights since it was last taken.
    pub news: Vec<AclNews>,
    /// Connections that began before this grew are to end.
    pub cut: u64,
    /// How many events there have been.
    told: u64,
    /// Where the events say that they happened.
    origin: String,
    mailboxes: BTreeMap<u64, Mailbox>,
    names: BTreeMap<(UserName, String), u64>,
    subscribed: BTreeMap<UserName, BTreeSet<(UserName, String)>>,
    last_id: u64,
    /// Also of all messages in all mailboxes, counted once per mailbox.
    pub(super) bytes: usize,
}

impl Model {
    /// A store with these users, each with an INBOX and the usual folders. UIDVALIDITYs count up
    /// from `uidvalidity`.
    pub fn new(users: Vec<UserName>, style: Style, limits: Limits, origin: String, uidvalidity: u32) -> Self {
        let mut model = Self {
            users: users.clone(),
            style,
            limits,
            faults: Faults::default(),
            outbox: VecDeque::new(),
            news: Vec::new(),
            cut: 0,
            told: 0,
            origin,
            mailboxes: BTreeMap::new(),
            names: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            last_id: u64::from(uidvalidity.max(1)) - 1,
            bytes: 0,
        };
        let folders = [("INBOX", None), ("Drafts", Some("\\Drafts")), ("Sent", Some("\\Sent")), ("Trash", Some("\\Trash"))];
        for user in &users {
            for (name, special) in folders {
                if let Some(mailbox) = model.insert(user, name).and_then(|id| model.mailboxes.get_mut(&id)) {
                    mailbox.special = special;
                }
                model.add_subscription(user, user, name);
            }
        }
        model
    }

    /// Makes a mailbox without telling anybody.
    pub fn insert(&mut self, owner: &UserName, name: &str) -> Option<u64> {
        self.last_id += 1;
        let uidvalidity = UidValidity::new(self.last_id as u32)?;
        let mailbox = Mailbox::new(self.last_id, owner.clone(), name.to_owned(), uidvalidity);
        self.mailboxes.insert(self.last_id, mailbox);
        self.names.insert((owner.clone(), name.to_owned()), self.last_id);
        Some(self.last_id)
    }

    /// Grants rights without telling anybody.
    pub fn grant(&mut self, owner: &UserName, name: &str, user: &UserName, rights: Rights) {
        if let Some(mailbox) = self.named(owner, name).and_then(|id| self.mailboxes.get_mut(&id)) {
            mailbox.acl.set(Entry { identifier: Identifier::User(user.clone()), negative: false }, rights);
        }
    }

    /// Subscribes without telling anybody.
    pub fn add_subscription(&mut self, user: &UserName, owner: &UserName, name: &str) {
        self.subscribed.entry(user.clone()).or_default().insert((owner.clone(), name.to_owned()));
    }

    pub fn mailbox(&self, id: u64) -> Option<&Mailbox> {
        self.mailboxes.get(&id)
    }

    pub fn mailbox_mut(&mut self, id: u64) -> Option<&mut Mailbox> {
        self.mailboxes.get_mut(&id)
    }

    pub fn mailboxes(&self) -> impl Iterator<Item = &Mailbox> {
        self.mailboxes.values()
    }

    pub fn named(&self, owner: &UserName, name: &str) -> Option<u64> {
        self.names.get(&(owner.clone(), name.to_owned())).copied()
    }

    /// The user of that name: `alice` or `alice@example.org`.
    pub fn user(&self, login: &str) -> Option<UserName> {
        let local = |user: &&UserName| user.as_str().split('@').next().is_some_and(|local| local.eq_ignore_ascii_case(login));
        let whole = |user: &&UserName| user.as_str().eq_ignore_ascii_case(login);
        self.users.iter().find(|user| whole(user) || local(user)).cloned()
    }

    fn meant(&self, user: &UserName, shown: &str) -> Option<(UserName, String)> {
        self.style.meant(user, &self.users, shown)
    }

    /// The mailbox that `user` calls so, if they have all these rights on it. Without the right to
    /// know of it, it does not exist (RFC 4314 6).
    pub fn find(&self, user: &UserName, shown: &str, rights: &str) -> Result<u64, Refusal> {
        let (owner, name) = self.meant(user, shown).ok_or(Refusal::Nonexistent)?;
        let id = self.named(&owner, &name).ok_or(Refusal::Nonexistent)?;
        let held = self.mailboxes.get(&id).map(|mailbox| mailbox.rights(user)).unwrap_or_default();
        match rights.chars().all(|right| held.has(right)) {
            true => Ok(id),
            false if held.has('l') => Err(Refusal::NoPerm),
            false => Err(Refusal::Nonexistent),
        }
    }

    /// All mailboxes that `user` may list, by the names they call them.
    pub fn listed(&self, user: &UserName) -> Vec<(String, &Mailbox)> {
        let may_list = self.mailboxes.values().filter(|mailbox| mailbox.rights(user).has('l'));
        let mut listed: Vec<_> =
            may_list.map(|mailbox| (self.style.shown(user, &mailbox.owner, &mailbox.name), mailbox)).collect();
        listed.sort_by(|a, b| (a.0 != "INBOX", &a.0).cmp(&(b.0 != "INBOX", &b.0)));
        listed
    }

    /// The names that `user` subscribed to, as they call them, whether they exist or not.
    pub fn subscriptions(&self, user: &UserName) -> Vec<String> {
        let names = self.subscribed.get(user).into_iter().flatten();
        names.map(|(owner, name)| self.style.shown(user, owner, name)).collect()
    }

    /// Makes a mailbox, and those above it that are missing.
    pub fn create(&mut self, stamp: Stamp, user: &UserName, shown: &str) -> Result<u64, Refusal> {
        // A trailing delimiter says that names below are going to be made (RFC 9051 6.3.4).
        let shown = shown.strip_suffix(self.style.delimiter).unwrap_or(shown);
        let (owner, name) = self.meant(user, shown).ok_or(Refusal::Cannot("That cannot be a mailbox's name"))?;
        self.may_create(user, &owner, &name)?;
        let mut made = None;
        for (end, _) in name.match_indices('/').chain([(name.len(), "")]) {
            if self.named(&owner, &name[..end]).is_none() {
                let acl = self.parent_acl(&owner, &name[..end]);
                let id = self.insert(&owner, &name[..end]).ok_or(Refusal::Limit("UIDVALIDITYs have run out"))?;
                if let Some(mailbox) = self.mailboxes.get_mut(&id) {
                    mailbox.acl = acl;
                }
                self.note_shares(id);
                self.tell(stamp, user, id, Change::MailboxCreate);
                made = Some(id);
            }
        }
        made.ok_or(Refusal::AlreadyExists)
    }

    /// A mailbox inherits the rights of the one above it (RFC 4314 says: may).
    fn parent_acl(&self, owner: &UserName, name: &str) -> Acl {
        let parent = name.rsplit_once('/').and_then(|(parent, _)| self.named(owner, parent));
        parent.and_then(|id| self.mailboxes.get(&id)).map(|mailbox| mailbox.acl.clone()).unwrap_or_default()
    }

    fn may_create(&self, user: &UserName, owner: &UserName, name: &str) -> Result<(), Refusal> {
        if user != owner {
            // `k` on the nearest mailbox above.
            let above = name.match_indices('/').rev().find_map(|(end, _)| self.named(owner, &name[..end]));
            let rights = above.and_then(|id| self.mailboxes.get(&id)).map(|mailbox| mailbox.rights(user)).unwrap_or_default();
            if !rights.has('k') {
                return Err(if rights.has('l') { Refusal::NoPerm } else { Refusal::Nonexistent });
            }
        }
        let levels = name.matches('/').count() + 1;
        let held = self.names.keys().filter(|(of, _)| of == owner).count();
        if levels > 32 || held + levels > self.limits.mailboxes {
            return Err(Refusal::Limit("Too many mailboxes"));
        }
        if self.named(owner, name).is_some() { Err(Refusal::AlreadyExists) } else { Ok(()) }
    }

    /// Mailboxes below it stay.
    pub fn delete(&mut self, stamp: Stamp, user: &UserName, shown: &str) -> Result<(), Refusal> {
        let id = self.find(user, shown, "x")?;
        let Some(mailbox) = self.mailboxes.get(&id) else { return Err(Refusal::Nonexistent) };
        if mailbox.name == "INBOX" {
            return Err(Refusal::Cannot("INBOX cannot be deleted"));
        }
        let event = self.event(stamp, user, mailbox, Change::MailboxDelete);
        self.note_shares(id);
        if let Some(mailbox) = self.mailboxes.remove(&id) {
            self.bytes -= mailbox.bytes();
            self.names.remove(&(mailbox.owner, mailbox.name));
        }
        self.put_out(event);
        Ok(())
    }

    /// With all mailboxes below it. Of INBOX only the messages go (RFC 9051 6.3.6).
    pub fn rename(&mut self, stamp: Stamp, user: &UserName, from: &str, to: &str) -> Result<(), Refusal> {
        let id = self.find(user, from, "x")?;
        let (owner, name) = self.meant(user, to).ok_or(Refusal::Cannot("That cannot be a mailbox's name"))?;
        let Some((old_owner, old)) = self.mailboxes.get(&id).map(|mailbox| (mailbox.owner.clone(), mailbox.name.clone())) else {
            return Err(Refusal::Nonexistent);
        };
        if owner != old_owner || name.starts_with(&format!("{old}/")) && old != "INBOX" {
            return Err(Refusal::Cannot("A mailbox cannot move there"));
        }
        self.may_create(user, &owner, &name)?;
        if old == "INBOX" {
            let target = self.create(stamp, user, to)?;
            let uids: Vec<_> = self.mailboxes.get(&id).into_iter().flat_map(|inbox| &inbox.messages).map(|m| m.uid).collect();
            return self.copy(stamp, user, id, &uids, target, true).map(drop);
        }
        let below = format!("{old}/");
        let moved = self.names.iter().filter(|((of, held), _)| *of == owner && (*held == old || held.starts_with(&below)));
        let moved: Vec<(String, u64)> = moved.map(|((_, held), id)| (held.clone(), *id)).collect();
        let renamed = |held: &str| format!("{name}{}", &held[old.len()..]);
        if moved.iter().any(|(held, _)| self.named(&owner, &renamed(held)).is_some()) {
            return Err(Refusal::AlreadyExists);
        }
        if let Some((parent, _)) = name.rsplit_once('/')
            && self.named(&owner, parent).is_none()
        {
            let parent = self.style.shown(user, &owner, parent);
            self.create(stamp, user, &parent)?;
        }
        for (held, id) in moved {
            let new = renamed(&held);
            let Ok(to) = MailboxPath::private(&owner, &new) else { continue };
            let event =
                self.mailboxes.get(&id).and_then(|mailbox| self.event(stamp, user, mailbox, Change::MailboxRename { to }));
            self.note_shares(id);
            self.names.remove(&(owner.clone(), held));
            self.names.insert((owner.clone(), new.clone()), id);
            if let Some(mailbox) = self.mailboxes.get_mut(&id) {
                mailbox.name = new;
            }
            self.note_shares(id);
            self.put_out(event);
        }
        Ok(())
    }

    /// Any name can be subscribed to that could be one's own, or that may be listed.
    pub fn subscribe(&mut self, stamp: Stamp, user: &UserName, shown: &str, on: bool) -> Result<(), Refusal> {
        let (owner, name) = self.meant(user, shown).ok_or(Refusal::Nonexistent)?;
        if on && owner != *user {
            self.find(user, shown, "l")?;
        }
        let limit = self.limits.mailboxes;
        let names = self.subscribed.entry(user.clone()).or_default();
        if on && names.len() >= limit {
            return Err(Refusal::Limit("Too many subscriptions"));
        }
        let entry = (owner.clone(), name.clone());
        let changed = if on { names.insert(entry) } else { names.remove(&entry) };
        if let (true, Some(id)) = (changed, self.named(&owner, &name)) {
            self.tell(stamp, user, id, if on { Change::MailboxSubscribe } else { Change::MailboxUnSubscribe });
        }
        Ok(())
    }

    /// Changes what `identifier` may do with the mailbox; needs `a` on it.
    pub fn set_acl(
        &mut self,
        stamp: Stamp,
        user: &UserName,
        shown: &str,
        identifier: &str,
        change: RightsChange,
    ) -> Result<(), Refusal> {
        let id = self.find(user, shown, "a")?;
        let entry = self.entry(identifier)?;
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return Err(Refusal::Nonexistent) };
        if entry.identifier == Identifier::Owner || entry.identifier == Identifier::User(mailbox.owner.clone()) {
            return Err(Refusal::Cannot("The owner keeps all rights"));
        }
        let edit = AclEdit { entry, change };
        if mailbox.acl.edit(&edit) {
            self.news.extend(mailbox.path().map(AclNews::Changed));
            self.news.push(AclNews::Shares(edit.entry.identifier.clone()));
            let rights = mailbox.acl.get(&edit.entry).to_string();
            self.tell(stamp, user, id, Change::AclChange { identifier: edit.entry.to_string(), rights });
        }
        Ok(())
    }

    /// Whom an identifier means, with its sign: this store's users and everybody; it has no groups.
    pub fn entry(&self, identifier: &str) -> Result<Entry, Refusal> {
        let read = Entry::read(identifier, &UserNames::default());
        let entry = read.map_err(|_| Refusal::Cannot("That is no identifier"))?;
        let identifier = match entry.identifier {
            Identifier::Group(_) => return Err(Refusal::Cannot("There are no groups")),
            Identifier::User(name) => Identifier::User(self.user(name.as_str()).ok_or(Refusal::Cannot("There is no such user"))?),
            everybody => everybody,
        };
        Ok(Entry { identifier, ..entry })
    }

    pub(super) fn tell(&mut self, stamp: Stamp, actor: &UserName, id: u64, change: Change) {
        let event = self.mailboxes.get(&id).and_then(|mailbox| self.event(stamp, actor, mailbox, change));
        self.put_out(event);
    }

    /// Grows with every change.
    pub fn changes(&self) -> u64 {
        self.told
    }

    fn put_out(&mut self, event: Option<Event>) {
        self.told += 1;
        self.outbox.extend(event);
    }

    /// The mailbox has come, goes, or changes its name: for whoever is named in its ACL.
    fn note_shares(&mut self, id: u64) {
        if let Some(mailbox) = self.mailboxes.get(&id) {
            self.news.extend(mailbox.path().map(AclNews::Changed));
            self.news.extend(mailbox.acl.iter().map(|(entry, _)| AclNews::Shares(entry.identifier.clone())));
        }
    }

    fn event(&self, stamp: Stamp, actor: &UserName, mailbox: &Mailbox, change: Change) -> Option<Event> {
        Some(Event {
            id: new_event_id(),
            at: stamp.unix_ms,
            origin: self.origin.clone(),
            actor: Some(actor.as_str().to_owned()),
            actor_session: (stamp.session != 0).then(|| stamp.session.to_string()),
            mailbox: mailbox.path()?,
            mailbox_id: Some(mailbox.id.to_string()),
            uidvalidity: Some(mailbox.uidvalidity),
            status: Some(Status { ..mailbox.status() }),
            change,
        })
    }

    /// Whether these keywords may be added to the mailbox.
    pub(super) fn may_hold(&self, mailbox: &Mailbox, flags: &Flags) -> Result<(), Refusal> {
        let new = flags.minus(&mailbox.keywords).iter().filter(|flag| !flag.as_str().starts_with('\\')).count();
        if mailbox.keywords.len() + new > self.limits.keywords { Err(Refusal::Limit("Too many keywords")) } else { Ok(()) }
    }
}
