//! A small tokenizer over bytes that are there already: what commands and responses are read with.
//!
//! It borrows, never panics, and takes the time that the bytes are long. `None` says that the thing
//! is not there; the place is then where it was before.

use std::borrow::Cow;

/// What stands at the end of a line that announces a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LiteralHeader {
    /// `None`: more than 64 bits.
    pub len: Option<u64>,
    pub sync: bool,
    pub binary: bool,
    /// Its length with the line's end, in bytes.
    pub width: usize,
}

/// `["~"] "{" number64 ["+"] "}" [CR] LF` at the end of `line` (RFC 9051 section 9, RFC 7888, RFC
/// 3516).
pub(super) fn literal_at_end(line: &[u8]) -> Option<LiteralHeader> {
    let text = line.strip_suffix(b"\n")?;
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let inner = text.strip_suffix(b"}")?;
    let (inner, sync) = match inner.strip_suffix(b"+") {
        Some(inner) => (inner, false),
        None => (inner, true),
    };
    let digits = inner.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, number) = inner.split_at(inner.len() - digits);
    let before = before.strip_suffix(b"{")?;
    if number.is_empty() {
        return None;
    }
    let binary = before.ends_with(b"~");
    let width = line.len() - before.len() + usize::from(binary);
    Some(LiteralHeader { len: decimal(number), sync, binary, width })
}

/// All of `digits` as a number; `None` when it has none, something else, or more than 64 bits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The line without its end.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// ATOM-CHAR of RFC 9051 section 9; `resp-specials` among them only where the caller says so.
pub(super) fn is_atom_char(b: u8) -> bool {
    b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b)
}

/// A place in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Whether nothing but a line's end is left, after spaces that some software leaves there.
    pub fn at_end(&self) -> bool {
        without_end(self.rest).iter().all(|b| *b == b' ')
    }

    pub fn eat(&mut self, byte: u8) -> bool {
        self.strip(&[byte])
    }

    /// Takes `word` in any case; it must not be followed by more of an atom.
    pub fn eat_word(&mut self, word: &str) -> bool {
        let mut ahead = *self;
        match ahead.atom() {
            Some(atom) if atom.eq_ignore_ascii_case(word.as_bytes()) => {
                *self = ahead;
                true
            }
            _ => false,
        }
    }

    fn strip(&mut self, prefix: &[u8]) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// One space or more; the grammar has one, some software sends two.
    pub fn spaces(&mut self) -> bool {
        let found = self.peek() == Some(b' ');
        self.take_while(|b| b == b' ');
        found
    }

    pub fn take_while(&mut self, keep: impl Fn(u8) -> bool) -> &'a [u8] {
        let len = self.rest.iter().position(|b| !keep(*b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    /// Everything before the first `stop`, which is taken too.
    pub fn take_until(&mut self, stop: u8) -> Option<&'a [u8]> {
        let at = memchr::memchr(stop, self.rest)?;
        let taken = &self.rest[..at];
        self.rest = &self.rest[at + 1..];
        Some(taken)
    }

    fn some(&mut self, keep: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        Some(self.take_while(keep)).filter(|taken| !taken.is_empty())
    }

    pub fn atom(&mut self) -> Option<&'a [u8]> {
        self.some(is_atom_char)
    }

    /// A word up to a space, a bracket or the line's end: wider than an atom, for what need not be
    /// understood.
    pub fn word(&mut self) -> Option<&'a [u8]> {
        self.some(|b| !b" ()[]\r\n\"".contains(&b))
    }

    /// A flag, `\*` among them, as it is written.
    pub fn flag(&mut self) -> Option<&'a [u8]> {
        self.some(|b| !b" ()\r\n\"".contains(&b))
    }

    pub fn number64(&mut self) -> Option<u64> {
        let mut ahead = *self;
        let number = decimal(ahead.take_while(|b| b.is_ascii_digit()))?;
        *self = ahead;
        Some(number)
    }

    pub fn number(&mut self) -> Option<u32> {
        let mut ahead = *self;
        let number = u32::try_from(ahead.number64()?).ok()?;
        *self = ahead;
        Some(number)
    }

    /// A quoted string, its escapes taken out. No CR, LF or NUL is in it.
    pub fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        let inner = self.rest.strip_prefix(b"\"")?;
        let mut at = 0;
        let mut escaped = false;
        loop {
            match inner.get(at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    at += 1;
                    if !matches!(inner.get(at)?, b'"' | b'\\') {
                        return None;
                    }
                }
                b'\r' | b'\n' | 0 => return None,
                _ => {}
            }
            at += 1;
        }
        self.rest = &inner[at + 1..];
        let text = &inner[..at];
        if !escaped {
            return Some(Cow::Borrowed(text));
        }
        let mut plain = Vec::with_capacity(text.len());
        let mut bytes = text.iter();
        while let Some(b) = bytes.next() {
            plain.extend(if *b == b'\\' { bytes.next() } else { Some(b) });
        }
        Some(Cow::Owned(plain))
    }

    /// A literal that is there whole.
    pub fn literal(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.strip_prefix(b"~").unwrap_or(self.rest);
        if start.first() != Some(&b'{') {
            return None;
        }
        let line = &self.rest[..=memchr::memchr(b'\n', self.rest)?];
        let header = literal_at_end(line).filter(|header| header.width == line.len())?;
        let len = usize::try_from(header.len?).ok()?;
        let rest = &self.rest[line.len()..];
        if rest.len() < len {
            return None;
        }
        let (bytes, rest) = rest.split_at(len);
        self.rest = rest;
        Some(bytes)
    }

    pub fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        self.quoted().or_else(|| self.literal().map(Cow::Borrowed))
    }

    /// `astring` of RFC 9051 section 9. Bytes beyond ASCII are taken in an atom: clients send names
    /// so.
    pub fn astring(&mut self) -> Option<Cow<'a, [u8]>> {
        self.string().or_else(|| self.some(|b| is_atom_char(b) || b == b']' || b >= 0x80).map(Cow::Borrowed))
    }

    /// An argument of LOGIN: wider than `astring` by what servers take there although the grammar
    /// does not (`%`, `*`, `\\`): passwords are made of anything, and old clients quote nothing.
    pub fn login_string(&mut self) -> Option<Cow<'a, [u8]>> {
        let bare = |b: u8| b > b' ' && b != 0x7f && !b"(){\"".contains(&b);
        self.string().or_else(|| self.some(bare).map(Cow::Borrowed))
    }

    /// `nstring`: `Some(None)` is NIL.
    pub fn nstring(&mut self) -> Option<Option<Cow<'a, [u8]>>> {
        if self.eat_word("NIL") { Some(None) } else { self.string().map(Some) }
    }

    /// A hierarchy delimiter: one quoted byte of ASCII, or NIL.
    pub fn delimiter(&mut self) -> Option<Option<u8>> {
        match self.nstring()? {
            Some(text) if text.len() == 1 && text.is_ascii() => Some(Some(text[0])),
            Some(_) => None,
            None => Some(None),
        }
    }

    /// The things in `(…)`, each taken by `item`.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut ahead = *self;
        let mut items = Vec::new();
        if !ahead.eat(b'(') {
            return None;
        }
        loop {
            ahead.spaces();
            if ahead.eat(b')') {
                *self = ahead;
                return Some(items);
            }
            items.push(item(&mut ahead)?);
        }
    }

    /// Steps over one value, whatever it is: a string, a list with all in it, an atom with its
    /// `[…]`.
    pub fn skip_value(&mut self) -> Option<()> {
        let mut ahead = *self;
        let mut depth = 0usize;
        loop {
            match ahead.peek()? {
                b'(' | b'[' => {
                    ahead.eat_any();
                    depth += 1;
                }
                b')' | b']' if depth > 0 => {
                    ahead.eat_any();
                    depth -= 1;
                }
                b' ' if depth > 0 => {
                    ahead.spaces();
                    continue;
                }
                b'"' => drop(ahead.quoted()?),
                b'{' => drop(ahead.literal()?),
                b' ' | b')' | b'\r' | b'\n' => return None,
                _ => drop(ahead.some(|b| !b" ()[]\"\r\n{".contains(&b))?),
            }
            if depth == 0 && !matches!(ahead.peek(), Some(b'[' | b'<' | b'{')) {
                *self = ahead;
                return Some(());
            }
        }
    }

    fn eat_any(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }
}
