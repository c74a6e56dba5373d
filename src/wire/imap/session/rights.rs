//! Rights on a mailbox that is not the user's own, where nobody but the user can ask for them (RFC 4314 3.5): without a
//! master user, the session asks on its own upstream connection.
//!
//! MYRIGHTS is asked once all other questions are answered: what the server told before its answer, the user might read when it was
//! told. Nothing of it reaches the client before that answer, and nothing at all where there is none (fail closed).

use std::time::{Duration, Instant};

use super::idle::{Purpose, Stage, Why};
use super::questions::{News, Question, Questions};
use super::{Action, Reading, Session};
use crate::mail::path::MailboxPath;
use crate::mail::rights::Rights;
use crate::wire::imap::numbers::Numbers;
use crate::wire::imap::response::{Code, Status};

/// So long the end of IDLE waits for the gateway's source of rights: what the client asks from then on the server answers
/// anyhow.
const PATIENCE: Duration = Duration::from_secs(1);
/// The reason in words; the same for a mailbox that is gone as for one that may not be read.
const REVOKED: &str = "You may not read this mailbox any more";
/// Lines that may wait for rights.
const UNTOLD: usize = 256 * 1024;

/// What the server said of the user's rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Rights(Rights),
    /// NO: for this user there is no such mailbox.
    Denied,
    /// It may say so later.
    NotNow,
}

impl Told {
    /// What MYRIGHTS ends with, after what was told by then.
    pub fn at_end(told: Option<Self>, status: Status, code: Option<&Code<'_>>) -> Self {
        match status {
            Status::Ok => told.unwrap_or(Self::NotNow),
            Status::No if !is_passing(code) => Self::Denied,
            // It offers ACL, or would not have been asked: BAD is no answer (RFC 4314 3.5).
            _ => Self::NotNow,
        }
    }
}

/// RFC 5530: it says nothing of the mailbox, and may be well again later.
fn is_passing(code: Option<&Code<'_>>) -> bool {
    const PASSING: [&str; 4] = ["UNAVAILABLE", "SERVERBUG", "INUSE", "LIMIT"];
    matches!(code, Some(Code::Other(code)) if PASSING.iter().any(|known| code.eq_ignore_ascii_case(known.as_bytes())))
}

/// What follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heeded {
    /// The client may hear what else was answered.
    Readable,
    /// It may not, for now.
    Unknown,
    /// The session is at its end.
    Over,
}

impl Session {
    /// Whether the user's rights on this mailbox are the session's own business.
    fn is_foreign(&self, path: &MailboxPath) -> bool {
        let own = self.facts.user.as_ref().is_some_and(|user| path.is_owned_by(user));
        !own && self.rules.asks_rights.contains(&path.namespace())
    }

    /// Whether the client idles on a mailbox whose rights must be asked for.
    pub(super) fn checks_rights(&self) -> bool {
        let path = self.idle.as_ref().and_then(|idle| idle.path.as_ref());
        self.facts.offers.acl && path.is_some_and(|path| self.is_foreign(path))
    }

    /// Whether rights should be asked for where the server has none to tell: then who hears what is the server's business.
    pub(super) fn has_no_rights_to_ask(&self) -> bool {
        if !self.facts.offers_are_known || self.facts.offers.acl || self.rules.asks_rights.is_empty() {
            return false;
        }
        match self.idle.as_ref().and_then(|idle| idle.path.as_ref()) {
            Some(path) => self.is_foreign(path),
            None => self.facts.path(&self.rules.names).is_some_and(|path| self.is_foreign(&path)),
        }
    }

    /// Whether the user may read the watched mailbox, as the gateway knows: to be said before the server's words are handed
    /// in, for what it tells of them depends on it (I-10).
    pub fn handle_reading(&mut self, reading: Reading) {
        self.reading = reading;
    }

    /// Whether what the server told of the mailbox may be told on. Where it is the server that tells from here on, as
    /// without us, nobody else need know.
    pub(super) fn may_tell(&self, now: Instant) -> bool {
        match self.reading {
            Reading::Allowed => true,
            Reading::Unknown => self.is_servers_business(now) || self.need_not_know(now),
            Reading::Denied => false,
        }
    }

    /// The client ends IDLE, and whoever knows of its rights has been waited for.
    pub(super) fn need_not_know(&self, now: Instant) -> bool {
        let ending = self.idle.as_ref().and_then(|idle| idle.ending);
        self.reading != Reading::Denied && ending.is_some_and(|ending| now >= ending.since + PATIENCE)
    }

    /// Whether nothing that the server says may be told before it is known that the user may read.
    pub(super) fn withholds(&self) -> bool {
        self.checks_rights() || self.reading != Reading::Allowed
    }

    /// Something is not told: whoever knows of the rights is to see that it is made good.
    pub(super) fn withhold(&mut self) {
        if self.reading == Reading::Unknown
            && let Some(mailbox) = self.idle.as_ref().and_then(|idle| idle.path.clone())
        {
            self.actions.push_back(Action::Withheld(mailbox));
        }
    }

    /// Takes in what was said of rights, if that was asked.
    pub(super) fn heed_rights(&mut self, questions: &Questions) -> Heeded {
        let Some((mailbox, told)) = &questions.rights else { return Heeded::Readable };
        let Some(idle) = self.idle.as_mut().filter(|idle| idle.path.as_ref() == Some(mailbox)) else {
            // It has another name by now.
            return Heeded::Unknown;
        };
        let (rights, heeded) = match told {
            None | Some(Told::NotNow) => (None, Heeded::Unknown),
            Some(Told::Rights(rights)) if rights.contains(Rights::READ) => (Some(*rights), Heeded::Readable),
            Some(Told::Rights(rights)) => (Some(*rights), Heeded::Over),
            Some(Told::Denied) => {
                if idle.is_about_to_move() {
                    // Under its old name there is nothing.
                    return Heeded::Unknown;
                }
                if idle.is_about_to_end() {
                    self.bye_deleted();
                    return Heeded::Over;
                }
                (Some(Rights::NONE), Heeded::Over)
            }
        };
        let is_doubted = std::mem::take(&mut idle.rights_doubted) && heeded == Heeded::Readable;
        // What was asked before the doubt does not settle it.
        let rights = rights.filter(|_| !is_doubted);
        self.actions.push_back(Action::Rights { mailbox: mailbox.clone(), rights });
        if heeded == Heeded::Over {
            self.bye(REVOKED, "revoked");
        }
        heeded
    }

    /// What rights the user has now is to be found out, and told as [`Action::Rights`].
    pub fn handle_rights_check(&mut self, now: Instant, mailbox: &MailboxPath) {
        let is_asked = self.idle.as_ref().is_some_and(|idle| idle.path.as_ref() == Some(mailbox)) && self.checks_rights();
        let Some(idle) = self.idle.as_mut().filter(|_| is_asked) else { return };
        if let Some(questions) = self.questions.as_ref().filter(|questions| questions.rights.is_some()) {
            if !questions.asks(&Question::MyRights) {
                // The question is still to come.
                return;
            }
            idle.rights_doubted = true;
        }
        match idle.stage {
            // It is asked with the snapshot.
            Stage::Registering => {}
            // An answer to come may be from before.
            Stage::Preparing => idle.again = true,
            Stage::Idling => self.level(now, Why::Refresh),
            Stage::Upstream { .. } | Stage::Polling => self.ask_rights_of_the_servers(now),
        }
        self.resume(now);
    }

    /// The same while IDLE is the server's own.
    pub(super) fn ask_rights_of_the_servers(&mut self, now: Instant) {
        let Some(idle) = &mut self.idle else { return };
        idle.rights_due = true;
        match idle.stage {
            Stage::Upstream { running: true, leaving: false } => self.leave_upstream(now),
            Stage::Polling if idle.purpose.is_none() => {
                idle.poll_due = None;
                self.prepare(now);
            }
            // Once that is answered.
            _ => {}
        }
    }

    /// Asks for rights alone, if that is due.
    pub(super) fn asks_rights_first(&mut self, now: Instant) -> bool {
        let is_due = self.idle.as_mut().is_some_and(|idle| std::mem::take(&mut idle.rights_due));
        let asks = is_due && self.checks_rights();
        if asks {
            self.ask_for(now, Purpose::Rights, News::Mirrored, Numbers::default(), [Question::MyRights]);
        }
        asks
    }

    pub(super) fn rights_answered(&mut self, now: Instant, questions: &Questions) {
        if self.heed_rights(questions) == Heeded::Over {
            return;
        }
        if self.idle.as_ref().is_some_and(|idle| idle.ending.is_some()) {
            return self.finish(now);
        }
        self.prepare(now);
    }

    /// Whoever waits for an answer is told that there is none.
    pub(super) fn rights_are_unknown(&mut self) {
        if self.checks_rights()
            && let Some(mailbox) = self.idle.as_ref().and_then(|idle| idle.path.clone())
        {
            self.actions.push_back(Action::Rights { mailbox, rights: None });
        }
    }

    /// The right to hear of this mailbox is gone: `* BYE`, whoever speaks for it. A client that does not idle there any more
    /// is not concerned.
    pub fn handle_revoked(&mut self, mailbox: &MailboxPath) {
        match self.idle.as_ref().filter(|idle| idle.path.as_ref() == Some(mailbox)) {
            Some(idle) if idle.is_about_to_end() => self.bye_deleted(),
            Some(_) => self.bye(REVOKED, "revoked"),
            None => {}
        }
    }

    /// A line that the server will not say again: told now, or once the user is known to be allowed to read.
    pub(super) fn tell_line(&mut self, raw: &[u8]) {
        if !self.withholds() {
            return self.to_client.extend_from_slice(raw);
        }
        let Some(idle) = &mut self.idle else { return };
        if idle.untold.len() + raw.len() > UNTOLD {
            return self.close(b"* BYE [UNAVAILABLE] The mail server has too much to say\r\n", "upstream_nonsense");
        }
        idle.untold.extend_from_slice(raw);
    }
}
