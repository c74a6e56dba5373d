//! Where things stand in ZooKeeper. Paths are within the chroot.

use std::str::FromStr;

use crate::cluster::queue::QueueName;
use crate::cluster::registry::{QueueId, QueueNames};
use crate::mail::ids::NodeId;
use crate::mail::key::{Key, ZnodeName};

pub const MAILBOXES: &str = "/mailboxes";
pub const NODES: &str = "/nodes";

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
    use crate::mail::path::MailboxPath;

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
    fn children_name_queues_once() {
        let names = QueueNames::new("mp").unwrap();
        let children = ["gw-2@p1", "gw-1@p1", "gw-3", "what is this?"].map(String::from);
        let (queues, unread) = queues(&children, &names);
        let texts: Vec<String> = queues.iter().map(QueueName::to_string).collect();
        assert_eq!(texts, ["mp.node.gw-3", "mp.shards/1"]);
        assert_eq!(unread, 1);
    }
}
