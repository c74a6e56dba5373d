//! Rights at the moment of delivery (I-10): who may hear of mailboxes that are not their own.
//!
//! Everybody hears of their own mailboxes. For any other a session holds a [`Grant`]: what is known
//! of its user's rights, which the hub reads at every delivery. The rights come from a
//! [`RightsSource`]. They are unknown as soon as a change of the mailbox's ACL comes out of the
//! queue, or the source tells of one, and then nothing is told until the source has answered anew:
//! **fail closed**. The source is asked again now and then anyhow, and no answer is trusted beyond
//! an age. What was withheld meanwhile is told as a `resync`.
//!
//! This decides who may hear; what follows for sessions is done by [`super::subscriptions`].

mod grant;
pub mod registry;
pub mod source;
mod state;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

pub use self::grant::{Grant, Need};
use self::source::{NoAnswer, RightsSource};
pub(super) use self::state::Cause;
use self::state::{Age, Effect};
use super::handle::SessionHandle;
use super::metrics::Metrics;
use crate::cluster::acls::AclNews;
use crate::lock::{Mutex, MutexGuard};
use crate::mail::key::Key;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Entry, Identifier, Rights, RightsChange, Subject};
use crate::tasks::vital;

/// The first pause before a source that did not answer is asked again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// At most one line about a source that does not answer in this time.
const WARN_INTERVAL: Duration = Duration::from_secs(30);
/// How often ages are looked at, at least.
const TICK: Duration = Duration::from_secs(1);

/// Where the rights on a namespace's mailboxes come from.
#[derive(Clone)]
pub enum Via {
    /// Nobody hears of a mailbox that is not their own.
    Nobody,
    Source(Arc<dyn RightsSource>),
    /// An IMAP session asks on its user's own connection; for other sessions nobody can be asked.
    Session,
}

/// How rights are looked after.
#[derive(Clone)]
pub struct Options {
    pub via: Via,
    /// By namespace, where it is another one.
    pub by_namespace: HashMap<String, Via>,
    /// How long one question may take.
    pub timeout: Duration,
    /// How often the rights that are in use are asked for again.
    pub recheck: Duration,
    /// Rights that nobody has confirmed for this long are not trusted.
    pub max_age: Duration,
    pub rechecks_per_second: u32,
    /// How long after the question a denial is answered.
    pub denial: Duration,
    /// Mailboxes of others that one account subscription may cover.
    pub shared_mailboxes: usize,
}

impl Options {
    /// Nobody hears of a mailbox that is not their own.
    #[cfg(test)]
    pub fn owners_only() -> Self {
        Self {
            via: Via::Nobody,
            by_namespace: HashMap::new(),
            timeout: Duration::from_secs(5),
            recheck: Duration::from_secs(60),
            max_age: Duration::from_secs(300),
            rechecks_per_second: 100,
            denial: Duration::ZERO,
            shared_mailboxes: 1_000,
        }
    }
}

/// What sessions have to look at.
#[derive(Debug, Clone)]
pub enum Notice {
    /// These rights changed, or something was withheld for them.
    Grant(Weak<Grant>),
    /// Other mailboxes may be shared with this identifier now; `None`: with anybody.
    Shares(Option<Identifier>),
}

type Table = HashMap<MailboxPath, Vec<Weak<Grant>>>;

/// Who may hear of which mailbox, on this node.
pub struct Access {
    pub(super) options: Options,
    /// Every grant that is held.
    table: Mutex<Table>,
    notices: mpsc::UnboundedSender<Notice>,
    metrics: Arc<Metrics>,
    /// When it was last logged that a source does not answer.
    warned_at: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// Starts its tasks, which end when the last `Arc` is dropped.
    pub fn start(options: Options, metrics: Arc<Metrics>) -> (Arc<Self>, mpsc::UnboundedReceiver<Notice>) {
        let (notices, noticed) = mpsc::unbounded_channel();
        let (table, warned_at) = (Mutex::default(), Mutex::default());
        let access = Arc::new(Self { options, table, notices, metrics, warned_at });
        tokio::spawn(vital("ages of rights", age(Arc::downgrade(&access))));
        for source in access.sources() {
            tokio::spawn(vital("news of rights", follow_source(Arc::downgrade(&access), source.clone(), source.news())));
        }
        (access, noticed)
    }

    /// Every source, once.
    fn sources(&self) -> Vec<&Arc<dyn RightsSource>> {
        let mut sources: Vec<&Arc<dyn RightsSource>> = Vec::new();
        for via in std::iter::once(&self.options.via).chain(self.options.by_namespace.values()) {
            if let Via::Source(source) = via
                && !sources.iter().any(|known| Arc::ptr_eq(known, source))
            {
                sources.push(source);
            }
        }
        sources
    }

    pub(super) fn via(&self, mailbox: &MailboxPath) -> &Via {
        self.options.by_namespace.get(mailbox.namespace()).unwrap_or(&self.options.via)
    }

    /// Whether IMAP sessions ask for the rights on a namespace's mailboxes, each for itself.
    pub fn asks_sessions(&self, namespace: &str) -> bool {
        matches!(self.options.by_namespace.get(namespace).unwrap_or(&self.options.via), Via::Session)
    }

    /// The grant that every session of this subject shares. `None`: nobody can be asked, so nobody
    /// may.
    pub fn hold(&self, subject: &Subject, mailbox: &MailboxPath) -> Option<Arc<Grant>> {
        let Via::Source(_) = self.via(mailbox) else { return None };
        let mut table = self.table();
        let held = table.entry(mailbox.clone()).or_default();
        let known = held.iter().filter_map(Weak::upgrade).find(|grant| grant.session().is_none() && grant.subject == *subject);
        Some(known.unwrap_or_else(|| add(held, Grant::new(subject.clone(), mailbox.clone(), None))))
    }

    /// The grant of an IMAP session that idles there: shared with others where a source can be
    /// asked, else its own.
    pub(super) fn hold_for_imap(&self, session: &Arc<SessionHandle>, mailbox: &MailboxPath) -> Option<Arc<Grant>> {
        let mut subject = session.subject();
        if let Via::Session = self.via(mailbox) {
            let mut table = self.table();
            let held = table.entry(mailbox.clone()).or_default();
            return Some(add(held, Grant::new(subject, mailbox.clone(), Some(Arc::downgrade(session)))));
        }
        if let Via::Source(source) = self.via(mailbox)
            && !source.goes_by_groups()
        {
            // One for all sessions of the user.
            subject = Subject::alone(subject.user);
        }
        let grant = self.hold(&subject, mailbox)?;
        grant.presume_reading();
        Some(grant)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    pub(super) fn grants(&self, mailbox: &MailboxPath) -> Vec<Arc<Grant>> {
        self.table().get(mailbox).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    fn all_grants(&self) -> Vec<Arc<Grant>> {
        self.table().values().flatten().filter_map(Weak::upgrade).collect()
    }

    /// The rights, by a question that began at `since` or later.
    pub async fn ask(self: &Arc<Self>, grant: &Arc<Grant>, since: Instant) -> Result<Rights, NoAnswer> {
        grant.wait(since, || self.begin(grant)).await
    }

    /// Asks where the rights are not known and nobody asks.
    pub(super) fn ask_if_unknown(self: &Arc<Self>, grant: &Arc<Grant>) {
        if grant.rights().is_none() && grant.want() {
            self.begin(grant);
            self.ask_session_again(grant);
        }
    }

    fn doubt_grant(self: &Arc<Self>, grant: &Arc<Grant>, cause: Cause) {
        if grant.doubt(cause) {
            self.begin(grant);
            self.ask_session_again(grant);
        }
    }

    /// Where a session asks on its own connection, its mail server may answer from memory: it asks
    /// again until that must be over.
    fn ask_session_again(self: &Arc<Self>, grant: &Arc<Grant>) {
        if grant.session().is_some() {
            let later = tokio::spawn(ask_again(Arc::downgrade(self), Arc::downgrade(grant)));
            grant.ask_again_by(later.abort_handle());
        }
    }

    /// The mailboxes of others that `subject` may look up, as far as can be said without asking for
    /// each.
    pub(super) async fn shared_with(&self, subject: &Subject) -> Result<Vec<MailboxPath>, NoAnswer> {
        let mut shared = Vec::new();
        for source in self.sources() {
            let answer = tokio::time::timeout(self.options.timeout, source.shared_with(subject)).await;
            let answer = answer.unwrap_or_else(|_| Err(NoAnswer::Failed("it took too long".to_owned())))?;
            // Of another source's namespaces this one does not know the rights.
            let is_its = |path: &MailboxPath| matches!(self.via(path), Via::Source(of) if Arc::ptr_eq(of, source));
            shared.extend(answer.into_iter().filter(|path| is_its(path) && !path.is_owned_by(&subject.user)));
        }
        shared.sort_unstable();
        shared.dedup();
        Ok(shared)
    }

    /// A change of an ACL came out of the queue: all rights that it may touch are unknown from now
    /// on.
    pub(super) fn acl_changed(self: &Arc<Self>, mailbox: &MailboxPath, identifier: &str, rights: &str) {
        // An identifier that cannot be read may be about anybody.
        let entry = identifier.parse::<Entry>().ok();
        let knows_groups = match self.via(mailbox) {
            Via::Source(source) => source.goes_by_groups(),
            Via::Session | Via::Nobody => false,
        };
        // Who is in a group, the source alone may know.
        let about_anybody = entry.as_ref().is_none_or(|entry| !knows_groups && matches!(entry.identifier, Identifier::Group(_)));
        for grant in self.grants(mailbox) {
            let about = |entry: &Entry| grant.subject.is(&entry.identifier, false);
            if !about_anybody && !entry.as_ref().is_some_and(about) {
                continue;
            }
            let is_lost = entry.as_ref().is_some_and(|entry| takes_reading(entry, rights));
            if grant.session().is_some() && is_lost {
                // The mail server's own answer on a connection that has stood for long may be old,
                // so it is not asked.
                grant.lose();
                self.notice(&grant);
            } else {
                self.doubt_grant(&grant, Cause::Announced);
            }
        }
        let about = entry.filter(|_| !about_anybody).map(|entry| entry.identifier);
        let _ = self.notices.send(Notice::Shares(about));
    }

    /// All rights on this mailbox are unknown: it is another mailbox now, or is gone.
    pub(super) fn doubt_mailbox(self: &Arc<Self>, mailbox: &MailboxPath) {
        for grant in self.grants(mailbox) {
            self.doubt_grant(&grant, Cause::Found);
        }
    }

    /// Every right may have changed without this node's hearing of it.
    pub fn doubt_everything(self: &Arc<Self>) {
        for grant in &self.all_grants() {
            self.doubt_grant(grant, Cause::Found);
        }
        let _ = self.notices.send(Notice::Shares(None));
    }

    /// The rights on these keys may have changed without this node's hearing of it.
    pub fn doubt_keys<'a>(self: &Arc<Self>, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            if let Key::Mailbox(mailbox) = key {
                self.doubt_mailbox(mailbox);
            }
        }
    }

    /// Sessions are to look at this grant; told once, however often before they do.
    pub(super) fn notice(&self, grant: &Arc<Grant>) {
        if grant.notice.schedule() {
            let _ = self.notices.send(Notice::Grant(Arc::downgrade(grant)));
        }
    }

    /// What the IMAP session that asks for this grant has learned on its own connection.
    pub(super) fn session_reported(&self, grant: &Arc<Grant>, rights: Rights) {
        if grant.report(rights) == Effect::Changed {
            self.notice(grant);
        }
    }

    /// Begins to ask; whoever calls has been told to.
    fn begin(self: &Arc<Self>, grant: &Arc<Grant>) {
        match grant.session() {
            Some(session) => {
                if let Some(session) = session.upgrade() {
                    session.push_ask_rights(grant.key().clone());
                }
            }
            None => drop(tokio::spawn(ask(Arc::downgrade(self), Arc::downgrade(grant)))),
        }
    }

    fn warn(&self, error: &NoAnswer) {
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *warned_at = Some(Instant::now());
            warn!(%error, "rights cannot be asked for: what is not known to be allowed is not told");
        }
    }
}

fn add(held: &mut Vec<Weak<Grant>>, grant: Grant) -> Arc<Grant> {
    let grant = Arc::new(grant);
    held.retain(|known| known.strong_count() > 0);
    held.push(Arc::downgrade(&grant));
    grant
}

/// Whether an entry that is about somebody now takes what messages are told for.
fn takes_reading(entry: &Entry, rights: &str) -> bool {
    let touches = |rights: Rights| rights.without(Rights::READ) != rights;
    let is_user = matches!(entry.identifier, Identifier::User(_));
    match rights.parse() {
        // Who is in it is not known here.
        _ if matches!(entry.identifier, Identifier::Group(_)) => false,
        Ok(RightsChange::Set(rights)) if entry.negative => touches(rights),
        Ok(RightsChange::Add(rights)) => entry.negative && touches(rights),
        Ok(RightsChange::Set(rights)) => is_user && !rights.contains(Rights::READ),
        Ok(RightsChange::Remove(rights)) => is_user && !entry.negative && touches(rights),
        Err(_) => false,
    }
}

/// A mail server may answer a connection that has stood for long from its memory (Dovecot for 30
/// s): the session asks again until that must be over.
async fn ask_again(access: Weak<Access>, grant: Weak<Grant>) {
    for pause in [1, 5, 30].map(Duration::from_secs) {
        tokio::time::sleep(pause).await;
        let (Some(access), Some(grant)) = (access.upgrade(), grant.upgrade()) else { return };
        if grant.want() {
            access.begin(&grant);
        }
    }
}

/// However its task ends, the grant can be asked for again.
struct AskTask(Option<Weak<Grant>>);

impl Drop for AskTask {
    fn drop(&mut self) {
        if let Some(grant) = self.0.take().and_then(|grant| grant.upgrade()) {
            grant.give_up();
        }
    }
}

/// Asks a grant's source until it has answered; where something is known already, once.
async fn ask(access: Weak<Access>, grant: Weak<Grant>) {
    let mut asking = AskTask(Some(grant.clone()));
    loop {
        let (source, question, held, timeout) = {
            let (Some(access), Some(held)) = (access.upgrade(), grant.upgrade()) else { return };
            let Key::Mailbox(mailbox) = held.key() else { return };
            let Via::Source(source) = access.via(mailbox) else { return };
            (source.clone(), held.question(), (held.subject.clone(), mailbox.clone()), access.options.timeout)
        };
        let answer = tokio::time::timeout(timeout, source.rights(&held.0, &held.1)).await;
        let answer = answer.unwrap_or_else(|_| Err(NoAnswer::Failed("it took too long".to_owned())));
        let (Some(access), Some(held)) = (access.upgrade(), grant.upgrade()) else { return };
        let error = answer.as_ref().err().cloned();
        let outcome = held.answer(question, answer);
        if let Some(error @ NoAnswer::Failed(_)) = &error {
            access.warn(error);
        }
        if matches!(outcome, Effect::Same | Effect::Changed) || !held.is_asking() {
            // Others may have begun since.
            asking.0 = None;
        }
        let pause = match outcome {
            Effect::Same => return,
            Effect::Changed => return access.notice(&held),
            Effect::Stale => Duration::ZERO,
            Effect::Failed(_) if asking.0.is_none() => return,
            Effect::Failed(times) => {
                // Many are asked again after an outage: each at its own time.
                let pause = (FIRST_PAUSE * 2u32.saturating_pow(times.min(16) - 1)).min(LONGEST_PAUSE);
                pause.mul_f64(0.5 + f64::from(std::ptr::from_ref(&*held).addr() as u32 >> 4 & 0xff) / 512.0)
            }
        };
        drop((access, held));
        tokio::time::sleep(pause).await;
    }
}

/// Asks again for rights that are old, and forgets those that are too old.
async fn age(access: Weak<Access>) {
    let Some(tick) = access.upgrade().map(|access| TICK.min(access.options.recheck / 4).max(Duration::from_millis(5))) else {
        return;
    };
    loop {
        tokio::time::sleep(tick).await;
        let Some(access) = access.upgrade() else { return };
        access.table().retain(|_, held| {
            held.retain(|grant| grant.strong_count() > 0);
            !held.is_empty()
        });
        let now = Instant::now();
        // Unknown rights come first.
        let mut due: Vec<(Option<Instant>, Arc<Grant>)> = Vec::new();
        for grant in access.all_grants() {
            match grant.age(now, access.options.recheck, access.options.max_age) {
                Age::Fresh => {}
                Age::Due(asked_at) => due.push((Some(asked_at), grant)),
                Age::Unknown => due.push((None, grant)),
                Age::Expired => {
                    access.metrics.rights_expired.inc();
                    due.push((None, grant));
                }
            }
        }
        due.sort_unstable_by_key(|(asked_at, _)| *asked_at);
        let at_once = (f64::from(access.options.rechecks_per_second) * tick.as_secs_f64()).ceil() as usize;
        // A grant that is being asked for already takes nobody's turn.
        for (_, grant) in due.into_iter().filter(|(_, grant)| grant.want()).take(at_once.max(1)) {
            access.begin(&grant);
        }
    }
}

/// Follows what a source hears of by itself.
async fn follow_source(access: Weak<Access>, source: Arc<dyn RightsSource>, mut news: mpsc::UnboundedReceiver<AclNews>) {
    while let Some(first) = news.recv().await {
        let mut changed = HashSet::new();
        let mut everything = false;
        let mut shares = HashSet::new();
        let mut next = Some(first);
        // Everything that is there is taken at once: many changes of one mailbox are one.
        while let Some(told) = next {
            match told {
                AclNews::Changed(mailbox) => drop(changed.insert(mailbox)),
                AclNews::Shares(identifier) => drop(shares.insert(identifier)),
                AclNews::Everything => everything = true,
            }
            next = news.try_recv().ok();
        }
        let Some(access) = access.upgrade() else { return };
        for mailbox in &changed {
            access.doubt_mailbox(mailbox);
        }
        if everything {
            // What is known stands until it is too old, for most of it will be true.
            let is_its = |grant: &&Arc<Grant>| match grant.key() {
                Key::Mailbox(mailbox) => matches!(access.via(mailbox), Via::Source(of) if Arc::ptr_eq(of, &source)),
                Key::Account(_) => false,
            };
            for grant in access.all_grants().iter().filter(is_its).filter(|grant| grant.want()) {
                access.begin(grant);
            }
            let _ = access.notices.send(Notice::Shares(None));
        }
        for identifier in shares {
            let _ = access.notices.send(Notice::Shares(Some(identifier)));
        }
    }
}
