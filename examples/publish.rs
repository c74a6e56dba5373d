//! Publishes an event through the library, as a mail store of one's own would: into the queues of
//! exactly those nodes through which somebody watches the mailbox.
//!
//! ```sh
//! cargo run --example publish -- mailpush.toml '#private:alice@example.org:INBOX' 42
//! ```
//!
//! The settings are those of the gateways (`[registry]`, `[queue]`, `[access]`); no key for tokens is
//! needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use mailpush::config::{Fault, Purpose, Sources, load_for};
use mailpush::mail::codec::{Defaults, from_json};
use mailpush::node::Cluster;
use mailpush::push::clock::{new_event_id, unix_ms};
use mailpush::push::metrics::Metrics;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, mailbox, uid] = &arguments[..] else { return Err(anyhow!("say FILE MAILBOX UID")) };
    let sources = Sources { file: Some(file.into()), environment: BTreeMap::new(), overrides: Vec::new() };
    let settings = load_for(&sources, Purpose::Publish).map_err(|faults| anyhow!("{}", all(&faults)))?;

    // One publisher for the life of the process: it keeps a connection to the registry, and what it
    // has looked up.
    let cluster = Cluster::connect(&settings).await?;
    let publisher = cluster.publisher(&settings, Arc::new(Metrics::default()))?;

    // 1. The change is committed to the store. 2. It is published: whoever subscribes in between
    //    reads it from the store.
    let uid: u32 = uid.parse().context("the UID is a number")?;
    let written = serde_json::json!({ "type": "MessageNew", "mailbox": mailbox, "messages": [{ "uid": uid }] });
    let defaults = Defaults { id: new_event_id(), at: unix_ms(), origin: "example" };
    let event = from_json(written.to_string().as_bytes(), Some(defaults))?;

    match publisher.publish(&event).await {
        Ok(published) if published.queues.is_empty() => println!("nobody watches it"),
        Ok(published) => published.queues.iter().for_each(|queue| println!("told {queue}")),
        // The same event may be published again, with the same id: what arrives twice is told once.
        Err(error) if error.is_transient() => println!("not everybody could be told: {error}; publish it again"),
        Err(error) => return Err(error.into()),
    }
    publisher.flush().await;
    Ok(())
}

fn all(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}
