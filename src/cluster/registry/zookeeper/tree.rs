//! Where things stand in ZooKeeper. Paths are within the chroot.

use std::str::FromStr;

use crate::cluster::queue::QueueName;
use crate::cluster::registry::{QueueId, QueueNames};
use crate::mail::ids::NodeId;
use crate::mail::key::{Key, ZnodeName, stable_hash};
use crate::mail::path::MailboxPath;
use crate::mail::rights::Identifier;
use crate::mail::user::UserName;

pub const MAILBOXES: &str = "/mailboxes";
pub const NODES: &str = "/nodes";
/// Who may do what: below its buckets a znode for each shared mailbox.
pub const ACLS: &str = "/acl";
/// The same the other way round: below its buckets a container for each identifier, and in it an empty znode for each
/// mailbox whose ACL names it.
pub const SHARES: &str = "/shares";

/// Child lists stay far below `jute.maxbuffer` with this many buckets, even for millions of keys.
pub const BUCKETS: u16 = 256;

/// The path of bucket `number`, which is below [`BUCKETS`].
pub fn bucket(number: u16) -> String {
    format!("{MAILBOXES}/{number:02x}")
}

/// The container of a key: its children are the queues that want the key's events.
pub fn container(key: &Key) -> String {
    let number = key.stable_hash() & u64::from(BUCKETS - 1);
    format!("{MAILBOXES}/{number:02x}/{}", key.znode_name().as_str())
}

/// What a container holds: nothing where its name says it all, else the key, for humans and tools.
pub fn container_data(key: &Key) -> Vec<u8> {
    match (key.znode_name(), key) {
        (ZnodeName::Escaped(_), _) => Vec::new(),
        (ZnodeName::Digest(_), Key::Mailbox(path)) => path.as_str().as_bytes().to_vec(),
        (ZnodeName::Digest(_), Key::Account(user)) => format!("@{}", user.as_str()).into_bytes(),
    }
}

pub fn node(id: &NodeId) -> String {
    format!("{NODES}/{}", id.as_str())
}

/// What one registration adds to the transaction that ends its session (I-14).
pub fn registration_cost(chroot: &str, key: &Key, child: &str) -> usize {
    4 + chroot.len() + container(key).len() + 1 + child.len()
}

/// What a mailbox's ACL is kept by, as a hash: its owner, so that the ACLs of one owner lie together; where there is none,
/// the first level of its name.
pub fn acl_home(mailbox: &MailboxPath) -> u64 {
    if let Some(owner) = mailbox.owner_name() {
        return acl_home_of(&owner);
    }
    let top = mailbox.name().split('/').next().unwrap_or_default();
    stable_hash(b'#', &format!("{}::{top}", mailbox.namespace()))
}

/// As [`acl_home`], of every mailbox of this owner.
pub fn acl_home_of(owner: &UserName) -> u64 {
    stable_hash(b'@', owner.as_str())
}

pub fn acl_bucket(home: u64) -> String {
    format!("{ACLS}/{:02x}", home & u64::from(BUCKETS - 1))
}

/// Whether [`acl_bucket`] has made this path.
pub fn is_acl_bucket(path: &str) -> bool {
    path.strip_prefix(ACLS)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|number| number.len() == 2 && number.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}

/// The ACL of a mailbox.
pub fn acl(mailbox: &MailboxPath) -> String {
    format!("{}/{}", acl_bucket(acl_home(mailbox)), mailbox_name(mailbox).as_str())
}

/// The container of an identifier: its children are the mailboxes that are shared with it.
pub fn shares(identifier: &Identifier) -> String {
    // Marked, for a user may be called `anyone`, or `..`.
    let (mark, text) = match identifier {
        Identifier::User(user) => (b'@', format!("@{user}")),
        other => (b'=', format!("={other}")),
    };
    let number = stable_hash(mark, &text[1..]) & u64::from(BUCKETS - 1);
    format!("{SHARES}/{number:02x}/{}", ZnodeName::of(&text).as_str())
}

/// That a mailbox is shared with an identifier.
pub fn share(identifier: &Identifier, mailbox: &MailboxPath) -> String {
    format!("{}/{}", shares(identifier), mailbox_name(mailbox).as_str())
}

/// What a share holds: nothing where its name says it all, else the bucket of the ACL, which says it.
pub fn share_data(mailbox: &MailboxPath) -> Vec<u8> {
    match mailbox_name(mailbox) {
        ZnodeName::Escaped(_) => Vec::new(),
        ZnodeName::Digest(_) => acl_bucket(acl_home(mailbox)).into_bytes(),
    }
}

/// The name of all that is about one mailbox.
pub fn mailbox_name(mailbox: &MailboxPath) -> ZnodeName {
    ZnodeName::of(mailbox.as_str())
}

/// The mailbox that a name is about, where it says so.
pub fn mailbox_of(name: &str) -> Option<MailboxPath> {
    match Key::from_znode_name(name)? {
        Key::Mailbox(mailbox) => Some(mailbox),
        Key::Account(_) => None,
    }
}

/// The queues that a container's children name, each once, sorted; and how many names say nothing.
pub fn queues(children: &[String], names: &QueueNames) -> (Vec<QueueName>, usize) {
    let mut unread = 0;
    let mut queues: Vec<QueueName> = children
        .iter()
        .filter_map(|child| {
            let id = QueueId::from_str(child).ok();
            unread += usize::from(id.is_none());
            id.map(|id| names.queue(&id))
        })
        .collect();
    queues.sort_unstable();
    queues.dedup();
    (queues, unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(name: &str) -> Key {
        Key::Mailbox(MailboxPath::new("#private", "bob@x.org", name).unwrap())
    }

    #[test]
    fn a_key_has_its_place() {
        // 15,883,098,585,954,678,630 (pinned in `mail::key`) ends in the byte 66.
        assert_eq!(container(&mailbox("INBOX")), "/mailboxes/66/#private:bob@x.org:INBOX");
        assert_eq!(container_data(&mailbox("INBOX")), b"");
        assert_eq!(bucket(10), "/mailboxes/0a");
    }

    #[test]
    fn an_over_long_key_is_kept_in_the_data() {
        let key = mailbox(&"x".repeat(1_000));
        assert!(container(&key).len() < 64);
        assert_eq!(container_data(&key), format!("#private:bob@x.org:{}", "x".repeat(1_000)).into_bytes());
    }

    #[test]
    fn the_cost_is_the_full_path_and_its_length_field() {
        let full = "/mailpush/mailboxes/66/#private:bob@x.org:INBOX/gw-1@p17";
        assert_eq!(registration_cost("/mailpush", &mailbox("INBOX"), "gw-1@p17"), 4 + full.len());
    }

    #[test]
    fn an_acl_lies_with_its_owner() {
        let path = |text: &str| text.parse::<MailboxPath>().unwrap();
        // Pinned: programs of different versions must agree.
        assert_eq!(acl(&path("#private:bob@x.org:Team/A")), "/acl/1b/#private:bob@x.org:Team%2FA");
        assert_eq!(acl_home(&path("#other:bob@x.org:B")), acl_home_of(&UserName::new("bob@x.org").unwrap()));
        assert_eq!(acl_home(&path("#shared::Team/A")), acl_home(&path("#shared::Team")));
        assert_ne!(acl_home(&path("#shared::Team/A")), acl_home(&path("#shared::Other")));
        assert_eq!(mailbox_of("#private:bob@x.org:Team%2FA"), Some(path("#private:bob@x.org:Team/A")));
        assert_eq!((mailbox_of("@bob@x.org"), mailbox_of("~ABC")), (None, None));
    }

    #[test]
    fn a_share_lies_with_its_identifier() {
        let identifier = |text: &str| text.parse::<Identifier>().unwrap();
        let mailbox: MailboxPath = "#private:bob@x.org:Team/A".parse().unwrap();
        assert_eq!(share(&identifier("eve@x.org"), &mailbox), "/shares/3b/@eve@x.org/#private:bob@x.org:Team%2FA");
        assert_eq!(shares(&identifier("anyone")), "/shares/d6/=anyone");
        assert_eq!(shares(&identifier("group:a/b")), "/shares/f7/=group:a%2Fb");
        assert_eq!(shares(&identifier("..")).rsplit('/').next(), Some("@.."));
        assert!(shares(&identifier(&"é".repeat(150))).len() < 64);
        assert_eq!(share_data(&mailbox), b"");
        let long = MailboxPath::new("#private", "bob@x.org", &"x".repeat(1_000)).unwrap();
        assert_eq!(share_data(&long), b"/acl/1b");
        assert!(is_acl_bucket("/acl/1b") && !is_acl_bucket("/acl/1b/x") && !is_acl_bucket("/acl/..") && !is_acl_bucket("/"));
    }

    #[test]
    fn children_name_queues_once() {
        let names = QueueNames::new("mp").unwrap();
        let children = ["gw-2@p1", "gw-1@p1", "gw-3", "what is this?"].map(String::from);
        let (queues, unread) = queues(&children, &names);
        let texts: Vec<String> = queues.iter().map(QueueName::to_string).collect();
        assert_eq!(texts, ["mp.node.gw-3", "mp.shards/1"]);
        assert_eq!(unread, 1);
    }
}
