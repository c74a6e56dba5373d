//! What the tests share. Each test binary uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part of this")]

pub mod acls;
pub mod agent;
pub mod cluster;
pub mod dev;
pub mod dovecot;
pub mod fixtures;
pub mod imap;
pub mod imap_upstream;
pub mod kafka;
pub mod lab;
pub mod node;
pub mod process;
pub mod raw_ws;
pub mod sharing;
pub mod sse;
pub mod wait;
pub mod watcher;
pub mod ws;
pub mod zookeeper;
