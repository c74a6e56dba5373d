//! Whose credentials went by: the identity learned from a SASL exchange (RFC 4422).
//!
//! Nothing is decided here. The server decides whether it believes the client; only then does the
//! session ask who it was. What cannot be read exactly yields no identity, never a guess. How long
//! a message may be is bounded by the framing.

use std::fmt;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::scan::without_end;

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
    Known {
        identity: String,
        /// The authorization identity, empty if there was none, and what was logged in with: of
        /// PLAIN.
        plain: Option<(String, Credentials)>,
    },
    /// It cannot be learned.
    Lost,
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

    /// A line of the client's, which answers a continuation request. `*` ends the exchange.
    pub fn client_line(&mut self, line: &[u8]) {
        let text = without_end(line);
        match BASE64.decode(text).map(Zeroizing::new) {
            Ok(message) => self.message(&message),
            Err(_) => self.progress = Progress::Lost,
        }
    }

    /// Whose mail it is, should the server accept: the authorization identity where one is given,
    /// else the authentication identity, as the client wrote it.
    pub fn identity(&self) -> Option<&str> {
        match &self.progress {
            Progress::Known { identity, .. } => Some(identity),
            _ => None,
        }
    }

    /// What PLAIN logged in with: the authorization identity, empty if there was none, and the
    /// credentials.
    pub fn plain(&self) -> Option<(String, Credentials)> {
        match &self.progress {
            Progress::Known { plain, .. } => plain.clone(),
            _ => None,
        }
    }

    fn message(&mut self, message: &[u8]) {
        self.progress = match (self.mechanism, std::mem::replace(&mut self.progress, Progress::Lost)) {
            (_, Progress::Waiting) => {
                std::str::from_utf8(message).ok().and_then(|text| self.first(text)).unwrap_or(Progress::Lost)
            }
            // PLAIN says all at once.
            (Mechanism::Plain, _) => Progress::Lost,
            // A password, proofs, final words.
            (_, progress) => progress,
        };
    }

    fn first(&self, text: &str) -> Option<Progress> {
        if self.mechanism == Mechanism::Plain {
            return plain(text);
        }
        let identity = match self.mechanism {
            Mechanism::CramMd5 => some(text.rsplit_once(' ')?.0),
            Mechanism::External | Mechanism::Login => some(text),
            Mechanism::OauthBearer => oauth_bearer(text),
            Mechanism::Scram => scram(text),
            Mechanism::Xoauth2 => field(text, "user=").and_then(some),
            Mechanism::Plain | Mechanism::Unknown => None,
        };
        Some(Progress::Known { identity: identity?, plain: None })
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 2).
fn plain(text: &str) -> Option<Progress> {
    let mut parts = text.split('\0');
    let (authzid, authcid, password) = (parts.next()?, parts.next()?, parts.next()?);
    if authcid.is_empty() || parts.next().is_some() {
        return None;
    }
    let identity = if authzid.is_empty() { authcid } else { authzid };
    let plain = Some((authzid.to_owned(), Credentials::new(authcid, password)));
    Some(Progress::Known { identity: identity.to_owned(), plain })
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

/// `client-first-message` (RFC 5802 7). The user name goes through SASLprep on the server;
/// `UserNames` has the last word.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(mechanism: &str, initial: Option<&str>, lines: &[&str]) -> Option<String> {
        let mut exchange = Exchange::new(mechanism, initial.map(str::as_bytes));
        for line in lines {
            exchange.client_line(format!("{}\r\n", BASE64.encode(line.as_bytes())).as_bytes());
        }
        exchange.identity().map(str::to_owned)
    }

    #[test]
    fn identities() {
        // RFC 5802 5, RFC 7628 4.1, RFC 2195 2, and Google's description of XOAUTH2.
        let scram = "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL";
        let proof = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        let bearer = "n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmT\x01\x01";
        let xoauth = "user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmT\x01\x01";
        for (mechanism, initial, lines, expected) in [
            ("PLAIN", Some("\0tim\0tanstaaftanstaaf"), &[][..], Some("tim")),
            ("plain", None, &["Ursel\0Kurt\0xipj3plmq"], Some("Ursel")),
            ("PLAIN", Some("alice\0gw\0gwpw"), &[], Some("alice")),
            ("PLAIN", Some("\0alice\0"), &[], Some("alice")),
            ("PLAIN", Some("\0alice"), &[], None),
            ("PLAIN", Some("\0\0pw"), &[], None),
            ("PLAIN", Some("a\0b\0c\0d"), &[], None),
            ("PLAIN", Some("\0alice\0pw"), &["\0bob\0pw"], None),
            ("PLAIN", None, &[], None),
            ("LOGIN", None, &["alice", "pw"], Some("alice")),
            ("LOGIN", Some("alice"), &["pw"], Some("alice")),
            ("SCRAM-SHA-1", Some(scram), &[proof], Some("user")),
            ("SCRAM-SHA-256", None, &["y,,n=a=2Cb=3Dc,r=x", proof], Some("a,b=c")),
            ("SCRAM-SHA-256-PLUS", Some("p=tls-unique,a=admin,n=user,r=x"), &[], Some("admin")),
            ("SCRAM-SHA-1", Some("n,,m=ext,n=user,r=x"), &[], None),
            ("SCRAM-SHA-1", Some("n,,n=us=er,r=x"), &[], None),
            ("SCRAM-SHA-1", Some("x,,n=user,r=x"), &[], None),
            ("OAUTHBEARER", Some(bearer), &[], Some("user@example.com")),
            ("OAUTHBEARER", Some("n,,\x01user=u@x\x01auth=Bearer t\x01\x01"), &[], Some("u@x")),
            ("OAUTHBEARER", Some("n,,\x01auth=Bearer t\x01\x01"), &[], None),
            // The dummy answer to an error changes nothing.
            ("OAUTHBEARER", Some(bearer), &["\x01"], Some("user@example.com")),
            ("XOAUTH2", Some(xoauth), &[], Some("someuser@example.com")),
            ("XOAUTH2", Some("user=a\x01user=b\x01\x01"), &[], None),
            ("CRAM-MD5", None, &["tim b913a602c7eda7a495b4e6e7334d3890"], Some("tim")),
            ("CRAM-MD5", None, &["tim smith b913a602c7eda7a495b4e6e7334d3890"], Some("tim smith")),
            ("CRAM-MD5", None, &["tim"], None),
            ("EXTERNAL", Some("alice"), &[], Some("alice")),
            ("EXTERNAL", Some(""), &[], None),
            ("GSSAPI", Some("alice"), &[], None),
        ] {
            assert_eq!(identity(mechanism, initial, lines).as_deref(), expected, "{mechanism} {initial:?} {lines:?}");
        }
    }

    #[test]
    fn only_plain_shows_credentials() {
        let plain = Exchange::new("PLAIN", Some(b"alice\0gw\0gwpw"));
        assert_eq!(plain.plain(), Some(("alice".to_owned(), Credentials::new("gw", "gwpw"))));
        assert_eq!(format!("{plain:?}"), "Exchange(Plain, …)");
        let own = Exchange::new("PLAIN", Some(b"\0alice\0pw"));
        assert_eq!(own.plain(), Some((String::new(), Credentials::new("alice", "pw"))));
        assert_eq!(Exchange::new("EXTERNAL", Some(b"alice")).plain(), None);
    }

    #[test]
    fn what_is_no_message_loses_the_identity() {
        for line in ["*\r\n", "no base64\r\n", "AGE\r\n", "/w==\r\n"] {
            let mut exchange = Exchange::new("LOGIN", None);
            exchange.client_line(line.as_bytes());
            exchange.client_line(b"YWxpY2U=\r\n");
            assert_eq!(exchange.identity(), None, "{line}");
        }
        let mut given_up = Exchange::new("SCRAM-SHA-1", Some(b"n,,n=user,r=x"));
        given_up.client_line(b"*\r\n");
        assert_eq!(given_up.identity(), None);
    }
}
