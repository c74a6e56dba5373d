//! What every state of a session has to do with: settings, what has been learned, the timers, the
//! next tag.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::facts::{Facts, Login};
use super::input::Reading;
use super::rules::{Reentry, Rules, Setting};
use super::timers::Timers;
use crate::mail::path::MailboxPath;
use crate::wire::imap::credentials::Credentials;

/// The state that belongs to no command in particular.
#[derive(Debug)]
pub(super) struct Common {
    pub rules: Arc<Rules>,
    pub setting: Setting,
    pub facts: Facts,
    pub timers: Timers,
    /// The number in the last tag of the gateway's own.
    pub serial: u32,
    /// Registry and queue are healthy.
    pub healthy: bool,
    pub reading: Reading,
}

impl Common {
    pub fn new(rules: Arc<Rules>, setting: Setting, now: Instant) -> Self {
        let (facts, timers) = (Facts::default(), Timers::new(now));
        Self { rules, setting, facts, timers, serial: 0, healthy: true, reading: Reading::Allowed }
    }

    pub fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// A span that differs a little from session to session, so that they do not all wake at once.
    pub fn jittered(&self, span: Duration) -> Duration {
        let mut seed = self.setting.seed ^ u64::from(self.serial).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        seed ^= seed >> 29;
        seed = seed.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        seed ^= seed >> 32;
        // Between 0.85 and 1.0 of it.
        span.mul_f64(1.0 - 0.15 * (seed % 1024) as f64 / 1024.0)
    }

    /// The path of the selected mailbox, if it can be told.
    pub fn path(&self) -> Option<MailboxPath> {
        self.facts.path(&self.rules.names)
    }

    /// Whether the gateway can log in on the client's behalf, and set up what the client has set
    /// up.
    pub fn can_reenter(&self) -> bool {
        self.facts.can_reenter(&self.rules)
    }

    /// What to log in with by SASL PLAIN, and the authorization identity that goes along.
    pub fn plain_login(&self) -> Option<(&str, &Credentials)> {
        match (&self.rules.reentry, self.facts.login.as_deref()) {
            (Reentry::MasterUser(master), _) => Some((self.facts.written_user.as_deref()?, master)),
            (Reentry::Credentials, Some(Login::Plain(authzid, credentials))) => Some((authzid, credentials)),
            _ => None,
        }
    }

    /// Whether the user's rights on this mailbox are the session's own business.
    pub fn is_foreign(&self, path: &MailboxPath) -> bool {
        let own = self.facts.user.as_ref().is_some_and(|user| path.is_owned_by(user));
        !own && self.rules.asks_rights.contains(&path.namespace())
    }
}
