//! Rights and subscriptions together: a scripted source of rights, a registry in process, and a
//! session that listens.

pub use std::collections::HashMap;
pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub use std::task::{Context, Poll, Waker};
pub use std::time::{Duration, Instant};

pub use async_trait::async_trait;
pub use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use crate::cluster::acls::AclNews;
pub use crate::cluster::registry::local::{LocalNode, LocalRegistry};
pub use crate::cluster::registry::{NodeRecord, Place, QueueId, QueueNames, Registrar};
pub use crate::lock::Mutex;
pub use crate::mail::event::{Change, Event};
pub use crate::mail::ids::{EventId, NodeId, SessionId};
pub use crate::mail::key::Key;
pub use crate::mail::path::MailboxPath;
pub use crate::mail::rights::{Rights, Subject};
pub use crate::mail::user::UserName;
pub use crate::push::access::source::{NoAnswer, RightsSource};
pub use crate::push::access::{Access, Options, Via};
pub use crate::push::delivery::Delivery;
pub use crate::push::hub::Filter;
pub use crate::push::metrics::Metrics;
pub use crate::push::outbox::{Limits, Outgoing, RegistrationStatus, SubscribeFailure};
pub use crate::push::presence::Presence;
pub use crate::push::session::{LiveSession, Transport};
pub use crate::push::sessions::Sessions;
pub use crate::push::subscriptions::{Parts, Subscriptions, Wish};

pub const SETTLE: Duration = Duration::from_millis(200);
pub const DENIAL: Duration = Duration::from_millis(250);

/// What a source knows, as a test scripts it.
#[derive(Default)]
pub struct Script {
    /// By mailbox and user.
    pub rights: Mutex<HashMap<(String, String), Rights>>,
    pub away: Mutex<bool>,
    /// Mailboxes that it cannot say anything of.
    pub broken: Mutex<Vec<String>>,
    /// It would have to know groups.
    pub undecided: Mutex<bool>,
    /// The pauses before the next answers, in milliseconds.
    pub pauses: Mutex<Vec<u64>>,
    pub questions: AtomicU64,
    /// Whether groups are those of the subject, or its own business.
    pub knows_groups: AtomicBool,
    /// By user.
    pub listings: Mutex<HashMap<String, usize>>,
    pub news: Mutex<Option<UnboundedSender<AclNews>>>,
}

impl Script {
    pub fn set(&self, mailbox: &str, user: &str, rights: &str) {
        let key = (mailbox.to_owned(), user.to_owned());
        self.rights.lock().insert(key, rights.parse().unwrap());
    }

    pub async fn pause(&self) -> Result<(), NoAnswer> {
        let pause = self.pauses.lock().pop().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if *self.away.lock() { Err(NoAnswer::Failed("away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl RightsSource for Script {
    async fn rights(&self, subject: &Subject, mailbox: &MailboxPath) -> Result<Rights, NoAnswer> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let read = || {
            let key = (mailbox.to_string(), subject.user.to_string());
            self.rights.lock().get(&key).copied().unwrap_or_default()
        };
        // Read at once and answered late: the answer is as old as an answer may be.
        let rights = read();
        if self.broken.lock().contains(&mailbox.to_string()) {
            return Err(NoAnswer::Failed("broken".into()));
        }
        if *self.undecided.lock() {
            return Err(NoAnswer::Undecidable);
        }
        self.pause().await.map(|()| rights)
    }

    async fn shared_with(&self, subject: &Subject) -> Result<Vec<MailboxPath>, NoAnswer> {
        *self.listings.lock().entry(subject.user.to_string()).or_default() += 1;
        self.pause().await?;
        let rights = self.rights.lock();
        let theirs = rights.iter().filter(|((_, user), rights)| user == subject.user.as_str() && !rights.is_empty());
        let mut paths: Vec<MailboxPath> = theirs.map(|((mailbox, _), _)| mailbox.parse().unwrap()).collect();
        paths.sort();
        Ok(paths)
    }

    fn goes_by_groups(&self) -> bool {
        self.knows_groups.load(Ordering::Relaxed)
    }

    fn news(&self) -> UnboundedReceiver<AclNews> {
        let (sender, receiver) = unbounded_channel();
        *self.news.lock() = Some(sender);
        receiver
    }
}

pub struct Play {
    pub script: Arc<Script>,
    pub subscriptions: Arc<Subscriptions>,
    pub session: Arc<LiveSession>,
    pub offset: AtomicU64,
}

pub const TEAM: &str = "#private:alice:Team";

pub fn mailbox(path: &str) -> Key {
    Key::Mailbox(path.parse().unwrap())
}

pub fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

pub const ALL: Wish = Wish { filter: Filter::EVERYTHING, shared: false };

pub fn message(uid: u32) -> Change {
    Change::MessageNew { messages: vec![crate::mail::event::NewMessage::new(crate::mail::uid::Uid::new(uid).unwrap())] }
}

pub fn acl(identifier: &str, rights: &str) -> Change {
    Change::AclChange { identifier: identifier.to_owned(), rights: rights.to_owned() }
}

impl Play {
    pub async fn new() -> Self {
        Self::with(|options| options).await
    }

    pub async fn with(change: impl FnOnce(Options) -> Options) -> Self {
        Self::with_registrar(|node| node, change).await
    }

    pub async fn with_registrar(
        registrar: impl FnOnce(Arc<LocalNode>) -> Arc<dyn Registrar>,
        change: impl FnOnce(Options) -> Options,
    ) -> Self {
        let names = QueueNames::new("t").unwrap();
        let registry = LocalRegistry::new(names.clone()).node();
        let id: NodeId = "n".parse().unwrap();
        let queue_id = QueueId { node: id.clone(), place: Place::Own };
        let queue = names.queue(&queue_id);
        let record = NodeRecord { id: id.clone(), queue_id, queue, url: String::new(), version: String::new(), started_at: 0 };
        registry.announce(record).await.unwrap();
        let registrar = registrar(registry);
        let (presence, _breaks) = Presence::start(registrar, SETTLE, Duration::from_secs(1), Duration::from_secs(10));
        let script = Arc::new(Script::default());
        let metrics = Arc::new(Metrics::default());
        let options = Options { via: Via::Source(script.clone()), denial: DENIAL, ..Options::owners_only() };
        let (access, notices) = Access::start(change(options), metrics.clone());
        let subscriptions = Subscriptions::start(Parts {
            hub: Arc::default(),
            presence,
            sessions: Arc::new(Sessions::new(10, 10, 0)),
            access,
            notices,
            metrics,
            timeout: Duration::from_secs(30),
            clock: || 5,
        });
        let session = session(&subscriptions, 1, Transport::Websocket, Subject::alone(user("bob")));
        Self { script, subscriptions, session, offset: AtomicU64::default() }
    }

    pub fn subscribe(&self, key: Key) {
        self.subscriptions.subscribe(&self.session, 1, key, ALL);
    }

    /// What the queue brings: delivered, then applied, as the consumer does.
    pub fn comes(&self, mailbox: &str, change: Change) {
        let offset = self.offset.fetch_add(1, Ordering::Relaxed);
        let mut event: Event = crate::mail::codec::tests::sample();
        (event.id, event.mailbox, event.change) = (EventId::now(), mailbox.parse().unwrap(), change);
        let position = format!("q@{offset}").parse().unwrap();
        let delivery = Arc::new(Delivery::new(event, &position, 100, Instant::now()));
        self.subscriptions.hub.deliver(&delivery);
        self.subscriptions.apply(&delivery);
    }

    pub fn heard(&self) -> Vec<String> {
        heard(&self.session)
    }
}

pub async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

pub fn session(subscriptions: &Subscriptions, number: u64, transport: Transport, subject: Subject) -> Arc<LiveSession> {
    let id = SessionId::new("n".parse().unwrap(), number);
    let limits = Limits { events: 1_000, bytes: 1 << 20 };
    let session = LiveSession::new(id, subject, transport, ([127, 0, 0, 1], 1).into(), 0, limits);
    subscriptions.sessions.add(&session).unwrap();
    session
}

/// What a session was told, each in a word or two.
pub fn heard(session: &LiveSession) -> Vec<String> {
    let Poll::Ready(outgoing) = session.poll_take(&mut Context::from_waker(Waker::noop())) else { return Vec::new() };
    outgoing.into_iter().map(|outgoing| word(&outgoing)).collect()
}

pub fn word(outgoing: &Outgoing) -> String {
    let name = |key: &Key| key.to_string().rsplit(':').next().unwrap_or_default().to_owned();
    match outgoing {
        Outgoing::Event { delivery, .. } => match &delivery.event.change {
            Change::MessageNew { messages } => format!("message {}", messages[0].uid.get()),
            Change::MailboxRename { to } => format!("rename {} {}", delivery.event.mailbox.name(), to.name()),
            other => other.event_type().to_string(),
        },
        Outgoing::Settled { outcome: Ok(rights), .. } => format!("settled {rights}"),
        Outgoing::Settled { outcome: Err(failure), .. } => format!("{failure:?}"),
        Outgoing::Revoked { key } => format!("revoked {}", name(key)),
        Outgoing::Moved { from, to } => format!("moved {} {}", name(from), to.as_ref().map(name).unwrap_or_default()),
        Outgoing::Resync { keys: crate::push::outbox::Resync::Keys(keys), reason } => {
            format!("resync {} {}", keys.iter().map(name).collect::<Vec<_>>().join(" "), reason.as_str())
        }
        Outgoing::AskRights { key } => format!("ask {}", name(key)),
        Outgoing::Registration { status, .. } => format!("{status:?}"),
        other => format!("{other:?}"),
    }
}
