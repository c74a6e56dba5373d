//! Rights as the mail server knows them: asked for as the user, by way of a master user (MYRIGHTS,
//! RFC 4314 3.5).
//!
//! - **Freshness.** Servers keep rights in memory for a while (Dovecot: 30 s) in each connection,
//!   so a connection that stands answers with what was true when it was opened. Every question
//!   therefore goes over a connection that was opened after it was put: those that one user has
//!   waiting when it is opened go over it together, later ones over the next. None is kept.
//! - **Bounds.** There are few connections at a time (`CONNECTIONS`) and one for each user, so that
//!   nobody whom the server is slow to let in keeps others waiting. Each question has its time
//!   limit; one that nobody waits for any more is not asked.
//! - **What is not known is not denied, and not allowed.** A server that cannot be asked, or does
//!   not let the master user in, gives no answer ([`NoAnswer`]). A server that cannot say (no ACL,
//!   no NAMESPACE) has nothing that is shared.

mod conversation;
mod logins;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use self::conversation::Conversation;
use self::logins::Logins;
use super::upstream::Upstreams;
use crate::cluster::acls::AclNews;
use crate::config::{AccessSettings, ImapSettings};
use crate::imap::client::ImapError;
use crate::lock::{Mutex, MutexGuard};
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Rights, Subject};
use crate::mail::user::{UserName, UserNames};
use crate::push::access::source::{NoAnswer, RightsSource};
use crate::push::metrics::Metrics;
use crate::tasks::vital;
use crate::wire::imap::credentials::Credentials;

/// Connections for questions at a time, on one node: each is a login. More: a burst of questions is
/// a burst of logins.
const CONNECTIONS: usize = 8;

/// Asks the mail servers for rights, by a master user who logs in as the user.
pub struct ImapRights {
    inner: Arc<Inner>,
}

struct Inner {
    upstreams: Arc<Upstreams>,
    master: Credentials,
    names: UserNames,
    /// The server knows users of the default domain without it.
    strips_domain: bool,
    timeout: Duration,
    connections: Semaphore,
    /// A user is in it for as long as a task asks for that user. No more wait than there are
    /// callers.
    waiting: Mutex<HashMap<UserName, Batch>>,
    logins: Logins,
    /// The server was seen to go by the rights of the user, and not by those of the master user.
    goes_by_users: AtomicBool,
    told_unable: AtomicBool,
    metrics: Arc<Metrics>,
}

type Asker<T> = oneshot::Sender<Result<T, NoAnswer>>;

/// What is asked on behalf of one user over one connection.
#[derive(Default)]
struct Batch {
    rights: BTreeMap<MailboxPath, Vec<Asker<Rights>>>,
    shared: Vec<Asker<Vec<MailboxPath>>>,
}

impl Batch {
    /// Drops what nobody waits for any more.
    fn prune(&mut self) {
        self.rights.retain(|_, askers| {
            askers.retain(|asker| !asker.is_closed());
            !askers.is_empty()
        });
        self.shared.retain(|asker| !asker.is_closed());
    }

    fn is_empty(&self) -> bool {
        self.rights.is_empty() && self.shared.is_empty()
    }

    /// The same answer to everything.
    fn answer_all(self, rights: &Result<Rights, NoAnswer>) {
        self.rights.into_values().for_each(|askers| answer(askers, rights));
        answer(self.shared, &rights.clone().map(|_| Vec::new()));
    }
}

/// Whoever does not wait any more is not told.
fn answer<T: Clone>(askers: Vec<Asker<T>>, result: &Result<T, NoAnswer>) {
    askers.into_iter().for_each(|asker| drop(asker.send(result.clone())));
}

impl ImapRights {
    /// `None`: there is no master user, so nobody can be asked about. `upstreams` are the servers
    /// of `imap`.
    pub fn new(
        imap: &ImapSettings,
        access: &AccessSettings,
        names: UserNames,
        upstreams: Arc<Upstreams>,
        metrics: Arc<Metrics>,
    ) -> Option<Self> {
        if imap.master.user.is_empty() {
            return None;
        }
        let inner = Inner {
            upstreams,
            master: Credentials::new(imap.master.user.clone(), imap.master.password.expose()),
            names,
            strips_domain: imap.master.strip_domain,
            timeout: access.timeout_ms.duration(),
            connections: Semaphore::new(CONNECTIONS),
            waiting: Mutex::default(),
            logins: Logins::default(),
            goes_by_users: AtomicBool::new(false),
            told_unable: AtomicBool::new(false),
            metrics,
        };
        Some(Self { inner: Arc::new(inner) })
    }

    async fn ask<T>(&self, user: &UserName, put: impl FnOnce(&mut Batch, Asker<T>)) -> Result<T, NoAnswer> {
        let (asker, answer) = oneshot::channel();
        let begins = {
            let mut waiting = self.inner.waiting();
            let begins = !waiting.contains_key(user);
            put(waiting.entry(user.clone()).or_default(), asker);
            begins
        };
        if begins {
            tokio::spawn(vital("rights by IMAP", self.inner.clone().serve(user.clone())));
        }
        match timeout(self.inner.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(NoAnswer::Failed("asking the mail server broke off".to_owned())),
            Err(_) => Err(too_late()),
        }
    }
}

fn too_late() -> NoAnswer {
    NoAnswer::Failed("the mail server did not answer in time".to_owned())
}

#[async_trait]
impl RightsSource for ImapRights {
    async fn rights(&self, subject: &Subject, mailbox: &MailboxPath) -> Result<Rights, NoAnswer> {
        let began = Instant::now();
        let result = self.ask(&subject.user, |batch, asker| batch.rights.entry(mailbox.clone()).or_default().push(asker)).await;
        let outcome = match &result {
            Ok(rights) if rights.is_empty() => "none",
            Ok(_) => "some",
            Err(_) => "no_answer",
        };
        self.inner.metrics.rights_asked("imap", outcome, began.elapsed().as_secs_f64());
        result
    }

    async fn shared_with(&self, subject: &Subject) -> Result<Vec<MailboxPath>, NoAnswer> {
        let began = Instant::now();
        let result = self.ask(&subject.user, |batch, asker| batch.shared.push(asker)).await;
        let outcome = if result.is_ok() { "listed" } else { "no_answer" };
        self.inner.metrics.rights_asked("imap", outcome, began.elapsed().as_secs_f64());
        result
    }

    /// Mail servers tell of no changes.
    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        mpsc::unbounded_channel().1
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, HashMap<UserName, Batch>> {
        self.waiting.lock()
    }

    /// Asks one batch after the other until nobody waits.
    async fn serve(self: Arc<Self>, user: UserName) {
        loop {
            // It is never closed.
            let _place = self.connections.acquire().await;
            let Some(batch) = self.take(&user) else { return };
            // Whatever goes wrong in there, the user is not to be left with a task that is no more.
            let _ = AssertUnwindSafe(Box::pin(self.ask(&user, batch))).catch_unwind().await;
        }
    }

    /// What waits, just before a connection is opened for it; `None`: nothing does, and the next
    /// question begins anew.
    fn take(&self, user: &UserName) -> Option<Batch> {
        let mut waiting = self.waiting();
        let mut batch = std::mem::take(waiting.get_mut(user)?);
        batch.prune();
        if batch.is_empty() {
            waiting.remove(user);
            return None;
        }
        Some(batch)
    }

    /// Answers everything in the batch.
    async fn ask(&self, user: &UserName, mut batch: Batch) {
        let deadline = Instant::now() + self.timeout;
        let opened = timeout_at(deadline, self.open(user)).await.unwrap_or_else(|_| Err(too_late()));
        let mut conversation = match opened {
            Ok(Some(conversation)) => conversation,
            // Who is nobody to the mail server has no rights there.
            Ok(None) => return batch.answer_all(&Ok(Rights::NONE)),
            Err(error) => return batch.answer_all(&Err(error)),
        };
        while let Some((mailbox, askers)) = batch.rights.pop_first() {
            if askers.iter().all(Asker::is_closed) {
                continue;
            }
            let (result, broken) = settle(timeout_at(deadline, conversation.rights(&mailbox)).await);
            answer(askers, &result);
            if let (true, Err(error)) = (broken, result) {
                return batch.answer_all(&Err(error));
            }
        }
        if !batch.shared.is_empty() {
            let (result, _) = settle(timeout_at(deadline, conversation.shared()).await);
            answer(batch.shared, &result);
        }
        if let Some(missing) = conversation.missing()
            && !self.told_unable.swap(true, Ordering::Relaxed)
        {
            warn!(missing, "the mail server cannot tell who has which rights: nobody hears of mailboxes of others");
        }
    }

    /// `None`: the server lets the master user in as others, but not as this one.
    async fn open(&self, user: &UserName) -> Result<Option<Conversation<'_>>, NoAnswer> {
        if let Some(known) = self.logins.refused_lately(user) {
            return if known { Ok(None) } else { Err(NoAnswer::Failed(REFUSED.to_owned())) };
        }
        let refusal = match self.log_in(user).await {
            Ok(mut conversation) => {
                self.logins.let_in(user);
                self.check(&mut conversation).await?;
                return Ok(Some(conversation));
            }
            Err(Failure::Refused(reason)) => reason,
            Err(Failure::Other(reason)) => return Err(NoAnswer::Failed(reason)),
        };
        // Is it this user who is not let in, or the master user? Nobody may lose a right because a
        // password was changed.
        let known = match self.logins.other_than(user) {
            Some(other) => match self.log_in(&other).await {
                Ok(_) => true,
                Err(Failure::Refused(_)) => {
                    self.logins.forget(&other);
                    false
                }
                Err(Failure::Other(reason)) => return Err(NoAnswer::Failed(reason)),
            },
            None => false,
        };
        self.logins.refuse(user, known);
        if known { Ok(None) } else { Err(NoAnswer::Failed(format!("{REFUSED}: {refusal}"))) }
    }

    /// A server that goes by the rights of the master user has the wrong answer to everything:
    /// mostly none, which would take all rights away from all. Once it is seen not to do so it does
    /// not begin to.
    async fn check(&self, conversation: &mut Conversation<'_>) -> Result<(), NoAnswer> {
        if self.goes_by_users.load(Ordering::Relaxed) {
            return Ok(());
        }
        match settle(Ok(conversation.is_the_user().await)).0? {
            Some(false) => Err(NoAnswer::Failed(NOT_THE_USER.to_owned())),
            Some(true) => {
                self.goes_by_users.store(true, Ordering::Relaxed);
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn log_in(&self, user: &UserName) -> Result<Conversation<'_>, Failure> {
        let connected = self.upstreams.connect_for_nobody().await.map_err(|error| Failure::Other(error.to_string()))?;
        let bare = self.names.without_domain(user.as_str()).filter(|_| self.strips_domain);
        let known_as = bare.unwrap_or(user.as_str());
        let opened = Conversation::open(connected, &self.master, (user, known_as), &self.names).await;
        opened.map_err(|error| match error {
            ImapError::Login(refusal) if !refusal.is(conversation::PASSING) => Failure::Refused(refusal.to_string()),
            error => Failure::Other(error.to_string()),
        })
    }
}

const NOT_THE_USER: &str =
    "the mail server does not let users read their INBOX where the master user logs in as them (Dovecot: acl_user = %u)";
const REFUSED: &str = "the mail server does not let the master user in (imap.master)";

/// Why somebody could not be logged in.
enum Failure {
    /// The server does not want that user, or the master user.
    Refused(String),
    Other(String),
}

/// What became of a question, and whether the connection is of no more use.
fn settle<T>(asked: Result<Result<T, ImapError>, tokio::time::error::Elapsed>) -> (Result<T, NoAnswer>, bool) {
    match asked {
        Ok(Ok(answer)) => (Ok(answer), false),
        // The server's words may name the mailbox.
        Ok(Err(ImapError::Refused(refusal))) => {
            let code = refusal.code.as_deref().unwrap_or("it does not say why");
            (Err(NoAnswer::Failed(format!("the mail server cannot tell now ({code})"))), false)
        }
        Ok(Err(error)) => (Err(NoAnswer::Failed(error.to_string())), true),
        Err(_) => (Err(too_late()), true),
    }
}
