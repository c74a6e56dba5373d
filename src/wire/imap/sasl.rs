//! Whose credentials went by: the identity learned from a SASL exchange (RFC 4422).
//!
//! Nothing is decided here. The server decides whether it believes the client; only then does the session ask who it was.
//! What cannot be read exactly yields no identity, never a guess.

use std::fmt;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::scan::without_end;

/// The longest message of a client that is read, in bytes of base64. OAuth tokens are a few thousand long.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What somebody was authenticated with.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose mail it is: the authorization identity where one is given, else the authentication identity.
    pub user: String,
    /// What was logged in with, of mechanisms that show it: PLAIN and LOGIN.
    pub credentials: Option<Credentials>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// An AUTHENTICATE that goes by.
pub struct Exchange {
    mechanism: Mechanism,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    CramMd5,
    External,
    Login,
    OauthBearer,
    Plain,
    Scram,
    Xoauth2,
    Unknown,
}

enum Progress {
    Waiting,
    /// LOGIN: the user name is there, the password is not.
    User(String),
    Known(Identity),
    /// It cannot be learned.
    Lost,
}

/// What a client's line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Message,
    /// `*`: the client gives up; the server answers BAD.
    Cancel,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({:?}, …)", self.mechanism)
    }
}

impl Exchange {
    /// An exchange begins; `initial` is the initial response, decoded.
    pub fn new(mechanism: &str, initial: Option<&[u8]>) -> Self {
        let mechanism = match mechanism.to_ascii_uppercase().as_str() {
            "CRAM-MD5" => Mechanism::CramMd5,
            "EXTERNAL" => Mechanism::External,
            "LOGIN" => Mechanism::Login,
            "OAUTHBEARER" => Mechanism::OauthBearer,
            "PLAIN" => Mechanism::Plain,
            "XOAUTH2" => Mechanism::Xoauth2,
            name if name.starts_with("SCRAM-") => Mechanism::Scram,
            _ => Mechanism::Unknown,
        };
        let mut exchange = Self { mechanism, progress: Progress::Waiting };
        if let Some(initial) = initial {
            exchange.message(initial);
        }
        exchange
    }

    /// A line of the client's, which answers a continuation request.
    pub fn handle_client(&mut self, line: &[u8]) -> Said {
        let text = without_end(line);
        if text == b"*" {
            self.progress = Progress::Lost;
            return Said::Cancel;
        }
        match BASE64.decode_len(text.len()) {
            Ok(_) if text.len() <= MAX_MESSAGE => match BASE64.decode(text).map(Zeroizing::new) {
                Ok(message) => self.message(&message),
                Err(_) => self.progress = Progress::Lost,
            },
            _ => self.progress = Progress::Lost,
        }
        Said::Message
    }

    /// Who it was, now that the server has accepted it.
    pub fn finish(self) -> Option<Identity> {
        match self.progress {
            Progress::Known(identity) => Some(identity),
            _ => None,
        }
    }

    fn message(&mut self, message: &[u8]) {
        let Ok(text) = std::str::from_utf8(message) else {
            self.progress = Progress::Lost;
            return;
        };
        self.progress = match (self.mechanism, std::mem::replace(&mut self.progress, Progress::Lost)) {
            (Mechanism::Login, Progress::Waiting) if !text.is_empty() => Progress::User(text.to_owned()),
            (Mechanism::Login, Progress::User(user)) => {
                let credentials = Some(Credentials::new(user.clone(), text));
                Progress::Known(Identity { user, credentials })
            }
            (Mechanism::Plain, Progress::Waiting) => plain(text).map_or(Progress::Lost, Progress::Known),
            (_, Progress::Waiting) => {
                self.user(text).map_or(Progress::Lost, |user| Progress::Known(Identity { user, credentials: None }))
            }
            // Proofs and final words; PLAIN and LOGIN have none.
            (Mechanism::Plain | Mechanism::Login, _) => Progress::Lost,
            (_, progress) => progress,
        };
    }

    fn user(&self, text: &str) -> Option<String> {
        match self.mechanism {
            Mechanism::CramMd5 => some(text.rsplit_once(' ')?.0),
            Mechanism::External => some(text),
            Mechanism::OauthBearer => oauth_bearer(text),
            Mechanism::Scram => scram(text),
            Mechanism::Xoauth2 => field(text, "user=").and_then(some),
            Mechanism::Plain | Mechanism::Login | Mechanism::Unknown => None,
        }
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 2).
fn plain(text: &str) -> Option<Identity> {
    let mut parts = text.split('\0');
    let (authzid, authcid, password) = (parts.next()?, parts.next()?, parts.next()?);
    if authcid.is_empty() || parts.next().is_some() {
        return None;
    }
    let user = if authzid.is_empty() { authcid } else { authzid };
    Some(Identity { user: user.to_owned(), credentials: Some(Credentials::new(authcid, password)) })
}

/// `gs2-header` (RFC 5801 4): what it says of the authorization identity, and what follows.
fn gs2(text: &str) -> Option<(Option<String>, &str)> {
    let (binding, rest) = text.split_once(',')?;
    if !matches!(binding, "n" | "y") && !binding.starts_with("p=") {
        return None;
    }
    let (authzid, rest) = rest.split_once(',')?;
    if authzid.is_empty() {
        return Some((None, rest));
    }
    Some((Some(saslname(authzid.strip_prefix("a=")?)?), rest))
}

/// `saslname` (RFC 5801 4): `,` and `=` are written `=2C` and `=3D`.
fn saslname(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (c, rest) = part.strip_prefix("2C").map(|rest| (',', rest)).or(part.strip_prefix("3D").map(|rest| ('=', rest)))?;
        name.push(c);
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

/// `client-first-message` (RFC 5802 7). The user name goes through SASLprep on the server; `UserNames` has the last word.
fn scram(text: &str) -> Option<String> {
    let (authzid, bare) = gs2(text)?;
    let user = saslname(bare.strip_prefix("n=")?.split(',').next()?)?;
    Some(authzid.unwrap_or(user))
}

/// RFC 7628 3.1. Without either the identity is known to the token alone.
fn oauth_bearer(text: &str) -> Option<String> {
    let (authzid, rest) = gs2(text)?;
    authzid.or_else(|| field(rest, "user=").and_then(some))
}

/// A field of those that Control-A ends.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut found = text.split('\x01').filter_map(|field| field.strip_prefix(name));
    // One that is said twice may be read in two ways.
    found.next().filter(|_| found.next().is_none())
}
