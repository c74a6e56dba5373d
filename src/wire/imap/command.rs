//! The commands that the proxy must understand.
//!
//! [`Head`] is read of every relayed command; the whole of a command only of those in [`Command`].
//! What a server would refuse is refused here too, where the gateway acts on it.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::scan::{Scan, is_atom_char};

/// What a command is called, as far as the proxy distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Append,
    Authenticate,
    CancelUpdate,
    Capability,
    Check,
    Close,
    Compress,
    Copy,
    Create,
    Delete,
    DeleteAcl,
    Enable,
    Esearch,
    Examine,
    Expunge,
    Fetch,
    Id,
    Idle,
    List,
    Login,
    Logout,
    Move,
    Namespace,
    Noop,
    Notify,
    Rename,
    Replace,
    Search,
    Select,
    SetAcl,
    Sort,
    StartTls,
    Status,
    Store,
    Thread,
    Unauthenticate,
    Unselect,
    Other,
}

const NAMES: &[(&str, Name)] = &[
    ("APPEND", Name::Append),
    ("AUTHENTICATE", Name::Authenticate),
    ("CANCELUPDATE", Name::CancelUpdate),
    ("CAPABILITY", Name::Capability),
    ("CHECK", Name::Check),
    ("CLOSE", Name::Close),
    ("COMPRESS", Name::Compress),
    ("COPY", Name::Copy),
    ("CREATE", Name::Create),
    ("DELETE", Name::Delete),
    ("DELETEACL", Name::DeleteAcl),
    ("ENABLE", Name::Enable),
    ("ESEARCH", Name::Esearch),
    ("EXAMINE", Name::Examine),
    ("EXPUNGE", Name::Expunge),
    ("FETCH", Name::Fetch),
    ("ID", Name::Id),
    ("IDLE", Name::Idle),
    ("LIST", Name::List),
    ("LOGIN", Name::Login),
    ("LOGOUT", Name::Logout),
    ("MOVE", Name::Move),
    ("NAMESPACE", Name::Namespace),
    ("NOOP", Name::Noop),
    ("NOTIFY", Name::Notify),
    ("RENAME", Name::Rename),
    ("REPLACE", Name::Replace),
    ("SEARCH", Name::Search),
    ("SELECT", Name::Select),
    ("SETACL", Name::SetAcl),
    ("SORT", Name::Sort),
    ("STARTTLS", Name::StartTls),
    ("STATUS", Name::Status),
    ("STORE", Name::Store),
    ("THREAD", Name::Thread),
    ("UNAUTHENTICATE", Name::Unauthenticate),
    ("UNSELECT", Name::Unselect),
];

impl Name {
    fn of(word: &[u8]) -> Self {
        NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes())).map_or(Self::Other, |(_, name)| *name)
    }
}

/// How a command starts: tag and name. `uid` is set for `UID FETCH` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    pub tag: &'a [u8],
    pub name: Name,
    pub uid: bool,
}

/// A command that is none. [`Self::answer`] tells the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct BadCommand<'a> {
    /// Empty when there is no valid one.
    pub tag: &'a [u8],
    pub words: &'static str,
}

impl BadCommand<'_> {
    /// The tagged BAD, or an untagged one where the tag could not be read (RFC 9051 7.1.3).
    pub fn answer(&self) -> Vec<u8> {
        let tag = if self.tag.is_empty() { b"*" } else { self.tag };
        [tag, b" BAD ", self.words.as_bytes(), b"\r\n"].concat()
    }
}

impl<'a> Head<'a> {
    /// Reads the first line segment of a command.
    pub fn parse(line: &'a [u8]) -> Result<Self, BadCommand<'a>> {
        Self::scan(&mut Scan::new(line))
    }

    fn scan(scan: &mut Scan<'a>) -> Result<Self, BadCommand<'a>> {
        let tag = scan.take_while(|b| (is_atom_char(b) || b == b']') && b != b'+');
        let after = scan.peek();
        if tag.is_empty() || !matches!(after, Some(b' ' | b'\r' | b'\n') | None) {
            return Err(BadCommand { tag: b"", words: "Invalid tag" });
        }
        let bad = |words| BadCommand { tag, words };
        scan.spaces();
        let word = scan.atom().ok_or(bad("Missing command name"))?;
        if !matches!(scan.peek(), Some(b' ' | b'\r' | b'\n') | None) {
            return Err(bad("Invalid command name"));
        }
        if !word.eq_ignore_ascii_case(b"UID") {
            return Ok(Self { tag, name: Name::of(word), uid: false });
        }
        scan.spaces();
        let word = scan.atom().ok_or(bad("Missing command name after UID"))?;
        Ok(Self { tag, name: Name::of(word), uid: true })
    }
}

/// A whole command, its parts decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Login(Login),
    Authenticate(Authenticate),
    Select(Select),
    /// The names of what is to be enabled, as they are written (RFC 5161).
    Enable(Vec<&'a [u8]>),
    /// RFC 4314 3.1; `rights` with its `+` or `-`.
    SetAcl {
        mailbox: Vec<u8>,
        identifier: Vec<u8>,
        rights: Vec<u8>,
    },
    /// RFC 4314 3.2.
    DeleteAcl {
        mailbox: Vec<u8>,
        identifier: Vec<u8>,
    },
    /// RFC 2971.
    Id,
    /// RFC 5465; `none`: `NOTIFY NONE`.
    Notify {
        none: bool,
    },
    /// A command without arguments, or one that is not read further.
    Other,
}

/// RFC 9051 6.2.3.
#[derive(PartialEq, Eq)]
pub struct Login {
    pub user: Vec<u8>,
    pub password: Zeroizing<Vec<u8>>,
}

impl Login {
    /// `None` when they are not UTF-8.
    pub fn credentials(&self) -> Option<Credentials> {
        Some(Credentials::new(std::str::from_utf8(&self.user).ok()?, std::str::from_utf8(&self.password).ok()?))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// RFC 9051 6.2.2.
#[derive(PartialEq, Eq)]
pub struct Authenticate {
    /// Upper case.
    pub mechanism: String,
    /// The initial response, decoded (RFC 4959); empty for `=`.
    pub initial: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticate({}, …)", self.mechanism)
    }
}

/// SELECT or EXAMINE (RFC 9051 6.3.2, RFC 7162 3.1.8 and 3.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// As it is written on the wire, but without quotes.
    pub mailbox: Vec<u8>,
    /// EXAMINE.
    pub read_only: bool,
    pub condstore: bool,
    pub qresync: bool,
}

/// Reads a complete command: its line segments and literals, one after the other as they came.
pub fn parse(bytes: &[u8]) -> Result<(Head<'_>, Command<'_>), BadCommand<'_>> {
    let mut scan = Scan::new(bytes);
    let head = Head::scan(&mut scan)?;
    let command = match (head.name, head.uid) {
        (Name::Login, false) => login(&mut scan).ok_or("LOGIN takes a user name and a password"),
        (Name::Authenticate, false) => authenticate(&mut scan).ok_or("AUTHENTICATE takes a mechanism and base64"),
        (Name::Select, false) => select(&mut scan, false).ok_or("SELECT takes a mailbox name"),
        (Name::Examine, false) => select(&mut scan, true).ok_or("EXAMINE takes a mailbox name"),
        (Name::Enable, false) => enable(&mut scan).ok_or("ENABLE takes the names of capabilities"),
        (Name::SetAcl, false) => set_acl(&mut scan).ok_or("SETACL takes a mailbox name, an identifier and rights"),
        (Name::DeleteAcl, false) => delete_acl(&mut scan).ok_or("DELETEACL takes a mailbox name and an identifier"),
        (Name::Id, false) => id(&mut scan).ok_or("ID takes NIL or a list of strings"),
        (Name::Notify, false) => notify(&mut scan).ok_or("NOTIFY takes SET or NONE"),
        _ => return Ok((head, Command::Other)),
    };
    command.map(|command| (head, command)).map_err(|words| BadCommand { tag: head.tag, words })
}

/// The same of a command before the client is authenticated, where more is refused: a command with
/// a literal must be one that is read here to its end.
///
/// Servers differ in whether the literal of a command that they do not like is a part of it, or a
/// command of its own. A client could use that to have one LOGIN read here and another there, and
/// pass for somebody else.
pub fn parse_unauthenticated(bytes: &[u8]) -> Result<(Head<'_>, Command<'_>), BadCommand<'_>> {
    let parsed = parse(bytes)?;
    // A command that is one line ends with the first line's end.
    let one_line = memchr::memchr(b'\n', bytes).is_none_or(|at| at + 1 == bytes.len());
    match parsed {
        (Head { tag, .. }, Command::Other) if !one_line => {
            Err(BadCommand { tag, words: "No literal may stand in this command before authentication" })
        }
        parsed => Ok(parsed),
    }
}

/// The next argument: a space and a string. NUL can stand in no argument of these commands.
fn argument<'a>(scan: &mut Scan<'a>) -> Option<Cow<'a, [u8]>> {
    if !scan.spaces() {
        return None;
    }
    scan.astring().filter(|text| !text.contains(&0))
}

fn login<'a>(scan: &mut Scan<'_>) -> Option<Command<'a>> {
    let mut argument = || if scan.spaces() { scan.login_string().filter(|text| !text.contains(&0)) } else { None };
    let user = argument()?.into_owned();
    let password = Zeroizing::new(argument()?.into_owned());
    scan.at_end().then_some(Command::Login(Login { user, password }))
}

fn authenticate<'a>(scan: &mut Scan<'_>) -> Option<Command<'a>> {
    scan.spaces();
    let mechanism = String::from_utf8(scan.atom()?.to_ascii_uppercase()).ok()?;
    if scan.at_end() {
        return Some(Command::Authenticate(Authenticate { mechanism, initial: None }));
    }
    scan.spaces();
    let text = scan.word()?;
    let initial = if text == b"=" { Vec::new() } else { BASE64.decode(text).ok()? };
    let initial = Some(Zeroizing::new(initial));
    scan.at_end().then_some(Command::Authenticate(Authenticate { mechanism, initial }))
}

fn select<'a>(scan: &mut Scan<'_>, read_only: bool) -> Option<Command<'a>> {
    let mut select = Select { mailbox: argument(scan)?.into_owned(), read_only, condstore: false, qresync: false };
    scan.spaces();
    if scan.peek() == Some(b'(') {
        scan.list(|scan| {
            // `select-param`: a name, and a value that may be a list.
            if scan.peek() == Some(b'(') {
                return scan.skip_value();
            }
            let name = scan.word()?;
            select.condstore |= name.eq_ignore_ascii_case(b"CONDSTORE");
            select.qresync |= name.eq_ignore_ascii_case(b"QRESYNC");
            Some(())
        })?;
    }
    scan.at_end().then_some(Command::Select(select))
}

fn enable<'a>(scan: &mut Scan<'a>) -> Option<Command<'a>> {
    let mut names = Vec::new();
    while scan.spaces() && !scan.at_end() {
        names.push(scan.atom()?);
    }
    (scan.at_end() && !names.is_empty()).then_some(Command::Enable(names))
}

fn set_acl<'a>(scan: &mut Scan<'_>) -> Option<Command<'a>> {
    let mailbox = argument(scan)?.into_owned();
    let identifier = argument(scan)?.into_owned();
    let rights = argument(scan)?.into_owned();
    scan.at_end().then_some(Command::SetAcl { mailbox, identifier, rights })
}

fn delete_acl<'a>(scan: &mut Scan<'_>) -> Option<Command<'a>> {
    let mailbox = argument(scan)?.into_owned();
    let identifier = argument(scan)?.into_owned();
    scan.at_end().then_some(Command::DeleteAcl { mailbox, identifier })
}

fn id<'a>(scan: &mut Scan<'_>) -> Option<Command<'a>> {
    scan.spaces();
    if !scan.eat_word("NIL") {
        scan.list(Scan::nstring)?;
    }
    scan.at_end().then_some(Command::Id)
}

fn notify<'a>(scan: &mut Scan<'_>) -> Option<Command<'a>> {
    scan.spaces();
    let none = scan.eat_word("NONE");
    (none && scan.at_end() || scan.eat_word("SET")).then_some(Command::Notify { none })
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
