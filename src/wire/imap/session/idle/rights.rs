//! Rights on a mailbox that is not the user's own, where nobody but the user can ask for them (RFC
//! 4314 3.5): without a master user, the session asks on its own upstream connection.
//!
//! MYRIGHTS is asked once all other questions are answered: what the server told before its answer,
//! the user might read when it was told. Nothing of it reaches the client before that answer, and
//! nothing at all where there is none (fail closed).

use std::time::Duration;

use super::context::{Backlog, Cx, Next};
use crate::mail::rights::Rights;
use crate::wire::imap::session::asker::{RightsAnswer, RightsReport};
use crate::wire::imap::session::input::Reading;
use crate::wire::imap::session::output::Action;

/// So long the end of IDLE waits for the source of rights: what the client asks from then on the
/// server answers anyhow.
const RIGHTS_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the client may hear what else was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    Granted,
    /// It may not, for now.
    Unknown,
    /// The session is at its end.
    Over(Next),
}

impl Cx<'_> {
    /// Whether what the server told of the mailbox may be told on. Where it is the server that
    /// tells from here on, as without us, nobody else need know.
    pub(super) fn may_tell(&self) -> bool {
        let is_over = self.client.leaving_since().is_some_and(|since| self.now >= since + RIGHTS_TIMEOUT);
        match self.common.reading {
            Reading::Allowed => true,
            Reading::Unknown => self.is_servers_business() || is_over,
            Reading::Denied => false,
        }
    }

    /// Takes in what was said of rights, if that was asked. `backlog`: events that wait meanwhile.
    pub(super) fn judge_rights(&mut self, asked: Option<&RightsReport>, backlog: Option<&Backlog>) -> Permission {
        let Some(RightsReport { mailbox, answer, is_outdated }) = asked else { return Permission::Granted };
        if self.path() != Some(mailbox) {
            // The rights were asked for under a name that the mailbox has no more.
            return Permission::Unknown;
        }
        let (rights, permission) = match answer {
            RightsAnswer::NotNow => (None, Permission::Unknown),
            // What was asked before the doubt does not settle it.
            RightsAnswer::Rights(rights) if rights.contains(Rights::READ) => {
                (Some(*rights).filter(|_| !is_outdated), Permission::Granted)
            }
            RightsAnswer::Rights(rights) => (Some(*rights), Permission::Over(Next::revoked())),
            // The mailbox has another name: the old one does not exist any more.
            RightsAnswer::Denied if backlog.is_some_and(|backlog| backlog.moves(mailbox)) => return Permission::Unknown,
            RightsAnswer::Denied if backlog.is_some_and(|backlog| backlog.ends(mailbox)) => {
                return Permission::Over(Next::deleted());
            }
            RightsAnswer::Denied => (Some(Rights::NONE), Permission::Over(Next::revoked())),
        };
        self.out.act(Action::Rights { mailbox: mailbox.clone(), rights });
        permission
    }
}
