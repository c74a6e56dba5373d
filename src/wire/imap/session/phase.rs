//! What the client's next bytes are.

use super::idle::Idle;
use super::timers::Timer;
use crate::wire::imap::sasl::Exchange;

/// See each variant; commands are relayed in [`Phase::Commands`] alone.
#[derive(Debug)]
pub(super) enum Phase {
    /// Commands, which are relayed.
    Commands,
    /// Nothing is read: the server has not answered LOGIN or AUTHENTICATE yet.
    Login { sasl: Option<Box<Exchange>> },
    /// One more line of a SASL exchange, which the server waits for.
    SaslLine { sasl: Box<Exchange> },
    /// Nothing is read: the shell has not said yet whether the user may be here.
    Admission,
    /// Nothing is read as IMAP: TLS begins.
    Tls,
    /// Nothing is read: IDLE was read, but commands before it are not answered yet.
    Barrier { tag: Box<[u8]> },
    /// A line that ends IDLE, once the client has been told that it idles.
    Idle(Box<Idle>),
    /// The rest of a command that is refused with this answer.
    Refused { answer: Vec<u8> },
    /// Nothing is read: the session is over.
    Closed,
}

impl Phase {
    /// Whether there is an upstream connection to hear.
    pub fn is_connected(&self) -> bool {
        match self {
            Self::Closed => false,
            Self::Idle(idle) => idle.is_connected(),
            _ => true,
        }
    }

    /// Whether this timer may be due now.
    pub fn may_expire(&self, timer: Timer) -> bool {
        match self {
            Self::Idle(idle) => idle.state.may_expire(timer),
            _ => true,
        }
    }
}
