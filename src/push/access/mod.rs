//! Who may subscribe to what.

pub mod source;

use crate::mail::key::Key;
use crate::mail::user::UserName;

/// All rights of RFC 4314 2.1: what an owner has.
pub const OWNER_RIGHTS: &str = "lrswipkxtea";

/// Decides on rights. `None` is the answer for a mailbox that does not exist and for one that the user may not
/// look up alike (I-9).
pub trait Access: Send + Sync {
    /// The rights of `user` on `key`, as letters of RFC 4314.
    fn rights(&self, user: &UserName, key: &Key) -> Option<&'static str>;
}

/// Everybody may watch what they own, and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnersOnly;

impl Access for OwnersOnly {
    fn rights(&self, user: &UserName, key: &Key) -> Option<&'static str> {
        key.is_owned_by(user).then_some(OWNER_RIGHTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_nobody_else() {
        let bob = UserName::new("bob").unwrap();
        let rights = |path: &str| OwnersOnly.rights(&bob, &Key::Mailbox(path.parse().unwrap()));
        assert_eq!(rights("#private:bob:INBOX"), Some(OWNER_RIGHTS));
        assert_eq!(rights("#private:alice:INBOX"), None);
        assert_eq!(rights("#shared::News"), None);
        assert_eq!(OwnersOnly.rights(&bob, &Key::Account(bob.clone())), Some(OWNER_RIGHTS));
    }
}
