use proptest::prelude::*;

use super::super::command::{self, Command};
use super::super::response::{Response, Untagged, parse};
use super::*;

fn namespaces(line: &str) -> Namespaces {
    match parse(line.as_bytes()) {
        Response::Untagged(Untagged::Namespace(namespaces)) => namespaces,
        other => panic!("{line}: {other:?}"),
    }
}

fn names() -> UserNames {
    UserNames { lowercase: true, default_domain: Some("example.org".into()) }
}

fn alice() -> UserName {
    UserName::new("alice@example.org").unwrap()
}

/// The path as text, after checking that its IMAP name leads to it again.
fn path(line: &str, name: &str) -> Option<String> {
    let namespaces = namespaces(line);
    let path = namespaces.path(name.as_bytes(), false, &alice(), &names())?;
    let back = namespaces.imap_name(&path, false, &alice(), &names()).unwrap_or_else(|| panic!("{path} has no name"));
    assert_eq!(namespaces.path(&back, false, &alice(), &names()), Some(path.clone()), "{name} → {path}");
    Some(path.to_string())
}

const DOVECOT: &str = "* NAMESPACE ((\"\" \"/\")) ((\"shared/\" \"/\")) NIL\r\n";
const CYRUS: &str = "* NAMESPACE ((\"INBOX.\" \".\")) ((\"user.\" \".\")) ((\"\" \".\"))\r\n";
const CYRUS_ALT: &str = "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) ((\"Shared Folders/\" \"/\"))\r\n";
const COURIER: &str = "* NAMESPACE ((\"INBOX.\" \".\")) NIL ((\"#shared.\" \".\")(\"shared.\" \".\"))\r\n";
const JAMES: &str = "* NAMESPACE ((\"\" \".\")) ((\"#user.\" \".\")) NIL\r\n";

#[test]
fn names_become_paths() {
    for (line, name, expected) in [
        (DOVECOT, "inBox", Some("#private:alice@example.org:INBOX")),
        (DOVECOT, "Work/R&-D", Some("#private:alice@example.org:Work/R&D")),
        (DOVECOT, "Entw&APw-rfe", Some("#private:alice@example.org:Entw\u{fc}rfe")),
        (DOVECOT, "inbox/Sub", Some("#private:alice@example.org:INBOX/Sub")),
        (DOVECOT, "shared/bob/Team", Some("#private:bob@example.org:Team")),
        (DOVECOT, "shared/Bob@Other.org/Team/A.b", Some("#private:bob@other.org:Team/A.b")),
        (DOVECOT, "shared/bob", Some("#private:bob@example.org:INBOX")),
        (DOVECOT, "shared/bob/INBOX", Some("#private:bob@example.org:INBOX")),
        (DOVECOT, "shared/alice/Team", Some("#private:alice@example.org:Team")),
        // Not below the prefix: a name like any other.
        (DOVECOT, "shared", Some("#private:alice@example.org:shared")),
        (DOVECOT, "shared/", Some("#private:alice@example.org:shared/")),
        (DOVECOT, "shared//Team", None),
        (DOVECOT, "R&D", None),
        (CYRUS, "INBOX.Sent.2026", Some("#private:alice@example.org:Sent/2026")),
        (CYRUS, "inbox.Sent", Some("#private:alice@example.org:Sent")),
        (CYRUS, "INBOX.a/b", Some("#private:alice@example.org:a.b")),
        (CYRUS, "INBOX.INBOX", None),
        (CYRUS, "user.bob", Some("#private:bob@example.org:INBOX")),
        (CYRUS, "user.b^o^b.Team", Some("#private:b.o.b@example.org:Team")),
        (CYRUS, "news.rust", Some("#shared::news/rust")),
        (CYRUS_ALT, "Other Users/bob@other.org/Team", Some("#private:bob@other.org:Team")),
        (CYRUS_ALT, "Shared Folders/Support", Some("#shared::Support")),
        (COURIER, "shared.Team.X", Some("#shared::shared/Team/X")),
        (COURIER, "#shared.Team.X", Some("#shared::#shared/Team/X")),
        (COURIER, "Sent", None),
        (JAMES, "Sent.2026", Some("#private:alice@example.org:Sent/2026")),
        (JAMES, "#user.bob.Sent", Some("#private:bob@example.org:Sent")),
        // RFC 2342 5.4 and 5.6.
        ("* NAMESPACE NIL NIL ((\"\" \".\"))\r\n", "tests.x", Some("#shared::tests/x")),
        ("* NAMESPACE NIL NIL ((\"\" \".\"))\r\n", "INBOX", Some("#private:alice@example.org:INBOX")),
        ("* NAMESPACE ((\"\" NIL)) NIL NIL\r\n", "a/b", Some("#private:alice@example.org:a/b")),
        ("* NAMESPACE ((\"\" \"/\")(\"#mh/\" \"/\")) NIL NIL\r\n", "#mh/x/y", Some("#private:alice@example.org:#mh/x/y")),
        ("* NAMESPACE NIL NIL NIL\r\n", "x", None),
    ] {
        assert_eq!(path(line, name).as_deref(), expected, "{name} in {line}");
    }
}

#[test]
fn a_slash_that_is_no_delimiter_stays_apart() {
    let names = ["a/b", "a.b", "a/b.c", "a.b/c"];
    let mut paths: Vec<_> = names.iter().map(|name| path(JAMES, name).unwrap()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), names.len());
}

#[test]
fn paths_become_names() {
    for (line, path, expected) in [
        (DOVECOT, "#private:alice@example.org:INBOX", Some("INBOX")),
        (DOVECOT, "#private:alice@example.org:Entw\u{fc}rfe", Some("Entw&APw-rfe")),
        (DOVECOT, "#private:bob@other.org:Team", Some("shared/bob@other.org/Team")),
        (DOVECOT, "#private:bob@other.org:INBOX", Some("shared/bob@other.org")),
        (DOVECOT, "#shared::News", None),
        // It would be read as the mailbox of a user.
        (DOVECOT, "#private:alice@example.org:shared/x", None),
        (CYRUS, "#private:alice@example.org:Sent/2026", Some("INBOX.Sent.2026")),
        (CYRUS, "#private:b.b@x.org:Team", Some("user.b^b@x^org.Team")),
        (CYRUS, "#shared::news/rust", Some("news.rust")),
        (COURIER, "#private:bob@other.org:Team", None),
        (COURIER, "#shared::shared/Team", Some("shared.Team")),
        (JAMES, "#other:alice@example.org:x", None),
    ] {
        let name = namespaces(line).imap_name(&path.parse().unwrap(), false, &alice(), &names());
        assert_eq!(name.as_deref(), expected.map(str::as_bytes), "{path} in {line}");
    }
}

#[test]
fn once_utf8_is_enabled_names_are_utf8() {
    let dovecot = namespaces(DOVECOT);
    let path = dovecot.path("Entw\u{fc}rfe & mehr".as_bytes(), true, &alice(), &names()).unwrap();
    assert_eq!(path.name(), "Entw\u{fc}rfe & mehr");
    assert_eq!(dovecot.imap_name(&path, true, &alice(), &names()).unwrap(), "Entw\u{fc}rfe & mehr".as_bytes());
}

/// A server's namespaces, a user, whether names are UTF-8, and what the user writes.
type Spelling = (&'static str, &'static str, bool, &'static str);

/// What a user of this server means by a name as a command has it.
fn meant(line: &str, user: &str, utf8: bool, argument: &str) -> String {
    let command = format!("a SELECT {argument}\r\n");
    let Ok((_, Command::Select(select))) = command::parse(command.as_bytes()) else { panic!("{command}") };
    let user = UserName::new(user).unwrap();
    let path = namespaces(line).path(&select.mailbox, utf8, &user, &names());
    path.unwrap_or_else(|| panic!("{argument} is no name in {line}")).to_string()
}

#[test]
fn a_mailbox_has_one_path_whoever_names_it_however() {
    const OTHERS: &str = "* NAMESPACE ((\"INBOX.\" \".\")) ((\"Other Users.\" \".\")) ((\"Shared.\" \".\"))\r\n";
    let (alice, bob) = ("alice@example.org", "bob@example.org");
    let table: [(&str, &[Spelling]); 5] = [
        (
            "#private:alice@example.org:Team",
            &[
                (DOVECOT, alice, false, "Team"),
                (DOVECOT, alice, false, "\"Team\""),
                (DOVECOT, alice, false, "{4+}\r\nTeam"),
                (DOVECOT, alice, true, "Team"),
                (DOVECOT, alice, false, "shared/alice/Team"),
                (DOVECOT, bob, false, "shared/alice/Team"),
                (DOVECOT, bob, false, "\"shared/Alice@Example.org/Team\""),
                (DOVECOT, bob, true, "{17}\r\nshared/alice/Team"),
                (OTHERS, alice, false, "INBOX.Team"),
                (OTHERS, alice, false, "inbox.Team"),
                (OTHERS, bob, false, "\"Other Users.alice.Team\""),
                (OTHERS, bob, false, "{22}\r\nOther Users.alice.Team"),
                (OTHERS, bob, false, "\"Other Users.alice@example^org.Team\""),
                (CYRUS_ALT, bob, false, "\"Other Users/alice/Team\""),
                (CYRUS, bob, false, "user.alice.Team"),
                (JAMES, bob, false, "\"#user.alice.Team\""),
            ],
        ),
        (
            "#private:alice@example.org:INBOX",
            &[
                (DOVECOT, alice, false, "inbox"),
                (DOVECOT, alice, false, "\"InBoX\""),
                (OTHERS, alice, true, "{5}\r\niNBOX"),
                (DOVECOT, bob, false, "shared/alice/inbox"),
                (DOVECOT, bob, false, "shared/alice/INBOX"),
                (DOVECOT, bob, false, "shared/alice"),
                (OTHERS, bob, false, "\"Other Users.alice.Inbox\""),
                (OTHERS, bob, false, "\"Other Users.alice\""),
                (CYRUS, bob, false, "user.alice"),
                (JAMES, bob, false, "\"#user.alice.inbox\""),
            ],
        ),
        (
            "#private:alice@example.org:INBOX/Sub",
            &[(DOVECOT, alice, false, "inbox/Sub"), (DOVECOT, bob, false, "shared/alice/Inbox/Sub")],
        ),
        (
            "#private:alice@example.org:Entw\u{fc}rfe/R&D",
            &[
                (DOVECOT, alice, false, "Entw&APw-rfe/R&-D"),
                (DOVECOT, alice, true, "\"Entw\u{fc}rfe/R&D\""),
                (DOVECOT, bob, false, "shared/alice/Entw&APw-rfe/R&-D"),
                (DOVECOT, bob, true, "{26}\r\nshared/alice/Entw\u{fc}rfe/R&D"),
                (OTHERS, alice, false, "INBOX.Entw&APw-rfe.R&-D"),
                (OTHERS, bob, false, "\"Other Users.alice.Entw&APw-rfe.R&-D\""),
                (OTHERS, bob, true, "\"Other Users.alice.Entw\u{fc}rfe.R&D\""),
            ],
        ),
        ("#shared::News/Rust", &[(OTHERS, alice, false, "Shared.News.Rust"), (OTHERS, bob, true, "\"Shared.News.Rust\"")]),
    ];
    for (path, names) in table {
        for (line, user, utf8, argument) in names {
            assert_eq!(meant(line, user, *utf8, argument), path, "{user}'s {argument} in {line}");
        }
    }
}

#[test]
fn examples_of_rfc_2342() {
    let of = |prefix: &str, delimiter: &str| Namespace { prefix: prefix.into(), delimiter: delimiter.bytes().next() };
    for (line, expected) in [
        ("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n", Namespaces { personal: vec![of("", "/")], ..Default::default() }),
        ("* NAMESPACE NIL NIL ((\"\" \".\"))\r\n", Namespaces { shared: vec![of("", ".")], ..Default::default() }),
        (
            "* NAMESPACE ((\"\" \"/\")) NIL ((\"Public Folders/\" \"/\"))\r\n",
            Namespaces { personal: vec![of("", "/")], shared: vec![of("Public Folders/", "/")], ..Default::default() },
        ),
        (
            "* NAMESPACE ((\"\" \"/\")) ((\"~\" \"/\")) ((\"#shared/\" \"/\")(\"#public/\" \"/\")(\"#ftp/\" \"/\")(\"#news.\" \".\"))\r\n",
            Namespaces {
                personal: vec![of("", "/")],
                other_users: vec![of("~", "/")],
                shared: vec![of("#shared/", "/"), of("#public/", "/"), of("#ftp/", "/"), of("#news.", ".")],
            },
        ),
        (
            "* NAMESPACE ((\"\" \"/\")(\"#mh/\" \"/\" \"X-PARAM\" (\"FLAG1\" \"FLAG2\"))) NIL NIL\r\n",
            Namespaces { personal: vec![of("", "/"), of("#mh/", "/")], ..Default::default() },
        ),
        (
            "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) NIL\r\n",
            Namespaces { personal: vec![of("", "/")], other_users: vec![of("Other Users/", "/")], ..Default::default() },
        ),
        ("* namespace nil nil ((\"\" nil)) \r\n", Namespaces { shared: vec![of("", "")], ..Default::default() }),
    ] {
        assert_eq!(namespaces(line), expected, "{line}");
    }
}

proptest! {
    #[test]
    fn a_name_leads_to_a_path_and_back(
        name in "(INBOX[./])?[a-c./&^ \u{e9}-]{1,8}|(user\\.|shared/|#user\\.)[a-c.^@/]{1,8}",
        which in 0usize..5,
    ) {
        let line = [DOVECOT, CYRUS, CYRUS_ALT, COURIER, JAMES][which];
        let name = name::encode_utf7(&name);
        let namespaces = namespaces(line);
        if let Some(path) = namespaces.path(&name, false, &alice(), &names())
            && let Some(back) = namespaces.imap_name(&path, false, &alice(), &names())
        {
            prop_assert_eq!(namespaces.path(&back, false, &alice(), &names()), Some(path.clone()));
            // One's own mailbox in the namespace of other users has two names; others have one.
            if !path.is_owned_by(&alice()) && path.name() != "INBOX" && !path.owner().ends_with("@example.org") {
                prop_assert_eq!(back, name.into_owned());
            }
        }
    }
}
