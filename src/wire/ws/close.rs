//! Why the server ends a session: one table of code, words, and whether to come back.

use std::time::Duration;

/// A reason to close. 4000–4499: reconnect; 4500–4999: do not, something must change first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client said goodbye first.
    ClientClosed,
    /// RFC 6455 1002: the bytes are no WebSocket frames.
    ProtocolError,
    /// RFC 6455 1003: binary frames are not spoken here.
    BinaryFrame,
    /// RFC 6455 1007: text that is not UTF-8.
    NotUtf8,
    /// RFC 6455 1009: a frame or message over the limit.
    TooBig,
    /// No `connect` within the deadline.
    ConnectTimeout,
    /// The token has expired, or its time has not begun.
    TokenExpired,
    /// Nothing was heard within the heartbeat's time.
    NoPong,
    /// The client does not even read the `resync`s that its events collapsed into.
    TooSlow,
    /// The node is going down.
    Draining,
    /// The node cannot check tokens now: not the client's fault.
    Unavailable,
    /// The user has as many sessions on this node as one user may have. Some of them may be gone
    /// and not be missed yet.
    TooManySessions,
    /// Too many commands.
    RateLimited,
    BadToken,
    /// The token is good and does not allow this.
    Forbidden,
    /// An administrator, or the user elsewhere, ended the session.
    Ended,
    /// No sub-protocol that both sides speak.
    Version,
}

impl CloseReason {
    #[allow(dead_code, reason = "for tests")]
    pub const ALL: &[Self] = &[
        Self::ClientClosed,
        Self::ProtocolError,
        Self::BinaryFrame,
        Self::NotUtf8,
        Self::TooBig,
        Self::ConnectTimeout,
        Self::TokenExpired,
        Self::NoPong,
        Self::TooSlow,
        Self::Draining,
        Self::Unavailable,
        Self::TooManySessions,
        Self::RateLimited,
        Self::BadToken,
        Self::Forbidden,
        Self::Ended,
        Self::Version,
    ];

    /// The close frame's code.
    pub fn code(self) -> u16 {
        match self {
            Self::ClientClosed => 1000,
            Self::ProtocolError => 1002,
            Self::BinaryFrame => 1003,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
            Self::ConnectTimeout => 4400,
            Self::TokenExpired => 4401,
            Self::NoPong => 4407,
            Self::TooSlow => 4408,
            Self::Draining => 4412,
            Self::Unavailable => 4413,
            Self::TooManySessions => 4414,
            Self::RateLimited => 4429,
            Self::BadToken => 4500,
            Self::Forbidden => 4503,
            Self::Ended => 4505,
            Self::Version => 4509,
        }
    }

    /// Words for the close frame, at most 123 bytes (RFC 6455 5.5).
    pub fn words(self) -> &'static str {
        match self {
            Self::ClientClosed => "goodbye",
            Self::ProtocolError => "not a valid WebSocket frame",
            Self::BinaryFrame => "binary frames are not spoken here, send JSON text",
            Self::NotUtf8 => "text frames must be UTF-8",
            Self::TooBig => "frame over the limit",
            Self::ConnectTimeout => "no connect command in time",
            Self::TokenExpired => "the token is not valid at this time: get a new one, then reconnect",
            Self::NoPong => "no answer to the heartbeat",
            Self::TooSlow => "too slow to read",
            Self::Draining => "the node is going down",
            Self::Unavailable => "tokens cannot be checked at the moment",
            Self::TooManySessions => "too many sessions of this user: come back later",
            Self::RateLimited => "too many commands",
            Self::BadToken => "the token is not valid",
            Self::Forbidden => "not allowed",
            Self::Ended => "the session was ended",
            Self::Version => "no common version of the protocol",
        }
    }

    /// A stable name, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ProtocolError => "protocol_error",
            Self::BinaryFrame => "binary_frame",
            Self::NotUtf8 => "not_utf8",
            Self::TooBig => "too_big",
            Self::ConnectTimeout => "connect_timeout",
            Self::TokenExpired => "token_expired",
            Self::NoPong => "no_pong",
            Self::TooSlow => "too_slow",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
            Self::TooManySessions => "too_many_sessions",
            Self::RateLimited => "rate_limited",
            Self::BadToken => "bad_token",
            Self::Forbidden => "forbidden",
            Self::Ended => "ended",
            Self::Version => "version",
        }
    }

    /// Whether the client should come back by itself.
    pub fn reconnect(self) -> bool {
        (4000..4500).contains(&self.code())
    }
}

/// A close with its hint: how long the client should stay away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    pub reason: CloseReason,
    pub reconnect_after: Option<Duration>,
}

impl From<CloseReason> for Goodbye {
    fn from(reason: CloseReason) -> Self {
        Self { reason, reconnect_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let mut codes: Vec<u16> = CloseReason::ALL.iter().map(|r| r.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CloseReason::ALL.len(), "each reason has a code of its own");
        for reason in CloseReason::ALL {
            assert!(reason.words().len() <= 123 && !reason.name().is_empty());
            assert_eq!(reason.reconnect(), (4000..4500).contains(&reason.code()));
        }
    }
}
