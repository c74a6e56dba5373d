//! Every test that is not beside the code it tests, in one program: they are linked once, and share one ZooKeeper, one Kafka
//! and one Dovecot. The folders are tiers, by what must be installed; a test's name begins with its tier.

#[path = "../support/mod.rs"]
mod support;

/// These need Chromium and Node, and what [`jdk`] needs.
mod browser;
/// These need Dovecot, mail apps, root, and what [`jdk`] needs.
mod dovecot;
/// These need a JDK and Maven, and run Apache ZooKeeper and Apache Kafka.
mod jdk;
/// Whoever can build mailpush can run these.
mod nothing;
/// These need Python, Node and curl.
mod tools;
