//! Everything around the session: the pipes, the cluster, the clock, and who lets things go wrong.

mod cluster;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::cluster::flag_change;
use super::super::*;
use super::chance::Chance;
use super::client::{Client, Doing};
use super::server::{Connection, Offers};
use super::steps::{Fate, News, Profile, Step, Words};
use super::store::{Marks, Store};
use crate::mail::event::NewMessage;
use crate::mail::path::PRIVATE;
use crate::mail::rights::Rights;

/// No run needs as many rounds to fall silent.
const ROUNDS: usize = 10_000;
/// So long the gateway waits for a server.
pub const CATCH_UP: Duration = Duration::from_secs(10);

pub struct World {
    pub session: Session,
    pub now: Instant,
    pub store: Store,
    pub client: Client,
    offers: Offers,
    connection: Option<Connection>,
    /// The gateway has been told to connect.
    connecting: bool,
    /// So many attempts to connect fail.
    failures: usize,
    to_session: Vec<u8>,
    to_server: Vec<u8>,
    queue: VecDeque<Event>,
    /// The mailbox that is registered, and how far.
    watched: Option<(MailboxPath, Option<Registration>)>,
    /// The registration was settled already.
    settled: bool,
    healthy: bool,
    /// Something was lost that no settling makes good.
    resync_due: bool,
    /// At the beginning.
    lag: Duration,
    /// The session must ask for the user's rights.
    asks: bool,
    /// What the cluster knows of them: only then events are delivered.
    granted: bool,
    /// Some were not.
    withheld: bool,
    /// SETACLs that the client sent, and that the cluster heard of.
    acl_changes: [usize; 2],
    /// A connection has broken.
    broken: bool,
    pub ended: Option<&'static str>,
    name: &'static str,
    chance: Chance,
    unpumped: Duration,
    quiet_log: bool,
}

impl World {
    pub fn new(profile: &Profile) -> Self {
        let now = Instant::now();
        let reentry = if profile.reentry { Reentry::MasterUser(Credentials::new("gw", "gwpw")) } else { Reentry::Never };
        let park_after = profile.parks.then_some(Duration::from_secs(30));
        let asks_rights = if profile.asks { vec![PRIVATE] } else { Vec::new() };
        let rules = Rules { reentry, park_after, asks_rights, idle_timeout: Duration::from_secs(24 * 3600), ..rules() };
        let setting = Setting { tls: true, starttls: false, plaintext_auth: false, seed: profile.seed };
        let mut world = Self {
            session: Session::new(Arc::new(rules), setting, now),
            now,
            store: Store::new(now, 8),
            client: Client::new(),
            offers: profile.offers,
            connection: Some(Connection::new(profile.offers)),
            connecting: false,
            failures: 0,
            to_session: Vec::new(),
            to_server: Vec::new(),
            queue: VecDeque::new(),
            watched: None,
            settled: false,
            healthy: true,
            resync_due: false,
            lag: profile.lag,
            asks: profile.asks,
            granted: !profile.asks,
            withheld: false,
            acl_changes: [0, 0],
            broken: false,
            ended: None,
            name: if profile.shared { "shared/alice@example.org/Team" } else { "Team" },
            chance: Chance::new(profile.seed),
            unpumped: Duration::ZERO,
            quiet_log: std::env::var_os("MODEL_TRANSCRIPT").is_none(),
        };
        world.store.lag = profile.lag;
        world.begin(profile);
        world
    }

    /// Logs in, enables, selects, and learns what there is.
    fn begin(&mut self, profile: &Profile) {
        let user = if profile.shared { "bob" } else { "alice" };
        self.client.send(&format!("LOGIN {user} pw"), Doing::Setup);
        self.quiet();
        if profile.offers.condstore && profile.condstore {
            let what = if profile.qresync { "QRESYNC" } else { "CONDSTORE" };
            (self.client.condstore, self.client.qresync) = (true, profile.qresync);
            self.client.send(&format!("ENABLE {what}"), Doing::Setup);
        }
        let select = if profile.examine { "EXAMINE" } else { "SELECT" };
        self.client.send(&format!("{select} {}", self.name), Doing::Select);
        self.quiet();
        self.client.send("FETCH 1:* (UID FLAGS)", Doing::Closed { certain: true });
        self.quiet();
    }

    fn log(&self, who: &str, what: &[u8]) {
        if !self.quiet_log && !what.is_empty() {
            eprintln!("{who} {:?}", String::from_utf8_lossy(what));
        }
    }

    pub fn note(&self, what: &impl std::fmt::Debug) {
        if !self.quiet_log {
            eprintln!("-- {what:?}");
        }
    }

    /// Takes away what the session wants written and done.
    ///
    /// Returns whether the server has said that the user may read.
    fn after(&mut self) -> bool {
        let heard = std::mem::take(&mut self.session.out.to_client);
        let mut permitted = false;
        self.log("  C <", &heard);
        self.client.levelled = false;
        self.client.hear(&heard);
        let asked = std::mem::take(&mut self.session.out.to_upstream);
        self.log("    > S", &asked);
        self.to_server.extend_from_slice(&asked);
        if self.client.levelled {
            self.assert_level();
        }
        while let Some(action) = self.session.poll_action() {
            self.note(&action);
            match action {
                Action::StartTls => panic!("TLS is in use"),
                Action::Authenticated { user } => {
                    let user = UserName::new(format!("{}@example.org", user.expect("LOGIN says it"))).expect("a name");
                    self.session.handle(self.now, Input::Admission(Ok(Some(user))));
                    self.to_server.append(&mut self.session.out.to_upstream);
                }
                Action::Watch(path) => {
                    assert_eq!(path.to_string(), TEAM);
                    assert!(self.watched.is_none(), "watched twice");
                    (self.watched, self.settled) = (Some((path, None)), false);
                    (self.granted, self.withheld) = (!self.asks, false);
                }
                Action::Unwatch(path) => {
                    assert_eq!(self.watched.take().map(|(path, _)| path), Some(path));
                    // What flags were before the next snapshot nobody can tell from what they are
                    // after it.
                    self.queue.retain(|event| flag_change(event).is_none_or(|change| change.flags.is_none()));
                }
                Action::CloseUpstream => {
                    self.flush_to_server();
                    self.hang_up();
                }
                Action::OpenUpstream { urgent } => {
                    // What is on its way, or there already, is only made urgent.
                    assert!(urgent || self.connection.is_none() && !self.connecting, "connected twice");
                    self.connecting |= self.connection.is_none();
                }
                Action::Withheld(_) => panic!("whoever knows of rights has answered"),
                Action::Rights { mailbox, rights } => {
                    assert_eq!(mailbox.to_string(), TEAM);
                    assert!(self.asks, "nobody asked");
                    self.granted = rights.is_some_and(|rights| rights.contains(Rights::READ));
                    permitted |= self.granted;
                    assert!(!self.granted || self.watched.is_some(), "rights on what is not watched");
                }
                Action::AclChanged { mailbox, identifier, rights } => {
                    assert_eq!(
                        (mailbox.to_string().as_str(), identifier.as_str(), rights.as_str()),
                        (TEAM, "carol@example.org", "lr")
                    );
                    self.acl_changes[1] += 1;
                }
                Action::AclNotUnderstood => panic!("a change of an ACL is lost"),
                Action::Close { reason } => {
                    assert!(reason != "revoked" || self.store.denied, "the user may read");
                    assert!(reason != "upstream_closed" || self.broken || self.client.is_leaving(), "nothing is broken");
                    self.ended = Some(reason);
                }
            }
        }
        if self.granted && std::mem::take(&mut self.withheld) && self.ended.is_none() {
            self.resync();
        }
        permitted
    }

    /// I-11: the client's numbers mean what the server's mean.
    fn assert_level(&self) {
        let connection = self.connection.as_ref().expect("IDLE ends with a connection");
        let view = connection.view.as_ref().expect("and with a mailbox");
        let slots = &self.client.slots;
        assert!(slots.len() <= view.len(), "the client knows {} and the server {}", slots.len(), view.len());
        let on_its_way = slots.len() == view.len() || !self.to_session.is_empty() || !connection.out.is_empty();
        assert!(on_its_way, "the client was not told of all: {} of {}", slots.len(), view.len());
        for (at, (slot, held)) in slots.iter().zip(view).enumerate() {
            assert!(slot.uid.is_none_or(|uid| uid == held.uid), "number {}: {slot:?} and {held:?}", at + 1);
        }
    }

    fn hang_up(&mut self) {
        (self.connection, self.connecting) = (None, false);
        self.to_session.clear();
        self.to_server.clear();
    }

    fn flush_to_server(&mut self) {
        let bytes = std::mem::take(&mut self.to_server);
        if let Some(connection) = &mut self.connection {
            connection.receive(&bytes, &mut self.store, self.now, &mut self.chance);
            self.to_session.append(&mut std::mem::take(&mut connection.out).into_bytes());
        }
    }

    /// Moves at most so many bytes from the client to the session; whether there was anything.
    fn pump_client(&mut self, most: usize) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let most = most.min(self.client.out.len());
        if most == 0 || !self.session.wants_client() {
            return false;
        }
        let bytes: String = self.client.out.drain(..most).collect();
        self.log("C >", bytes.as_bytes());
        self.session.handle(self.now, Input::Client(bytes.as_bytes()));
        self.after();
        true
    }

    fn pump_to_server(&mut self, most: usize) -> bool {
        if self.connecting {
            // Losses are noticed before a new connection hides them.
            if self.resync_due {
                self.resync();
            }
            self.connecting = false;
            if self.failures > 0 {
                self.failures -= 1;
                self.session.handle(self.now, Input::UpstreamFailed);
            } else {
                self.connection = Some(Connection::new(self.offers));
            }
            self.after();
            return true;
        }
        let most = most.min(self.to_server.len());
        let bytes: Vec<u8> = self.to_server.drain(..most).collect();
        if String::from_utf8_lossy(&bytes).contains("mailpush") && self.chance.of(2) {
            // An event can be quicker than an answer, or the answer overtakes it.
            self.deliver_all();
        }
        let Some(connection) = &mut self.connection else { return most > 0 };
        connection.receive(&bytes, &mut self.store, self.now, &mut self.chance);
        let moved = most > 0 || !connection.out.is_empty();
        self.to_session.append(&mut std::mem::take(&mut connection.out).into_bytes());
        moved
    }

    fn pump_to_session(&mut self, most: usize) -> bool {
        let most = most.min(self.to_session.len());
        let bytes: Vec<u8> = self.to_session.drain(..most).collect();
        if most > 0 && self.ended.is_none() {
            self.log("    S >", &bytes);
            let speaks = speaks_and_asks_rights(&self.session);
            self.session.handle(self.now, Input::Upstream(&bytes));
            let told = String::from_utf8_lossy(&self.session.out.to_client).into_owned();
            let permitted = self.after();
            let tells = ["EXISTS", "EXPUNGE", "FETCH", "VANISHED", "FLAGS"].iter().any(|word| told.contains(word));
            assert!(!speaks || permitted || !tells, "told before the rights are known: {told:?}");
        }
        let closed = self.to_session.is_empty() && self.connection.as_ref().is_some_and(|c| c.closed && c.out.is_empty());
        if closed && self.ended.is_none() {
            self.hang_up();
            self.session.handle(self.now, Input::UpstreamClosed);
            self.after();
            return true;
        }
        most > 0
    }

    fn quiet(&mut self) {
        for _ in 0..ROUNDS {
            let most = if self.chance.of(3) { 1 + self.chance.below(40) } else { usize::MAX };
            let moved = [self.pump_client(most), self.pump_to_server(most), self.pump_to_session(most)];
            if !moved.contains(&true) {
                self.unpumped = Duration::ZERO;
                return;
            }
        }
        panic!("it does not fall silent");
    }

    /// Lets time pass; what is due is done. `pumped`: and all bytes arrive meanwhile.
    fn pass(&mut self, span: Duration, pumped: bool) {
        let until = self.now + span;
        for _ in 0..ROUNDS {
            if pumped {
                self.quiet();
            }
            if self.ended.is_some() {
                return;
            }
            let Some(due) = self.session.poll_timeout().filter(|due| *due <= until) else {
                self.now = until;
                if pumped {
                    self.quiet();
                }
                return;
            };
            self.now = self.now.max(due);
            self.session.handle(self.now, Input::Timeout);
            self.after();
        }
        panic!("the clock stands still: {:?} is due at {:?}", self.session.poll_timeout(), self.now);
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Change { news, fate, status } => self.change(news, *fate, *status),
            Step::Deliver(at) => self.deliver(*at),
            Step::Pump { pipe, bytes } => {
                match pipe % 3 {
                    0 => self.pump_client(*bytes),
                    1 => self.pump_to_server(*bytes),
                    _ => self.pump_to_session(*bytes),
                };
            }
            Step::Quiet => self.quiet(),
            Step::Wait(ms) => {
                self.unpumped += Duration::from_millis(*ms);
                let pumped = self.unpumped > Duration::from_secs(1);
                self.pass(Duration::from_millis(*ms), pumped);
            }
            Step::Sleep(seconds) => self.pass(Duration::from_secs(*seconds), true),
            Step::Health(healthy) => {
                self.healthy = *healthy;
                self.session.handle(self.now, Input::Health(*healthy));
                self.after();
            }
            Step::Stand(standing) => self.stand(*standing),
            Step::Resync => self.resync(),
            Step::Break { failures } => self.hang_up_on_the_session(*failures),
            Step::Unasked => self.speak_unasked(),
            Step::Check => self.check_rights(),
            Step::NoAnswer(times) => self.store.silent = *times,
            Step::Deny => self.store.denied = true,
            Step::Say(words) => self.say(*words),
        }
    }

    fn hang_up_on_the_session(&mut self, failures: usize) {
        // While nothing but IDLE goes on there is a way back; else, now and then.
        if !self.client.only_idles() && !self.chance.of(16) {
            return;
        }
        self.broken = true;
        self.failures = failures;
        if self.connection.is_some() {
            self.hang_up();
            self.session.handle(self.now, Input::UpstreamClosed);
            self.after();
        }
    }

    /// Between commands a server may tell what is new, but not what is gone (RFC 9051 5.3).
    fn speak_unasked(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if connection.is_idling() || (connection.is_between() && self.to_server.is_empty()) {
            let expunge = connection.is_idling();
            connection.sync(&self.store.shown(self.now), expunge, &mut self.chance);
            self.to_session.append(&mut std::mem::take(&mut connection.out).into_bytes());
        }
    }

    fn say(&mut self, words: Words) {
        let count = self.client.slots.len();
        let certain = self.client.sent.is_empty();
        if self.client.idles() {
            match words {
                Words::Done => return self.client.done("DONE"),
                Words::Nonsense => return self.client.done("x NOOP"),
                _ => self.client.done("done"),
            }
        }
        if !self.client.can_command() {
            return;
        }
        let numbered = |n: usize| (count > 0).then(|| 1 + n % count.max(1));
        match words {
            Words::Idle => self.client.send("IDLE", Doing::Idle { told: false, done: false, bad: false }),
            Words::Noop => self.client.send("NOOP", Doing::Open),
            Words::UidFetch => self.client.send("UID FETCH 1:* (FLAGS)", Doing::Open),
            Words::Fetch(n) => {
                if let Some(n) = numbered(n) {
                    self.client.send(&format!("FETCH {n} (UID FLAGS)"), Doing::Closed { certain });
                }
            }
            Words::Body(n) => {
                if let Some(n) = numbered(n) {
                    self.client.send(&format!("FETCH {n} (UID BODY[])"), Doing::Closed { certain });
                }
            }
            Words::Store(n) => {
                if let Some(n) = numbered(n) {
                    self.client.send(&format!("STORE {n} +FLAGS (\\Deleted)"), Doing::Closed { certain });
                }
            }
            Words::Append { at_once } => self.client.append(self.name, at_once),
            Words::Select => {
                self.client.send(&format!("SELECT {}", self.name), Doing::Select);
            }
            Words::SetAcl => {
                self.acl_changes[0] += 1;
                self.client.send(&format!("SETACL {} carol lr", self.name), Doing::Open);
            }
            Words::Done | Words::Nonsense => {}
        }
    }
}
