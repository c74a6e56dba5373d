//! A node in this process whose registry keeps ACLs, and fails when it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mailpush::cluster::acls::{AclNews, Acls};
use mailpush::cluster::queue::local::LocalQueues;
use mailpush::cluster::queue::{Consumer, Delivery, QueueName, QueueSystem};
use mailpush::cluster::registry::local::LocalRegistry;
use mailpush::cluster::registry::{QueueNames, RegistryError};
use mailpush::config::{QueueKind, RegistryKind, Secret, Settings};
use mailpush::mail::rights::{Acl, AclEdit, Identifier};
use mailpush::mail::{Change, MailboxPath, UserName};
use mailpush::node::{Cluster, Node};
use tokio::sync::mpsc;

use super::dev::{SECRET, claims, sign};

const FIREHOSE: &str = "told";
const PATIENCE: Duration = Duration::from_secs(10);

/// ACLs in a table.
#[derive(Default)]
pub struct TableOfAcls {
    table: Mutex<BTreeMap<MailboxPath, Acl>>,
    /// What every question is answered with, if anything.
    pub failure: Mutex<Option<RegistryError>>,
}

impl TableOfAcls {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<MailboxPath, Acl>) -> T) -> Result<T, RegistryError> {
        match &*self.failure.lock().expect("nobody panics with it") {
            Some(error) => Err(error.clone()),
            None => Ok(act(&mut self.table.lock().expect("nobody panics with it"))),
        }
    }
}

#[async_trait]
impl Acls for TableOfAcls {
    async fn get(&self, mailbox: &MailboxPath) -> Result<Acl, RegistryError> {
        self.with(|table| table.get(mailbox).cloned().unwrap_or_default())
    }

    async fn edit(&self, mailbox: &MailboxPath, edits: &[AclEdit]) -> Result<(Acl, Acl), RegistryError> {
        self.with(|table| {
            let acl = table.entry(mailbox.clone()).or_default();
            let before = acl.clone();
            for edit in edits {
                acl.edit(edit);
            }
            (before, acl.clone())
        })
    }

    async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Acl, RegistryError> {
        self.with(|table| table.insert(mailbox.clone(), acl.clone()).unwrap_or_default())
    }

    async fn rename(&self, _: &MailboxPath, _: &MailboxPath) -> Result<(), RegistryError> {
        Err(RegistryError::Refused("not in these tests".to_owned()))
    }

    async fn rename_user(&self, _: &UserName, _: &UserName) -> Result<(), RegistryError> {
        Err(RegistryError::Refused("not in these tests".to_owned()))
    }

    async fn shared_with(&self, _: &[Identifier]) -> Result<Vec<MailboxPath>, RegistryError> {
        Ok(Vec::new())
    }

    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        mpsc::unbounded_channel().1
    }
}

/// One node, and everything that it publishes.
pub struct AclNode {
    pub node: Node,
    pub acls: Arc<TableOfAcls>,
    queues: Arc<LocalQueues>,
    told: Box<dyn Consumer>,
}

impl AclNode {
    /// With the test's own settings on top; user names belong to example.org.
    pub async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        settings.http.listen = "127.0.0.1:0".parse().expect("an address");
        settings.auth.secret = Secret::new(SECRET);
        settings.auth.default_domain = "example.org".to_owned();
        settings.queue.firehose = FIREHOSE.to_owned();
        (settings.registry.kind, settings.queue.kind) = (RegistryKind::Local, QueueKind::Local);
        change(&mut settings);
        let names = QueueNames::new("t").expect("a prefix");
        let local = LocalRegistry::new(names.clone()).node();
        let queues = LocalQueues::new(Duration::from_secs(60), 1_000);
        let acls = Arc::new(TableOfAcls::default());
        let cluster = Cluster {
            registrar: local.clone(),
            directory: local,
            queues: queues.clone(),
            acls: Some(acls.clone()),
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

    /// The next `AclChange` that is told: whose, and which rights.
    pub async fn next_told(&mut self) -> (String, String) {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.told.next()).await.expect("an event in time");
            let Delivery::Record(record) = next else { continue };
            let event = mailpush::mail::codec::from_msgpack(&record.payload, None).expect("an event");
            let Change::AclChange { identifier, rights } = event.change else { panic!("{event:?}") };
            assert_eq!(event.actor.as_deref(), Some("admin@example.org"));
            return (identifier, rights);
        }
    }
}

fn firehose() -> QueueName {
    QueueName::by_key(FIREHOSE).expect("a topic")
}
