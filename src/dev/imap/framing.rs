//! From bytes to whole commands: lines, and the literals between them (RFC 9051 4.3, RFC 7888).

/// The longest command without its literals, in bytes (RFC 7162 4 wants 8192 and more).
const MAX_LINE: usize = 64 * 1024;
/// The longest literal of any command but APPEND.
const MAX_SMALL_LITERAL: usize = 64 * 1024;

/// What has come in.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// A command with its literals, or any other line; its last line ends in CRLF.
    Whole(Vec<u8>),
    /// The client waits for `+` before it sends its literal.
    Continue,
    /// Too large a literal: the beginning of the command, which is not coming any more.
    TooLarge(Vec<u8>),
    /// A line without end: the connection is beyond hope.
    Hopeless,
}

/// Collects commands.
#[derive(Debug, Default)]
pub struct CommandReader {
    incoming: Vec<u8>,
    /// How much of `incoming` has been taken.
    taken: usize,
    command: Vec<u8>,
    /// Bytes of a literal that are still to come.
    literal: usize,
    /// Bytes of literals in the command.
    in_literals: usize,
    /// The literals of this command are thrown away.
    too_large: bool,
}

impl CommandReader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.incoming.drain(..self.taken);
        self.taken = 0;
        self.incoming.extend_from_slice(bytes);
    }

    /// Whether more may be pushed before what is here has been taken.
    pub fn has_room(&self) -> bool {
        self.incoming.len() - self.taken <= MAX_LINE
    }

    /// The next thing, if it is complete. `message_bytes`: the longest literal of APPEND.
    pub fn next(&mut self, message_bytes: usize) -> Option<Input> {
        loop {
            let rest = &self.incoming[self.taken..];
            if self.literal > 0 {
                let some = rest.len().min(self.literal);
                if !self.too_large {
                    self.command.extend_from_slice(&rest[..some]);
                }
                self.literal -= some;
                self.taken += some;
                if self.literal > 0 {
                    return None;
                }
                continue;
            }
            let end = memchr::memchr(b'\n', rest);
            let line_so_far = self.command.len() - self.in_literals + end.unwrap_or(rest.len());
            if line_so_far > MAX_LINE {
                return Some(Input::Hopeless);
            }
            let end = end?;
            self.taken += end + 1;
            let line = &self.incoming[self.taken - end - 1..self.taken - 1];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let announced = announced_literal(line);
            self.command.extend_from_slice(line);
            self.command.extend_from_slice(b"\r\n");
            let Some((length, waits)) = announced else {
                let command = std::mem::take(&mut self.command);
                self.in_literals = 0;
                return Some(if std::mem::take(&mut self.too_large) { Input::TooLarge(command) } else { Input::Whole(command) });
            };
            let limit = if is_append(&self.command) { message_bytes } else { MAX_SMALL_LITERAL };
            if length.saturating_add(self.in_literals) > limit || self.too_large {
                if waits {
                    self.too_large = false;
                    self.in_literals = 0;
                    return Some(Input::TooLarge(std::mem::take(&mut self.command)));
                }
                self.too_large = true;
            } else {
                self.in_literals += length;
            }
            self.literal = length;
            if waits {
                return Some(Input::Continue);
            }
        }
    }
}

/// The length at the end of a line, and whether the client waits for an invitation.
fn announced_literal(line: &[u8]) -> Option<(usize, bool)> {
    let inner = line.strip_suffix(b"}")?;
    let digits = &inner[memchr::memrchr(b'{', inner)? + 1..];
    let (digits, waits) = match digits.strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (digits, true),
    };
    let good = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    // A number too large to be read is too large to be taken.
    good.then(|| (std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX), waits))
}

fn is_append(command: &[u8]) -> bool {
    command.split(|b| *b == b' ').nth(1).is_some_and(|verb| verb.eq_ignore_ascii_case(b"APPEND"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(framer: &mut CommandReader, limit: usize) -> Vec<Input> {
        std::iter::from_fn(|| framer.next(limit)).collect()
    }

    fn whole(text: &str) -> Input {
        Input::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn literals_belong_to_their_command() {
        let mut framer = CommandReader::default();
        framer.push(b"a LOGIN {5}\r\n");
        assert_eq!(all(&mut framer, 9), [Input::Continue]);
        framer.push(b"al\nce {3+}\r\nx\r\n\r\nb NOOP\n");
        assert_eq!(all(&mut framer, 9), [whole("a LOGIN {5}\r\nal\nce {3+}\r\nx\r\n\r\n"), whole("b NOOP\r\n")]);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut framer = CommandReader::default();
        framer.push(b"a APPEND x {10}\r\nb APPEND x {10+}\r\n0123456789\r\nc NOOP\r\n");
        let refused = |text: &str| Input::TooLarge(text.as_bytes().to_vec());
        let expected = [refused("a APPEND x {10}\r\n"), refused("b APPEND x {10+}\r\n\r\n"), whole("c NOOP\r\n")];
        assert_eq!(all(&mut framer, 9), expected);
        framer.push(&vec![b'x'; MAX_LINE]);
        assert!(framer.next(9).is_none() && framer.has_room(), "or nobody would ever see that it is too long");
        framer.push(b"x");
        assert_eq!(framer.next(9), Some(Input::Hopeless));
        assert_eq!(announced_literal(b"{99999999999999999999999}"), Some((usize::MAX, true)));
        assert_eq!(announced_literal(b"{}"), None);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_are_split(cuts in proptest::collection::vec(0usize..60, 0..8)) {
            let text = b"a LOGIN {5+}\r\nal\nce x\r\nb APPEND INBOX {3+}\r\nabc\r\nc NOOP\r\n";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut framer = CommandReader::default();
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                framer.push(&text[pair[0]..pair[1]]);
                found.extend(all(&mut framer, 9));
            }
            let expected = [whole("a LOGIN {5+}\r\nal\nce x\r\n"), whole("b APPEND INBOX {3+}\r\nabc\r\n"), whole("c NOOP\r\n")];
            prop_assert_eq!(found, expected);
        }
    }
}
