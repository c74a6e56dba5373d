//! **mailpush**: cluster-wide push for mail.
//!
//! A message arrives at one server of a mail cluster; a client that waits on another hears of it at once.
//!
//! # The flow
//!
//! ```text
//!  origin                                     gateway node
//!  store change                               queue (own Kafka topic or partition)
//!     │ Event                                    │ MessagePack
//!     ▼                                          ▼
//!  Publisher ── lookup ──▶ Registry           Consumer ─ decode once ─▶ Hub ──▶ session ──▶ WebSocket, SSE, IMAP
//!     │                       ▲                                          │
//!     │                       └──────── register / unregister ───────────┘
//!     └── encode once ── send ─▶ the queue of each node that wants it
//! ```
//!
//! # The rooms
//!
//! | room | what it holds | what it may name | what may not go in it |
//! |---|---|---|---|
//! | [`mail`] | the vocabulary: paths, keys, events, their encodings | none | clocks, sockets, async |
//! | [`wire`] | client protocols as state machines | `mail` | clocks, sockets, tasks |
//! | [`lock`] | the locks of every room, and the order in which they may be taken | none | what they guard |
//! | [`tasks`] | tasks that a process cannot do without | none | what they do |
//! | [`config`] | typed settings and all that can be wrong with them | `mail` | reading them anywhere else |
//! | [`cluster`] | what nodes share: registry and queue, as traits with their adapters | `config`, `lock`, `tasks`, `mail` | events, sessions |
//! | [`push`] | moving events: publisher, consumer, hub, presence | `cluster`, `lock`, `tasks`, `mail` | client protocols |
//! | [`http`] | what every HTTP server and client of ours shares: accept loop, refusals, reading events | `push`, `mail` | routes |
//! | [`imap`] | asking a mail server something, as its client | `wire` | what is asked |
//! | [`tls`] | certificates and authorities, for servers and for clients | `config`, `lock` | protocols |
//! | [`edge`] | the doors: HTTP, WebSocket, SSE, IMAP, tokens | `http`, `imap`, `tls`, `push`, `wire`, `cluster`, `config`, `lock`, `tasks`, `mail` | rules of a protocol |
//! | [`agent`] | the origin's side: spool, adapters of mail servers | `http`, `imap`, `tls`, `push`, `wire`, `config`, `lock`, `tasks`, `mail` | client protocols |
//! | [`node`] | the composition root: the one place that names concrete adapters | all | logic |
//! | [`dev`] | a cluster in one process | all | anything production needs |
//! | [`cli`] | the commands | all | logic |
//!
//! A room names those that its row allows, and no others; `tests/all/nothing/rooms.rs` reads this table and holds it.
//!
//! # The invariants that bind
//!
//! I-1 forward compatible, bad messages are skipped · I-2 nothing from an event reaches a wire raw · I-3 one znode per
//! (key, node) · I-4 register before snapshot · I-5 settled before told · I-6 loss is never silent · I-7 clients hear
//! only what came out of the queue · I-8 at least once, applied once · I-9 no telling a hidden mailbox from none ·
//! I-10 rights decide at delivery, and nothing is told while they are not known ·
//! I-11 no tagged OK before client and server mean the same by the same numbers · I-12 EXISTS never shrinks, EXPUNGE only where it
//! may be · I-13 nothing from before STARTTLS, no password kept or logged · I-14 no ZooKeeper session holds too much. `ARCHITECTURE.md` says where each is kept.

#![forbid(unsafe_code)]
// A panic in a task takes a session with it: say why it cannot happen, or return an error. Standard output is for
// results and goes through `cli::print`; everything else goes through `tracing`. Locks know their order (`lock`).
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types
)]

pub mod agent;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod dev;
pub mod edge;
pub mod http;
pub mod imap;
pub mod lock;
pub mod mail;
pub mod node;
pub mod push;
pub mod tasks;
pub mod tls;
pub mod wire;
