//! IDLE (RFC 2177) by the gateway: the client hears what came out of the queue, in the numbers that it knows.
//!
//! Registered first, then the snapshot is read (I-4), then the client is told that it idles. From then on events drive the
//! [`View`]. Wherever it must be certain that the client and the server mean the same messages by the same numbers, the two
//! are made *level* (`level.rs`). While the cluster is not healthy the server's own IDLE takes over (`handover.rs`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use super::questions::{News, Question, Questions};
use super::relay::{Refused, answer, is_bare_idle};
use super::rights::Heeded;
use super::{Action, Hold, Session, Standing};
use crate::mail::event::{Change, Event};
use crate::mail::flags::Flags;
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid};
use crate::mail::view::{Applied, End, Tell, Then, View, Why as Reason, is_inbox_emptied};
use crate::wire::imap::command::{Head, Name};
use crate::wire::imap::framing::Piece;
use crate::wire::imap::numbers::{Listing, Numbers};
use crate::wire::imap::write::{self, Changed};

/// Events that wait while the server is asked; more than that, and it is asked again instead.
const WAITING: usize = 256;
/// Origins may interleave: a count that disagrees is looked at again after this long.
pub(super) const CHECK_HOLD: Duration = Duration::from_millis(200);
/// Flag sets told lately, so that the server's own word for them is not told again.
const TOLD_FLAGS: usize = 32;
/// A mailbox in which something appears all the time is asked for its UIDs at most so often before IDLE is left to the
/// server.
const SNAPSHOTS: u8 = 10;

/// Why the client and the server are made level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Something may have been missed, or is not known exactly.
    Refresh,
    /// The client ends IDLE.
    Done,
    /// The server's own IDLE takes over.
    Handover,
}

/// What the questions on their way are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Capability,
    Namespace,
    Rights,
    Snapshot,
    Level(Why),
    Greeting(Why),
    Login(Why),
    /// The server's own IDLE.
    Idle,
    Poll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// On the way to the snapshot.
    Preparing,
    /// The registration is awaited.
    Registering,
    /// The view speaks for the mailbox; without one, nothing is selected.
    Idling,
    /// The server idles itself.
    Upstream { running: bool, leaving: bool },
    /// The server has no IDLE of its own and is asked now and then.
    Polling,
}

/// The client's wish to end IDLE.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// What it said was not DONE.
    pub bad: bool,
    pub since: Instant,
}

/// What kept both sides from being level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// The server is known to lag: only a new SELECT shows how far it has come.
    Lags,
    /// Its list of UIDs does not fit its own count, which a new SELECT gives anew; or it has given none.
    NoList { selects: bool },
    /// It could not be reached, asked, or believed yet.
    Other,
}

impl Hindrance {
    pub fn wants_select(self) -> bool {
        matches!(self, Self::Lags | Self::NoList { selects: true })
    }
}

/// The two sides could not be made level: the server is asked again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub why: Why,
    pub attempt: u32,
    pub since: Instant,
    pub hindrance: Hindrance,
    /// Since when the server has told no list of UIDs that could be used.
    pub listless_since: Option<Instant>,
    /// `None` while it is being asked.
    pub due: Option<Instant>,
}

/// A client that idles.
#[derive(Debug)]
pub(super) struct Idle {
    tag: Box<[u8]>,
    pub told: bool,
    pub ending: Option<Ending>,
    pub stage: Stage,
    pub purpose: Option<Purpose>,
    pub path: Option<MailboxPath>,
    pub standing: Option<Standing>,
    /// The registration has been settled at some time.
    pub settled: bool,
    pub view: Option<View>,
    /// What the server's sequence numbers mean, while a connection stands.
    pub numbers: Numbers,
    /// The highest UIDNEXT that the server has shown.
    pub server_uidnext: u32,
    /// Up to here the server has told everything on this connection; the client has not been told so.
    pub highestmodseq: Option<ModSeq>,
    pub waiting: Vec<Event>,
    /// Messages whose flags are to be asked for.
    pub ask: RoaringBitmap,
    /// Those that were asked for: a server that lags may have told old ones.
    pub asked: RoaringBitmap,
    /// To be made level again as soon as the server has answered.
    pub again: bool,
    /// Events may have been missed since both sides were level. A connection that stands tells of flags by itself.
    pub in_doubt: bool,
    /// A server that lags may show until then what was in doubt.
    pub doubted_until: Option<Instant>,
    /// Changes of flags may have been missed that the server will not tell by itself.
    pub flags_lost: bool,
    /// The mailbox has another name now: the server must be told so before anything is asked of it.
    pub renamed: bool,
    /// While IDLE is the server's own: rights are to be asked for at the next opportunity.
    pub rights_due: bool,
    /// Rights that are being told are doubted already: asked for again.
    pub rights_doubted: bool,
    pub retry: Option<Retry>,
    /// Lines that wait until it is known that the user may read.
    pub untold: Vec<u8>,
    /// Lines that wait until the client has been told that it idles.
    pub before: Vec<u8>,
    pub told_flags: Vec<(u32, u64)>,
    /// How often in a row the server did not know of a change of flags yet.
    pub unanswered: u8,
    snapshots: u8,
    pub register_due: Option<Instant>,
    pub check_due: Option<Instant>,
    pub keepalive_due: Instant,
    pub autologout_due: Instant,
    pub audit_due: Instant,
    pub park_due: Option<Instant>,
    pub poll_due: Option<Instant>,
    /// IDLE is the server's because it did not answer as it must: when it is asked again.
    pub come_back_due: Option<Instant>,
}

impl Idle {
    pub fn is_told(&self) -> bool {
        self.told
    }

    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    pub fn watched(self) -> Option<MailboxPath> {
        self.path
    }

    /// Looks again at what is in doubt, at this moment at the latest.
    fn check_by(&mut self, due: Instant) {
        self.check_due = Some(self.check_due.map_or(due, |before| before.min(due)));
    }

    /// Whether this is what the client was told of the message last; notes it.
    fn is_told_again(&mut self, uid: u32, flags: &Flags) -> bool {
        let mut hasher = DefaultHasher::new();
        for flag in flags.iter() {
            flag.as_str().to_ascii_lowercase().hash(&mut hasher);
        }
        let mark = (uid, hasher.finish());
        if self.told_flags.contains(&mark) {
            return true;
        }
        self.told_flags.retain(|(told, _)| *told != uid);
        if self.told_flags.len() == TOLD_FLAGS {
            self.told_flags.remove(0);
        }
        self.told_flags.push(mark);
        false
    }
}

impl Session {
    pub(super) fn begin_idle(&mut self, now: Instant, tag: Box<[u8]>) {
        self.idle = Some(Box::new(Idle {
            tag,
            told: false,
            ending: None,
            stage: Stage::Preparing,
            purpose: None,
            path: None,
            standing: None,
            settled: false,
            view: None,
            numbers: Numbers::default(),
            server_uidnext: 0,
            highestmodseq: None,
            waiting: Vec::new(),
            ask: RoaringBitmap::new(),
            asked: RoaringBitmap::new(),
            again: false,
            in_doubt: true,
            doubted_until: None,
            flags_lost: false,
            renamed: false,
            rights_due: false,
            rights_doubted: false,
            retry: None,
            untold: Vec::new(),
            before: Vec::new(),
            told_flags: Vec::new(),
            unanswered: 0,
            snapshots: 0,
            register_due: None,
            check_due: None,
            keepalive_due: now + self.jittered(self.rules.keepalive),
            autologout_due: now + self.rules.idle_timeout,
            audit_due: now + self.jittered(self.rules.audit),
            park_due: None,
            poll_due: None,
            come_back_due: None,
        }));
        if self.facts.selected.is_some() {
            self.prepare(now);
        } else if let Some(idle) = &mut self.idle {
            // Valid, and silent.
            idle.stage = Stage::Idling;
            self.tell_idling();
        }
    }

    /// Whether IDLE is the server's own business for now.
    pub(super) fn is_servers_business(&self, now: Instant) -> bool {
        let lost = self.idle.as_ref().is_some_and(|idle| idle.standing == Some(Standing::Unavailable));
        let cannot_follow = self.facts.foreign || self.facts.user.is_none() || self.facts.is_paused(now);
        !self.healthy || cannot_follow || lost || self.has_no_rights_to_ask()
    }

    /// On the way to the snapshot; the client's numbers are the server's.
    pub(super) fn prepare(&mut self, now: Instant) {
        if self.asks_rights_first(now) {
            return;
        }
        if self.is_servers_business(now) {
            return self.hand_over(now);
        }
        if !self.facts.offers_are_known {
            // Asked once, whatever comes of it.
            self.facts.offers_are_known = true;
            return self.ask_for(now, Purpose::Capability, News::Mirrored, Numbers::default(), [Question::Capability]);
        }
        let path = match &self.facts.namespaces {
            Some(_) => self.facts.path(&self.rules.names),
            None => {
                let question = if self.facts.offers.namespace { Question::Namespace } else { Question::Delimiter };
                return self.ask_for(now, Purpose::Namespace, News::Mirrored, Numbers::default(), [question]);
            }
        };
        let register_due = now + self.rules.register_timeout;
        let no_rights_to_ask = self.has_no_rights_to_ask();
        let Some(idle) = &mut self.idle else { return };
        match (path, idle.standing) {
            (None, _) => self.hand_over(now),
            // Known only now: what the server offers, and which mailbox it is.
            (Some(_), _) if no_rights_to_ask => self.hand_over(now),
            (Some(_), Some(Standing::Registered | Standing::Settled)) => self.snapshot(now),
            (Some(path), _) => {
                idle.stage = Stage::Registering;
                idle.register_due = Some(register_due);
                if idle.path.is_none() {
                    idle.path = Some(path.clone());
                    self.actions.push_back(Action::Watch(path));
                }
            }
        }
    }

    pub(super) fn ask_for(
        &mut self,
        now: Instant,
        purpose: Purpose,
        news: News,
        numbers: Numbers,
        questions: impl IntoIterator<Item = Question>,
    ) {
        self.ask(now + self.rules.catch_up, news, numbers, questions);
        if let Some(idle) = &mut self.idle {
            idle.purpose = Some(purpose);
        }
    }

    fn snapshot(&mut self, now: Instant) {
        if let Some(idle) = &mut self.idle {
            idle.register_due = None;
            idle.stage = Stage::Preparing;
        }
        self.ask_snapshot(now, Some(Question::Noop));
    }

    fn ask_snapshot(&mut self, now: Instant, first: Option<Question>) {
        let rights = self.checks_rights().then_some(Question::MyRights);
        let questions = first.into_iter().chain([Question::Uids]).chain(rights);
        let numbers = Numbers::counted(self.facts.selected.as_ref().and_then(|selected| selected.count));
        self.ask_for(now, Purpose::Snapshot, News::Mirrored, numbers, questions);
    }

    /// All questions are answered.
    pub(super) fn answered(&mut self, now: Instant, mut questions: Questions) {
        let Some(idle) = &mut self.idle else { return };
        if !idle.told {
            idle.before.append(&mut questions.lines);
        }
        match idle.purpose.take() {
            Some(Purpose::Namespace) if self.facts.namespaces.is_none() => {
                self.facts.pause(now);
                self.hand_over(now);
            }
            Some(Purpose::Capability | Purpose::Namespace) => self.prepare(now),
            Some(Purpose::Rights) => self.rights_answered(now, &questions),
            Some(Purpose::Snapshot) => self.take_snapshot(now, questions),
            Some(Purpose::Level(why)) => self.leveled(now, why, questions),
            Some(Purpose::Greeting(why)) => self.greeted(now, why, &questions),
            Some(Purpose::Login(why)) => self.entered(now, why, &questions),
            Some(Purpose::Idle) => self.upstream_idled(now, &questions),
            Some(Purpose::Poll) => self.polled(now),
            None => {}
        }
    }

    fn take_snapshot(&mut self, now: Instant, questions: Questions) {
        if self.idle.as_ref().is_some_and(|idle| idle.ending.is_some()) {
            // Nothing was told but what the server said itself.
            return self.finish(now);
        }
        let heeded = self.heed_rights(&questions);
        if heeded == Heeded::Over {
            return;
        }
        if self.is_servers_business(now) {
            return self.hand_over(now);
        }
        let (Some(idle), Some(selected)) = (&mut self.idle, &self.facts.selected) else { return };
        let uids = match (questions.numbers.whole(), questions.listing) {
            (Some(uids), Listing::Told | Listing::Moved) => uids.clone(),
            // The mailbox does not stand still.
            (_, Listing::Moved | Listing::Torn) if idle.snapshots < SNAPSHOTS => {
                idle.snapshots += 1;
                return self.ask_snapshot(now, None);
            }
            _ => {
                self.facts.pause(now);
                return self.hand_over(now);
            }
        };
        self.facts.pause = None;
        let uidnext = uids.max().map_or(1, |max| max.saturating_add(1)).max(selected.uidnext);
        idle.server_uidnext = uidnext;
        idle.view = Some(View::new(
            uids.clone(),
            uidnext,
            selected.uidvalidity,
            selected.highestmodseq,
            selected.keywords.clone(),
            self.facts.features,
        ));
        idle.numbers = Numbers::of(uids.clone());
        idle.settled |= idle.standing == Some(Standing::Settled);
        idle.in_doubt = idle.again || !idle.settled;
        idle.doubted_until = Some(now + self.rules.catch_up);
        // Which is newer, these or the snapshot, the server alone knows.
        idle.ask = idle.waiting.iter().flat_map(|event| event.change.flag_uids()).map(Uid::get).collect();
        idle.waiting.retain(|event| event.change.flag_uids().next().is_none());
        idle.stage = Stage::Idling;
        idle.snapshots = 0;
        idle.park_due = self.rules.park_after.map(|after| now + after);
        // What was heard of before must be in the snapshot, or be gone, unless the server lags.
        let is_ahead = |event: &Event| match &event.change {
            Change::MessageNew { messages } | Change::MessageAppend { messages } => {
                messages.iter().any(|message| !uids.contains(message.uid.get()))
            }
            _ => false,
        };
        idle.again |= idle.waiting.iter().any(is_ahead);
        self.tell_idling();
        self.take_waiting(now);
        if heeded == Heeded::Unknown && self.idle.as_ref().is_some_and(|idle| idle.purpose.is_none()) {
            self.retry(now, Why::Refresh, Hindrance::Other);
        }
    }

    pub(super) fn tell_idling(&mut self) {
        let Some(idle) = &mut self.idle else { return };
        if !idle.told {
            idle.told = true;
            self.to_client.extend_from_slice(b"+ idling\r\n");
        }
        self.to_client.append(&mut idle.before);
        idle.before = Vec::new();
    }

    /// How the registration of the watched mailbox stands.
    pub fn handle_standing(&mut self, now: Instant, mailbox: &MailboxPath, standing: Standing) {
        let Some(idle) = &mut self.idle else { return };
        if idle.path.as_ref() != Some(mailbox) {
            return;
        }
        idle.standing = Some(standing);
        match (idle.stage, standing) {
            (Stage::Registering, Standing::Registered | Standing::Settled) => self.snapshot(now),
            (Stage::Registering, Standing::Unavailable) => self.hand_over(now),
            // A publisher's lookup may have been stale until now (I-5). When it settles again after a break, the resync that
            // follows is spread over the sessions, and this would not be.
            (Stage::Idling, Standing::Settled) if !std::mem::replace(&mut idle.settled, true) => self.level(now, Why::Refresh),
            (Stage::Preparing, Standing::Settled) => (idle.again, idle.settled) = (true, true),
            (Stage::Idling, Standing::Unavailable) => self.doubt(now),
            (Stage::Upstream { .. } | Stage::Polling, Standing::Registered | Standing::Settled) => self.come_back(now),
            _ => {}
        }
        self.resume(now);
    }

    /// An event of the watched mailbox, out of the queue.
    pub fn handle_event(&mut self, now: Instant, event: &Event) {
        let Some(idle) = &mut self.idle else { return };
        if idle.path.as_ref() != Some(&event.mailbox) {
            // Of a mailbox that was watched a moment ago; or of one that is moved here, where another was.
            if matches!(&event.change, Change::MailboxRename { to } if idle.path.as_ref() == Some(to)) {
                self.level(now, Why::Refresh);
            }
            return;
        }
        match (idle.stage, &event.change) {
            // Under the old name the registration would be awaited in vain.
            (Stage::Registering | Stage::Upstream { .. } | Stage::Polling, Change::MailboxRename { to })
                if !is_inbox_emptied(event) =>
            {
                return self.rename(to.clone());
            }
            (Stage::Upstream { .. } | Stage::Polling, Change::MailboxDelete) => return self.apply(now, event),
            _ => {}
        }
        match idle.stage {
            // The server tells what there is to tell.
            Stage::Upstream { .. } | Stage::Polling => return,
            Stage::Registering | Stage::Preparing => {}
            // The answer to come may be older than the event.
            Stage::Idling if matches!(idle.purpose, Some(Purpose::Level(_))) => {}
            Stage::Idling => return self.apply(now, event),
        }
        if idle.waiting.len() < WAITING {
            idle.waiting.push(event.clone());
        } else {
            idle.again = true;
            idle.in_doubt = true;
            idle.flags_lost |= self.questions.as_ref().is_some_and(|questions| questions.fresh);
        }
    }

    /// Continuity is broken: something may have been missed (I-6).
    pub fn handle_resync(&mut self, now: Instant) {
        let Some(idle) = &mut self.idle else { return };
        idle.in_doubt = true;
        idle.flags_lost |= self.questions.as_ref().is_some_and(|questions| questions.fresh);
        match idle.stage {
            Stage::Idling if idle.view.is_some() => self.level(now, Why::Refresh),
            Stage::Idling | Stage::Upstream { .. } | Stage::Polling => {}
            Stage::Registering | Stage::Preparing => idle.again = true,
        }
    }

    /// Takes in what came while the server was asked; asks again if that is due.
    pub(super) fn take_waiting(&mut self, now: Instant) {
        let Some(idle) = &mut self.idle else { return };
        for event in std::mem::take(&mut idle.waiting) {
            // May ask anew, or end it all: what is left then waits again.
            self.handle_event(now, &event);
        }
        if let Some(idle) = &mut self.idle
            && self.questions.is_none()
            && idle.stage == Stage::Idling
            && (std::mem::take(&mut idle.again) || !idle.ask.is_empty())
        {
            self.level(now, Why::Refresh);
        }
    }

    fn apply(&mut self, now: Instant, event: &Event) {
        let Some(user) = &self.facts.user else { return };
        let Some(idle) = &mut self.idle else { return };
        // Where a later event may have been missed, this one's flags may be old ones.
        let own = event.mailbox.owner() == user.as_str() && !idle.in_doubt;
        let Some(view) = &mut idle.view else {
            // Nothing of the mailbox is known but that it is gone.
            return self.bye_deleted();
        };
        let Applied { tell, ask, then } = view.apply(event, own);
        if idle.doubted_until.is_some_and(|until| now < until) {
            // What the client learned just before the snapshot may be newer.
            let fetched = |tell: &Tell| if let Tell::Fetch { uid, .. } = tell { Some(*uid) } else { None };
            view.doubt_flags(tell.iter().filter_map(fetched));
        }
        self.tell(&tell);
        self.compare_flags_later(now);
        let Some(idle) = &mut self.idle else { return };
        let must_ask = !ask.is_empty();
        idle.ask |= ask;
        match then {
            Then::Over(End::Deleted) => self.bye_deleted(),
            Then::Over(End::UidValidityChanged) => self.bye("The mailbox has been made anew (UIDVALIDITY)", "uidvalidity"),
            Then::Renamed(path) => self.rename(path),
            Then::Reconcile(Reason::Emptied) => {
                // What is selected is what INBOX was: a new SELECT finds what it is now, and tells no changes.
                (idle.renamed, idle.flags_lost) = (true, true);
                self.level(now, Why::Refresh);
            }
            Then::Reconcile(_) => self.level(now, Why::Refresh),
            _ if must_ask => self.level(now, Why::Refresh),
            // The first doubt counts: events that keep coming do not put it off.
            Then::Check => idle.check_by(now + CHECK_HOLD),
            Then::Nothing => {}
        }
    }

    /// The client may have been told old flags last. The server is asked soon, but one that is not connected is not
    /// connected for each event; and not before what came late has come.
    fn compare_flags_later(&mut self, now: Instant) {
        let hold = if self.connected { CHECK_HOLD } else { self.rules.catch_up };
        let Some(idle) = &mut self.idle else { return };
        if idle.view.as_ref().is_some_and(View::guesses_flags) {
            let due = idle.doubted_until.map_or(now, |until| until.max(now)).max(now + hold);
            idle.check_by(due);
        }
    }

    /// Tells the client; the view stands already for what it will know then.
    pub(super) fn tell(&mut self, tell: &[Tell]) {
        let Some(idle) = &mut self.idle else { return };
        let features = self.facts.features;
        let out = &mut self.to_client;
        if !tell.is_empty() {
            // Keywords come before the flags that use them.
            out.append(&mut idle.untold);
        }
        for one in tell {
            match one {
                Tell::Flags(flags) => write::flags(out, flags),
                Tell::PermanentFlags(permanent) => write::permanent_flags(out, &permanent.flags, permanent.any),
                Tell::Fetch { seq, uid, flags, modseq } => {
                    if idle.is_told_again(uid.get(), flags) {
                        continue;
                    }
                    let uid = features.fetch_has_uid().then_some(*uid);
                    let modseq = modseq.filter(|_| features.fetch_has_modseq());
                    write::fetch(out, &Changed { seq: *seq, uid, flags, recent: false, modseq });
                }
                Tell::Expunge(seq) => write::expunge(out, *seq),
                Tell::Vanished(uids) => write::vanished(out, uids),
                Tell::Exists(count) => write::exists(out, *count),
            }
        }
    }

    /// A line while the client idles: DONE, or what should not be.
    pub(super) fn read_idle_line(&mut self, now: Instant, piece: &Piece<'_>, input: &mut &[u8]) -> Refused {
        // As a plain line it is whole: no literal is announced.
        let done = piece.bytes.trim_ascii_end().eq_ignore_ascii_case(b"DONE");
        if done && self.renew(now, input) {
            return Refused::Nothing;
        }
        let Some(idle) = &mut self.idle else { return Refused::Nothing };
        idle.ending = Some(Ending { bad: !done, since: now });
        match idle.stage {
            Stage::Idling if idle.view.is_some() => self.level(now, Why::Done),
            Stage::Upstream { running: true, leaving: false } => self.leave_upstream(now),
            // The client's numbers are the server's: nothing is to be made level, an answer at most awaited.
            _ if self.questions.is_none() => self.finish(now),
            _ => {}
        }
        Refused::Nothing
    }

    /// DONE with the next IDLE right behind it, and nothing open: the server need not hear of it.
    fn renew(&mut self, now: Instant, input: &mut &[u8]) -> bool {
        let open = self.questions.is_some();
        let autologout_due = now + self.rules.idle_timeout;
        let Some(idle) = &mut self.idle else { return false };
        let compared = idle.view.as_ref().is_none_or(|view| view.flags_to_compare().is_empty());
        let quiet = !open && idle.retry.is_none() && idle.check_due.is_none();
        let known_good = idle.stage == Stage::Idling && quiet && compared;
        let Some(end) = input.windows(2).position(|two| two == b"\r\n") else { return false };
        let (line, rest) = input.split_at(end + 2);
        let tag = match Head::parse(line) {
            Ok(head @ Head { name: Name::Idle, .. }) if known_good && is_bare_idle(&head, line) => head.tag,
            _ => return false,
        };
        self.to_client.extend_from_slice(&answer(&idle.tag, "OK Idle completed"));
        self.to_client.extend_from_slice(b"+ idling\r\n");
        idle.tag = tag.into();
        idle.autologout_due = autologout_due;
        *input = rest;
        true
    }

    /// Client and server mean the same by the same numbers: IDLE is over.
    pub(super) fn finish(&mut self, now: Instant) {
        let Some(mut idle) = self.idle.take() else { return };
        // What the client has been told of flags it knows from now on.
        if let (Some(view), Some(selected)) = (idle.view.take(), &mut self.facts.selected) {
            selected.keywords = view.keywords().clone();
            selected.count = idle.numbers.count();
        }
        let words = match idle.ending {
            Some(Ending { bad: true, .. }) => "BAD Expected DONE",
            _ => "OK Idle completed",
        };
        self.to_client.extend_from_slice(&answer(&idle.tag, words));
        if let Some(path) = idle.watched() {
            self.actions.push_back(Action::Unwatch(path));
        }
        self.hold = Hold::No;
        self.resume(now);
    }
}
