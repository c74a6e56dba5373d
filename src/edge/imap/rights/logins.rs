//! Whom the master user was let in as, and whom not.
//!
//! A server gives the same answer for a user whom it does not know and for a master user whose
//! password is wrong. They are told apart by logging in as somebody else who was let in before.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::{Mutex, MutexGuard};
use crate::mail::user::UserName;

/// How long a user who was refused is left alone: servers slow everybody down after failed logins
/// from one address. For so long, and no longer, somebody who has just been given an account still
/// has none.
const PAUSE: Duration = Duration::from_secs(5);
/// Refused users that are remembered.
const REFUSED: usize = 10_000;
/// Users who were let in lately, of whom at least one is not the one in question.
const GOOD: usize = 4;

/// Which logins the master user was refused lately, and for whom they succeeded.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The latest first.
    good: VecDeque<UserName>,
    refused: HashMap<UserName, Refused>,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    at: Instant,
    /// It is the user who was refused, not the master user.
    known: bool,
}

impl Logins {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    pub fn let_in(&self, user: &UserName) {
        let mut state = self.lock();
        state.refused.remove(user);
        if state.good.front() != Some(user) {
            state.good.retain(|good| good != user);
            state.good.push_front(user.clone());
            state.good.truncate(GOOD);
        }
    }

    /// Somebody else, who was let in lately.
    pub fn other_than(&self, user: &UserName) -> Option<UserName> {
        self.lock().good.iter().find(|good| *good != user).cloned()
    }

    pub fn forget(&self, user: &UserName) {
        self.lock().good.retain(|good| good != user);
    }

    /// `known`: the master user was let in as somebody else after this user was refused.
    pub fn refuse(&self, user: &UserName, known: bool) {
        let now = Instant::now();
        let mut state = self.lock();
        if known {
            state.good.retain(|good| good != user);
        }
        if state.refused.len() >= REFUSED {
            state.refused.retain(|_, refused| now.duration_since(refused.at) < PAUSE);
        }
        if state.refused.len() < REFUSED {
            state.refused.insert(user.clone(), Refused { at: now, known });
        }
    }

    /// Whether the user was refused a moment ago, and if so, whether it is known that it was this
    /// user.
    pub fn refused_lately(&self, user: &UserName) -> Option<bool> {
        let mut state = self.lock();
        let refused = *state.refused.get(user)?;
        if refused.at.elapsed() < PAUSE {
            return Some(refused.known);
        }
        state.refused.remove(user);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    #[test]
    fn somebody_else_who_was_let_in_is_known_until_forgotten() {
        let logins = Logins::default();
        let [a, b] = ["a", "b"].map(user);
        assert_eq!(logins.other_than(&a), None);
        logins.let_in(&a);
        assert_eq!(logins.other_than(&a), None);
        logins.let_in(&b);
        logins.let_in(&a);
        assert_eq!((logins.other_than(&a), logins.other_than(&b)), (Some(b.clone()), Some(a.clone())));
        logins.forget(&b);
        assert_eq!(logins.other_than(&a), None);
        for number in 0..10 {
            logins.let_in(&user(&format!("u{number}")));
        }
        assert_eq!(logins.lock().good.len(), GOOD);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_refused_is_left_alone_for_a_while() {
        let logins = Logins::default();
        let [a, b] = ["a", "b"].map(user);
        logins.let_in(&a);
        logins.refuse(&a, true);
        logins.refuse(&b, false);
        assert_eq!((logins.refused_lately(&a), logins.refused_lately(&b)), (Some(true), Some(false)));
        assert_eq!(logins.other_than(&b), None, "a is good no more");
        tokio::time::advance(PAUSE).await;
        assert_eq!((logins.refused_lately(&a), logins.refused_lately(&b)), (None, None));
        assert!(logins.lock().refused.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_refused_users_are_remembered_than_allowed() {
        let logins = Logins::default();
        (0..=REFUSED).for_each(|number| logins.refuse(&user(&number.to_string()), true));
        assert_eq!(logins.refused_lately(&user(&REFUSED.to_string())), None);
        tokio::time::advance(PAUSE).await;
        logins.refuse(&user("x"), true);
        assert_eq!(logins.lock().refused.len(), 1);
    }
}
