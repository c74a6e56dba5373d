//! Reads the firehose, the topic that receives every event of the cluster once (`queue.firehose`),
//! as an indexer or an archiver would: with an ordinary consumer group, so that several of them
//! share the work and each event is handled by one.
//!
//! ```sh
//! cargo run --example firehose -- 127.0.0.1:9092 mailpush.firehose indexers
//! ```

use anyhow::anyhow;
use mailpush::mail::codec::{DecodeError, from_msgpack, to_json};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::Message;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, group] = &arguments[..] else { return Err(anyhow!("say BROKERS TOPIC GROUP")) };
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        // Only what has been handled is committed: a reader that dies leaves the rest to the
        // others.
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[topic])?;
    loop {
        let record = consumer.recv().await?;
        match record.payload().map(|bytes| from_msgpack(bytes, None)) {
            // At least once: after a death the last ones come again, with the same ids.
            Some(Ok(event)) => println!("{}", to_json(&event)),
            // A newer origin's: skipped, never a reason to stop.
            Some(Err(DecodeError::UnknownType(name))) => eprintln!("skipped an event of type {name}"),
            Some(Err(error)) => eprintln!("skipped offset {} of partition {}: {error}", record.offset(), record.partition()),
            None => {}
        }
        consumer.commit_message(&record, CommitMode::Async)?;
    }
}
