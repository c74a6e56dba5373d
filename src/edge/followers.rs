//! How many may follow the subscriptions at once: each of them costs a task, and one connection to
//! every other node.

use std::collections::HashMap;
use std::sync::Arc;

use crate::lock::Mutex;
use crate::mail::user::UserName;

/// Bounds of one kind of stream.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Of everybody.
    pub all: usize,
    /// Of one user who sees but their own.
    pub own: usize,
}

/// Those that follow the whole cluster.
pub const CLUSTER: Bound = Bound { all: 64, own: 4 };
/// Those that follow one node. Every other node opens one for each of its own.
pub const LOCAL: Bound = Bound { all: 256, own: 64 };

/// Why nobody more can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyFollowers {
    #[error("too many streams of subscriptions of this user")]
    OfUser,
    #[error("too many streams of subscriptions on this node")]
    OfNode,
}

/// The streams of one kind that are open.
#[derive(Debug)]
pub struct Followers {
    bound: Bound,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    own: HashMap<UserName, usize>,
}

/// The room of one stream; given back when dropped.
#[derive(Debug)]
pub struct Following {
    open: Arc<Mutex<Open>>,
    own: Option<UserName>,
}

impl Followers {
    /// A table of followers, with this bound.
    pub fn new(bound: Bound) -> Self {
        Self { bound, open: Arc::default() }
    }

    /// Room for one more stream; `own` is the user, where it tells of nobody else.
    pub fn begin(&self, own: Option<UserName>) -> Result<Following, TooManyFollowers> {
        let mut open = self.open.lock();
        if own.as_ref().and_then(|user| open.own.get(user)).is_some_and(|count| *count >= self.bound.own) {
            return Err(TooManyFollowers::OfUser);
        }
        if open.all >= self.bound.all {
            return Err(TooManyFollowers::OfNode);
        }
        open.all += 1;
        if let Some(user) = &own {
            *open.own.entry(user.clone()).or_default() += 1;
        }
        Ok(Following { open: self.open.clone(), own })
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.all -= 1;
        let Some(user) = &self.own else { return };
        if let Some(count) = open.own.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                open.own.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_are_bounded_and_give_back_their_room() {
        let followers = Followers::new(Bound { all: 3, own: 2 });
        let bob = || Some(UserName::new("bob").unwrap());
        let first = followers.begin(bob()).unwrap();
        let second = followers.begin(bob()).unwrap();
        assert_eq!(followers.begin(bob()).unwrap_err(), TooManyFollowers::OfUser);
        let _third = followers.begin(None).unwrap();
        assert_eq!(followers.begin(None).unwrap_err(), TooManyFollowers::OfNode);
        drop(first);
        let again = followers.begin(bob()).unwrap();
        drop((again, second));
        assert!(followers.open.lock().own.is_empty());
    }
}
