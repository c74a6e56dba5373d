//! The responses of RFC 4314: who has which rights on a mailbox.
//!
//! Names and identifiers are as they are on the wire, but without quotes; rights that are not known
//! here say nothing ([`Rights::parse_known`]). A name is turned into a path by
//! [`super::namespace::Namespaces::path`], an identifier is read by
//! [`crate::mail::rights::Entry::read`].

use std::borrow::Cow;

use super::scan::Scan;
use crate::mail::rights::Rights;

/// The answer to GETACL (RFC 4314 3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclData<'a> {
    pub mailbox: Cow<'a, [u8]>,
    /// Identifiers with their sign, and what each has; in the server's order.
    pub entries: Vec<(Cow<'a, [u8]>, Rights)>,
}

/// The answer to LISTRIGHTS (RFC 4314 3.7): what can be given to an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRights<'a> {
    pub mailbox: Cow<'a, [u8]>,
    pub identifier: Cow<'a, [u8]>,
    /// What it always has.
    pub required: Rights,
    /// What else it can have: rights in one set are tied together.
    pub optional: Vec<Rights>,
}

/// The answer to MYRIGHTS (RFC 4314 3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MyRights<'a> {
    pub mailbox: Cow<'a, [u8]>,
    pub rights: Rights,
}

/// `acl-data = "ACL" SP mailbox *(SP identifier SP rights)`; the name of the response is read
/// already, as in all of these.
pub(super) fn acl<'a>(scan: &mut Scan<'a>) -> Option<AclData<'a>> {
    let mailbox = scan.astring()?;
    let mut entries = Vec::new();
    while let Some(identifier) = next(scan) {
        entries.push((identifier?, rights(next(scan)?)?));
    }
    Some(AclData { mailbox, entries })
}

/// `listrights-data = "LISTRIGHTS" SP mailbox SP identifier SP rights *(SP rights)`.
pub(super) fn list_rights<'a>(scan: &mut Scan<'a>) -> Option<ListRights<'a>> {
    let mailbox = scan.astring()?;
    let identifier = next(scan)??;
    let mut told = Vec::new();
    while let Some(tied) = next(scan) {
        told.push(String::from_utf8_lossy(&tied?).into_owned());
    }
    // Whether `c` and `d` say anything is told by the whole response (RFC 4314 2.1.1).
    let is_new = told.iter().any(|tied| Rights::tells_new(tied));
    let mut sets = told.iter().map(|tied| Rights::parse_told(tied, is_new));
    let required = sets.next()?;
    // A set of nothing but them is none.
    let optional = sets.filter(|set| !set.is_empty()).collect();
    Some(ListRights { mailbox, identifier, required, optional })
}

/// `myrights-data = "MYRIGHTS" SP mailbox SP rights`.
pub(super) fn my_rights<'a>(scan: &mut Scan<'a>) -> Option<MyRights<'a>> {
    let mailbox = scan.astring()?;
    let rights = rights(next(scan)?)?;
    scan.at_end().then_some(MyRights { mailbox, rights })
}

/// The next string; the outer `None` is the end of the response, the inner one what is no string.
fn next<'a>(scan: &mut Scan<'a>) -> Option<Option<Cow<'a, [u8]>>> {
    if scan.at_end() {
        return None;
    }
    Some(if scan.spaces() { scan.astring() } else { None })
}

fn rights(text: Option<Cow<'_, [u8]>>) -> Option<Rights> {
    text.map(|text| Rights::parse_known(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::rights::{Entry, Identifier};
    use crate::mail::user::UserNames;
    use crate::wire::imap::response::{Response, Untagged, parse};

    fn untagged(line: &str) -> Untagged<'_> {
        match parse(line.as_bytes()) {
            Response::Untagged(untagged) => untagged,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn of(letters: &str) -> Rights {
        Rights::parse(letters).unwrap()
    }

    fn listed(line: &str) -> (String, Vec<(String, String)>) {
        let Untagged::Acl(acl) = untagged(line) else { panic!("{line}") };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&acl.mailbox), acl.entries.iter().map(|(identifier, rights)| (text(identifier), rights.to_string())).collect())
    }

    #[test]
    fn acl() {
        for (line, mailbox, entries) in [
            // RFC 4314 3.2 and 3.3.
            (
                "* ACL INBOX Fred rwipslxetad -Fred wetd $team w\r\n",
                "INBOX",
                &[("Fred", "lrswipxtea"), ("-Fred", "wte"), ("$team", "w")][..],
            ),
            ("* ACL INBOX -Fred wetd $team w\r\n", "INBOX", &[("-Fred", "wte"), ("$team", "w")]),
            ("* ACL INBOX Fred rwipsldexta\r\n", "INBOX", &[("Fred", "lrswipxtea")]),
            // RFC 4314 2.1.1: what `c` and `d` add to their members says nothing.
            ("* ACL INBOX Fred rwipslxcetda David lrswideta\r\n", "INBOX", &[("Fred", "lrswipxtea"), ("David", "lrswitea")]),
            ("* ACL INBOX Fred rwipslxcetda Byron lrswikcdeta\r\n", "INBOX", &[("Fred", "lrswipxtea"), ("Byron", "lrswiktea")]),
            // RFC 4314 3.1.
            (
                "* ACL INBOX/Drafts Fred rwipslxetad Chris lrswicdakxet\r\n",
                "INBOX/Drafts",
                &[("Fred", "lrswipxtea"), ("Chris", "lrswikxtea")],
            ),
            // An identifier without rights, a list without entries, and how servers write them.
            ("* ACL Team \"\" \"\"\r\n", "Team", &[("", "")]),
            ("* acl \"My Team\"\r\n", "My Team", &[]),
            ("* ACL Team \"bob smith\" lr  anyone l \r\n", "Team", &[("bob smith", "lr"), ("anyone", "l")]),
            ("* ACL {4}\r\nTeam {3}\r\nbob lr\r\n", "Team", &[("bob", "lr")]),
            ("* ACL \"a \\\"b\\\"\" \"-c\\\\d\" \"lr\"\r\n", "a \"b\"", &[("-c\\d", "lr")]),
            ("* ACL INBOX b\u{e9}a lr#~\n", "INBOX", &[("b\u{e9}a", "lr")]),
        ] {
            let expected = entries.iter().map(|(identifier, rights)| ((*identifier).to_owned(), (*rights).to_owned())).collect();
            assert_eq!(listed(line), (mailbox.to_owned(), expected), "{line}");
        }
    }

    #[test]
    fn identifiers_are_read_as_those_of_events() {
        let names = UserNames { lowercase: true, default_domain: Some("example.org".into()) };
        let Untagged::Acl(acl) = untagged("* ACL INBOX Fred lr -$team w\r\n") else { panic!() };
        let read = |(identifier, _): &(Cow<'_, [u8]>, Rights)| Entry::read(std::str::from_utf8(identifier).unwrap(), &names);
        let entries: Vec<Entry> = acl.entries.iter().map(|entry| read(entry).unwrap()).collect();
        assert_eq!(entries[0].to_string(), "fred@example.org");
        assert_eq!(entries[1], Entry { identifier: Identifier::Group("team".into()), negative: true });
    }

    #[test]
    fn list_rights() {
        for (line, mailbox, identifier, required, optional) in [
            // RFC 4314 3.4.
            ("* LISTRIGHTS ~/Mail/saved smith la r swicdkxte\r\n", "~/Mail/saved", "smith", "la", &["r", "swicdkxte"][..]),
            (
                "* LISTRIGHTS archive.imap anyone \"\" l r s w i p k x t e c d a 0 1 2 3 4 5 6 7 8 9\r\n",
                "archive.imap",
                "anyone",
                "",
                &["l", "r", "s", "w", "i", "p", "k", "x", "t", "e", "a", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            ),
            // RFC 4314 2.1.1: alone or tied, `c` and `d` say nothing beside what they stand for.
            (
                "* LISTRIGHTS archive/imap anyone \"\" lr s w i p k x t c d\r\n",
                "archive/imap",
                "anyone",
                "",
                &["lr", "s", "w", "i", "p", "k", "x", "t"],
            ),
            (
                "* LISTRIGHTS archive/imap anyone \"\" lr s w i p k xte c d\r\n",
                "archive/imap",
                "anyone",
                "",
                &["lr", "s", "w", "i", "p", "k", "xte"],
            ),
            (
                "* LISTRIGHTS archive/imap anyone \"\" lr s w i p k c x te d\r\n",
                "archive/imap",
                "anyone",
                "",
                &["lr", "s", "w", "i", "p", "k", "x", "te"],
            ),
            (
                "* LISTRIGHTS archive/imap anyone \"\" lr swted i p k x c\r\n",
                "archive/imap",
                "anyone",
                "",
                &["lr", "swte", "i", "p", "k", "x"],
            ),
            // A server of RFC 2086 knows no others.
            ("* LISTRIGHTS Team bob la r swicd\r\n", "Team", "bob", "la", &["r", "swikxte"]),
            ("* LISTRIGHTS Team bob \"\" l c d\r\n", "Team", "bob", "", &["l", "k", "xte"]),
            ("* listrights {4}\r\nTeam \"bob\" \"\"\r\n", "Team", "bob", "", &[]),
        ] {
            let expected = ListRights {
                mailbox: Cow::Borrowed(mailbox.as_bytes()),
                identifier: Cow::Borrowed(identifier.as_bytes()),
                required: of(required),
                optional: optional.iter().map(|letters| of(letters)).collect(),
            };
            assert_eq!(untagged(line), Untagged::ListRights(expected), "{line}");
        }
    }

    #[test]
    fn my_rights() {
        for (line, mailbox, letters) in [
            // RFC 4314 3.5.
            ("* MYRIGHTS INBOX rwiptsldaex\r\n", "INBOX", "lrswipxtea"),
            // RFC 4314 4 and 5.1.1.
            ("* MYRIGHTS TargetMailbox rwis\r\n", "TargetMailbox", "rwis"),
            ("* MYRIGHTS TargetMailbox rsti\r\n", "TargetMailbox", "rsti"),
            ("* MYRIGHTS INBOX lrwis\r\n", "INBOX", "lrwis"),
            ("* myrights \"shared/alice/Team\" \"lrs\"\r\n", "shared/alice/Team", "lrs"),
            ("* MYRIGHTS {17}\r\nshared/alice/Team lr\r\n", "shared/alice/Team", "lr"),
            ("* MYRIGHTS Team \"\" \r\n", "Team", ""),
            ("* MYRIGHTS Team lr#\n", "Team", "lr"),
        ] {
            let expected = MyRights { mailbox: Cow::Borrowed(mailbox.as_bytes()), rights: of(letters) };
            assert_eq!(untagged(line), Untagged::MyRights(expected), "{line}");
        }
    }

    #[test]
    fn what_is_not_whole_says_nothing() {
        for line in [
            "* ACL\r\n",
            "* ACL \r\n",
            "* ACL INBOX fred\r\n",
            "* ACL INBOX \"fred lr\r\n",
            "* ACL INBOX fred lr (bob lr)\r\n",
            "* ACL {5}\r\n",
            "* LISTRIGHTS INBOX fred\r\n",
            "* LISTRIGHTS INBOX\r\n",
            "* MYRIGHTS INBOX\r\n",
            "* MYRIGHTS INBOX lr s\r\n",
            "* MYRIGHTS \"INBOX\"lr\r\n",
        ] {
            assert_eq!(untagged(line), Untagged::Other, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            for name in ["ACL", "LISTRIGHTS", "MYRIGHTS"] {
                let line = [b"* ", name.as_bytes(), b" ", &bytes[..]].concat();
                parse(&line);
            }
        }

        #[test]
        fn what_was_written_is_read(name in "[ -~]{1,20}", letters in "[lrswipkxtea0-9]{0,10}") {
            let mut line = b"* MYRIGHTS ".to_vec();
            crate::wire::imap::write::astring(&mut line, name.as_bytes(), false).unwrap();
            line.extend_from_slice(format!(" \"{letters}\"\r\n").as_bytes());
            let expected = MyRights { mailbox: Cow::Owned(name.into_bytes()), rights: of(&letters) };
            prop_assert_eq!(parse(&line), Response::Untagged(Untagged::MyRights(expected)));
        }
    }
}
