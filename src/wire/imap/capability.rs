//! Capability lists, rewritten wherever they appear: the CAPABILITY response, and the code of the
//! same name in a greeting and in an OK (RFC 9051 6.1.1, 7.1, 7.2.2).
//!
//! Hidden is what cannot go through a relay:
//! - `COMPRESS=…` (RFC 4978): the relay reads what goes by.
//! - `STARTTLS`, unless the gateway itself does it: the server's would be for the gateway's own
//!   connection.
//! - `AUTH=EXTERNAL` (RFC 4422 appendix A): the server would take the gateway's own certificate or
//!   address for the client's.
//! - `AUTH=…-PLUS` (RFC 5802 6): bound to a TLS connection that ends here.
//! - `UNAUTHENTICATE` (RFC 8437): a session belongs to one user.
//!
//! `UIDONLY` (RFC 9586) and `NOTIFY` (RFC 5465) stay: a client that enables them is seen doing so,
//! and from then on the server's own IDLE serves it. Everything else passes as it is, in its order.
//! `IDLE` (RFC 2177) is added where the server lacks it.

use super::response::{Code, Response, Untagged, parse, words};
use crate::mail::rights::Rights;

/// What the gateway makes of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Edit {
    /// The gateway offers STARTTLS now.
    pub starttls: bool,
    /// The gateway takes no passwords now (RFC 8314, RFC 9051 7.2.2): LOGINDISABLED instead of all
    /// mechanisms.
    pub login_disabled: bool,
}

/// What the proxy must know of a server. An IMAP4rev2 server has what that includes (RFC 9051
/// appendix E).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offers {
    pub imap4rev2: bool,
    pub acl: bool,
    /// The rights that it has beyond those of RFC 2086 (RFC 4314 2.1.1): `RIGHTS=texk`.
    pub rights: Rights,
    pub condstore: bool,
    pub enable: bool,
    pub esearch: bool,
    pub id: bool,
    pub idle: bool,
    /// Literals that are not waited for, of any length; else [`Self::literal_minus`]: up to 4,096
    /// bytes (RFC 7888).
    pub literal_plus: bool,
    pub literal_minus: bool,
    pub login_disabled: bool,
    pub namespace: bool,
    pub notify: bool,
    pub qresync: bool,
    /// An initial response may stand in AUTHENTICATE's line (RFC 4959).
    pub sasl_ir: bool,
    pub starttls: bool,
    pub unselect: bool,
    /// `AUTH=PLAIN`.
    pub plain: bool,
}

impl Offers {
    /// Reads a list.
    pub fn of(list: &[u8]) -> Self {
        Self::default().with(list)
    }

    /// With what a further list of the same server says: some answer CAPABILITY in several lines.
    pub fn with(mut self, list: &[u8]) -> Self {
        let seen = &mut self;
        for word in words(list) {
            let upper = word.to_ascii_uppercase();
            if upper.starts_with(b"RIGHTS=") {
                let letters = String::from_utf8_lossy(&word[b"RIGHTS=".len()..]).to_ascii_lowercase();
                seen.rights = seen.rights.with(Rights::parse_known(&letters));
            }
            let slot = match upper.as_slice() {
                b"IMAP4REV2" => &mut seen.imap4rev2,
                b"ACL" => &mut seen.acl,
                b"CONDSTORE" => &mut seen.condstore,
                b"ENABLE" => &mut seen.enable,
                b"ESEARCH" => &mut seen.esearch,
                b"ID" => &mut seen.id,
                b"IDLE" => &mut seen.idle,
                b"LITERAL+" => &mut seen.literal_plus,
                b"LITERAL-" => &mut seen.literal_minus,
                b"LOGINDISABLED" => &mut seen.login_disabled,
                b"NAMESPACE" => &mut seen.namespace,
                b"NOTIFY" => &mut seen.notify,
                b"QRESYNC" => &mut seen.qresync,
                b"SASL-IR" => &mut seen.sasl_ir,
                b"STARTTLS" => &mut seen.starttls,
                b"UNSELECT" => &mut seen.unselect,
                b"AUTH=PLAIN" => &mut seen.plain,
                _ => continue,
            };
            *slot = true;
        }
        // RFC 7162 3.2.3.
        seen.condstore |= seen.qresync;
        seen.enable |= seen.qresync;
        if seen.imap4rev2 {
            for included in [
                &mut seen.enable,
                &mut seen.esearch,
                &mut seen.idle,
                &mut seen.literal_minus,
                &mut seen.namespace,
                &mut seen.sasl_ir,
                &mut seen.unselect,
            ] {
                *included = true;
            }
        }
        self
    }
}

/// The capability list in a response, if it has one that names something.
pub fn list<'a>(response: &Response<'a>) -> Option<&'a [u8]> {
    let list: &'a [u8] = match response {
        Response::Untagged(Untagged::Capability(list)) => list,
        Response::Untagged(Untagged::Status { code: Some(Code::Capability(list)), .. })
        | Response::Tagged { code: Some(Code::Capability(list)), .. } => list,
        _ => return None,
    };
    words(list).next().map(|_| list)
}

/// A response line with its list rewritten, and what the server offers by it. A line without a list
/// is returned as it is.
pub fn rewrite(line: &[u8], edit: Edit) -> (Vec<u8>, Offers) {
    let response = parse(line);
    let Some(list) = list(&response) else { return (line.to_vec(), Offers::default()) };
    let offers = Offers::of(list);
    let Some(changed) = rewrite_list(list, edit) else { return (line.to_vec(), offers) };
    // The list is a part of the line: where it stands is told by where they are.
    let start = list.as_ptr().addr().saturating_sub(line.as_ptr().addr()).min(line.len());
    let end = (start + list.len()).min(line.len());
    ([&line[..start], &changed, &line[end..]].concat(), offers)
}

/// The list alone; `None` when nothing changes.
pub fn rewrite_list(list: &[u8], edit: Edit) -> Option<Vec<u8>> {
    let mut kept: Vec<&[u8]> = words(list).filter(|word| !edit.hides(word)).collect();
    let mut changed = kept.len() != words(list).count();
    for (wanted, name) in [(edit.starttls, "STARTTLS"), (edit.login_disabled, "LOGINDISABLED"), (true, "IDLE")] {
        if wanted && !kept.iter().any(|word| word.eq_ignore_ascii_case(name.as_bytes())) {
            kept.push(name.as_bytes());
            changed = true;
        }
    }
    changed.then(|| kept.join(&b' '))
}

impl Edit {
    fn hides(&self, word: &[u8]) -> bool {
        let word = word.to_ascii_uppercase();
        match word.as_slice() {
            b"STARTTLS" => !self.starttls,
            b"UNAUTHENTICATE" | b"AUTH=EXTERNAL" => true,
            b"SASL-IR" => self.login_disabled,
            _ if word.starts_with(b"COMPRESS=") => true,
            _ if word.starts_with(b"AUTH=") => self.login_disabled || word.ends_with(b"-PLUS"),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str, edit: Edit) -> String {
        String::from_utf8(rewrite(line.as_bytes(), edit).0).unwrap()
    }

    const OPEN: Edit = Edit { starttls: false, login_disabled: false };
    const CLEAR: Edit = Edit { starttls: true, login_disabled: true };

    #[test]
    fn a_list_is_rewritten_wherever_it_stands() {
        for (edit, line, expected) in [
            (
                OPEN,
                "* CAPABILITY IMAP4rev1 STARTTLS AUTH=GSSAPI LOGINDISABLED\r\n",
                "* CAPABILITY IMAP4rev1 AUTH=GSSAPI LOGINDISABLED IDLE\r\n",
            ),
            (OPEN, "* capability IMAP4rev1 idle COMPRESS=DEFLATE \r\n", "* capability IMAP4rev1 idle\r\n"),
            (
                CLEAR,
                "* OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN] Dovecot ready.\r\n",
                "* OK [CAPABILITY IMAP4rev1 LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED] Dovecot ready.\r\n",
            ),
            (
                OPEN,
                "a1 OK [CAPABILITY IMAP4rev2 UNAUTHENTICATE UIDONLY NOTIFY] Logged in\r\n",
                "a1 OK [CAPABILITY IMAP4rev2 UIDONLY NOTIFY IDLE] Logged in\r\n",
            ),
            (OPEN, "* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n", "* PREAUTH [CAPABILITY IMAP4rev1 IDLE] hi\r\n"),
            (
                OPEN,
                "* CAPABILITY AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=external\r\n",
                "* CAPABILITY AUTH=SCRAM-SHA-256 IDLE\r\n",
            ),
            (
                CLEAR,
                "* CAPABILITY IMAP4rev1 starttls LOGINDISABLED IDLE\r\n",
                "* CAPABILITY IMAP4rev1 starttls LOGINDISABLED IDLE\r\n",
            ),
        ] {
            assert_eq!(rewritten(line, edit), expected);
            // What was rewritten stays.
            assert_eq!(rewritten(expected, edit), expected);
        }
    }

    #[test]
    fn what_has_no_list_or_needs_no_change_is_left_alone() {
        for line in [
            "* CAPABILITY  IMAP4rev1  IDLE \r\n",
            "* OK ready, [CAPABILITY STARTTLS]\r\n",
            "* OK [ALERT] CAPABILITY COMPRESS=DEFLATE\r\n",
            "* LIST () \"/\" STARTTLS\r\n",
            "* OK [CAPABILITY] nothing to add to\r\n",
            "+ [CAPABILITY STARTTLS]\r\n",
            "rubbish\r\n",
        ] {
            assert_eq!(rewritten(line, OPEN), line);
        }
    }

    #[test]
    fn what_a_server_has() {
        let (_, offers) = rewrite(b"a1 OK [CAPABILITY IMAP4rev1 ESEARCH] hi\r\n", OPEN);
        assert_eq!(offers, Offers { esearch: true, ..Offers::default() });
        let dovecot = Offers::of(b"IMAP4rev1 SASL-IR ID ENABLE idle LITERAL+ AUTH=PLAIN QRESYNC ESEARCH NAMESPACE UNSELECT");
        let expected = Offers {
            sasl_ir: true,
            id: true,
            enable: true,
            idle: true,
            literal_plus: true,
            plain: true,
            qresync: true,
            condstore: true,
            esearch: true,
            namespace: true,
            unselect: true,
            ..Offers::default()
        };
        assert_eq!(dovecot, expected);
        let rev2 = Offers::of(b"IMAP4rev2 STARTTLS LOGINDISABLED");
        assert!(
            rev2.esearch && rev2.enable && rev2.idle && rev2.unselect && rev2.namespace && rev2.sasl_ir && rev2.literal_minus
        );
        assert!(rev2.starttls && rev2.login_disabled && !rev2.condstore && !rev2.literal_plus && !rev2.id);
        assert_eq!(Offers::of(b"IMAP4rev1 XIDLE IDLEX"), Offers::default());
        let acl = Offers::of(b"IMAP4rev1 acl RIGHTS=texk");
        assert_eq!(acl, Offers { acl: true, rights: Rights::parse("texk").unwrap(), ..Offers::default() });
    }
}
