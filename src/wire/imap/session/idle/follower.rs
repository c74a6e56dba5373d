//! The view speaks for the mailbox: events drive it, and the client hears what it says in the
//! numbers that it knows.
//!
//! Whatever the view cannot say exactly is made good by levelling (`level.rs`), over the connection
//! that [`Link`] describes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use super::context::{Backlog, Cx, Next};
use crate::mail::event::{Change, Event};
use crate::mail::flags::Flags;
use crate::mail::uid::{ModSeq, Uid};
use crate::mail::view::{Applied, End, KeywordList, KeywordNews, Tell, Then, View, Why as Reason};
use crate::wire::imap::numbers::Numbers;
use crate::wire::imap::response::{Code, Untagged};
use crate::wire::imap::session::asker::{Asker, TOO_MUCH};
use crate::wire::imap::session::facts;
use crate::wire::imap::session::input::{Reading, Registration};
use crate::wire::imap::session::timers::Timer;
use crate::wire::imap::write::{self, Changed};

/// Origins may interleave: a count that disagrees is looked at again after this long.
pub(super) const CHECK_HOLD: Duration = Duration::from_millis(200);
/// Flag sets told lately, so that the server's own word for them is not told again.
const TOLD_FLAGS: usize = 32;
/// Lines of the server's that wait until it is known that the user may read, in bytes.
const UNTOLD_LIMIT: usize = 256 * 1024;

/// What is known of the mailbox, of what the client was told of it, and of the server that holds
/// it.
#[derive(Debug)]
pub(crate) struct Follower {
    pub view: View,
    /// The highest UIDNEXT that the server has shown.
    pub server_uidnext: u32,
    /// Up to here the server has told everything on this connection; the client has not been told
    /// so.
    pub highestmodseq: Option<ModSeq>,
    pub link: Link,
    /// Events that wait while both sides are made level.
    pub backlog: Backlog,
    pub flags: FlagDebts,
    pub doubt: Doubt,
    /// Lines that wait until it is known that the user may read.
    pub untold: Vec<u8>,
    /// Why both sides could not be made level when that was tried last.
    pub trouble: Option<Box<Trouble>>,
}

/// The upstream connection while the view speaks for the mailbox.
///
/// A held connection on which the server idles, too, would be a state beside [`Link::Held`]; what
/// the server says there is for [`Follower::hear_unasked`].
#[derive(Debug)]
pub(crate) enum Link {
    /// A connection stands, and nothing is asked. What the server's sequence numbers mean.
    Held(Numbers),
    /// The server is asked what it holds.
    Levelling(Why, Box<Asker>),
    /// There is no connection.
    Parked,
    /// A connection is being opened; its greeting is awaited.
    Opening(Why, Box<Asker>),
    /// It stands, and the gateway logs in on the client's behalf.
    LoggingIn(Why, Box<Asker>),
}

/// Why the client and the server are made level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Something may have been missed, or is not known exactly.
    Refresh,
    /// The client ends IDLE.
    Done,
    /// The server's own IDLE takes over.
    Handover,
}

/// Flags of which the client may know less than the server.
#[derive(Debug, Default)]
pub(crate) struct FlagDebts {
    /// Messages whose flags are to be asked for.
    pub ask: RoaringBitmap,
    /// Those that were asked for: a server that lags may have told old ones.
    pub asked: RoaringBitmap,
    /// Changes may have been missed that the server will not tell by itself: all flags are to be
    /// asked for.
    pub all: bool,
    /// How often in a row the server did not know of a change of flags yet.
    pub unanswered: u8,
    /// The sets told lately: a message's UID and a hash.
    pub told: Vec<(u32, u64)>,
}

/// Whether the server may be about to show changes that no event has told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    None,
    /// A server that lags may show until then what was in doubt.
    Until(Instant),
    /// Events may have been missed since both sides were level. A connection that stands tells of
    /// flags by itself.
    Open,
}

/// The two sides could not be made level: the server is asked again when [`Timer::Retry`] is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trouble {
    pub why: Why,
    pub attempts: u32,
    pub since: Instant,
    pub hindrance: Hindrance,
    /// Since when the server has told no list of UIDs that could be used.
    pub listless_since: Option<Instant>,
}

/// What kept both sides from being level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// The server is known to lag: only a new SELECT shows how far it has come.
    Lags,
    /// It told no list of UIDs.
    NoList,
    /// Its list of UIDs does not fit its own count: a new SELECT gives both anew.
    UnfitList,
    /// It did not select the mailbox again: none is selected.
    NotSelected,
    /// It could not be reached, asked, or believed yet.
    Other,
}

impl FlagDebts {
    /// Whether this is what the client was told of the message last; notes it.
    fn is_told_again(&mut self, uid: u32, flags: &Flags) -> bool {
        let mut hasher = DefaultHasher::new();
        for flag in flags.iter() {
            flag.as_str().to_ascii_lowercase().hash(&mut hasher);
        }
        let mark = (uid, hasher.finish());
        if self.told.contains(&mark) {
            return true;
        }
        self.told.retain(|(told, _)| *told != uid);
        if self.told.len() == TOLD_FLAGS {
            self.told.remove(0);
        }
        self.told.push(mark);
        false
    }
}

impl Link {
    pub fn asker(&mut self) -> Option<&mut Box<Asker>> {
        match self {
            Self::Held(_) | Self::Parked => None,
            Self::Levelling(_, asker) | Self::Opening(_, asker) | Self::LoggingIn(_, asker) => Some(asker),
        }
    }

    /// Whether the server is being asked, or on the way to that.
    pub fn is_asking(&self) -> bool {
        !matches!(self, Self::Held(_) | Self::Parked)
    }
}

impl Follower {
    /// An event of the watched mailbox, out of the queue.
    pub fn event(&mut self, cx: &mut Cx<'_>, event: &Event) -> Next {
        if matches!(self.link, Link::Levelling(..)) {
            // The answer to come may be older than the event.
            if !self.backlog.push(event) {
                self.miss();
            }
            return Next::Stay;
        }
        self.apply(cx, event)
    }

    /// Something may have been missed (I-6).
    pub fn miss(&mut self) {
        self.doubt = Doubt::Open;
        self.flags.all |= self.link.asker().is_some_and(|asker| asker.selects_anew());
    }

    /// Takes in what came while the server was asked; asks again if that is due.
    pub fn take_backlog(&mut self, cx: &mut Cx<'_>) -> Next {
        for event in self.backlog.take() {
            // May ask anew, or end it all: what is left then waits again.
            let is_ours = cx.path() == Some(&event.mailbox);
            let next = if is_ours { self.event(cx, &event) } else { self.foreign_event(cx, &event) };
            if next != Next::Stay {
                return next;
            }
        }
        let is_due = !self.link.is_asking() && (std::mem::take(&mut self.backlog.again) || !self.flags.ask.is_empty());
        if is_due {
            self.level(cx, Why::Refresh);
        }
        Next::Stay
    }

    /// An event of a mailbox that was watched a moment ago; or of one that is moved here, where
    /// another was.
    pub fn foreign_event(&mut self, cx: &mut Cx<'_>, event: &Event) -> Next {
        if matches!(&event.change, Change::MailboxRename { to } if cx.path() == Some(to)) {
            self.level(cx, Why::Refresh);
        }
        Next::Stay
    }

    fn apply(&mut self, cx: &mut Cx<'_>, event: &Event) -> Next {
        let Some(user) = &cx.common.facts.user else { return Next::Stay };
        // Where a later event may have been missed, this one's flags may be old ones.
        let own = event.mailbox.owner() == user.as_str() && self.doubt != Doubt::Open;
        let Applied { tell, ask, then } = self.view.apply(event, own);
        if matches!(self.doubt, Doubt::Until(until) if cx.now < until) {
            // What the client learned just before the snapshot may be newer.
            let fetched = |tell: &Tell| if let Tell::Fetch { uid, .. } = tell { Some(*uid) } else { None };
            self.view.doubt_flags(tell.iter().filter_map(fetched));
        }
        self.tell(cx, &tell);
        self.compare_flags_later(cx);
        let must_ask = !ask.is_empty();
        self.flags.ask |= ask;
        match then {
            Then::Over(End::Deleted) => return Next::deleted(),
            Then::Over(End::UidValidityChanged) => return Next::uidvalidity(),
            Then::Renamed(path) => {
                // Until the new name is registered nothing of it comes, and a fresh SELECT tells no
                // changes.
                self.flags.all = true;
                return cx.rename(path);
            }
            Then::Reconcile(Reason::Emptied) => {
                // What is selected is what INBOX was: a new SELECT finds what it is now, and tells
                // no changes.
                self.flags.all = true;
                if let Some(watch) = cx.watch {
                    watch.is_renamed = true;
                }
                self.level(cx, Why::Refresh);
            }
            Then::Reconcile(_) => self.level(cx, Why::Refresh),
            _ if must_ask => self.level(cx, Why::Refresh),
            // The first doubt counts: events that keep coming do not put it off.
            Then::Check => cx.common.timers.set_at_latest(Timer::Check, cx.now + CHECK_HOLD),
            Then::Nothing => {}
        }
        Next::Stay
    }

    /// The client may have been told old flags last. The server is asked soon, but one that is not
    /// connected is not connected for each event; and not before what came late has come.
    fn compare_flags_later(&mut self, cx: &mut Cx<'_>) {
        if !self.view.guesses_flags() {
            return;
        }
        let hold = if matches!(self.link, Link::Parked) { cx.common.rules.catch_up } else { CHECK_HOLD };
        let doubted_until = match self.doubt {
            Doubt::Until(until) => until.max(cx.now),
            Doubt::None | Doubt::Open => cx.now,
        };
        cx.common.timers.set_at_latest(Timer::Check, doubted_until.max(cx.now + hold));
    }

    /// Tells the client; the view stands already for what it will know then.
    pub fn tell(&mut self, cx: &mut Cx<'_>, tell: &[Tell]) {
        let features = cx.common.facts.features;
        let out = &mut cx.out.to_client;
        if !tell.is_empty() {
            // Keywords come before the flags that use them.
            out.append(&mut self.untold);
        }
        for one in tell {
            match one {
                Tell::Flags(flags) => write::flags(out, flags),
                Tell::PermanentFlags(permanent) => write::permanent_flags(out, &permanent.flags, permanent.any),
                Tell::Fetch { seq, uid, flags, modseq } => {
                    if self.flags.is_told_again(uid.get(), flags) {
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

    /// What the server says unasked while the view speaks for the mailbox, or the first part of it:
    /// a hint. Its numbers are kept true.
    pub fn hear_unasked(&mut self, cx: &mut Cx<'_>, untagged: &Untagged<'_>, whole: Option<&[u8]>) -> Next {
        // The server will not say it again.
        let (is_news, next) = whole.map_or((false, Next::Stay), |line| self.tell_keywords(cx, untagged, line));
        if next != Next::Stay {
            return next;
        }
        let Link::Held(numbers) = &mut self.link else { return Next::Stay };
        let count = numbers.count();
        let moves = matches!(untagged, Untagged::Exists(_) | Untagged::Expunge(_) | Untagged::Vanished { earlier: false, .. });
        // Said again, EXISTS is no news: a server that says so at every answer would be asked
        // without end.
        let is_known = matches!(untagged, Untagged::Exists(told) if count == Some(*told));
        numbers.follow(untagged);
        let flags = match untagged {
            Untagged::Fetch(fetch) => {
                let uid = fetch.uid.or_else(|| Uid::new(numbers.uid(fetch.seq)?));
                uid.zip(fetch.flags.clone()).map(|(uid, flags)| (uid, flags, fetch.modseq))
            }
            _ => None,
        };
        if withholds(cx) {
            // The server has told it, so it is only to be had by asking.
            self.flags.ask.extend(flags.iter().map(|(uid, ..)| uid.get()));
            if is_news || flags.is_some() {
                self.level(cx, Why::Refresh);
                return Next::Stay;
            }
        } else if let Some(flags) = flags {
            let tell = self.view.tell_flags(&[flags]);
            self.tell(cx, &tell);
        }
        if moves && !is_known {
            self.level(cx, Why::Refresh);
        }
        Next::Stay
    }

    /// News that come with an answer. What is not numbers is passed on where it is new, at once:
    /// whatever becomes of the question, the server will not say it again.
    pub fn hear_news(&mut self, cx: &mut Cx<'_>, untagged: &Untagged<'_>, raw: &[u8]) -> Next {
        match untagged {
            Untagged::Status { code: Some(Code::Other(code)), .. } if code.eq_ignore_ascii_case(b"ALERT") => cx.out.say(raw),
            _ => return self.tell_keywords(cx, untagged, raw).1,
        }
        Next::Stay
    }

    /// Takes a list of flags of the server's in and tells the client what is new of it. Whether
    /// anything was, and what follows.
    fn tell_keywords(&mut self, cx: &mut Cx<'_>, untagged: &Untagged<'_>, raw: &[u8]) -> (bool, Next) {
        let list = match untagged {
            Untagged::Flags(list) => KeywordList::Flags(facts::flags(list)),
            Untagged::Status { code: Some(Code::PermanentFlags(list)), .. } => KeywordList::Permanent(facts::permanent(list)),
            _ => return (false, Next::Stay),
        };
        let mut line = Vec::new();
        match self.view.merge_keywords(list) {
            KeywordNews::Nothing => return (false, Next::Stay),
            KeywordNews::ServerLine => line.extend_from_slice(raw),
            KeywordNews::List(Tell::Flags(flags)) => write::flags(&mut line, &flags),
            KeywordNews::List(Tell::PermanentFlags(permanent)) => {
                write::permanent_flags(&mut line, &permanent.flags, permanent.any);
            }
            KeywordNews::List(_) => {}
        }
        (true, self.tell_line(cx, &line))
    }

    /// A line that the server will not say again: told now, or once the user is known to be allowed
    /// to read.
    fn tell_line(&mut self, cx: &mut Cx<'_>, raw: &[u8]) -> Next {
        if !withholds(cx) {
            cx.out.say(raw);
        } else if self.untold.len() + raw.len() > UNTOLD_LIMIT {
            return Next::nonsense(TOO_MUCH);
        } else {
            self.untold.extend_from_slice(raw);
        }
        Next::Stay
    }

    /// Whether what the client was told need not be compared with anything.
    pub fn has_no_doubt(&self) -> bool {
        self.trouble.is_none() && self.view.flags_to_compare().is_empty()
    }

    /// A count that disagreed is looked at again.
    pub fn check(&mut self, cx: &mut Cx<'_>) {
        self.flags.ask |= self.view.unanswered() | self.view.flags_to_compare();
        if self.view.is_doubtful() || !self.flags.ask.is_empty() {
            self.level(cx, Why::Refresh);
        }
    }

    pub fn registered(&mut self, cx: &mut Cx<'_>, registration: Registration) {
        let Some(watch) = cx.watch else { return };
        match registration {
            // A publisher's lookup may have been stale until now (I-5). When it settles again after
            // a break, the resync that follows is spread over the sessions, and this would not be.
            Registration::Settled if !std::mem::replace(&mut watch.was_settled, true) => self.level(cx, Why::Refresh),
            Registration::Unavailable => self.retreat(cx),
            _ => {}
        }
    }

    /// Events may be missed from now on: the server takes over, once both sides are level.
    pub fn retreat(&mut self, cx: &mut Cx<'_>) {
        self.doubt = Doubt::Open;
        self.level(cx, Why::Handover);
    }
}

/// Whether nothing that the server says may be told before it is known that the user may read.
fn withholds(cx: &Cx<'_>) -> bool {
    cx.common.reading != Reading::Allowed || cx.asks_rights_on().is_some()
}
