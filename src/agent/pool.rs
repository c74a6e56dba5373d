//! Connections to the mail server, few and for a while: one question goes over one connection of its mailbox's owner.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use super::complete::{FlagSource, Known};
use super::imap::Connection;
use super::naming::Naming;
use super::tls::Tls;
use crate::imap::client::ImapError;
use crate::lock::{Mutex, MutexGuard};
use crate::mail::path::{MailboxPath, PRIVATE};
use crate::mail::uid::{Uid, UidValidity};
use crate::mail::user::UserName;
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::namespace::Namespaces;

/// After a server that cannot be reached, and after an owner who is refused or takes too long, nobody asks for so long: each attempt would
/// hold events back for the whole time-out.
const PAUSE: Duration = Duration::from_secs(2);
/// Owners left alone that are remembered.
const REFUSED: usize = 10_000;
/// Ways in which namespaces differ from the settings that are warned of, each once.
const DISAGREEMENTS: usize = 16;

/// How to reach the mail server.
pub struct Target {
    /// `host:port`.
    pub address: String,
    pub tls: Tls,
    pub master: Credentials,
    /// The domain that the server does not know its users by, if so.
    pub strip_domain: Option<String>,
    /// How the names in its changes are read.
    pub naming: Naming,
    pub connections: usize,
    pub connections_per_owner: usize,
    pub idle_timeout: Duration,
    /// How long one question may take.
    pub timeout: Duration,
}

impl Target {
    async fn open(&self, owner: &str) -> Result<Connection, ImapError> {
        let domain = self.strip_domain.as_deref();
        let bare = domain.and_then(|domain| owner.strip_suffix(domain)?.strip_suffix('@'));
        Connection::open(&self.address, &self.tls, &self.master, bare.unwrap_or(owner)).await
    }

    /// Whether the names in this user's changes are read as a gateway reads them. An error in plain words if not, and if
    /// the server cannot be asked.
    pub async fn check_names(&self, user: &UserName) -> Result<String, String> {
        let connection = self.open(user.as_str()).await.map_err(|error| error.to_string())?;
        let told = connection.namespaces().ok_or("the server does not know NAMESPACE")?;
        match self.naming.disagreement(told) {
            Some((told, ours)) => Err(format!("differ: the server tells of {told}; agent.dovecot says {ours}")),
            None => Ok("agent.dovecot says the same as the server".to_owned()),
        }
    }
}

/// Connections to one mail server, each logged in as the owner of a mailbox.
pub struct Pool {
    target: Target,
    permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: HashMap<String, Vec<(Connection, Instant)>>,
    /// Connections in use, by owner.
    busy: HashMap<String, Arc<Semaphore>>,
    refused: HashMap<String, Instant>,
    unreachable: Option<Instant>,
    disagreements: BTreeSet<String>,
}

impl Pool {
    pub fn new(target: Target) -> Self {
        Self { permits: Semaphore::new(target.connections.min(Semaphore::MAX_PERMITS)), target, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Closes connections that nobody has used for the idle time-out.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.idle.retain(|_, connections| {
            connections.retain(|(_, since)| now.duration_since(*since) < self.target.idle_timeout);
            !connections.is_empty()
        });
        state.busy.retain(|_, owner| Arc::strong_count(owner) > 1);
        state.refused.retain(|_, since| now.duration_since(*since) < PAUSE);
    }

    /// How long [`Self::sweep`] may wait.
    pub fn idle_timeout(&self) -> Duration {
        self.target.idle_timeout
    }

    async fn ask(
        &self,
        mailbox: &MailboxPath,
        uidvalidity: Option<UidValidity>,
        uids: &BTreeSet<Uid>,
    ) -> Result<BTreeMap<Uid, Known>, ImapError> {
        let (owner, names) = (mailbox.owner(), &self.target.naming.names);
        let per_owner = {
            let mut state = self.state();
            let permits = || Arc::new(Semaphore::new(self.target.connections_per_owner.min(Semaphore::MAX_PERMITS)));
            state.busy.entry(owner.to_owned()).or_insert_with(permits).clone()
        };
        // Neither is ever closed.
        let _own = per_owner.acquire().await;
        let _any = self.permits.acquire().await;
        let kept = {
            let mut state = self.state();
            let kept = state.idle.get_mut(owner).and_then(Vec::pop);
            if kept.is_none() {
                self.make_room(&mut state);
            }
            kept
        };
        if let Some((mut connection, _)) = kept {
            match connection.flags(mailbox, names, uidvalidity, uids).await {
                // It may have died while nobody used it.
                Err(ImapError::Io(_)) => {}
                result => return self.keep(owner, connection, result),
            }
        }
        let mut connection = self.target.open(owner).await.inspect_err(|error| self.note(owner, error))?;
        self.compare(owner, connection.namespaces());
        let result = connection.flags(mailbox, names, uidvalidity, uids).await;
        self.keep(owner, connection, result)
    }

    /// A name that is read in another way than at the gateways is heard of by nobody: that must not go unnoticed.
    fn compare(&self, owner: &str, told: Option<&Namespaces>) {
        let Some((dovecot, settings)) = told.and_then(|told| self.target.naming.disagreement(told)) else { return };
        let mut state = self.state();
        if state.disagreements.len() < DISAGREEMENTS && state.disagreements.insert(dovecot.clone()) {
            warn!(
                user = owner,
                dovecot,
                settings,
                "the mail server's namespaces are not those of agent.dovecot: changes are told under wrong names"
            );
        }
    }

    /// Idle connections and busy ones together stay within the bound: the longest idle one goes.
    fn make_room(&self, state: &mut State) {
        let idle: usize = state.idle.values().map(Vec::len).sum();
        let busy = self.target.connections - self.permits.available_permits();
        if idle + busy <= self.target.connections {
            return;
        }
        let oldest = state.idle.iter().filter_map(|(owner, all)| Some((all.first()?.1, owner.clone()))).min();
        if let Some((_, owner)) = oldest
            && let Some(connections) = state.idle.get_mut(&owner)
        {
            connections.remove(0);
            if connections.is_empty() {
                state.idle.remove(&owner);
            }
        }
    }

    fn keep(
        &self,
        owner: &str,
        connection: Connection,
        result: Result<BTreeMap<Uid, Known>, ImapError>,
    ) -> Result<BTreeMap<Uid, Known>, ImapError> {
        if matches!(result, Ok(_) | Err(ImapError::Refused(_))) {
            self.state().idle.entry(owner.to_owned()).or_default().push((connection, Instant::now()));
        }
        result
    }

    fn note(&self, owner: &str, error: &ImapError) {
        let mut state = self.state();
        match error {
            // A server that refuses what is asked of it first would be logged in to at every change.
            ImapError::Login(_) | ImapError::Refused(_) => {
                drop(state);
                self.pause(owner);
            }
            ImapError::Io(_) | ImapError::Protocol(_) => state.unreachable = Some(Instant::now()),
        }
    }

    /// Leaves an owner alone for a while.
    fn pause(&self, owner: &str) {
        let mut state = self.state();
        if state.refused.len() < REFUSED {
            state.refused.insert(owner.to_owned(), Instant::now());
        }
    }

    /// Why it is of no use to ask now.
    fn paused(&self, owner: &str) -> Option<&'static str> {
        let fresh = |since: &Instant| since.elapsed() < PAUSE;
        let state = self.state();
        if state.unreachable.as_ref().is_some_and(fresh) {
            return Some("the mail server could not be reached a moment ago");
        }
        state.refused.get(owner).is_some_and(fresh).then_some("the mail server refused this owner, or was too slow, a moment ago")
    }
}

#[async_trait]
impl FlagSource for Pool {
    async fn flags(
        &self,
        mailbox: &MailboxPath,
        uidvalidity: Option<UidValidity>,
        uids: &BTreeSet<Uid>,
    ) -> Result<BTreeMap<Uid, Known>, String> {
        if mailbox.namespace() != PRIVATE || mailbox.owner().is_empty() {
            return Err("only a user's own mailboxes can be asked for".to_owned());
        }
        let owner = mailbox.owner();
        if let Some(reason) = self.paused(owner) {
            return Err(reason.to_owned());
        }
        match tokio::time::timeout(self.target.timeout, self.ask(mailbox, uidvalidity, uids)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => {
                self.pause(owner);
                Err("no answer in time".to_owned())
            }
        }
    }
}
