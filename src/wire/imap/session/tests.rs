//! Transcripts: what each side says, and what the other hears, with a clock that only the test
//! moves.

mod acls;
mod idling;
mod levelling;
mod model;
mod odd_answers;
mod overtaking;
mod parking;
mod parts;
mod reading;
mod relaying;
mod renaming;
mod rights;

use std::time::{Duration, Instant};

use super::*;
use crate::mail::codec::tests::sample;
use crate::mail::event::{Change, Event, FlagChange, NewMessage, Status};
use crate::mail::flags::Flags;
use crate::mail::ids::EventId;
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid, UidValidity};
use crate::mail::user::{UserName, UserNames};
use crate::wire::imap::credentials::Credentials;

pub(super) const TEAM: &str = "#private:alice@example.org:Team";
const NAMESPACE: &str = "* NAMESPACE ((\"\" \"/\")) ((\"shared/\" \"/\")) NIL\r\n";

fn rules() -> Rules {
    Rules {
        line_limit: 8192,
        login_deadline: Duration::from_secs(60),
        keepalive: Duration::from_secs(120),
        idle_timeout: Duration::from_secs(1860),
        register_timeout: Duration::from_secs(1),
        catch_up: Duration::from_secs(10),
        audit: Duration::from_secs(600),
        poll: Duration::from_secs(15),
        park_after: None,
        reentry: Reentry::Never,
        names: UserNames { lowercase: true, default_domain: Some("example.org".into()) },
        asks_rights: Vec::new(),
    }
}

/// A session, with somebody who plays the client, the server and the cluster.
pub(super) struct Play {
    pub session: Session,
    pub now: Instant,
}

impl Play {
    pub fn new(rules: Rules) -> Self {
        let now = Instant::now();
        let setting = Setting { tls: true, starttls: false, plaintext_auth: false, seed: 0 };
        Self { session: Session::new(Arc::new(rules), setting, now), now }
    }

    pub fn client(&mut self, text: &str) {
        self.session.handle(self.now, Input::Client(text.as_bytes()));
    }

    pub fn server(&mut self, text: &str) {
        self.session.handle(self.now, Input::Upstream(text.as_bytes()));
    }

    /// Whether the server is asked something while the client idles.
    pub fn is_asking(&self) -> bool {
        matches!(&self.session.phase, Phase::Idle(idle) if idle.state.is_asking())
    }

    /// All that the client has been sent since it was last asked.
    #[track_caller]
    pub fn hears(&mut self, text: &str) {
        let heard = std::mem::take(&mut self.session.out.to_client);
        assert_eq!(String::from_utf8_lossy(&heard), text, "what the client hears");
    }

    /// The same of the server.
    #[track_caller]
    pub fn asks(&mut self, text: &str) {
        let asked = std::mem::take(&mut self.session.out.to_upstream);
        assert_eq!(String::from_utf8_lossy(&asked), text, "what the server is asked");
    }

    #[track_caller]
    pub fn does(&mut self, actions: &[Action]) {
        let done: Vec<Action> = std::iter::from_fn(|| self.session.poll_action()).collect();
        assert_eq!(done, actions);
    }

    /// Moves the clock to the next thing that is due, which must not be later than `at_most` from
    /// now.
    #[track_caller]
    pub fn passes(&mut self, at_most: Duration) {
        let due = self.session.poll_timeout().expect("something is due");
        assert!(due <= self.now + at_most, "due only in {:?}", due - self.now);
        self.now = self.now.max(due);
        self.session.handle(self.now, Input::Timeout);
    }

    /// Logged in as alice; what was said is forgotten.
    pub fn logged_in(mut self) -> Self {
        self.server("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Ready\r\n");
        self.client("a LOGIN alice apw\r\n");
        self.server("a OK [CAPABILITY IMAP4rev1 SASL-IR IDLE NAMESPACE ESEARCH CONDSTORE QRESYNC ENABLE] Logged in\r\n");
        self.does(&[Action::Authenticated { user: Some("alice".into()) }]);
        self.session.handle(self.now, Input::Admission(Ok(Some(UserName::new("alice@example.org").unwrap()))));
        self.forget();
        self
    }

    /// Team is selected: UIDs 1, 3, 5; UIDNEXT 6; UIDVALIDITY 9.
    pub fn selected(mut self) -> Self {
        self.client("b SELECT Team\r\n");
        self.server(SELECTED);
        self.server("b OK [READ-WRITE] Done\r\n");
        self.forget();
        self
    }

    /// And the client idles, with tag `i`.
    pub fn idling(mut self) -> Self {
        self.client("i IDLE\r\n");
        self.asks("mailpush1 NAMESPACE\r\n");
        self.server(NAMESPACE);
        self.server("mailpush1 OK\r\n");
        self.does(&[Action::Watch(TEAM.parse().unwrap())]);
        self.hears("");
        self.stands(Registration::Settled);
        self.asks("mailpush2 NOOP\r\nmailpush3 UID SEARCH RETURN (ALL) ALL\r\n");
        self.server("mailpush2 OK\r\n* ESEARCH (TAG \"mailpush3\") UID ALL 1,3,5\r\nmailpush3 OK\r\n");
        self.hears("+ idling\r\n");
        // Long enough for what was before, even where the server lags.
        self.now += Duration::from_secs(11);
        self
    }

    pub fn stands(&mut self, standing: Registration) {
        self.session.handle(self.now, Input::Registration { mailbox: &TEAM.parse().unwrap(), registration: standing });
    }

    fn forget(&mut self) {
        self.session.out.to_client.clear();
        self.session.out.to_upstream.clear();
        while self.session.poll_action().is_some() {}
    }

    pub fn event(&mut self, change: Change, status: Option<(u32, u32)>) {
        let event = Event {
            id: EventId::now(),
            mailbox: TEAM.parse().unwrap(),
            uidvalidity: UidValidity::new(9),
            status: status.map(|(messages, uidnext)| Status {
                messages: Some(messages),
                uidnext: Some(uidnext),
                ..Status::default()
            }),
            change,
            ..sample()
        };
        self.session.handle(self.now, Input::Event(&event));
    }
}

/// Whether a view speaks for a mailbox whose rights the session itself must ask for.
fn speaks_and_asks_rights(session: &Session) -> bool {
    let common = &session.common;
    let asks = |idle: &Idle| idle.watch.as_ref().is_some_and(|watch| common.is_foreign(&watch.path)) && common.facts.offers.acl;
    matches!(&session.phase, Phase::Idle(idle) if matches!(idle.state, State::Following(_)) && asks(idle))
}

pub(super) const SELECTED: &str = "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n\
    * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Flags permitted.\r\n\
    * 3 EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 9] UIDs valid\r\n* OK [UIDNEXT 6] Predicted next UID\r\n";

pub(super) fn appended(uids: &[u32]) -> Change {
    Change::MessageAppend { messages: uids.iter().map(|uid| NewMessage::new(Uid::new(*uid).unwrap())).collect() }
}

pub(super) fn expunged(uids: &[u32]) -> Change {
    Change::MessageExpunge { uids: uids.iter().map(|uid| Uid::new(*uid).unwrap()).collect(), modseq: None }
}

/// Flags that were set; `all`: whether the set is complete.
pub(super) fn flagged(uid: u32, flags: &[&str], all: bool, modseq: Option<u64>) -> Change {
    let (flags, _) = Flags::sift(flags.iter().copied());
    let complete = all.then(|| flags.clone());
    let change = FlagChange { uid: Uid::new(uid).unwrap(), changed: flags, flags: complete, modseq: modseq.map(ModSeq) };
    Change::FlagsSet { messages: vec![change] }
}
