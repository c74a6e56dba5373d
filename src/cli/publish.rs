//! `mailpush publish`: events from flags or standard input, straight into the queues or through a
//! node.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, Remote};
use super::{CliError, Global, print};
use crate::config::Purpose;
use crate::edge::auth::user_names;
use crate::http::events::normalise;
use crate::mail::codec::{DecodeError, Defaults, from_json, from_msgpack, split_msgpack, to_json};
use crate::mail::event::{Event, EventType};
use crate::mail::user::UserNames;
use crate::node::{Cluster, host_name};
use crate::push::clock::{new_event_id, unix_ms};
use crate::push::metrics::Metrics;
use crate::push::publisher::Publisher;

/// Events sent together.
const BATCH: usize = 500;

/// How standard input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One event, or an array of them
    Json,
    /// One event a line
    Ndjson,
    /// One map, an array of maps, or maps one after the other
    Msgpack,
}

/// The flags of `mailpush publish`.
#[derive(Args)]
pub struct PublishArgs {
    #[command(flatten)]
    pub remote: Remote,
    /// The type of the event, such as MessageNew; without it, events are read from standard input
    #[arg(long = "type", value_name = "TYPE", requires = "mailbox")]
    pub event_type: Option<EventType>,
    /// The mailbox, such as '#private:alice@example.org:INBOX'
    #[arg(long)]
    pub mailbox: Option<String>,
    /// A message's UID; may be repeated
    #[arg(long)]
    pub uid: Vec<u32>,
    /// A flag of the messages' complete set; may be repeated
    #[arg(long)]
    pub flag: Vec<String>,
    /// A flag that was set or cleared; may be repeated
    #[arg(long)]
    pub changed: Vec<String>,
    /// The new path after a MailboxRename
    #[arg(long)]
    pub to: Option<String>,
    /// Whose rights an AclChange is about
    #[arg(long)]
    pub identifier: Option<String>,
    /// What those rights are now
    #[arg(long)]
    pub rights: Option<String>,
    /// A quota's use
    #[arg(long)]
    pub used: Option<u64>,
    /// A quota's limit
    #[arg(long)]
    pub limit: Option<u64>,
    #[arg(long)]
    pub uidvalidity: Option<u32>,
    /// A message's From, for who asks for it
    #[arg(long)]
    pub from: Option<String>,
    /// A message's Subject, for who asks for it
    #[arg(long)]
    pub subject: Option<String>,
    /// The user who did it
    #[arg(long)]
    pub actor: Option<String>,
    /// The event's id, a UUID; made up if not given
    #[arg(long)]
    pub id: Option<String>,
    /// How standard input is written
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    pub format: Format,
    /// Print JSON, one event a line
    #[arg(long)]
    pub json: bool,
}

/// Where events go.
enum Way {
    Direct(Box<Publisher>),
    Node(Client),
}

/// Publishes, and prints what became of each event. One that was not published is an error.
pub async fn run(global: &Global, args: PublishArgs) -> Result<(), CliError> {
    let (way, names, origin) = match args.remote.client()? {
        // The node brings names to their normal form.
        Some(client) => (Way::Node(client), UserNames { lowercase: false, default_domain: None }, host_name()),
        None => {
            let settings = global.start(Purpose::Publish)?;
            let cluster = Cluster::connect(&settings).await?;
            let publisher = cluster.publisher(&settings, Arc::new(Metrics::default()))?;
            let origin = Some(settings.node.origin).filter(|origin| !origin.is_empty()).unwrap_or_else(host_name);
            (Way::Direct(Box::new(publisher)), user_names(&settings.auth), origin)
        }
    };
    let reader = Reader { names, origin };
    let mut tally = Tally { json: args.json, failed: 0, bad: 0 };
    match args.event_type {
        Some(event_type) => tally.take(&way, vec![reader.json(from_flags(event_type, &args).to_string().as_bytes())]).await?,
        None => match args.format {
            Format::Ndjson => {
                let mut batch = Vec::new();
                for line in io::stdin().lock().split(b'\n') {
                    let line = line.map_err(anyhow::Error::new)?;
                    if !line.trim_ascii().is_empty() {
                        batch.push(reader.json(&line));
                    }
                    if batch.len() == BATCH {
                        tally.take(&way, std::mem::take(&mut batch)).await?;
                    }
                }
                tally.take(&way, batch).await?;
            }
            format => {
                let mut bytes = Vec::new();
                io::stdin().lock().read_to_end(&mut bytes).map_err(anyhow::Error::new)?;
                let events = if format == Format::Json { reader.json_batch(&bytes)? } else { reader.msgpack_batch(&bytes)? };
                let mut events = events.into_iter().peekable();
                while events.peek().is_some() {
                    tally.take(&way, events.by_ref().take(BATCH).collect()).await?;
                }
            }
        },
    }
    if let Way::Direct(publisher) = &way {
        publisher.flush().await;
    }
    tally.verdict()
}

/// The event that the flags describe, as JSON.
fn from_flags(event_type: EventType, args: &PublishArgs) -> Value {
    let mut event = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            event.insert(name.to_owned(), value);
        }
    };
    put("type", Some(event_type.as_str().into()));
    put("mailbox", args.mailbox.clone().map(Value::from));
    put("to", args.to.clone().map(Value::from));
    put("identifier", args.identifier.clone().map(Value::from));
    put("rights", args.rights.clone().map(Value::from));
    put("used", args.used.map(Value::from));
    put("limit", args.limit.map(Value::from));
    put("uidvalidity", args.uidvalidity.map(Value::from));
    put("actor", args.actor.clone().map(Value::from));
    put("id", args.id.clone().map(Value::from));
    match event_type {
        EventType::MessageExpunge => put("uids", Some(args.uid.clone().into())),
        EventType::MessageNew | EventType::MessageAppend | EventType::FlagsSet | EventType::FlagsClear => {
            let flags = (!args.flag.is_empty()).then_some(&args.flag);
            let changed = (!args.changed.is_empty()).then_some(&args.changed);
            let envelope =
                (args.from.is_some() || args.subject.is_some()).then(|| json!({ "from": args.from, "subject": args.subject }));
            let message = |uid: &u32| json!({ "uid": uid, "flags": flags, "changed": changed, "envelope": envelope });
            put("messages", Some(args.uid.iter().map(message).collect()));
        }
        _ => {}
    }
    event.into()
}

type Parsed = Result<Event, DecodeError>;

struct Reader {
    names: UserNames,
    origin: String,
}

impl Reader {
    fn defaults(&self) -> Defaults<'_> {
        Defaults { id: new_event_id(), at: unix_ms(), origin: &self.origin }
    }

    fn json(&self, text: &[u8]) -> Parsed {
        from_json(text, Some(self.defaults())).and_then(|event| normalise(event, &self.names))
    }

    fn json_batch(&self, text: &[u8]) -> Result<Vec<Parsed>, CliError> {
        let bad = |error: serde_json::Error| CliError::Usage(format!("standard input is not JSON: {error}"));
        match serde_json::from_slice(text).map_err(bad)? {
            Value::Array(events) => Ok(events.iter().map(|event| self.json(event.to_string().as_bytes())).collect()),
            event => Ok(vec![self.json(event.to_string().as_bytes())]),
        }
    }

    fn msgpack_batch(&self, bytes: &[u8]) -> Result<Vec<Parsed>, CliError> {
        let events =
            split_msgpack(bytes).map_err(|error| CliError::Usage(format!("standard input is not MessagePack: {error}")))?;
        let read = |event: &[u8]| from_msgpack(event, Some(self.defaults())).and_then(|event| normalise(event, &self.names));
        Ok(events.into_iter().map(read).collect())
    }
}

/// What became of everything.
struct Tally {
    json: bool,
    failed: usize,
    bad: usize,
}

impl Tally {
    async fn take(&mut self, way: &Way, batch: Vec<Parsed>) -> Result<(), CliError> {
        let mut events = Vec::with_capacity(batch.len());
        for event in batch {
            match event {
                Ok(event) => events.push(event),
                Err(error) => {
                    self.bad += 1;
                    self.tell(&json!({ "error": error.to_string() }))?;
                }
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        match way {
            Way::Direct(publisher) => {
                for (event, result) in events.iter().zip(publisher.publish_batch(&events).await) {
                    match result {
                        Ok(done) => self.tell(&json!({ "id": event.id, "queues": done.queues, "everyone": done.everyone }))?,
                        Err(error) => {
                            self.failed += 1;
                            self.tell(&json!({ "id": event.id, "error": error.to_string() }))?;
                        }
                    }
                }
            }
            Way::Node(client) => {
                let body = format!("[{}]", events.iter().map(to_json).collect::<Vec<_>>().join(","));
                let request = client.request(Method::POST, "/v1/events").header("content-type", "application/json").body(body);
                let answer = client.send(request).await?;
                for result in answer["results"].as_array().into_iter().flatten() {
                    self.tell(result)?;
                }
            }
        }
        Ok(())
    }

    fn tell(&self, result: &Value) -> Result<(), CliError> {
        if self.json {
            return print(format!("{result}\n"));
        }
        let id = result["id"].as_str().unwrap_or("-");
        if let Some(error) = result["error"].as_str() {
            return print(format!("{id} failed: {error}\n"));
        }
        let queues: Vec<&str> = result["queues"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let everyone = if result["everyone"] == true { " (everyone: the registry could not be asked)" } else { "" };
        let queues = if queues.is_empty() { "nobody wants it".to_owned() } else { queues.join(", ") };
        print(format!("{id} -> {queues}{everyone}\n"))
    }

    fn verdict(&self) -> Result<(), CliError> {
        if self.failed > 0 {
            return Err(CliError::Unavailable(format!(
                "{} events were not published: send them again, with their ids",
                self.failed
            )));
        }
        if self.bad > 0 {
            return Err(CliError::Usage(format!("{} entries are no events", self.bad)));
        }
        Ok(())
    }
}
