//! Before the client is authenticated a command is relayed only once it is whole and understood.
//!
//! Servers differ in what they make of a command that they do not like: whether its literal belongs to it, or is a command
//! of its own. A client could have one LOGIN read here and another there, and hear of somebody else's mail.

use zeroize::Zeroizing;

use super::Session;
use super::relay::{GATHER_LIMIT, Gathering, Refused, answer};
use crate::wire::imap::command::{self, Command};
use crate::wire::imap::framing::{Kind, Piece};

/// A command on its way that has synchronizing literals: sent part by part, as the server asks for them.
#[derive(Debug)]
pub(super) struct Prelude {
    bytes: Zeroizing<Vec<u8>>,
    sent: usize,
    /// Where the server is waited for.
    stops: Vec<usize>,
}

impl Prelude {
    /// Whether the server has not been sent all of it.
    pub(super) fn has_more(&self) -> bool {
        self.sent < self.bytes.len()
    }
}

/// The same on its way in.
#[derive(Debug, Default)]
pub(super) struct Stops(Vec<usize>);

impl Session {
    pub(super) fn gather_first(&mut self, piece: &Piece<'_>) -> Refused {
        self.command = Some(Box::new(Gathering { bytes: Some(Zeroizing::default()) }));
        self.stops = Stops::default();
        self.gather_rest(piece)
    }

    pub(super) fn gather_rest(&mut self, piece: &Piece<'_>) -> Refused {
        let Some(bytes) = self.command.as_mut().and_then(|command| command.bytes.as_mut()) else { return Refused::Nothing };
        bytes.extend_from_slice(piece.bytes);
        if let Kind::Line { literal: Some(literal) } = piece.kind {
            let whole = u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_add(literal.len);
            if whole > GATHER_LIMIT as u64 {
                let tag = bytes.split(|b| *b == b' ').next().unwrap_or_default().to_vec();
                self.command = None;
                return self.refuse(piece, answer(&tag, "BAD [TOOBIG] Too much before authentication"));
            }
            if literal.sync {
                self.stops.0.push(bytes.len());
                self.to_client.extend_from_slice(b"+ Go on\r\n");
            }
        }
        if piece.last
            && let Some(Gathering { bytes: Some(bytes) }) = self.command.take().map(|command| *command)
        {
            self.send_whole(bytes, piece);
        }
        Refused::Nothing
    }

    fn send_whole(&mut self, bytes: Zeroizing<Vec<u8>>, piece: &Piece<'_>) {
        let (head, command) = match command::parse_unauthenticated(&bytes) {
            Ok(parsed) => parsed,
            Err(bad) => return self.to_client.extend_from_slice(&bad.answer()),
        };
        if let Command::Authenticate(authenticate) = &command {
            let mechanism = authenticate.mechanism.as_str();
            if mechanism == "EXTERNAL" || mechanism.ends_with("-PLUS") {
                // They speak of a TLS connection, and the server's is the gateway's own.
                return self.to_client.extend_from_slice(&answer(head.tag, "NO [CANNOT] This mechanism cannot pass a proxy"));
            }
        }
        let stops = std::mem::take(&mut self.stops).0;
        let sent = stops.first().copied().unwrap_or(bytes.len());
        self.relay_first(head, &Piece { bytes: &bytes[..sent], kind: piece.kind, first: true, last: false });
        self.command = None;
        self.understand(&bytes);
        if !stops.is_empty() {
            self.prelude = Some(Box::new(Prelude { bytes, sent, stops }));
        }
    }

    /// The server asks for the next part; `false` if none is waiting.
    pub(super) fn send_prelude(&mut self) -> bool {
        let Some(prelude) = &mut self.prelude else { return false };
        if !prelude.has_more() {
            return false;
        }
        prelude.stops.remove(0);
        let end = prelude.stops.first().copied().unwrap_or(prelude.bytes.len());
        self.to_upstream.extend_from_slice(&prelude.bytes[prelude.sent..end]);
        prelude.sent = end;
        true
    }
}
