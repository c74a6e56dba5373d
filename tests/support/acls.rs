//! A node in this process whose registry keeps ACLs, and which fails when it is told to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mailpush::cluster::acls::{AclNews, Acls};
use mailpush::cluster::queue::local::LocalQueues;
use mailpush::cluster::queue::{Consumer, Delivery, QueueName, QueueSystem};
use mailpush::cluster::registry::local::{LocalAcls, LocalNode, LocalRegistry};
use mailpush::cluster::registry::{QueueNames, RegistryError};
use mailpush::config::{QueueKind, RegistryKind, Secret, Settings};
use mailpush::mail::rights::{Acl, AclEdit, Identifier};
use mailpush::mail::{Change, MailboxPath, UserName};
use mailpush::node::{Cluster, Node};
use tokio::sync::mpsc;

use super::dev::{SECRET, claims, sign};

const FIREHOSE: &str = "told";
const PATIENCE: Duration = Duration::from_secs(10);

/// The ACLs of the registry in process.
pub struct FailingAcls {
    acls: Arc<LocalAcls>,
    /// What every question is answered with, if anything.
    pub failure: Mutex<Option<RegistryError>>,
    /// Whether every question panics, as one does that meets a mistake of ours.
    pub panics: AtomicBool,
}

impl FailingAcls {
    fn whole(&self) -> Result<&LocalAcls, RegistryError> {
        assert!(!self.panics.load(Ordering::Relaxed), "a test wants this");
        self.failure.lock().expect("nobody panics with it").clone().map_or(Ok(&self.acls), Err)
    }
}

#[async_trait]
impl Acls for FailingAcls {
    async fn get(&self, mailbox: &MailboxPath) -> Result<Acl, RegistryError> {
        self.whole()?.get(mailbox).await
    }

    async fn edit(&self, mailbox: &MailboxPath, edits: &[AclEdit]) -> Result<(Acl, Acl), RegistryError> {
        self.whole()?.edit(mailbox, edits).await
    }

    async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Acl, RegistryError> {
        self.whole()?.replace(mailbox, acl).await
    }

    async fn rename(&self, from: &MailboxPath, to: &MailboxPath) -> Result<(), RegistryError> {
        self.whole()?.rename(from, to).await
    }

    async fn rename_user(&self, from: &UserName, to: &UserName) -> Result<(), RegistryError> {
        self.whole()?.rename_user(from, to).await
    }

    async fn shared_with(&self, identifiers: &[Identifier]) -> Result<Vec<MailboxPath>, RegistryError> {
        self.whole()?.shared_with(identifiers).await
    }

    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        self.acls.news()
    }
}

/// One node, and everything that it publishes.
pub struct AclNode {
    pub node: Node,
    pub acls: Arc<FailingAcls>,
    /// The node's own side of the registry.
    pub registrar: Arc<LocalNode>,
    registry: Arc<LocalRegistry>,
    queues: Arc<LocalQueues>,
    told: Box<dyn Consumer>,
}

impl AclNode {
    /// With the test's own settings on top; user names belong to example.org.
    pub async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_with(true, change).await
    }

    /// As [`Self::start`], with a registry that keeps ACLs or none.
    pub async fn start_with(keeps: bool, change: impl FnOnce(&mut Settings)) -> Self {
        let registry = LocalRegistry::new(QueueNames::new("t").expect("a prefix"));
        let queues = LocalQueues::new(Duration::from_secs(60), 1_000);
        Self::join(registry, queues, keeps, change).await
    }

    /// Another node of the same cluster.
    pub async fn beside(&self, change: impl FnOnce(&mut Settings)) -> Self {
        Self::join(self.registry.clone(), self.queues.clone(), true, change).await
    }

    async fn join(
        registry: Arc<LocalRegistry>,
        queues: Arc<LocalQueues>,
        keeps: bool,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings::default();
        settings.http.listen = "127.0.0.1:0".parse().expect("an address");
        settings.auth.secret = Secret::new(SECRET);
        settings.auth.default_domain = "example.org".to_owned();
        settings.queue.firehose = Some(FIREHOSE.parse().expect("a topic"));
        (settings.registry.kind, settings.queue.kind) = (RegistryKind::Local, QueueKind::Local);
        change(&mut settings);
        let registrar = registry.node();
        let acls = Arc::new(FailingAcls { acls: registry.acls(), failure: Mutex::default(), panics: AtomicBool::new(false) });
        let cluster = Cluster {
            registrar: registrar.clone(),
            directory: registrar.clone(),
            queues: queues.clone(),
            acls: keeps.then(|| acls.clone() as Arc<dyn Acls>),
            rights: None,
            names: QueueNames::new("t").expect("a prefix"),
        };
        let node = Node::start(Arc::new(settings), cluster).await.expect("a node");
        let told = queues.open(&firehose()).await.expect("the firehose");
        Self { node, acls, registrar, registry, queues, told }
    }

    pub fn http(&self) -> String {
        format!("http://{}", self.node.address())
    }

    /// Admin's, with these scopes.
    pub fn token(&self, scopes: &str) -> String {
        let mut claims = claims(600.0);
        claims["sub"] = "admin@example.org".into();
        claims["scope"] = scopes.into();
        sign(&claims)
    }

    pub fn ws(&self) -> String {
        format!("ws://{}/v1/ws", self.node.address())
    }

    /// The node's own queue loses whatever it holds.
    pub async fn break_queue(&self) {
        let queue = QueueName::topic(&format!("t.node.{}", self.node.id())).expect("a topic");
        self.queues.remove(&queue).await.expect("removed");
    }

    /// From now on nothing can be told to everybody.
    pub async fn break_publishing(&self) {
        self.queues.remove(&firehose()).await.expect("removed");
    }

    pub async fn mend_publishing(&self) {
        self.queues.ensure(&firehose()).await.expect("made again");
    }

    /// The next `AclChange` of the administrator's that is told: whose, and which rights.
    pub async fn next_told(&mut self) -> (String, String) {
        self.next_told_by("admin@example.org").await
    }

    /// The next one, which is to be this user's.
    pub async fn next_told_by(&mut self, actor: &str) -> (String, String) {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.told.next()).await.expect("an event in time");
            let Delivery::Record(record) = next else { continue };
            let event = mailpush::mail::codec::from_msgpack(&record.payload, None).expect("an event");
            let Change::AclChange { identifier, rights } = event.change else { panic!("{event:?}") };
            assert_eq!(event.actor.as_deref(), Some(actor));
            return (identifier, rights);
        }
    }
}

fn firehose() -> QueueName {
    QueueName::by_key(FIREHOSE).expect("a topic")
}
