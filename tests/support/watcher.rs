//! An IMAP client that believes what it is told and nothing else, and is then compared with the mail server.

use std::collections::BTreeSet;

use super::dovecot::{TestDovecot, password};
use super::imap::{ImapClient, PATIENCE};

/// What a client has enabled (RFC 7162).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enabled {
    Nothing,
    Condstore,
    Qresync,
}

/// One message as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub uid: Option<u32>,
    /// Without `\Recent`, which is each session's own.
    pub flags: Option<BTreeSet<String>>,
    pub subject: Option<String>,
}

/// What Dovecot itself holds, over a connection of its own.
pub async fn truth(dovecot: &TestDovecot, user: &str, mailbox: &str) -> Vec<Message> {
    let mut client = ImapClient::login(dovecot.imap_port, user, &password(user)).await;
    client.ok(&format!("EXAMINE {mailbox}")).await;
    let lines = client.ok("UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await;
    let messages: Vec<Message> = lines.iter().filter_map(|line| Some(fetched(line)?.1)).collect();
    client.ok("LOGOUT").await;
    messages
}

/// The sequence number and the data of a FETCH response.
fn fetched(line: &str) -> Option<(usize, Message)> {
    let (seq, data) = line.strip_prefix("* ")?.split_once(" FETCH (")?;
    let after = |name: &str| data.find(name).map(|at| &data[at + name.len()..]);
    let uid = after("UID ").and_then(|rest| rest.split([' ', ')']).next()?.parse().ok());
    let flags = after("FLAGS (").and_then(|rest| {
        let flags = rest.split(')').next()?.split(' ').filter(|flag| !flag.is_empty() && *flag != "\\Recent");
        Some(flags.map(str::to_owned).collect())
    });
    let subject = after("Subject: ").and_then(|rest| Some(rest.lines().next()?.trim_end().to_owned()));
    Some((seq.parse().ok()?, Message { uid, flags, subject }))
}

/// UIDs of a set without `*`.
fn uids(set: &str) -> BTreeSet<u32> {
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let ranges = set.split(',').map(|range| match range.split_once(':') {
        Some((first, last)) => number(first)..=number(last),
        None => number(range)..=number(range),
    });
    ranges.flatten().collect()
}

/// Where a UID must be: of messages that were only counted (EXISTS), any one that it can be.
fn place(messages: &[Message], uid: u32) -> Option<usize> {
    if let Some(at) = messages.iter().position(|message| message.uid == Some(uid)) {
        return Some(at);
    }
    let first = messages.iter().rposition(|message| message.uid.is_some_and(|known| known < uid)).map_or(0, |at| at + 1);
    messages.get(first).filter(|message| message.uid.is_none()).map(|_| first)
}

/// One client, with one mailbox open. What it is told in IDLE it checks against the protocol.
pub struct Watcher {
    pub client: ImapClient,
    pub name: String,
    enabled: Enabled,
    messages: Vec<Message>,
    /// The tag of the IDLE that is open.
    idle: Option<String>,
    /// Kinds of what was said since the last IDLE began.
    heard: Vec<String>,
}

impl Watcher {
    /// Opens a mailbox for reading and writing, or only for reading (`EXAMINE`), and reads it.
    pub async fn open(mut client: ImapClient, mailbox: &str, enabled: Enabled, command: &str) -> Self {
        match enabled {
            Enabled::Nothing => {}
            Enabled::Condstore => drop(client.ok("ENABLE CONDSTORE").await),
            Enabled::Qresync => drop(client.ok("ENABLE QRESYNC").await),
        }
        let lines = client.ok(&format!("{command} {mailbox}")).await;
        let name = format!("{command} {mailbox} ({enabled:?})");
        let mut watcher = Self { client, name, enabled, messages: Vec::new(), idle: None, heard: Vec::new() };
        for line in &lines {
            watcher.take(line);
        }
        watcher.read().await;
        watcher
    }

    /// FETCHes everything by sequence number.
    async fn read(&mut self) -> Vec<(usize, Message)> {
        if self.messages.is_empty() {
            // No number is valid then.
            return Vec::new();
        }
        let lines = self.client.ok("FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await;
        self.learn(&lines)
    }

    fn learn(&mut self, lines: &[String]) -> Vec<(usize, Message)> {
        for line in &lines[..lines.len() - 1] {
            self.take(line);
        }
        lines.iter().filter_map(|line| fetched(line)).filter(|(_, message)| message.subject.is_some()).collect()
    }

    /// Begins to idle, and waits until the server says that it does.
    pub async fn idle(&mut self) {
        self.heard.clear();
        self.idle = Some(self.client.begin("IDLE").await);
        self.idles().await;
    }

    /// Waits for the continuation request.
    pub async fn idles(&mut self) {
        loop {
            let line = self.line().await;
            if line.starts_with('+') {
                return;
            }
            self.take(&line);
        }
    }

    async fn line(&mut self) -> String {
        let line = self.client.line().await;
        line.unwrap_or_else(|| panic!("{} is closed:\n{}", self.name, self.client.transcript.join("\n")))
    }

    /// Goes on listening until what it believes is the truth, which it does without asking.
    pub async fn hears(&mut self, truth: &[Message]) {
        while !self.believes(truth) {
            let Ok(line) = tokio::time::timeout(PATIENCE / 2, self.line()).await else {
                panic!("{} believes {:#?}\ninstead of {truth:#?}\n{}", self.name, self.messages, self.story());
            };
            self.take(&line);
        }
    }

    fn believes(&self, truth: &[Message]) -> bool {
        let agrees = |known: &Message, real: &Message| {
            known.uid.is_none_or(|uid| Some(uid) == real.uid)
                && known.flags.as_ref().is_none_or(|flags| Some(flags) == real.flags.as_ref())
        };
        self.messages.len() == truth.len() && self.messages.iter().zip(truth).all(|(known, real)| agrees(known, real))
    }

    /// Ends IDLE; then what is FETCHed by sequence number and by UID must be the truth. Returns the kinds of what was said
    /// between the beginning and the end of IDLE.
    pub async fn done(&mut self, truth: &[Message]) -> Vec<String> {
        self.client.send(b"DONE\r\n").await;
        let tag = self.idle.take().expect("it idles");
        let lines = self.client.until(&tag).await;
        let (last, before) = lines.split_last().expect("a tagged line");
        assert!(last.starts_with(&format!("{tag} OK")), "{}: {last}", self.name);
        for line in before {
            self.take(line);
        }
        assert!(self.believes(truth), "{} believes {:?}\ninstead of {truth:?}\n{}", self.name, self.messages, self.story());
        let heard = std::mem::take(&mut self.heard);
        self.compare(truth).await;
        heard
    }

    /// What it FETCHes is the truth.
    pub async fn compare(&mut self, truth: &[Message]) {
        let expected: Vec<(usize, Message)> = truth.iter().cloned().enumerate().map(|(at, one)| (at + 1, one)).collect();
        let by_number = self.read().await;
        assert_eq!(by_number, expected, "{}: FETCH by number\n{}", self.name, self.story());
        let lines = self.client.ok("UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await;
        assert_eq!(self.learn(&lines), expected, "{}: UID FETCH\n{}", self.name, self.story());
        if let Some((number, one)) = expected.last() {
            let lines = self.client.ok(&format!("FETCH {number} (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")).await;
            assert_eq!(self.learn(&lines), [(*number, one.clone())], "{}: FETCH of one\n{}", self.name, self.story());
        }
    }

    /// `DONE` and the next `IDLE` in one packet.
    pub async fn renew(&mut self) {
        let tag = self.idle.take().expect("it idles");
        let next = format!("r{}", self.client.transcript.len());
        self.client.send(format!("DONE\r\n{next} IDLE\r\n").as_bytes()).await;
        for line in self.client.until(&tag).await {
            self.take(&line);
        }
        self.idle = Some(next);
        self.idles().await;
    }

    /// Ends IDLE, reads everything by sequence number while changes go on, and idles again.
    pub async fn pause(&mut self) {
        let tag = self.idle.take().expect("it idles");
        self.client.send(b"DONE\r\n").await;
        for line in self.client.until(&tag).await {
            self.take(&line);
        }
        self.read().await;
        self.idle().await;
    }

    /// Everything that comes until the connection is closed; the last line must be a `BYE`.
    pub async fn is_dismissed(&mut self) -> String {
        let mut last = String::new();
        while let Some(line) = self.client.line().await {
            last = line;
        }
        assert!(last.starts_with("* BYE "), "{}: {last}\n{}", self.name, self.story());
        last
    }

    pub fn story(&self) -> String {
        self.client.transcript.join("\n")
    }

    /// Takes an untagged response in, as the protocol has it.
    fn take(&mut self, line: &str) {
        let idles = self.idle.is_some();
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let story = || format!("{}: {line}\n{}", self.name, self.client.transcript.join("\n"));
        let number = words.get(1).and_then(|word| word.parse::<usize>().ok());
        let kind = match (number, &words[..]) {
            (Some(count), [_, _, "EXISTS"]) => {
                assert!(count >= self.messages.len(), "EXISTS shrinks: {}", story());
                self.messages.resize(count, Message { uid: None, flags: None, subject: None });
                "EXISTS"
            }
            (Some(seq), [_, _, "EXPUNGE"]) => {
                assert!((1..=self.messages.len()).contains(&seq), "{}", story());
                assert_ne!(self.enabled, Enabled::Qresync, "{}", story());
                self.messages.remove(seq - 1);
                "EXPUNGE"
            }
            (Some(seq), [_, _, "FETCH", _]) => {
                let (_, told) = fetched(line).expect("a FETCH response");
                let has = |what: &str| line.contains(what);
                if idles {
                    assert_eq!(has("MODSEQ ("), self.enabled != Enabled::Nothing, "{}", story());
                    assert_eq!(has("UID "), self.enabled == Enabled::Qresync, "{}", story());
                }
                assert!((1..=self.messages.len()).contains(&seq), "{}", story());
                let known = &mut self.messages[seq - 1];
                assert!(known.uid.is_none() || told.uid.is_none() || known.uid == told.uid, "another message: {line}");
                known.uid = known.uid.or(told.uid);
                known.flags = told.flags.or(known.flags.take());
                "FETCH"
            }
            (None, ["*", "VANISHED", set]) => {
                assert_eq!(self.enabled, Enabled::Qresync, "{}", story());
                for uid in uids(set) {
                    let at = place(&self.messages, uid).unwrap_or_else(|| panic!("{uid} was never there: {}", story()));
                    self.messages.remove(at);
                }
                "VANISHED"
            }
            (None, ["*", "FLAGS", ..]) => "FLAGS",
            (None, ["*", "OK", "[PERMANENTFLAGS", _]) => "PERMANENTFLAGS",
            (_, [_, _, "RECENT"]) | (None, ["*", "OK", ..] | ["*", "ESEARCH" | "CAPABILITY", ..]) => return,
            (None, [tag, ..]) if *tag != "*" => return,
            _ => panic!("what is this? {}", story()),
        };
        if idles {
            self.heard.push(kind.to_owned());
        }
    }
}
