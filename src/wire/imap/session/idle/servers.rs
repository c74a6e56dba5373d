//! Falling back: while registry or queue are not healthy, or where the gateway does not follow,
//! IDLE is the server's own (or, where it has none, it is asked now and then). The client is never
//! worse off than without us.

use super::context::{Cx, Next};
use super::state::{ServersIdle, State};
use crate::wire::imap::numbers::Numbers;
use crate::wire::imap::session::asker::Answers;
use crate::wire::imap::session::question::Question;
use crate::wire::imap::session::timers::Timer;

impl State {
    /// Leaves IDLE to the server. The client's numbers must be the server's already.
    pub fn hand_over(&mut self, cx: &mut Cx<'_>) -> Next {
        if cx.client.is_leaving() {
            return Next::Finish;
        }
        self.settle(&mut cx.common.facts);
        // Nothing of what was to be asked matters any more: the server speaks from here on.
        for timer in [Timer::Registration, Timer::Retry, Timer::Check, Timer::Park] {
            cx.common.timers.stop(timer);
        }
        let audit = cx.now + cx.common.jittered(cx.common.rules.audit);
        cx.common.timers.set(Timer::Audit, audit);
        let until = cx.common.facts.left_to_server_until(cx.now);
        cx.common.timers.set_or_stop(Timer::Resume, until);
        if !cx.common.facts.offers.idle {
            self.poll_from_now_on(cx);
            return Next::Stay;
        }
        *self = Self::ServersIdle(ServersIdle::Beginning, cx.ask(Numbers::default(), [Question::Idle]));
        Next::Stay
    }

    fn poll_from_now_on(&mut self, cx: &mut Cx<'_>) {
        cx.common.timers.set(Timer::Poll, cx.now + cx.common.rules.poll);
        *self = Self::Polling(None);
        cx.tell_idling();
    }

    /// The server has begun to idle.
    pub fn server_idles(&mut self, cx: &mut Cx<'_>) -> Next {
        let Self::ServersIdle(progress, _) = self else { return Next::Stay };
        // The tagged response comes only after DONE: no time limit.
        cx.common.timers.stop(Timer::Answer);
        *progress = ServersIdle::Running;
        cx.tell_idling();
        let rights_due = cx.watch.as_ref().is_some_and(|watch| watch.rights_due);
        if cx.client.is_leaving() || rights_due || !is_servers_business_still(cx) {
            progress.leave(cx);
        }
        Next::Stay
    }

    /// The server's IDLE is over: as we wished, or by itself.
    pub fn server_idled(&mut self, cx: &mut Cx<'_>, progress: ServersIdle, answers: &Answers) -> Next {
        if cx.client.is_leaving() {
            return Next::Finish;
        }
        if answers.refused.is_none() && progress == ServersIdle::Leaving {
            return Next::Prepare;
        }
        // It does not want to idle now: asked without a pause, it would be asked without end.
        cx.common.facts.leave_to_server(cx.now);
        let until = cx.common.facts.left_to_server_until(cx.now);
        cx.common.timers.set_or_stop(Timer::Resume, until);
        self.poll_from_now_on(cx);
        Next::Stay
    }

    pub fn polled(&mut self, cx: &mut Cx<'_>) -> Next {
        if cx.client.is_leaving() {
            return Next::Finish;
        }
        self.poll_from_now_on(cx);
        let rights_due = cx.watch.as_ref().is_some_and(|watch| watch.rights_due);
        if rights_due { self.ask_servers_rights(cx) } else { Next::Stay }
    }

    /// The user's rights are asked for as soon as the server does not idle itself.
    pub fn ask_servers_rights(&mut self, cx: &mut Cx<'_>) -> Next {
        if let Some(watch) = cx.watch {
            watch.rights_due = true;
        }
        match self {
            Self::ServersIdle(progress @ ServersIdle::Running, _) => progress.leave(cx),
            Self::Polling(None) => return Next::Prepare,
            // The rights are asked for once the server has answered that.
            _ => {}
        }
        Next::Stay
    }

    /// The cluster is well again.
    pub fn come_back(&mut self, cx: &mut Cx<'_>) -> Next {
        match self {
            _ if cx.is_servers_business() => {}
            Self::ServersIdle(progress @ ServersIdle::Running, _) => progress.leave(cx),
            Self::Polling(None) => return Next::Prepare,
            _ => {}
        }
        Next::Stay
    }

    /// The server did not answer as it must, and is asked again after a pause.
    pub fn resume(&mut self, cx: &mut Cx<'_>) -> Next {
        if matches!(self, Self::Polling(None)) { Next::Prepare } else { self.come_back(cx) }
    }
}

/// Whether the server should go on idling itself.
fn is_servers_business_still(cx: &Cx<'_>) -> bool {
    let is_nameless = cx.common.facts.namespaces.is_some() && cx.common.path().is_none();
    let is_awaited = cx.watch.as_ref().is_some_and(|watch| watch.registration.is_none());
    cx.is_servers_business() || is_nameless || is_awaited
}
