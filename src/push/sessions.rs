//! The live sessions of this node, and the log of subscriptions that come and go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::session::{LiveSession, Transport};
use crate::lock::{Mutex, RwLock, rank};
use crate::mail::ids::{NodeId, SessionId};
use crate::mail::key::Key;
use crate::mail::user::UserName;

/// How many changes a late follower can catch up with.
const LOG: usize = 4096;

/// One live subscription, as REST tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    pub session: SessionId,
    pub node: NodeId,
    pub user: UserName,
    pub transport: Transport,
    pub key: Key,
    /// Milliseconds since 1970, UTC.
    pub since: u64,
}

/// One live session, as REST tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub id: SessionId,
    pub node: NodeId,
    pub user: UserName,
    pub transport: Transport,
    pub peer: String,
    /// Milliseconds since 1970, UTC.
    pub connected_at: u64,
    pub subscriptions: usize,
}

impl LiveSession {
    pub fn record(&self) -> SessionRecord {
        SessionRecord {
            id: self.id.clone(),
            node: self.id.node().clone(),
            user: self.user(),
            transport: self.transport,
            peer: self.peer.to_string(),
            connected_at: self.connected_at,
            subscriptions: self.subscriptions().len(),
        }
    }

    pub fn subscription_record(&self, key: Key, since: u64) -> SubscriptionRecord {
        SubscriptionRecord {
            session: self.id.clone(),
            node: self.id.node().clone(),
            user: self.user(),
            transport: self.transport,
            key,
            since,
        }
    }
}

/// A subscription came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionChange {
    /// Counts this node's changes, from a number beyond those of its earlier lives.
    pub seq: u64,
    /// Whether the subscription stands now.
    pub active: bool,
    pub subscription: SubscriptionRecord,
}

/// Too many sessions of one user on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many sessions of this user")]
pub struct TooManySessions;

/// A user's sessions. A mail app opens several connections, so IMAP has a limit of its own.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    imap: usize,
    others: usize,
}

impl Counts {
    fn of(&mut self, transport: Transport) -> &mut usize {
        match transport {
            Transport::Imap => &mut self.imap,
            Transport::Websocket | Transport::Sse => &mut self.others,
        }
    }
}

/// The live sessions of this node, and the log of their subscriptions.
#[derive(Debug)]
pub struct Sessions {
    live: RwLock<BTreeMap<SessionId, Arc<LiveSession>>, { rank::SESSIONS }>,
    per_user: Mutex<HashMap<UserName, Counts>>,
    per_user_limit: usize,
    imap_per_user_limit: usize,
    log: Mutex<VecDeque<SubscriptionChange>>,
    /// The number of the last change.
    seq: watch::Sender<u64>,
}

impl Sessions {
    /// `per_user_limit` holds for WebSocket and SSE together. Changes are numbered from `first_seq`
    /// on: greater than any number of an earlier life of this node, so that a cursor from then is
    /// known to be old.
    pub fn new(per_user_limit: usize, imap_per_user_limit: usize, first_seq: u64) -> Self {
        Self {
            live: RwLock::default(),
            per_user: Mutex::default(),
            per_user_limit,
            imap_per_user_limit,
            log: Mutex::default(),
            seq: watch::Sender::new(first_seq),
        }
    }

    pub fn add(&self, session: &Arc<LiveSession>) -> Result<(), TooManySessions> {
        {
            let user = session.user();
            let mut per_user = self.per_user.lock();
            let limit = if session.transport == Transport::Imap { self.imap_per_user_limit } else { self.per_user_limit };
            let count = per_user.entry(user).or_default().of(session.transport);
            if *count >= limit {
                return Err(TooManySessions);
            }
            *count += 1;
        }
        self.live.write().insert(session.id.clone(), session.clone());
        Ok(())
    }

    pub fn remove(&self, session: &LiveSession) {
        let mut live = self.live.write();
        if live.remove(&session.id).is_some() {
            self.uncount(&session.user(), session.transport);
        }
    }

    fn uncount(&self, user: &UserName, transport: Transport) {
        let mut per_user = self.per_user.lock();
        if let Some(counts) = per_user.get_mut(user) {
            let count = counts.of(transport);
            *count = count.saturating_sub(1);
            if *counts == Counts::default() {
                per_user.remove(user);
            }
        }
    }

    /// The user is renamed. Returns the sessions concerned.
    pub(super) fn rename_user(&self, from: &UserName, to: &UserName) -> Vec<Arc<LiveSession>> {
        // Under this lock nobody comes or goes.
        let live = self.live.write();
        let renamed: Vec<_> = live.values().filter(|session| session.user() == *from).cloned().collect();
        for session in &renamed {
            // They stay, even if that is more than the limit.
            *self.per_user.lock().entry(to.clone()).or_default().of(session.transport) += 1;
            self.uncount(from, session.transport);
            // Whoever follows the one user's subscriptions sees them go, and who follows the
            // other's sees them come. Locked, so that none comes or goes meanwhile.
            let book = session.book();
            let subscriptions = book.as_ref().map(|book| book.established()).unwrap_or_default();
            let note = |active| {
                for (key, since) in &subscriptions {
                    self.note(active, session.subscription_record(key.clone(), *since));
                }
            };
            note(false);
            session.set_subject(session.subject().renamed(to.clone()));
            note(true);
        }
        renamed
    }

    pub fn len(&self) -> usize {
        self.live.read().len()
    }

    #[allow(dead_code, reason = "it goes with `len`")]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, id: &SessionId) -> Option<Arc<LiveSession>> {
        self.live.read().get(id).cloned()
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<LiveSession>> {
        self.after(None)
    }

    /// Those with `id` and a later one, in the order of their ids.
    pub fn after(&self, id: Option<&SessionId>) -> Vec<Arc<LiveSession>> {
        let live = self.live.read();
        let from = id.map_or(Bound::Unbounded, Bound::Included);
        live.range::<SessionId, _>((from, Bound::Unbounded)).map(|(_, session)| session.clone()).collect()
    }

    /// The number of the last change: a cursor that joins a listing to the stream without a gap.
    pub fn seq(&self) -> u64 {
        *self.seq.borrow()
    }

    /// Wakes when there are changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.seq.subscribe()
    }

    pub(super) fn note(&self, active: bool, subscription: SubscriptionRecord) {
        let mut log = self.log.lock();
        let seq = self.seq() + 1;
        if log.len() == LOG {
            log.pop_front();
        }
        log.push_back(SubscriptionChange { seq, active, subscription });
        self.seq.send_replace(seq);
    }

    /// The changes after `seq`; `None` if some of them are forgotten.
    pub fn changes_since(&self, seq: u64) -> Option<Vec<SubscriptionChange>> {
        let log = self.log.lock();
        let known_from = log.front().map_or(self.seq() + 1, |change| change.seq);
        if seq + 1 < known_from || seq > self.seq() {
            return None;
        }
        Some(log.iter().filter(|change| change.seq > seq).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::rights::Subject;
    use crate::push::outbox::Limits;

    fn session(number: u64) -> Arc<LiveSession> {
        session_over(Transport::Sse, number)
    }

    fn session_over(transport: Transport, number: u64) -> Arc<LiveSession> {
        let id = SessionId::new("n".parse().unwrap(), number);
        let user = UserName::new("bob").unwrap();
        LiveSession::new(id, Subject::alone(user), transport, ([127, 0, 0, 1], 1).into(), 5, Limits { events: 1, bytes: 1 })
    }

    #[test]
    fn sessions_of_a_user_are_limited() {
        let sessions = Sessions::new(2, 1, 0);
        let all: Vec<_> = (0..3).map(session).collect();
        assert!(sessions.add(&all[1]).is_ok() && sessions.add(&all[0]).is_ok());
        assert_eq!(sessions.add(&all[2]), Err(TooManySessions));
        let [first, second] = [7, 8].map(|number| session_over(Transport::Imap, number));
        assert!(sessions.add(&first).is_ok(), "mail apps are counted by themselves");
        assert_eq!(sessions.add(&second), Err(TooManySessions));
        sessions.remove(&first);
        sessions.remove(&all[0]);
        sessions.remove(&all[0]);
        assert!(sessions.add(&all[2]).is_ok());
        assert_eq!(sessions.after(Some(&all[2].id)).len(), 1);
        assert_eq!(sessions.all().len(), 2);
    }

    #[test]
    fn changes_can_be_followed_or_are_known_to_be_forgotten() {
        let sessions = Sessions::new(2, 1, 0);
        let record = session(1).subscription_record(Key::Account(UserName::new("bob").unwrap()), 1);
        assert_eq!(sessions.changes_since(0), Some(vec![]));
        for n in 0..LOG + 10 {
            sessions.note(n % 2 == 0, record.clone());
        }
        assert_eq!(sessions.changes_since(9), None);
        assert_eq!(sessions.changes_since(10).unwrap().len(), LOG);
        assert_eq!(sessions.changes_since(sessions.seq()), Some(vec![]));
        assert_eq!(sessions.changes_since(sessions.seq() + 1), None, "a cursor of no life of the node");
        let again = Sessions::new(2, 1, 1_000_000);
        again.note(true, record);
        assert_eq!(again.changes_since(sessions.seq()), None, "a cursor of an earlier life");
    }
}
