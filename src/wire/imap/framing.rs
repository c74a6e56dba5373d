//! A byte stream cut into lines and literals, without ever holding a literal.
//!
//! - A line ends with LF; the CR before it is usual, not required. Servers that are forgiving read
//!   it so too (Dovecot, Cyrus, Courier), and so do client libraries that read line by line. A CR
//!   alone, and NUL, are bytes like others: they pass, and whoever parses the line refuses them.
//! - `{n}`, `{n+}` and `~{n}` announce a literal only at the very end of a line (RFC 9051 section
//!   9, `literal`). In a client's line it must not stand inside a quoted string, which cannot reach
//!   over a line's end: servers call that a broken command and read the next line as a new one.
//! - A server's status responses (`* OK`, `NO`, `BAD`, `BYE`, `PREAUTH`, everything tagged) and its
//!   continuation requests end in free text, which may end in `{5}` and announces nothing
//!   (`resp-text`; no response code holds a literal).
//! - Lines inside a SASL exchange or IDLE are told apart by [`Framer::expect_plain`]: only the
//!   session knows of them.

use super::scan;

/// Whose bytes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A client's: a line that is too long is an error.
    Client,
    /// A server's: a line that is too long is passed on unread, in [`Kind::Part`]s.
    Server,
}

/// What bounds a [`Framer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub side: Side,
    /// The longest line segment that is held together, in bytes, its end included.
    pub line: usize,
    /// The longest literal, in bytes.
    pub literal: u64,
}

impl Limits {
    pub fn client(line: usize, literal: u64) -> Self {
        Self { side: Side::Client, line, literal }
    }

    /// A server may send literals of any length: they are streamed.
    pub fn server(line: usize) -> Self {
        Self { side: Side::Server, line, literal: u64::MAX }
    }
}

/// A stretch of the stream. All pieces, one after the other, are the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub bytes: &'a [u8],
    pub kind: Kind,
    /// A command or response starts here.
    pub first: bool,
    /// It ends here.
    pub last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole line segment with its end, and the literal that it announces.
    Line { literal: Option<Literal> },
    /// Some of a server's line that is too long to be held.
    Part,
    /// Some of a literal.
    Literal,
}

/// The announcement of a literal (RFC 9051 section 9, RFC 7888, RFC 3516).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Literal {
    pub len: u64,
    /// The client waits for a continuation request before it sends the literal: `{n}`, not `{n+}`.
    pub sync: bool,
    /// `~{n}`: may hold NUL.
    pub binary: bool,
}

/// The stream cannot be cut any further: the connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("line too long (limit {limit} bytes)")]
    LineTooLong { limit: usize },
    #[error("literal of {len} bytes too long (limit {limit} bytes)")]
    LiteralTooLong { len: u64, limit: u64 },
    #[error("literal too long")]
    LiteralOverflow,
}

/// Cuts one direction of a connection.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    state: State,
    /// The next piece is the first of a command or response.
    first: bool,
    /// The next line announces nothing.
    plain: bool,
    /// The beginning of a line whose end has not come.
    held: Vec<u8>,
    /// The last piece announced a literal for which the client waits.
    asked: bool,
    /// `held` was handed out as a piece and is of no more use.
    given: bool,
}

#[derive(Debug, Clone)]
enum State {
    Line,
    Literal {
        left: u64,
    },
    /// Within a line that is too long.
    Long(Box<Long>),
    Broken(FramingError),
}

/// What must be known of a long line: how it starts, and how it ends.
#[derive(Debug, Clone, Default)]
struct Long {
    /// It is the first of a response.
    opens: bool,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Long {
    /// Enough for `* PREAUTH `.
    const HEAD: usize = 16;
    /// Enough for `~{18446744073709551615+}` and CRLF.
    const TAIL: usize = 32;

    fn note(&mut self, bytes: &[u8]) {
        let wanted = (Self::HEAD - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..wanted]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(Self::TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(Self::TAIL));
    }
}

impl Framer {
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Line, first: true, plain: false, asked: false, held: Vec::new(), given: false }
    }

    /// The next piece, cut off the front of `input`; `None` when more input is needed, all of it
    /// being taken in. Call it until then.
    ///
    /// The piece lies in `input` where it can, and otherwise in a buffer of at most a line.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'a>>, FramingError> {
        self.forget_given();
        if let State::Broken(error) = self.state {
            return Err(error);
        }
        if input.is_empty() {
            return Ok(None);
        }
        self.asked = false;
        if let State::Literal { left } = self.state {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let left = left - len as u64;
            self.state = if left == 0 { State::Line } else { State::Literal { left } };
            return Ok(Some(Piece { bytes: cut(input, len), kind: Kind::Literal, first: false, last: false }));
        }
        let end = memchr::memchr(b'\n', input).map(|at| at + 1);
        let stretch = end.unwrap_or(input.len());
        if !matches!(self.state, State::Long(_)) && self.held.len() + stretch > self.limits.line {
            if self.limits.side == Side::Client {
                return Err(self.broken(FramingError::LineTooLong { limit: self.limits.line }));
            }
            self.state = State::Long(Box::new(Long { opens: self.first, ..Long::default() }));
            if !self.held.is_empty() {
                self.given = true;
                let held = std::mem::take(&mut self.held);
                let (first, last) = self.part(&held, false)?;
                self.held = held;
                return Ok(Some(Piece { bytes: &self.held, kind: Kind::Part, first, last }));
            }
        }
        let bytes = cut(input, stretch);
        if matches!(self.state, State::Long(_)) {
            let (first, last) = self.part(bytes, end.is_some())?;
            return Ok(Some(Piece { bytes, kind: Kind::Part, first, last }));
        }
        if end.is_none() {
            self.held.extend_from_slice(bytes);
            return Ok(None);
        }
        if self.held.is_empty() {
            let (kind, first, last) = self.line(bytes)?;
            return Ok(Some(Piece { bytes, kind, first, last }));
        }
        let mut whole = std::mem::take(&mut self.held);
        whole.extend_from_slice(bytes);
        let (kind, first, last) = self.line(&whole)?;
        self.held = whole;
        self.given = true;
        Ok(Some(Piece { bytes: &self.held, kind, first, last }))
    }

    /// Whether nothing is half read: the next byte starts a command or response.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Line) && self.first && (self.held.is_empty() || self.given)
    }

    /// The next line (or the rest of this one) is no command and announces no literal: base64 in a
    /// SASL exchange, or what a client says in IDLE. It is a [`Piece`] that is both first and last.
    pub fn expect_plain(&mut self) {
        self.plain = true;
    }

    /// The server refused the synchronizing literal announced last: the client sends a new command
    /// instead. It has no effect once some of the literal has gone by.
    pub fn refuse_literal(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.state = State::Line;
            self.first = true;
        }
    }

    /// Gives memory back that the last piece needed; it does so itself with the next bytes.
    #[cfg(test)]
    pub fn release(&mut self) {
        self.forget_given();
        self.held.shrink_to_fit();
    }

    fn forget_given(&mut self) {
        if self.given {
            self.held = Vec::new();
            self.given = false;
        }
    }

    fn broken(&mut self, error: FramingError) -> FramingError {
        self.held = Vec::new();
        self.state = State::Broken(error);
        error
    }

    /// What a whole line is, and what follows it.
    fn line(&mut self, line: &[u8]) -> Result<(Kind, bool, bool), FramingError> {
        let literal = self.announced(self.first, line, line)?;
        let (first, last) = self.advance(literal);
        Ok((Kind::Line { literal }, first, last))
    }

    /// The same of a stretch of a long line.
    fn part(&mut self, bytes: &[u8], ends: bool) -> Result<(bool, bool), FramingError> {
        let State::Long(long) = &mut self.state else { return Ok((false, false)) };
        long.note(bytes);
        if !ends {
            return Ok((std::mem::take(&mut self.first), false));
        }
        let Long { opens, head, tail } = std::mem::take(&mut **long);
        let literal = self.announced(opens, &head, &tail)?;
        Ok(self.advance(literal))
    }

    fn advance(&mut self, literal: Option<Literal>) -> (bool, bool) {
        let first = std::mem::replace(&mut self.first, literal.is_none());
        self.asked = literal.is_some_and(|literal| literal.sync);
        self.state = match literal {
            Some(Literal { len, .. }) if len > 0 => State::Literal { left: len },
            _ => State::Line,
        };
        (first, literal.is_none())
    }

    /// The literal announced by a line that starts with `head`, ends with `tail`, and opens a
    /// command or response or goes on with it.
    fn announced(&mut self, opens: bool, head: &[u8], tail: &[u8]) -> Result<Option<Literal>, FramingError> {
        if std::mem::take(&mut self.plain) {
            return Ok(None);
        }
        let Some(header) = scan::literal_at_end(tail) else { return Ok(None) };
        let void = match self.limits.side {
            Side::Client => ends_in_quotes(tail),
            Side::Server => opens && ends_in_text(head),
        };
        match header.len {
            _ if void => Ok(None),
            None if self.limits.side == Side::Server => Ok(None),
            None => Err(self.broken(FramingError::LiteralOverflow)),
            Some(len) if len > self.limits.literal => {
                Err(self.broken(FramingError::LiteralTooLong { len, limit: self.limits.literal }))
            }
            Some(len) => Ok(Some(Literal { len, sync: header.sync, binary: header.binary })),
        }
    }
}

fn cut<'i>(input: &mut &'i [u8], len: usize) -> &'i [u8] {
    let (bytes, rest) = input.split_at(len);
    *input = rest;
    bytes
}

/// Whether a quoted string is open at the end of the line.
fn ends_in_quotes(line: &[u8]) -> bool {
    let mut open = false;
    let mut at = 0;
    while let Some(step) = memchr::memchr2(b'"', b'\\', &line[at..]) {
        at += step;
        if line[at] == b'"' {
            open = !open;
        } else if open {
            // The byte after a backslash is only itself.
            at += 1;
        }
        at = (at + 1).min(line.len());
    }
    open
}

/// Whether a server's line that starts so is a status response or a continuation request.
fn ends_in_text(head: &[u8]) -> bool {
    let Some(untagged) = head.strip_prefix(b"* ") else {
        // A continuation request or a tag: everything tagged is a status response.
        return true;
    };
    let word = untagged.split(|b| b" \r\n".contains(b)).next().unwrap_or_default();
    ["OK", "NO", "BAD", "BYE", "PREAUTH"].iter().any(|status| word.eq_ignore_ascii_case(status.as_bytes()))
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
