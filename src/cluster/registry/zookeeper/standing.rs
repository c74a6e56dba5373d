//! How sure a node may be that its registrations stand: a pure matter of time.
//!
//! ZooKeeper ends a session that it has not heard of for T, the session timeout; the client library gives up
//! only at 1.4 T. Between the two a client would believe it is registered when it is not. So a session counts
//! from its last *proof*: the moment at which it sent the last request that was answered.

use std::time::{Duration, Instant};

use crate::cluster::registry::RegistryHealth;

/// While registrations are lost, presence is told again this often.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// A session that has ended is mostly replaced at once, and then `Restored` says all: `Lost` waits this long.
const TELL_AFTER_END: Duration = Duration::from_secs(1);

/// One session slot's standing with ZooKeeper.
#[derive(Debug)]
pub struct Standing {
    timeout: Duration,
    /// When the last answered request was sent. `None`: there is no session.
    proven: Option<Instant>,
    /// Since when registrations are known to be gone: their session ended, or somebody deleted them. Until all of them are
    /// registered again.
    gone: Option<Instant>,
    /// Why ZooKeeper does not let us register, while it does not.
    denied: Option<String>,
    connected: bool,
    reason: String,
    told_lost: Option<Instant>,
}

impl Standing {
    /// Before the first session; `timeout` is replaced by what the server grants.
    pub fn new(timeout: Duration) -> Self {
        let reason = "connecting to ZooKeeper".to_owned();
        Self { timeout, proven: None, gone: None, denied: None, connected: false, reason, told_lost: None }
    }

    /// A session exists as of `now`.
    pub fn handle_session(&mut self, timeout: Duration, now: Instant) {
        self.timeout = timeout;
        self.proven = Some(now);
        self.connected = true;
    }

    /// A request that was sent at `sent` has been answered.
    pub fn handle_proof(&mut self, sent: Instant) {
        self.proven = self.proven.map(|proven| proven.max(sent));
    }

    pub fn handle_connection(&mut self, connected: bool, reason: impl Into<String>) {
        self.connected = connected;
        self.reason = reason.into();
    }

    /// The session is gone, and every registration with it. `held`: whether there was any.
    pub fn handle_end(&mut self, reason: impl Into<String>, held: bool, now: Instant) {
        self.proven = None;
        self.connected = false;
        self.reason = reason.into();
        if held {
            self.gone.get_or_insert(now);
        }
    }

    /// Registrations were found missing while their session lives.
    pub fn handle_missing(&mut self, now: Instant) {
        self.gone.get_or_insert(now);
    }

    /// ZooKeeper does not let us register, for this reason; `None`: it does.
    pub fn set_denied(&mut self, reason: Option<String>) {
        self.denied = reason;
    }

    pub fn is_denied(&self) -> bool {
        self.denied.is_some()
    }

    /// Everything that was gone is registered again.
    pub fn handle_restored(&mut self) {
        self.gone = None;
        self.told_lost = None;
    }

    /// Why there is no connection, if there is none.
    pub fn set_reason(&mut self, reason: impl Into<String>) {
        self.reason = reason.into();
    }

    /// Whether registrations surely stand.
    pub fn is_proven(&self, now: Instant) -> bool {
        self.proven.is_some_and(|proven| now.saturating_duration_since(proven) <= self.timeout / 2)
    }

    /// Without a proof for two session timeouts, the client library itself must be broken.
    pub fn is_hopeless(&self, now: Instant) -> bool {
        self.proven.is_some_and(|proven| now.saturating_duration_since(proven) > self.timeout * 2)
    }

    pub fn health(&self, now: Instant) -> RegistryHealth {
        let silent = self.proven.map(|proven| now.saturating_duration_since(proven));
        match silent {
            _ if self.gone.is_some() => {
                let reason = match &self.denied {
                    Some(denied) => denied,
                    None if self.connected => "registering again what is gone",
                    None => &self.reason,
                };
                RegistryHealth::Lost { reason: reason.to_owned() }
            }
            Some(silent) if silent >= self.timeout => RegistryHealth::Lost { reason: self.silence(silent) },
            Some(silent) if silent > self.timeout / 2 => RegistryHealth::InDoubt { reason: self.silence(silent) },
            Some(_) if self.connected => match &self.denied {
                None => RegistryHealth::Connected,
                Some(reason) => RegistryHealth::Disconnected { reason: reason.clone() },
            },
            _ => RegistryHealth::Disconnected { reason: self.reason.clone() },
        }
    }

    fn silence(&self, silent: Duration) -> String {
        let why = if self.connected { "no answer" } else { &self.reason };
        format!("nothing heard from ZooKeeper for {} ms ({why})", silent.as_millis())
    }

    /// Whether presence is to be told now that registrations are lost; notes that it has been.
    pub fn poll_lost(&mut self, now: Instant) -> bool {
        let due = match (self.told_lost, self.gone) {
            (Some(told), _) => now >= told + TELL_AGAIN,
            (None, Some(gone)) => now >= gone + TELL_AFTER_END,
            (None, None) => true,
        };
        let lost = due && matches!(self.health(now), RegistryHealth::Lost { .. });
        if lost {
            self.told_lost = Some(now);
        }
        lost
    }
}

/// How bad it is; the worst of several counts.
pub fn severity(health: &RegistryHealth) -> u8 {
    match health {
        RegistryHealth::Connected => 0,
        RegistryHealth::Disconnected { .. } => 1,
        RegistryHealth::InDoubt { .. } => 2,
        RegistryHealth::Lost { .. } => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(10);

    fn levels(standing: &Standing, start: Instant, at_ms: &[u64]) -> Vec<u8> {
        at_ms.iter().map(|&ms| severity(&standing.health(start + Duration::from_millis(ms)))).collect()
    }

    #[test]
    fn silence_turns_into_doubt_and_then_into_loss() {
        let start = Instant::now();
        let mut standing = Standing::new(T);
        assert_eq!(levels(&standing, start, &[0, 60_000]), [1, 1]);
        standing.handle_session(T, start);
        assert_eq!(levels(&standing, start, &[0, 5_000, 5_001, 9_999, 10_000]), [0, 0, 2, 2, 3]);
        standing.handle_connection(false, "reset");
        assert_eq!(levels(&standing, start, &[0, 5_000, 5_001, 9_999, 10_000]), [1, 1, 2, 2, 3]);
        standing.handle_connection(true, "");
        standing.handle_proof(start + Duration::from_secs(9));
        assert_eq!(levels(&standing, start, &[10_000]), [0]);
    }

    #[test]
    fn a_proof_counts_from_when_it_was_asked_for() {
        let start = Instant::now();
        let mut standing = Standing::new(T);
        standing.handle_session(T, start);
        // Two answers out of order: the later question counts.
        standing.handle_proof(start + Duration::from_secs(4));
        standing.handle_proof(start + Duration::from_secs(1));
        assert!(standing.is_proven(start + Duration::from_secs(9)));
        assert!(!standing.is_proven(start + Duration::from_secs(10)));
        assert!(standing.is_hopeless(start + Duration::from_secs(25)));
    }

    #[test]
    fn loss_is_told_once_a_minute() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut standing = Standing::new(T);
        standing.handle_session(T, start);
        let told: Vec<bool> = [9_000, 10_000, 10_500, 69_999, 70_000].iter().map(|&ms| standing.poll_lost(at(ms))).collect();
        assert_eq!(told, [false, true, false, false, true]);
    }

    #[test]
    fn an_ended_session_has_a_moment_to_be_replaced() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut standing = Standing::new(T);
        standing.handle_session(T, start);
        standing.handle_end("expired", true, at(100));
        assert_eq!(severity(&standing.health(at(100))), 3);
        assert!(!standing.poll_lost(at(1_099)));
        standing.handle_session(T, at(1_000));
        assert_eq!(severity(&standing.health(at(1_000))), 3, "not before everything is registered again");
        assert!(standing.poll_lost(at(1_100)));
        standing.handle_restored();
        assert_eq!(severity(&standing.health(at(1_200))), 0);
        standing.handle_end("expired", false, at(1_300));
        assert_eq!(severity(&standing.health(at(1_300))), 1, "nothing was held, so nothing is lost");
    }

    #[test]
    fn what_is_missing_in_a_living_session_is_lost_until_it_stands_again() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut standing = Standing::new(T);
        standing.handle_session(T, start);
        standing.handle_missing(at(100));
        assert_eq!(severity(&standing.health(at(100))), 3);
        assert!(!standing.poll_lost(at(1_099)) && standing.poll_lost(at(1_100)));
        standing.handle_restored();
        assert_eq!(severity(&standing.health(at(1_200))), 0);
    }

    #[test]
    fn a_denial_is_told_and_what_stands_goes_on_standing() {
        let start = Instant::now();
        let mut standing = Standing::new(T);
        standing.handle_session(T, start);
        standing.set_denied(Some("not authorized".to_owned()));
        assert_eq!(standing.health(start), RegistryHealth::Disconnected { reason: "not authorized".to_owned() });
        assert!(!standing.poll_lost(start));
        standing.handle_missing(start);
        assert_eq!(standing.health(start), RegistryHealth::Lost { reason: "not authorized".to_owned() });
        standing.set_denied(None);
        standing.handle_restored();
        assert_eq!(standing.health(start), RegistryHealth::Connected);
    }
}
