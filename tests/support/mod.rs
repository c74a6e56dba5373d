//! What the tests share, and the benchmarks use a part of.
#![allow(dead_code, reason = "the benchmarks use a part of this")]

pub mod acls;
pub mod agent;
pub mod alone;
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
