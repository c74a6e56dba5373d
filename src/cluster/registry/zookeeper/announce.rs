//! The node's own znode: `/nodes/<node id>`, ephemeral in the session of the first slot.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use zookeeper_client::{Client, CreateOptions, Error};

use super::batch::Session;
use super::book::Found;
use super::errors::registry_error;
use super::health::Trouble;
use super::tree;
use crate::cluster::registry::{NodeRecord, RegistryError};

/// After a failure of a node that had been announced before.
const PAUSE: Duration = Duration::from_secs(1);

/// A wish to be announced, and who waits for it.
pub struct Ask {
    pub record: NodeRecord,
    pub waiter: oneshot::Sender<Result<(), RegistryError>>,
}

/// What the slot knows of its node's znode.
pub struct Announcement {
    asks: Option<mpsc::UnboundedReceiver<Ask>>,
    options: Option<CreateOptions<'static>>,
    record: Option<NodeRecord>,
    waiters: Vec<oneshot::Sender<Result<(), RegistryError>>>,
    stands: bool,
    under_way: bool,
    not_before: Option<Instant>,
    /// It stood, and then it was gone.
    was_gone: bool,
    /// Why the last attempt has failed, said once.
    trouble: Trouble,
    /// This process's sessions, the ended ones too: what they have left behind is ours.
    own_sessions: HashSet<i64>,
}

/// What is to be announced.
pub struct Wish {
    record: NodeRecord,
    options: CreateOptions<'static>,
    own_sessions: HashSet<i64>,
}

impl Announcement {
    /// Of a slot that announces what is asked for.
    pub fn new(asks: mpsc::UnboundedReceiver<Ask>, options: CreateOptions<'static>) -> Self {
        Self { asks: Some(asks), options: Some(options), ..Self::none() }
    }

    /// Of a slot that announces nothing.
    pub fn none() -> Self {
        Self {
            asks: None,
            options: None,
            record: None,
            waiters: Vec::new(),
            stands: false,
            under_way: false,
            not_before: None,
            was_gone: false,
            trouble: Trouble::default(),
            own_sessions: HashSet::new(),
        }
    }

    /// Returns once something has been asked. Cancel-safe.
    pub async fn asked(&mut self) {
        let ask = match &mut self.asks {
            Some(asks) => asks.recv().await,
            None => std::future::pending().await,
        };
        let Some(ask) = ask else {
            // Nobody is left to ask.
            self.asks = None;
            return;
        };
        if self.record.as_ref() == Some(&ask.record) && self.stands {
            let _ = ask.waiter.send(Ok(()));
            return;
        }
        self.stands &= self.record.as_ref() == Some(&ask.record);
        self.record = Some(ask.record);
        self.waiters.push(ask.waiter);
        self.not_before = None;
    }

    pub fn handle_session(&mut self, id: i64) {
        self.own_sessions.insert(id);
        self.was_gone |= self.stands;
        (self.stands, self.under_way, self.not_before) = (false, false, None);
    }

    /// What is to be done now; it is under way until [`Announcement::handle_done`].
    pub fn next(&mut self, now: Instant) -> Option<Wish> {
        if self.stands || self.under_way || self.not_before.is_some_and(|moment| now < moment) {
            return None;
        }
        let (record, options) = (self.record.clone()?, self.options.clone()?);
        self.under_way = true;
        Some(Wish { record, options, own_sessions: self.own_sessions.clone() })
    }

    pub fn handle_done(&mut self, result: Result<(), RegistryError>, now: Instant) {
        self.under_way = false;
        let error = match result {
            Ok(()) => {
                self.stands = true;
                self.trouble.end();
                self.waiters.drain(..).for_each(|waiter| drop(waiter.send(Ok(()))));
                return;
            }
            Err(error) => error,
        };
        self.not_before = Some(now + PAUSE);
        if self.trouble.is_news(&error.to_string()) {
            tracing::error!(%error, "this node cannot be made known: it is tried again");
        }
        if !error.is_transient() {
            self.fail(error);
        }
    }

    /// What is to be looked for, if it stands as far as is known here.
    pub fn standing(&self) -> Option<NodeRecord> {
        self.record.clone().filter(|_| self.stands && !self.under_way)
    }

    /// Somebody has deleted the node's znode, or put another in its place.
    pub fn handle_missing(&mut self) {
        tracing::warn!("this node's record was deleted in ZooKeeper by somebody else: it is made again");
        (self.stands, self.was_gone, self.not_before) = (false, true, None);
    }

    /// Whether the record stands again after it was gone; told once.
    pub fn take_restored(&mut self) -> bool {
        self.stands && std::mem::take(&mut self.was_gone)
    }

    /// Why the node is not known to others, if it is to be.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.reason().filter(|_| self.record.is_some())
    }

    /// Gives up on those who wait. A node that had been announced before goes on trying.
    pub fn fail(&mut self, error: RegistryError) {
        if !self.waiters.is_empty() {
            self.record = None;
        }
        self.waiters.drain(..).for_each(|waiter| drop(waiter.send(Err(error.clone()))));
    }

    /// The node goes: its znode ends with its session.
    pub fn withdraw(&mut self) {
        self.fail(RegistryError::Closed);
        self.record = None;
    }
}

/// Whether the node's znode is this session's, and says what it should.
pub async fn look(client: &Client, record: &NodeRecord) -> Found {
    match client.get_data(&tree::node(&record.id)).await {
        Ok((data, stat)) => {
            let is_ours = stat.ephemeral_owner == client.session_id().0;
            let says_it = serde_json::from_slice::<NodeRecord>(&data).is_ok_and(|said| said == *record);
            if is_ours && says_it { Found::Standing } else { Found::Missing }
        }
        Err(Error::NoNode) => Found::Missing,
        Err(_) => Found::Unknown,
    }
}

/// Makes the node's znode. Where another live session holds it, waits for a session timeout and a half: a
/// restarted node's old session ends within that.
pub async fn announce(session: &Session, wish: Wish) -> Result<(), RegistryError> {
    let client = &session.client;
    let path = tree::node(&wish.record.id);
    let data = serde_json::to_vec(&wish.record).map_err(|error| RegistryError::Refused(error.to_string()))?;
    let wait = client.session_timeout();
    let patience = Instant::now() + wait * 3 / 2;
    loop {
        match client.create(&path, &data, &wish.options).await {
            Ok(_) => return Ok(()),
            Err(Error::NodeExists) => {}
            Err(Error::NoNode) => {
                session.make_tree().await.map_err(|error| registry_error(&error))?;
                continue;
            }
            Err(error) => return Err(registry_error(&error)),
        }
        let Some(stat) = client.check_stat(&path).await.map_err(|error| registry_error(&error))? else { continue };
        if wish.own_sessions.contains(&stat.ephemeral_owner) {
            // Made by us, then its answer or its session was lost: in either case it is to be made anew.
            let mut writer = client.new_multi_writer();
            let added = writer.add_delete(&path, Some(stat.version));
            added.and_then(|()| writer.add_create(&path, &data, &wish.options)).map_err(|error| registry_error(&error))?;
            if writer.commit().await.is_ok() {
                return Ok(());
            }
        } else if Instant::now() >= patience {
            return Err(RegistryError::NodeIdInUse(wish.record.id));
        }
        sleep((wait / 20).min(Duration::from_millis(250))).await;
    }
}
