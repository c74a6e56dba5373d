use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::mail::path::MailboxPath;
use crate::mail::user::{InvalidUser, UserName, UserNames};

fn rights(text: &str) -> Rights {
    text.parse().unwrap()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn entry(text: &str) -> Entry {
    text.parse().unwrap()
}

/// `Fred rwipslxetad -Fred wetd`: an ACL as RFC 4314 writes it, with capitals and groups as they
/// come.
fn acl(text: &str) -> Acl {
    let names = UserNames { lowercase: false, default_domain: None };
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    words.chunks(2).map(|pair| (Entry::read(pair[0], &names).unwrap(), rights(pair[1]))).collect()
}

fn team() -> MailboxPath {
    "#private:alice:Team".parse().unwrap()
}

#[test]
fn letters_are_read_in_any_order_and_shown_in_one() {
    for (read, shown) in [
        ("srl", "lrs"),
        // RFC 4314 2.1.1: c and d are their members, whether those are named too or not.
        ("cd", "kxte"),
        ("c", "k"),
        ("lrswida", "lrswixtea"),
        ("lrswikda", "lrswikxtea"),
        ("lrswikcdeta", "lrswikxtea"),
        // 3.1's and 3.5's.
        ("rwipslxetad", "lrswipxtea"),
        ("rwipsldexta", "lrswipxtea"),
        // 3.4's: all there are.
        ("lrswipkxtecda0123456789", "lrswipkxtea0123456789"),
        ("llrr", "lr"),
        ("", ""),
    ] {
        assert_eq!(rights(read).to_string(), shown, "{read}");
    }
    assert_eq!(Rights::ALL.to_string(), "lrswipkxtea");
    assert_eq!(Rights::from_bits(Rights::ALL.bits()), Rights::ALL);
    assert_eq!(Rights::from_bits(u32::MAX), rights("lrswipkxtea0123456789"));
}

#[test]
fn unknown_letters_and_capitals_are_refused() {
    // RFC 4314 2 and 3.1: capitals are not allowed, and nothing unknown is ignored.
    for (text, letter) in [("lrQswicda", 'Q'), ("lrqswicda", 'q'), ("L", 'L'), ("l r", ' '), ("lé", 'é'), ("lr+s", '+')] {
        assert_eq!(Rights::parse(text), Err(InvalidRights(letter)), "{text}");
        assert_eq!(text.parse::<RightsChange>(), Err(InvalidRights(letter)), "{text}");
        assert_eq!(format!("+{text}").parse::<RightsChange>(), Err(InvalidRights(letter)), "{text}");
    }
    assert_eq!("+-l".parse::<RightsChange>(), Err(InvalidRights('-')));
    assert!(InvalidRights('\n').to_string().starts_with("'\\n' is not a right"));
}

#[test]
fn what_a_server_tells_is_read_as_far_as_it_is_known() {
    for (told, known) in [
        ("rwiptsldaex", "lrswipxtea"),
        ("lnq9", "l9"),
        // c and d come with any one of their members, and say nothing then.
        ("lrtd", "lrt"),
        ("lrkc", "lrk"),
        ("lrxcd", "lrx"),
        // A server of RFC 2086 has nothing else to say it with.
        ("lrswipcda", "lrswipkxtea"),
        ("LR", ""),
    ] {
        assert_eq!(Rights::parse_known(told).to_string(), known, "{told}");
    }
}

#[test]
fn what_a_client_asks_for_is_read_as_a_server_must() {
    // RFC 4314 2.1.1: `d` is as if every member of it were there, whatever else is.
    for (asked, known) in [("lrtd", "lrxte"), ("lrswida", "lrswixtea"), ("kc", "k"), ("cd", "kxte"), ("lnq9", "l9"), ("", "")] {
        assert_eq!(Rights::parse_asked(asked).to_string(), Rights::parse(known).unwrap().to_string(), "{asked}");
    }
}

#[test]
fn what_rights_allow() {
    // RFC 4314 4, the column "Any": who has one of these may ask MYRIGHTS, and so knows that there
    // is a mailbox.
    for letter in "lrikxa".chars() {
        assert!(rights(&letter.to_string()).know(), "{letter}");
    }
    for letters in ["s", "w", "p", "t", "e", "swpte", "0123456789", ""] {
        assert!(!rights(letters).know(), "{letters}");
    }
    assert!(rights("lrs").contains(Rights::READ) && !rights("ls").contains(Rights::READ) && !rights("rs").contains(Rights::READ));
    assert!(rights("l").contains(Rights::LOOKUP) && !rights("r").contains(Rights::LOOKUP));
    assert!(rights("lr").contains(Rights::NONE) && Rights::NONE.is_empty());
    assert!(rights("kx").has('c') && rights("xte").has('d') && !rights("xt").has('d'), "each of the members");
    assert!(!Rights::ALL.has('q') && !Rights::ALL.has('L') && !Rights::ALL.has('0'));
}

#[test]
fn setacl_sets_adds_and_takes() {
    // RFC 4314 3.1.
    for (held, change, now) in [
        ("lrswi", "+cda", "lrswikxtea"),
        ("lrswi", "-ws", "lri"),
        ("lrswi", "l", "l"),
        ("lrswi", "", ""),
        ("lrswi", "+", "lrswi"),
        ("lrswi", "-", "lrswi"),
        ("", "-lr", ""),
        ("", "+lr", "lr"),
        ("lr", "-d", "lr"),
    ] {
        let change: RightsChange = change.parse().unwrap();
        assert_eq!(change.apply(rights(held)).to_string(), now, "{held} {change}");
    }
    let mut chris = acl("Fred rwipslxetad Chris lrswi");
    let edit = AclEdit { entry: entry("Chris"), change: "+cda".parse().unwrap() };
    assert!(chris.edit(&edit));
    assert_eq!(chris, acl("Fred rwipslxetad Chris lrswicdakxet"));
    assert!(!chris.edit(&edit), "a second time it changes nothing");
}

#[test]
fn deleteacl_takes_one_entry_and_not_the_negative_one() {
    // RFC 4314 3.2.
    let mut held = acl("Fred rwipslxetad -Fred wetd $team w");
    assert!(held.edit(&AclEdit { entry: entry("Fred"), change: RightsChange::Set(Rights::NONE) }));
    assert_eq!(held, acl("-Fred wetd $team w"));
    assert_eq!(held.len(), 2);
    assert!(held.edit(&AclEdit { entry: entry("-Fred"), change: "".parse().unwrap() }));
    assert!(held.edit(&AclEdit { entry: entry("group:team"), change: "-w".parse().unwrap() }));
    assert!(held.is_empty(), "an entry without rights is none");
}

#[test]
fn all_entries_about_somebody_count_and_negative_ones_win() {
    let fred = |groups: &[&str]| Subject::new(user("fred"), groups);
    for (text, groups, effective) in [
        ("", &[][..], ""),
        ("fred lr", &[], "lr"),
        ("chris lr", &[], ""),
        // RFC 4314 2: the union of what the matching identifiers have ...
        ("fred l group:team r anyone s authenticated p", &["team"], "lrsp"),
        ("fred l group:team r", &["teams"], "l"),
        ("anyone lr", &[], "lr"),
        ("authenticated lr", &[], "lr"),
        // ... and what a negative one names is taken, "even though the user might have it by
        // another identifier".
        ("fred lrw -fred w", &[], "lr"),
        ("anyone lrw -fred w", &[], "lr"),
        ("group:team lrw -fred w", &["team"], "lr"),
        ("fred lr -anyone r", &[], "l"),
        ("fred lr -authenticated l", &[], "r"),
        ("fred lr -group:temps lr", &["temps", "team"], ""),
        ("fred lr -group:temps lr", &["team"], "lr"),
        // Without the entry "fred" what "-fred" takes is still taken (2: DELETEACL of "fred" does
        // not touch it).
        ("-fred w anyone lrw", &[], "lr"),
        // The owner's entry is nobody else's, with either sign.
        ("owner lr", &[], ""),
        ("fred lr -owner lr", &[], "lr"),
        ("fred lr -chris lr", &[], "lr"),
        // A group is no user, and a user is no group.
        ("group:fred lr", &[], ""),
        ("team lr", &["team"], ""),
    ] {
        assert_eq!(acl(text).effective(&team(), &fred(groups)).to_string(), effective, "{text} with {groups:?}");
    }
}

#[test]
fn where_groups_are_not_known_only_what_they_cannot_change_is_decided() {
    let bob = Subject::of_unknown_groups(user("bob"));
    for (text, decided, least) in [
        ("", true, ""),
        ("bob lr", true, "lr"),
        ("eve lr", true, ""),
        ("anyone lr -bob r", true, "l"),
        // A group may give what nothing else gives, or take what something else gives.
        ("group:staff lr", false, ""),
        ("group:staff l", false, ""),
        ("bob l group:staff r", false, "l"),
        ("anyone lr -group:temps lr", false, ""),
        ("anyone lr -group:temps r", false, "l"),
        ("group:staff lr -group:staff lr", false, ""),
        // It changes nothing that decides who hears what.
        ("bob lr group:staff lrswi", true, "lr"),
        ("group:staff swi", true, ""),
        ("anyone lrs -group:temps s", true, "lr"),
        ("group:staff r", true, ""),
        // What is taken for certain nobody gives.
        ("group:staff lr -bob l", true, ""),
        ("group:staff lr bob l -anyone r", true, "l"),
        ("anyone lr -bob lr -group:temps lr", true, ""),
    ] {
        assert_eq!(acl(text).decides(&team(), &bob), decided, "{text}");
        assert_eq!(acl(text).effective(&team(), &bob).to_string(), least, "{text}");
        assert!(acl(text).decides(&team(), &Subject::alone(user("bob"))), "{text}: in no group, which is known");
    }
    assert!(acl("group:staff lr").decides(&team(), &Subject::of_unknown_groups(user("alice"))), "one's own");
}

#[test]
fn an_owner_has_all_rights_whatever_the_acl_says() {
    let alice = Subject::new(user("alice"), ["temps"]);
    for text in ["", "alice l", "-alice lrswipkxtea", "-anyone lr -owner lr -group:temps lr"] {
        assert_eq!(acl(text).effective(&team(), &alice), Rights::ALL, "{text}");
    }
    // What belongs to nobody has no owner.
    let news: MailboxPath = "#shared::News".parse().unwrap();
    assert_eq!(acl("owner lr").effective(&news, &alice), Rights::NONE);
    assert_eq!(acl("alice lr").effective(&news, &alice), rights("lr"));
}

#[test]
fn identifiers_of_mail_servers() {
    use Identifier::{Anyone, Authenticated, Group, Owner, User};
    let names = UserNames { lowercase: true, default_domain: Some("example.org".to_owned()) };
    let bob = || User(user("bob@example.org"));
    for (text, negative, identifier, shown) in [
        // RFC 4314 2.
        ("anyone", false, Anyone, "anyone"),
        ("-anyone", true, Anyone, "-anyone"),
        ("bob", false, bob(), "bob@example.org"),
        ("-Bob", true, bob(), "-bob@example.org"),
        ("bob@EXAMPLE.org", false, bob(), "bob@example.org"),
        // Cyrus.
        ("group:staff", false, Group("staff".into()), "group:staff"),
        ("-group:staff", true, Group("staff".into()), "-group:staff"),
        // Dovecot; 3.2's `$team`.
        ("$staff", false, Group("staff".into()), "group:staff"),
        ("-$staff", true, Group("staff".into()), "-group:staff"),
        ("authenticated", false, Authenticated, "authenticated"),
        ("owner", false, Owner, "owner"),
        // James.
        ("anybody", false, Anyone, "anyone"),
        ("-anybody", true, Anyone, "-anyone"),
        ("$$owner", false, Owner, "owner"),
        ("-$$authenticated", true, Authenticated, "-authenticated"),
        // A group may be called like one of the words: with the sign of a group it is the group.
        ("$any", false, Group("any".into()), "group:any"),
        ("$owner", false, Group("owner".into()), "group:owner"),
        ("group:anyone", false, Group("anyone".into()), "group:anyone"),
        ("group:-temps", false, Group("-temps".into()), "group:-temps"),
        ("group:group:x", false, Group("group:x".into()), "group:group:x"),
        // With the sign of a user it is the user.
        ("user:bob", false, bob(), "bob@example.org"),
        ("user:anyone", false, User(user("anyone@example.org")), "anyone@example.org"),
        ("-user:-bob", true, User(user("-bob@example.org")), "-user:-bob@example.org"),
        ("user:$cash", false, User(user("$cash@example.org")), "user:$cash@example.org"),
    ] {
        let read = Entry::read(text, &names).unwrap();
        assert_eq!(read, Entry { identifier, negative }, "{text}");
        assert_eq!(read.to_string(), shown, "{text}");
    }
}

#[test]
fn what_is_no_identifier_is_refused() {
    let names = UserNames::default();
    for text in ["", " ", "-", "user:", "a:b", "user:a:b", "GROUP:x", "a\nb", "-user:", " bob", "bob ", "-user: bob"] {
        assert!(matches!(Entry::read(text, &names), Err(InvalidIdentifier::User(_))), "{text:?}");
    }
    for text in ["group:", "$", "-$", "-group:", "group:a\0", "group: staff", "-$staff ", &format!("group:{}", "x".repeat(321))] {
        assert_eq!(Entry::read(text, &names), Err(InvalidIdentifier::Group), "{text:?}");
    }
    // What could be meant as more than a user of that name, or as less.
    for text in ["--bob", "- -bob", "Anyone", " ANYBODY", "-Owner", "Authenticated", "!staff", "-!staff"] {
        assert_eq!(Entry::read(text, &names), Err(InvalidIdentifier::Reserved), "{text:?}");
    }
    assert_eq!("-bob".parse::<Identifier>(), Err(InvalidIdentifier::Reserved), "a sign belongs to an entry");
    assert_eq!("x".repeat(321).parse::<Entry>(), Err(InvalidIdentifier::User(InvalidUser::TooLong)));
}

#[test]
fn nobody_has_rights_by_being_called_like_a_word() {
    for name in ["anyone", "anybody", "authenticated", "owner", "Anyone", "-bob", "$staff", "!staff", " anyone"] {
        let them = Entry { identifier: Identifier::User(user(name)), negative: false };
        assert_eq!(them.to_string(), format!("user:{name}"));
        assert_eq!(entry(&them.to_string()), them, "{name:?}");
        let given = Acl::from_iter([(them.clone(), rights("lr"))]);
        assert_eq!(given.effective(&team(), &Subject::alone(user("bob"))), Rights::NONE, "{name:?}");
        assert_eq!(given.effective(&team(), &Subject::alone(user(name))), rights("lr"), "{name:?}");
        assert_eq!(given.effective(&team(), &Subject::new(user("bob"), ["staff"])), Rights::NONE, "{name:?}");
        let taken = Acl::from_iter([(Entry { negative: true, ..them }, rights("lr")), (entry("bob"), rights("lr"))]);
        assert_eq!(taken.effective(&team(), &Subject::alone(user("bob"))), rights("lr"), "{name:?}");
    }
}

#[test]
fn an_acl_in_json() {
    let text = r#"{"anyone":"l","bob@example.org":"lrs","-group:temps":"r"}"#;
    let read: Acl = serde_json::from_str(text).unwrap();
    assert_eq!(read, acl("anyone l bob@example.org lrs -group:temps r"));
    let written = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Acl>(&written).unwrap(), read);
    assert_eq!(serde_json::from_str::<Acl>(r#"{"bob":""}"#).unwrap(), Acl::default());
    for (bad, why) in [
        (r#"{"bob":"lrq"}"#, "'q' is not a right"),
        (r#"{"bob":"+lr"}"#, "'+' is not a right"),
        (r#"{"a:b":"lr"}"#, "an identifier is a user's name"),
        (r#"{"--bob":"lr"}"#, "user:NAME"),
        (r#"{"bob":"l","bob":"r"}"#, "\"bob\" is there twice"),
        (r#"{"$staff":"l","group:staff":"r"}"#, "\"group:staff\" is there twice"),
        (r#"["bob"]"#, "a table of identifiers and their rights"),
        (r#"{"bob":7}"#, "a string"),
    ] {
        let error = serde_json::from_str::<Acl>(bad).unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn a_subject_is_in_each_group_once() {
    let subject = Subject::new(user("bob"), ["staff", "admins", "staff"]);
    let groups: Vec<&str> = subject.groups().iter().map(|group| &**group).collect();
    assert_eq!(groups, ["admins", "staff"]);
    let named: BTreeSet<String> = subject.identifiers().map(|identifier| identifier.to_string()).collect();
    assert_eq!(named, ["anyone", "authenticated", "bob", "group:admins", "group:staff"].map(str::to_owned).into());
    assert!(subject.identifiers().all(|identifier| subject.is(&identifier, false)));
    assert!(!subject.is(&Identifier::Owner, false) && subject.is(&Identifier::Owner, true));
    // Where they are not known it may be in any, and is not the one that is in none.
    let (staff, unknown) = (Identifier::Group("staff".into()), Subject::of_unknown_groups(user("bob")));
    assert!(unknown.is(&staff, false) && !Subject::alone(user("bob")).is(&staff, false));
    assert!(unknown != Subject::alone(user("bob")) && unknown.groups().is_empty() && unknown.identifiers().count() == 3);
    assert_eq!(unknown.renamed(user("rob")), Subject::of_unknown_groups(user("rob")));
    assert_eq!(subject.renamed(user("rob")), Subject::new(user("rob"), ["admins", "staff"]));
}

fn any_rights() -> impl Strategy<Value = Rights> {
    (0..1_u32 << LETTERS.len()).prop_map(Rights::from_bits)
}

fn any_change() -> impl Strategy<Value = RightsChange> {
    (any_rights(), 0..3).prop_map(|(rights, form)| match form {
        0 => RightsChange::Set(rights),
        1 => RightsChange::Add(rights),
        _ => RightsChange::Remove(rights),
    })
}

/// Few enough names that they meet, with those that are words.
fn any_identifier() -> impl Strategy<Value = Identifier> {
    prop_oneof![
        Just(Identifier::Anyone),
        Just(Identifier::Authenticated),
        Just(Identifier::Owner),
        prop::sample::select(vec!["bob", "eve", "anyone", "owner", "-bob", "$staff"]).prop_map(|n| Identifier::User(user(n))),
        prop::sample::select(vec!["staff", "temps", "anyone"]).prop_map(|n| Identifier::Group(n.into())),
    ]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (any_identifier(), any::<bool>()).prop_map(|(identifier, negative)| Entry { identifier, negative })
}

fn any_acl() -> impl Strategy<Value = Acl> {
    prop::collection::vec((any_entry(), any_rights()), 0..12).prop_map(|entries| entries.into_iter().collect())
}

fn any_subject() -> impl Strategy<Value = Subject> {
    let name = prop::sample::select(vec!["alice", "bob", "eve", "anyone", "owner", "-bob", "$staff"]);
    (name, prop::collection::vec(prop::sample::select(vec!["staff", "temps", "anyone"]), 0..3))
        .prop_map(|(name, groups)| Subject::new(user(name), groups))
}

/// Letter by letter, as one would explain it.
fn naive(acl: &Acl, mailbox: &MailboxPath, subject: &Subject) -> String {
    let about = |entry: &Entry| match &entry.identifier {
        Identifier::Anyone | Identifier::Authenticated => true,
        Identifier::Owner => mailbox.owner() == subject.user.as_str(),
        Identifier::User(user) => user.as_str() == subject.user.as_str(),
        Identifier::Group(group) => subject.groups().iter().any(|held| held == group),
    };
    let named = |letter: char, negative: bool| {
        acl.iter().any(|(entry, rights)| entry.negative == negative && about(entry) && rights.to_string().contains(letter))
    };
    if mailbox.owner() == subject.user.as_str() {
        return "lrswipkxtea".to_owned();
    }
    "lrswipkxtea0123456789".chars().filter(|letter| named(*letter, false) && !named(*letter, true)).collect()
}

proptest! {
    #[test]
    fn rights_and_changes_read_back(rights in any_rights(), change in any_change()) {
        prop_assert_eq!(rights.to_string().parse::<Rights>().unwrap(), rights);
        prop_assert_eq!(Rights::parse_known(&rights.to_string()), rights);
        prop_assert_eq!(Rights::from_bits(rights.bits()), rights);
        prop_assert_eq!(change.to_string().parse::<RightsChange>().unwrap(), change);
    }

    #[test]
    fn any_text_is_rights_or_refused(text in "[+-]?[a-zA-Z0-9]{0,24}") {
        let known = |letter: char| "lrswipkxtea0123456789cd".contains(letter);
        let letters = text.strip_prefix(['+', '-']).unwrap_or(&text);
        prop_assert_eq!(text.parse::<RightsChange>().is_ok(), letters.chars().all(known));
    }

    #[test]
    fn entries_read_back(name in "\\PC{1,40}", group in "\\PC{1,40}", negative in any::<bool>(), drawn in any_entry()) {
        let user = UserName::new(name).ok().map(Identifier::User);
        let named = user.into_iter().chain([Identifier::Group(group.into())]).map(|identifier| Entry { identifier, negative });
        for entry in named.chain([drawn]) {
            prop_assert_eq!(entry.to_string().parse::<Entry>().unwrap(), entry);
        }
    }

    #[test]
    fn what_is_read_is_shown_so_that_it_reads_the_same(text in "[-$! ]{0,2}(user:|group:)?(anyone|Owner|bob|[ -~]{0,8})") {
        let names = UserNames::default();
        if let Ok(read) = Entry::read(&text, &names) {
            prop_assert_eq!(&Entry::read(&read.to_string(), &names).unwrap(), &read);
            prop_assert_eq!(&read.to_string().parse::<Entry>().unwrap(), &read);
        }
    }

    #[test]
    fn an_acl_reads_back(acl in any_acl()) {
        let text = serde_json::to_string(&acl).unwrap();
        prop_assert_eq!(serde_json::from_str::<Acl>(&text).unwrap(), acl);
    }

    #[test]
    fn effective_rights_are_what_one_would_work_out_by_hand(acl in any_acl(), subject in any_subject()) {
        prop_assert_eq!(acl.effective(&team(), &subject).to_string(), naive(&acl, &team(), &subject));
    }

    #[test]
    fn what_is_decided_holds_for_any_groups(acl in any_acl(), subject in any_subject()) {
        let unknown = Subject::of_unknown_groups(subject.user.clone());
        let (least, held) = (acl.effective(&team(), &unknown), acl.effective(&team(), &subject));
        prop_assert!(held.contains(least));
        for needed in [Rights::LOOKUP, Rights::READ].into_iter().filter(|_| acl.decides(&team(), &unknown)) {
            prop_assert_eq!(held.contains(needed), least.contains(needed));
        }
    }

    #[test]
    fn a_negative_entry_never_grants(
        acl in any_acl(), identifier in any_identifier(), rights in any_rights(), subject in any_subject(),
    ) {
        let before = acl.effective(&team(), &subject);
        let (mut after, entry) = (acl, Entry { identifier, negative: true });
        after.edit(&AclEdit { entry, change: RightsChange::Add(rights) });
        prop_assert!(before.contains(after.effective(&team(), &subject)));
    }

    #[test]
    fn a_positive_entry_never_takes(
        acl in any_acl(), identifier in any_identifier(), rights in any_rights(), subject in any_subject(),
    ) {
        let before = acl.effective(&team(), &subject);
        let (mut after, entry) = (acl, Entry { identifier, negative: false });
        after.edit(&AclEdit { entry, change: RightsChange::Add(rights) });
        prop_assert!(after.effective(&team(), &subject).contains(before));
    }

    #[test]
    fn an_edit_done_twice_is_done_once(mut acl in any_acl(), entry in any_entry(), change in any_change()) {
        let edit = AclEdit { entry, change };
        acl.edit(&edit);
        let once = acl.clone();
        prop_assert!(!acl.edit(&edit));
        prop_assert_eq!(acl, once);
    }
}
