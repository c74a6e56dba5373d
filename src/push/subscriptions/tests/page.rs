//! A page that keeps itself as `static/mailpush.js` does, behind the server's own state machine of
//! a WebSocket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::play::*;
use crate::edge::websocket::refusal;
use crate::push::outbox::Resync;
use crate::wire::ws::codec::{Input, frame_payload};
use crate::wire::ws::push::{self, ToldLimits};
use crate::wire::ws::session::{Action, Now, Rules, Session, Verified};

/// One that the page wants; all of one key are one here.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// It was told once that it stands, and nothing has come between since.
    pub ready: bool,
    pub current: bool,
    /// The page has read its state since this message.
    pub read: u32,
    /// What it is about, as far as the test knows, and since when at most.
    pub about: Option<(usize, tokio::time::Instant)>,
}

pub struct Page {
    session: Session,
    now: Now,
    pub handle: Arc<LiveSession>,
    pub records: BTreeMap<Key, Record>,
    /// What the server was asked for: a number for each wish, and whether it stands.
    asked: BTreeMap<Key, (u32, bool)>,
    pub commands: VecDeque<String>,
    id: u32,
    /// Commands whose reply is awaited, and the wish that they are about.
    pub unanswered: BTreeMap<u32, Option<u32>>,
    seen: BTreeSet<String>,
    /// Names of others' that nothing is told of until they are told of.
    closed: BTreeSet<Key>,
    /// An account's subscription covered what is shared at some time: names are told of that it did
    /// not ask for.
    covers: bool,
    pub told: BTreeSet<u32>,
    /// For people who look for a fault.
    pub log: Vec<String>,
}

/// What a page was told that the test has to judge.
#[derive(Debug)]
pub enum Told {
    Stands(Key),
    Message(u32),
    Renamed(MailboxPath),
    Revoked(Key, Record),
}

fn key_of(value: &Value) -> Key {
    serde_json::from_value(value.clone()).unwrap()
}

impl Page {
    pub fn new(handle: Arc<LiveSession>) -> Self {
        let node: NodeId = "n".parse().unwrap();
        let long = Duration::from_secs(1 << 30);
        let rules = Rules {
            node,
            names: Default::default(),
            limits: ToldLimits { frame_bytes: 4_096, subscriptions: 100, commands_per_second: 100 },
            connect_deadline: long,
            subscribe_timeout: long,
            heartbeat: long,
            pong_timeout: long,
            expiring_notice: long,
            close_timeout: long,
        };
        let now = Now { monotonic: Instant::now(), unix_ms: 0 };
        let mut session = Session::new(Arc::new(rules), handle.id.clone(), now);
        session.become_connected(now, Verified { subject: handle.subject(), expires_at: u64::MAX }, Vec::new());
        Self {
            session,
            now,
            handle,
            records: BTreeMap::new(),
            asked: BTreeMap::new(),
            commands: VecDeque::new(),
            id: 0,
            unanswered: BTreeMap::new(),
            seen: BTreeSet::new(),
            closed: BTreeSet::new(),
            covers: false,
            told: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    pub fn subscribe(&mut self, key: Key, sent: u32) {
        self.covers |= matches!(key, Key::Account(_));
        self.records.entry(key).or_insert(Record { ready: false, current: false, read: 0, about: None });
        self.reconcile(sent);
    }

    pub fn close(&mut self, key: &Key, sent: u32) {
        self.records.remove(key);
        self.reconcile(sent);
    }

    fn command(&mut self, name: &str, mut body: Value, wish: Option<u32>) {
        self.id += 1;
        self.unanswered.insert(self.id, wish);
        if name == "subscribe" && body.get("account").is_some() {
            body["shared"] = true.into();
        }
        self.commands.push_back(json!({ "id": self.id, name: body }).to_string());
    }

    fn reconcile(&mut self, sent: u32) {
        let idle: Vec<Key> = self.asked.keys().filter(|key| !self.records.contains_key(*key)).cloned().collect();
        for key in idle {
            self.asked.remove(&key);
            self.command("unsubscribe", serde_json::to_value(&key).unwrap(), None);
        }
        let filter: Vec<Key> = self.records.keys().filter(|key| !self.asked.contains_key(*key)).cloned().collect();
        for key in filter {
            let wish = self.id + 1;
            self.command("subscribe", serde_json::to_value(&key).unwrap(), Some(wish));
            self.closed.remove(&key);
            self.asked.insert(key, (wish, false));
        }
        for (key, record) in self.records.iter_mut().filter(|(_, record)| !record.current) {
            if self.asked.get(key).is_some_and(|asked| asked.1) {
                (record.ready, record.current, record.read) = (true, true, sent);
            }
        }
    }

    /// What the page has said arrives.
    pub fn say(&mut self, subscriptions: &Arc<Subscriptions>, sent: u32) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(command) = self.commands.pop_front() {
            self.log.push(format!("> {command}"));
            let actions = self.session.handle_input(self.now, Input::Text(command));
            told.extend(self.act(subscriptions, actions, sent));
        }
        told
    }

    fn act(&mut self, subscriptions: &Arc<Subscriptions>, actions: Vec<Action>, sent: u32) -> Vec<Told> {
        let mut told = Vec::new();
        for action in actions {
            match action {
                Action::Send(frame) => {
                    let text = String::from_utf8(frame_payload(&frame).to_vec()).unwrap();
                    told.extend(self.obey(&text, sent));
                    self.reconcile(sent);
                }
                Action::Subscribe { id, subscribe } => {
                    let filter = Filter { types: subscribe.types, fields: subscribe.fields };
                    subscriptions.subscribe(&self.handle, id, subscribe.key, Wish { filter, shared: subscribe.shared });
                }
                Action::Unsubscribe(key) => subscriptions.unsubscribe(&self.handle, &key),
                other => panic!("{other:?}"),
            }
        }
        told
    }

    /// As `edge::websocket` does.
    pub fn drain(&mut self, subscriptions: &Arc<Subscriptions>, sent: u32) -> Vec<Told> {
        let Poll::Ready(outgoing) = self.handle.poll_take(&mut Context::from_waker(Waker::noop())) else { return Vec::new() };
        let mut told = Vec::new();
        for outgoing in outgoing {
            let actions = match outgoing {
                Outgoing::Event { delivery, fields } => vec![Action::Send(push::event(&delivery.event, fields, &delivery.pos))],
                Outgoing::Resync { keys, reason } => {
                    let keys: Vec<Key> = match keys {
                        Resync::Keys(keys) => keys.into_iter().collect(),
                        Resync::All => self.handle.subscriptions().into_iter().map(|(key, _)| key).collect(),
                    };
                    vec![Action::Send(push::resync(&keys, reason.as_str()))]
                }
                Outgoing::Settled { tag, key, outcome } => match outcome.map_err(refusal) {
                    Ok(rights) => self.session.handle_settled(tag, &key, rights),
                    Err((error, kept)) => self.session.handle_refused(tag, &key, error, kept),
                },
                Outgoing::Revoked { key } => self.session.handle_revoked(&key),
                Outgoing::Moved { from, to } => self.session.handle_moved(&from, to),
                other => panic!("{other:?}: {:#?}", self.log),
            };
            told.extend(self.act(subscriptions, actions, sent));
        }
        told
    }

    fn obey(&mut self, text: &str, sent: u32) -> Vec<Told> {
        self.log.push(format!("< {text}"));
        let frame: Value = serde_json::from_str(text).unwrap();
        if let Some(id) = frame["id"].as_u64() {
            let wish = self.unanswered.remove(&(id as u32)).unwrap_or_else(|| panic!("answered twice: {text}"));
            return wish.map(|wish| self.answered(wish, &frame, sent)).unwrap_or_default();
        }
        if let Some(event) = frame.get("event") {
            return self.event(&event["event"], sent);
        }
        if let Some(resync) = frame.get("resync") {
            for key in resync["keys"].as_array().unwrap().iter().map(key_of) {
                assert!(!self.closed.contains(&key) || self.covers, "a resync of what has ended: {key} in {:#?}", self.log);
                self.closed.remove(&key);
                if let Some(record) = self.records.get_mut(&key) {
                    record.read = sent;
                }
            }
        }
        if let Some(revoked) = frame.get("revoked") {
            let key = key_of(&revoked["key"]);
            self.asked.remove(&key);
            self.closed.insert(key.clone());
            return self.records.remove(&key).map(|record| Told::Revoked(key, record)).into_iter().collect();
        }
        Vec::new()
    }

    fn answered(&mut self, wish: u32, frame: &Value, sent: u32) -> Vec<Told> {
        let asked = self.asked.iter().find(|(_, asked)| asked.0 == wish).map(|(key, asked)| (key.clone(), asked.1));
        if let Some(subscribe) = frame.get("subscribe") {
            let key = key_of(&subscribe["key"]);
            self.closed.remove(&key);
            let Some((known, _)) = asked else {
                if !self.asked.contains_key(&key) {
                    // Asked for by a name that has ended, or was another's, before the reply.
                    self.command("unsubscribe", serde_json::to_value(&key).unwrap(), None);
                }
                return Vec::new();
            };
            if known != key {
                // Asked for by a name that another mailbox had before: it is told of that name, as
                // the server has it.
                self.renamed(&known, &key);
            }
            self.asked.insert(key.clone(), (wish, true));
            if let Some(record) = self.records.get_mut(&key).filter(|record| !record.current) {
                *record = Record { ready: true, current: true, read: sent, about: None };
            }
            return vec![Told::Stands(key)];
        }
        let Some((key, standing)) = asked else { return Vec::new() };
        let error = &frame["error"];
        let temporary = error["temporary"] == true || error["name"] == "not_subscribed";
        if temporary || !standing {
            self.asked.remove(&key);
        }
        if !temporary {
            self.records.remove(&key);
        } else if let Some(record) = self.records.get_mut(&key) {
            record.current = false;
        }
        Vec::new()
    }

    fn event(&mut self, event: &Value, sent: u32) -> Vec<Told> {
        let (kind, path) = (event["type"].as_str().unwrap(), event["mailbox"].as_str().unwrap());
        if !self.seen.insert(format!("{} {kind} {path}", event["id"])) {
            return Vec::new();
        }
        let key = mailbox(path);
        let is_message = kind == "MessageNew";
        assert!(self.covers || !self.closed.contains(&key), "an event of what has ended: {event} in {:#?}", self.log);
        match kind {
            "MailboxRename" => {
                let to = mailbox(event["to"].as_str().unwrap());
                if let Some(record) = self.records.get_mut(&to) {
                    // It is told what it is now.
                    record.read = sent;
                }
                self.renamed(&key, &to);
                self.closed.insert(key);
                self.closed.remove(&to);
                let Key::Mailbox(to) = to else { unreachable!() };
                return vec![Told::Renamed(to)];
            }
            "AccountRename" => {
                let from = Key::Account(path.parse::<MailboxPath>().unwrap().owner_name().unwrap());
                self.renamed(&from, &Key::Account(user(event["to"].as_str().unwrap())));
            }
            "MailboxDelete" => {
                if self.records.get(&key).is_some_and(|record| record.ready) {
                    self.records.remove(&key);
                }
                self.closed.insert(key);
            }
            _ if is_message => {
                let uid = event["messages"][0]["uid"].as_u64().unwrap() as u32;
                self.told.insert(uid);
                return vec![Told::Message(uid)];
            }
            _ => {}
        }
        Vec::new()
    }

    fn renamed(&mut self, from: &Key, to: &Key) {
        if let Some(record) = self.records.remove(from) {
            let other = self.records.entry(to.clone()).or_insert(record);
            if record.ready {
                let read = if other.ready { other.read.min(record.read) } else { record.read };
                *other = Record { read, ..record };
            }
        }
        if let Some(asked) = self.asked.remove(from) {
            self.asked.entry(to.clone()).or_insert(asked);
        }
    }
}
