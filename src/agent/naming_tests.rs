use proptest::prelude::*;

use super::*;
use crate::wire::imap::response::{Response, Untagged, parse};

fn names() -> UserNames {
    UserNames { lowercase: true, default_domain: Some("example.org".into()) }
}

fn user(name: &str) -> UserName {
    names().normalise(name).unwrap()
}

/// What a server tells of its namespaces.
fn told(line: &str) -> Namespaces {
    match parse(format!("* NAMESPACE {line}\r\n").as_bytes()) {
        Response::Untagged(Untagged::Namespace(namespaces)) => namespaces,
        other => panic!("{line}: {other:?}"),
    }
}

fn prefixes(personal: &[&str], shared: &[&str], public: &[&str], separator: &str) -> Prefixes {
    let owned = |all: &[&str]| all.iter().map(|prefix| (*prefix).to_owned()).collect();
    Prefixes {
        personal: owned(personal),
        shared: owned(shared),
        public: owned(public),
        alias: Vec::new(),
        separator: Some(separator.to_owned()),
    }
}

fn naming(prefixes: &Prefixes) -> Naming {
    Naming::new(names(), prefixes).unwrap()
}

/// A Dovecot: what it tells of its namespaces, and what the agent is told of them.
struct Site {
    line: &'static str,
    naming: Naming,
}

fn sites() -> [Site; 6] {
    let site = |line, prefixes: Prefixes| Site { line, naming: naming(&prefixes) };
    [
        site("((\"\" \"/\")) ((\"shared/\" \"/\")) NIL", prefixes(&[], &["shared/"], &[], "/")),
        site(
            "((\"INBOX.\" \".\")) ((\"shared.\" \".\")) ((\"Public.\" \".\"))",
            prefixes(&["INBOX."], &["shared."], &["Public."], "."),
        ),
        site("((\"\" \".\")) ((\"user.\" \".\")) NIL", prefixes(&[""], &["user."], &[], ".")),
        site("((\"\" \"/\")) NIL ((\"Public/\" \"/\")(\"Company/\" \"/\"))", prefixes(&[], &[], &["Public/", "Company/"], "/")),
        // As Dovecot writes `Öffentlich/` and `Arch&ive é/`.
        site(
            "((\"INBOX/\" \"/\")(\"Arch&-ive &AOk-/\" \"/\")) NIL ((\"&ANY-ffentlich/\" \"/\"))",
            prefixes(&["INBOX/", "Arch&ive \u{e9}/"], &[], &["\u{d6}ffentlich/"], "/"),
        ),
        site("((\"INBOX/\" \"/\")) ((\"Other Users/\" \"/\")(\"user/\" \"/\")) NIL", {
            prefixes(&["INBOX/"], &["Other Users/", "user/"], &[], "/")
        }),
    ]
}

/// What alice's client calls a mailbox at the gateway, and what Dovecot tells the script that it is called.
#[test]
fn the_agents_path_is_the_gateways() {
    const INBOX: Option<&str> = Some("#private:alice@example.org:INBOX");
    let sites = sites();
    for (site, name, expected) in [
        (0, "INBOX", INBOX),
        (0, "inBox", INBOX),
        (0, "Sent", Some("#private:alice@example.org:Sent")),
        (0, "INBOX/Sent", Some("#private:alice@example.org:INBOX/Sent")),
        (0, "inbox/Sent", Some("#private:alice@example.org:INBOX/Sent")),
        (0, "Entw\u{fc}rfe & mehr/\u{65e5}\u{672c}", Some("#private:alice@example.org:Entw\u{fc}rfe & mehr/\u{65e5}\u{672c}")),
        (0, "a.b", Some("#private:alice@example.org:a.b")),
        (0, "shared/bob", Some("#private:bob@example.org:INBOX")),
        (0, "shared/bob/INBOX", Some("#private:bob@example.org:INBOX")),
        (0, "shared/Bob@Other.org/Team/A", Some("#private:bob@other.org:Team/A")),
        (0, "shared/alice/Team", Some("#private:alice@example.org:Team")),
        (0, "shared", Some("#private:alice@example.org:shared")),
        (0, "sharedX", Some("#private:alice@example.org:sharedX")),
        (0, "shared//Team", None),
        (1, "INBOX", INBOX),
        (1, "INBOX.Sent", Some("#private:alice@example.org:Sent")),
        (1, "inbox.Sent.2026", Some("#private:alice@example.org:Sent/2026")),
        (1, "INBOX.a/b", Some("#private:alice@example.org:a.b")),
        (1, "INBOX.a/b.c", Some("#private:alice@example.org:a.b/c")),
        (1, "INBOX.INBOX.Deep", Some("#private:alice@example.org:INBOX/Deep")),
        (1, "INBOX.Entw\u{fc}rfe", Some("#private:alice@example.org:Entw\u{fc}rfe")),
        (1, "shared.bob.Team.A", Some("#private:bob@example.org:Team/A")),
        (1, "shared.b^o^b", Some("#private:b.o.b@example.org:INBOX")),
        (1, "Public.News.Rust", Some("#shared::News/Rust")),
        (1, "Sent", None),
        (2, "Sent.2026", Some("#private:alice@example.org:Sent/2026")),
        (2, "a/b.c", Some("#private:alice@example.org:a.b/c")),
        (2, "user.bob.a/b", Some("#private:bob@example.org:a.b")),
        (3, "Public/News", Some("#shared::Public/News")),
        (3, "Company/News", Some("#shared::Company/News")),
        (3, "Company", Some("#private:alice@example.org:Company")),
        (4, "\u{d6}ffentlich/R&D", Some("#shared::R&D")),
        (4, "Arch&ive \u{e9}/2020", Some("#private:alice@example.org:Arch&ive \u{e9}/2020")),
        (4, "INBOX/2020", Some("#private:alice@example.org:2020")),
        (5, "Other Users/bob/x", Some("#private:bob@example.org:x")),
        (5, "user/bob/x", Some("#private:bob@example.org:x")),
    ] {
        let Site { line, naming } = &sites[site];
        let gateway = told(line).path(&encode_utf7(name), false, &user("alice"), &names());
        let agent = naming.path(&user("alice"), name);
        assert_eq!(agent.as_ref().ok(), gateway.as_ref(), "{name} in {line}");
        assert_eq!(agent.ok().as_ref().map(MailboxPath::as_str), expected, "{name} in {line}");
    }
}

/// One mailbox is one key, whoever acts on it.
#[test]
fn a_public_mailbox_is_the_same_to_all() {
    let naming = naming(&prefixes(&[], &["shared/"], &["Public/"], "/"));
    assert_eq!(naming.path(&user("alice"), "Public/News"), naming.path(&user("bob"), "Public/News"));
    assert_eq!(naming.path(&user("alice"), "Team"), naming.path(&user("bob"), "shared/alice/Team"));
}

/// Names that no client is told of, but that Dovecot takes, from scripts of Sieve say.
#[test]
fn a_hidden_name_is_the_mailboxs_own() {
    let hidden = |alias: &str, personal: &str, separator: &str| {
        naming(&Prefixes { alias: vec![alias.to_owned()], ..prefixes(&[personal], &["shared/"], &["Public/"], separator) })
    };
    let (old, new) = (hidden("", "INBOX.", "."), hidden("INBOX/", "", "/"));
    for (naming, name, expected) in [
        (&old, "Sent.2026", "#private:alice@example.org:Sent/2026"),
        (&old, "INBOX.Sent.2026", "#private:alice@example.org:Sent/2026"),
        (&old, "INBOX", "#private:alice@example.org:INBOX"),
        (&old, "INBOX.INBOX", "#private:alice@example.org:INBOX"),
        (&old, "Public/News", "#shared::News"),
        (&new, "INBOX/Sent/2026", "#private:alice@example.org:Sent/2026"),
        (&new, "Sent/2026", "#private:alice@example.org:Sent/2026"),
        (&new, "INBOX/INBOX", "#private:alice@example.org:INBOX"),
        (&new, "inbox", "#private:alice@example.org:INBOX"),
        (&new, "shared/bob/x", "#private:bob@example.org:x"),
    ] {
        assert_eq!(naming.path(&user("alice"), name).as_ref().map(MailboxPath::as_str), Ok(expected), "{name}");
    }
    // To Dovecot it is the INBOX; gateways do not know it.
    let sites = sites();
    assert_eq!(told(sites[1].line).path(b"INBOX.INBOX", false, &user("alice"), &names()), None);
    assert_eq!(sites[1].naming.path(&user("alice"), "INBOX.INBOX").unwrap().name(), "INBOX");
}

#[test]
fn a_wrong_setting_is_noticed_and_a_right_one_is_not() {
    for Site { line, naming } in sites() {
        assert_eq!(naming.disagreement(&told(line)), None, "{line}");
    }
    let default = naming(&Prefixes::from(&DovecotSettings::default()));
    let plain = "((\"\" \"/\")) ((\"shared/\" \"/\")) NIL";
    assert_eq!(default.disagreement(&told(plain)), None);
    // Names in further ones of one's own are read in the same way.
    assert_eq!(default.disagreement(&told("((\"\" \"/\")(\"Archive/\" \"/\")) ((\"shared/\" \"/\")) NIL")), None);
    for other in [
        "((\"\" \"/\")) NIL NIL",
        "((\"\" \".\")) ((\"shared.\" \".\")) NIL",
        "((\"INBOX/\" \"/\")) ((\"shared/\" \"/\")) NIL",
        "((\"\" \"/\")) ((\"shared/\" \"/\")) ((\"Public/\" \"/\"))",
        "((\"\" \"/\")(\"#mh.\" \".\")) ((\"shared/\" \"/\")) NIL",
    ] {
        assert!(default.disagreement(&told(other)).is_some(), "{other}");
    }
    let (theirs, ours) = default.disagreement(&told(sites()[1].line)).unwrap();
    assert_eq!(
        theirs,
        "personal_prefixes = [\"INBOX.\"], shared_prefix = \"shared.\", public_prefixes = [\"Public.\"], separator = \".\""
    );
    assert_eq!(ours, "personal_prefixes = [\"\"], shared_prefix = \"shared/\", public_prefixes = [], separator = \"/\"");
}

#[test]
fn a_separator_is_one_byte() {
    for separator in ["", "::", "\u{e9}"] {
        assert!(Naming::new(names(), &prefixes(&[], &[], &[], separator)).is_err(), "{separator:?}");
    }
}

proptest! {
    /// Whatever a mailbox is called, the gateway and the agent mean the same by it.
    #[test]
    fn agent_and_gateway_agree(
        name in "((INBOX|inbox|shared|user|Public|Company|Other Users|\u{d6}ffentlich|Arch&ive \u{e9})[./])?[a-cX./&^ \u{e9}-]{1,8}",
        which in 0usize..6,
    ) {
        let Site { line, naming } = &sites()[which];
        let gateway = told(line).path(&encode_utf7(&name), false, &user("alice"), &names());
        prop_assert_eq!(naming.path(&user("alice"), &name).ok(), gateway, "{} in {}", name, line);
    }
}
