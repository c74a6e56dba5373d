//! A node in this process whose registry keeps ACLs, and fails when it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mailpush::cluster::acls::{AclNews, Acls};
use mailpush::cluster::queue::local::LocalQueues;
use mailpush::cluster::queue::{Consumer, Delivery, QueueName, QueueSystem};
use mailpush::cluster::registry::local::{LocalAcls, LocalRegistry};
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
}

impl FailingAcls {
    fn whole(&self) -> Result<&LocalAcls, RegistryError> {
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
        let mut settings = Settings::default();
        settings.http.listen = "127.0.0.1:0".parse().expect("an address");
        settings.auth.secret = Secret::new(SECRET);
        settings.auth.default_domain = "example.org".to_owned();
        settings.queue.firehose = FIREHOSE.to_owned();
        (settings.registry.kind, settings.queue.kind) = (RegistryKind::Local, QueueKind::Local);
        change(&mut settings);
        let names = QueueNames::new("t").expect("a prefix");
        let registry = LocalRegistry::new(names.clone());
        let local = registry.node();
        let queues = LocalQueues::new(Duration::from_secs(60), 1_000);
        let acls = Arc::new(FailingAcls { acls: registry.acls(), failure: Mutex::default() });
        let cluster = Cluster {
            registrar: local.clone(),
            directory: local,
            queues: queues.clone(),
            acls: keeps.then(|| acls.clone() as Arc<dyn Acls>),
            rights: None,
            names,
        };
        let node = Node::start(Arc::new(settings), cluster).await.expect("a node");
        let told = queues.open(&firehose()).await.expect("the firehose");
        Self { node, acls, queues, told }
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
