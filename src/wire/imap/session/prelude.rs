//! Before the client is authenticated a command is relayed only once it is whole and understood.
//!
//! Servers differ in what they make of a command that they do not like: whether its literal belongs
//! to it, or is a command of its own. A client could have one LOGIN read here and another there,
//! and hear of somebody else's mail.

use zeroize::Zeroizing;

use super::Session;
use super::commands::{GATHER_LIMIT, LiteralAnswer, PartialCommand, Prelude, answer};
use crate::wire::imap::command::{self, Command};
use crate::wire::imap::framing::{Kind, Piece};

impl Session {
    pub(super) fn gather_first(&mut self, piece: &Piece<'_>) -> LiteralAnswer {
        self.relay.command = Some(Box::new(PartialCommand { bytes: Some(Zeroizing::default()), stops: Vec::new() }));
        self.gather_rest(piece)
    }

    pub(super) fn gather_rest(&mut self, piece: &Piece<'_>) -> LiteralAnswer {
        let Some(PartialCommand { bytes: Some(bytes), stops }) = self.relay.command.as_deref_mut() else {
            return LiteralAnswer::Accept;
        };
        bytes.extend_from_slice(piece.bytes);
        if let Kind::Line { literal: Some(literal) } = piece.kind {
            let whole = u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_add(literal.len);
            if whole > GATHER_LIMIT as u64 {
                let tag = bytes.split(|b| *b == b' ').next().unwrap_or_default().to_vec();
                self.relay.command = None;
                return self.refuse(piece, answer(&tag, "BAD [TOOBIG] Too much before authentication"));
            }
            if literal.sync {
                stops.push(bytes.len());
                self.out.say(b"+ Go on\r\n");
            }
        }
        if piece.last
            && let Some(PartialCommand { bytes: Some(bytes), stops }) = self.relay.command.take().map(|command| *command)
        {
            self.send_whole(bytes, stops, piece);
        }
        LiteralAnswer::Accept
    }

    fn send_whole(&mut self, bytes: Zeroizing<Vec<u8>>, stops: Vec<usize>, piece: &Piece<'_>) {
        let (head, command) = match command::parse_unauthenticated(&bytes) {
            Ok(parsed) => parsed,
            Err(bad) => return self.out.say(&bad.answer()),
        };
        if let Command::Authenticate(authenticate) = &command {
            let mechanism = authenticate.mechanism.as_str();
            if mechanism == "EXTERNAL" || mechanism.ends_with("-PLUS") {
                // They speak of a TLS connection, and the server's is the gateway's own.
                return self.out.say(&answer(head.tag, "NO [CANNOT] This mechanism cannot pass a proxy"));
            }
        }
        let sent = stops.first().copied().unwrap_or(bytes.len());
        self.relay_first(head, &Piece { bytes: &bytes[..sent], kind: piece.kind, first: true, last: false });
        self.relay.command = None;
        self.understand(&bytes);
        if !stops.is_empty() {
            self.relay.prelude = Some(Box::new(Prelude { bytes, sent, stops }));
        }
    }

    /// The server asks for the next part; `false` if none is waiting.
    pub(super) fn send_prelude(&mut self) -> bool {
        let Some(prelude) = &mut self.relay.prelude else { return false };
        if !prelude.has_more() {
            return false;
        }
        prelude.stops.remove(0);
        let end = prelude.stops.first().copied().unwrap_or(prelude.bytes.len());
        self.out.to_upstream.extend_from_slice(&prelude.bytes[prelude.sent..end]);
        prelude.sent = end;
        true
    }
}
