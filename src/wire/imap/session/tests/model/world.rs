//! Everything around the session: the pipes, the cluster, the clock, and who lets things go wrong.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::*;
use super::chance::Chance;
use super::client::{Client, Doing};
use super::server::{Connection, Offers};
use super::steps::{Fate, News, Profile, Step, Words};
use super::store::{Marks, Store};
use crate::mail::event::NewMessage;

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
    watched: Option<(MailboxPath, Option<Standing>)>,
    /// The registration was settled already.
    settled: bool,
    healthy: bool,
    /// Something was lost that no settling makes good.
    resync_due: bool,
    /// At the beginning.
    lag: Duration,
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
        let rules = Rules { reentry, park_after, idle_timeout: Duration::from_secs(24 * 3600), ..rules() };
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
    fn after(&mut self) {
        let heard = std::mem::take(&mut self.session.to_client);
        self.log("  C <", &heard);
        self.client.levelled = false;
        self.client.hear(&heard);
        let asked = std::mem::take(&mut self.session.to_upstream);
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
                    self.session.admit(self.now, Ok(Some(user)));
                    self.to_server.append(&mut self.session.to_upstream);
                }
                Action::Watch(path) => {
                    assert_eq!(path.to_string(), TEAM);
                    assert!(self.watched.is_none(), "watched twice");
                    (self.watched, self.settled) = (Some((path, None)), false);
                }
                Action::Unwatch(path) => {
                    assert_eq!(self.watched.take().map(|(path, _)| path), Some(path));
                    // What flags were before the next snapshot nobody can tell from what they are after it.
                    self.queue.retain(|event| flag_change(event).is_none_or(|change| change.flags.is_none()));
                }
                Action::CloseUpstream => {
                    self.flush_to_server();
                    self.hang_up();
                }
                Action::OpenUpstream => {
                    assert!(self.connection.is_none() && !self.connecting, "connected twice");
                    self.connecting = true;
                }
                Action::Close { reason } => {
                    assert!(reason != "upstream_closed" || self.broken || self.client.is_leaving(), "nothing is broken");
                    self.ended = Some(reason);
                }
            }
        }
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
        self.session.handle_client(self.now, bytes.as_bytes());
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
                self.session.handle_upstream_failed(self.now);
            } else {
                self.connection = Some(Connection::new(self.offers));
            }
            self.after();
            return true;
        }
        let most = most.min(self.to_server.len());
        let bytes: Vec<u8> = self.to_server.drain(..most).collect();
        if String::from_utf8_lossy(&bytes).contains("mailpush") {
            // An event is quicker than an answer; what the server shows in a new view it does not tell.
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
            self.session.handle_upstream(self.now, &bytes);
            self.after();
        }
        let closed = self.to_session.is_empty() && self.connection.as_ref().is_some_and(|c| c.closed && c.out.is_empty());
        if closed && self.ended.is_none() {
            self.hang_up();
            self.session.handle_upstream_closed(self.now);
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
                return if pumped { self.quiet() } else { () };
            };
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
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
                self.session.handle_health(self.now, *healthy);
                self.after();
            }
            Step::Stand(standing) => self.stand(*standing),
            Step::Resync => self.resync(),
            Step::Break { failures } => self.hang_up_on_the_session(*failures),
            Step::Unasked => self.speak_unasked(),
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
            self.session.handle_upstream_closed(self.now);
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
            Words::Done | Words::Nonsense => {}
        }
    }

    fn stand(&mut self, standing: Standing) {
        let Some((path, stands)) = &mut self.watched else { return };
        let path = path.clone();
        match (*stands, standing) {
            (Some(Standing::Settled), Standing::Registered) => return,
            (_, Standing::Settled) => {
                *stands = Some(standing);
                // What had been looked up before has come by now, and is older than what was looked up since.
                self.deliver_all();
                self.settled = true;
            }
            _ => *stands = Some(standing),
        }
        self.note(&standing);
        self.session.handle_standing(self.now, &path, standing);
        self.after();
    }

    fn resync(&mut self) {
        self.resync_due = false;
        self.note(&"resync");
        self.session.handle_resync(self.now);
        self.after();
    }

    fn deliver_all(&mut self) {
        while !self.queue.is_empty() {
            self.deliver(0);
        }
    }

    /// Delivers an event that others may have been before, as far as it can overtake them.
    fn deliver(&mut self, at: usize) {
        let at = at.min(self.queue.len().saturating_sub(1));
        let Some(event) = self.queue.get(at) else { return };
        let at = (0..at).find(|before| depends(&self.queue[*before], event)).unwrap_or(at);
        let Some(event) = self.queue.remove(at) else { return };
        if self.watched.is_some() && self.ended.is_none() {
            self.note(&event.change);
            self.session.handle_event(self.now, &event);
            self.after();
        }
    }

    fn change(&mut self, news: &News, fate: Fate, status: bool) {
        let Some(change) = self.happen(news) else { return };
        let mailbox = self.store.latest();
        let status = status.then(|| Status {
            messages: u32::try_from(mailbox.messages.len()).ok(),
            uidnext: Some(mailbox.uidnext),
            unseen: None,
            highestmodseq: Some(ModSeq(mailbox.modseq)),
        });
        let event = Event {
            id: EventId::now(),
            mailbox: TEAM.parse().expect("a path"),
            uidvalidity: UidValidity::new(9),
            status,
            change,
            ..sample()
        };
        if self.watched.is_none() {
            return;
        }
        match fate {
            Fate::Lost => {
                // Within the settle window a lookup may be stale; later the node is told that it missed something.
                if self.settled {
                    self.resync_due = true;
                    self.queue.clear();
                }
            }
            Fate::Twice => self.queue.extend([event.clone(), event]),
            Fate::Once => self.queue.push_back(event),
            Fate::Now => {
                self.queue.push_back(event);
                self.deliver_all();
            }
        }
    }

    /// Changes the mailbox; what is said of it.
    fn happen(&mut self, news: &News) -> Option<Change> {
        let now = self.now;
        let held: Vec<u32> = self.store.latest().messages.keys().copied().collect();
        let picked = |at: usize| held.get(at % held.len().max(1)).copied();
        let uid = |uid: u32| Uid::new(uid).expect("not 0");
        Some(match news {
            News::Append(count) => {
                let uids: Vec<u32> = self.store.change(now, |mailbox| (0..*count).map(|_| mailbox.append()).collect());
                Change::MessageAppend { messages: uids.into_iter().map(|n| NewMessage::new(uid(n))).collect() }
            }
            News::Expunge { at, count } => {
                let gone: Vec<u32> =
                    (*at..*at + *count).filter_map(picked).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
                self.store.change(now, |mailbox| {
                    mailbox.modseq += 1;
                    gone.iter().for_each(|uid| drop(mailbox.messages.remove(uid)));
                });
                (!gone.is_empty()).then(|| Change::MessageExpunge { uids: gone.into_iter().map(uid).collect(), modseq: None })?
            }
            News::Flag { at, flags, set, whole, modseq } => {
                let of = picked(*at)?;
                let names = ["\\Seen", "\\Flagged", "$a", "$b"];
                let flags: Marks = (0..4).filter(|bit| flags >> bit & 1 == 1).map(|bit| names[bit].to_owned()).collect();
                self.store.change(now, |mailbox| mailbox.flag(of, &flags, *set));
                let after = self.store.latest().messages.get(&of)?.clone();
                let sift = |flags: &Marks| Flags::sift(flags.iter().map(String::as_str)).0;
                let change = FlagChange {
                    uid: uid(of),
                    changed: sift(&flags),
                    flags: whole.then(|| sift(&after.flags)),
                    modseq: modseq.then_some(ModSeq(after.modseq)),
                };
                if *set { Change::FlagsSet { messages: vec![change] } } else { Change::FlagsClear { messages: vec![change] } }
            }
            News::Vague => Change::MailboxChange,
        })
    }

    /// Everything is told, and everything works.
    pub fn calm_down(&mut self) {
        (self.failures, self.store.lag) = (0, Duration::ZERO);
        if !self.healthy {
            self.step(&Step::Health(true));
        }
        self.quiet();
        for _ in 0..12 {
            if self.ended.is_none() && !self.client.idles() && self.client.can_command() {
                self.say(Words::Idle);
            }
            self.quiet();
            if self.watched.as_ref().is_some_and(|(_, stands)| *stands != Some(Standing::Settled)) {
                self.stand(Standing::Settled);
            }
            self.deliver_all();
            if self.resync_due {
                self.resync();
            }
            self.quiet();
            self.speak_unasked();
            self.pass(Duration::from_secs(25), true);
            if self.ended.is_some() || self.is_at_peace() {
                break;
            }
        }
        if !self.lag.is_zero() {
            // What the server did not know when it was asked is noticed when it is asked next.
            self.pass(Duration::from_secs(700), true);
        }
    }

    fn is_at_peace(&self) -> bool {
        let settled = self.watched.as_ref().is_some_and(|(_, stands)| *stands == Some(Standing::Settled));
        self.client.only_idles() && settled && self.queue.is_empty() && !self.resync_due
    }

    /// What the client believes is what is.
    pub fn assert_agreement(&self) {
        let truth = self.store.latest();
        assert_eq!(self.client.slots.len(), truth.messages.len(), "how many there are: {:?}", self.client.slots);
        for (slot, (uid, message)) in self.client.slots.iter().zip(&truth.messages) {
            assert!(slot.uid.is_none_or(|known| known == *uid), "{slot:?} is {uid}");
            // Longer than the gateway waits for a server, nobody can tell what it will still show.
            let is_told = slot.flags.as_ref().is_none_or(|flags| *flags == message.flags) || self.lag > CATCH_UP;
            assert!(is_told, "{slot:?} has {message:?}");
        }
    }

    /// The client leaves IDLE and looks at everything.
    pub fn look_and_leave(&mut self) {
        self.say(Words::Noop);
        self.pass(Duration::from_secs(25), true);
        if self.ended.is_some() {
            return;
        }
        self.assert_agreement();
        if !self.client.slots.is_empty() {
            self.client.send("FETCH 1:* (UID FLAGS)", Doing::Closed { certain: true });
            self.quiet();
            self.assert_agreement();
            assert!(self.client.slots.iter().all(|slot| slot.uid.is_some() && slot.flags.is_some()));
        }
        self.client.send("LOGOUT", Doing::Setup);
        self.quiet();
        assert!(self.ended.is_some(), "it ends with LOGOUT");
        self.client.over = None;
    }
}

/// Whether the order of two events matters: without a modification sequence on both, nobody can tell which flags are newer.
fn depends(one: &Event, other: &Event) -> bool {
    let (Some(one), Some(other)) = (flag_change(one), flag_change(other)) else { return false };
    let is_dated = |change: &FlagChange| change.flags.is_some() && change.modseq.is_some();
    let are_deltas = one.flags.is_none() && other.flags.is_none();
    one.uid == other.uid && !are_deltas && !(is_dated(one) && is_dated(other))
}

fn flag_change(event: &Event) -> Option<&FlagChange> {
    match &event.change {
        Change::FlagsSet { messages } | Change::FlagsClear { messages } => messages.first(),
        _ => None,
    }
}
