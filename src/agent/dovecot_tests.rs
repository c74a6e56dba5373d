use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::mail::codec::to_json;
use crate::mail::user::UserNames;

fn naming() -> Naming {
    let names = UserNames { lowercase: true, default_domain: None };
    Naming::new(names, &Prefixes { shared: vec!["shared/".into()], ..Prefixes::default() }).unwrap()
}

fn read(document: &Value, naming: &Naming) -> Result<Vec<Value>, TranslateError> {
    let events = translate(document.to_string().as_bytes(), naming, Stamp { at: 5, origin: "mx1" })?;
    Ok(events
        .iter()
        .map(|event| {
            let mut event: Value = serde_json::from_str(&to_json(event)).unwrap();
            // The same in every event, and a fresh id.
            let map = event.as_object_mut().unwrap();
            assert!(map.remove("id").is_some());
            assert_eq!(
                (map.remove("v"), map.remove("at"), map.remove("origin")),
                (Some(1.into()), Some(5.into()), Some("mx1".into()))
            );
            event
        })
        .collect())
}

/// What alice's transaction becomes, without its actor.
fn alice(events: Value, status: Value) -> Vec<Value> {
    let mut events = read(&json!({"user": "Alice", "success": true, "events": events, "status": status}), &naming()).unwrap();
    for event in &mut events {
        assert_eq!(event.as_object_mut().unwrap().remove("actor"), Some("alice".into()));
    }
    events
}

fn faulty(document: &Value) -> String {
    read(document, &naming()).unwrap_err().to_string()
}

const INBOX: &str = "#private:alice:INBOX";

#[test]
fn a_delivery() {
    let events = json!([{"name": "MessageNew", "mailbox": "INBOX", "uid": 7, "uid_validity": 9, "flags": [], "keywords": [],
        "date": 1, "tz": 60, "from": "=?utf-8?q?x?=", "from_address": "j@x.org", "from_display_name": "J \"the\" Ö",
        "to": "alice", "subject": "häl\r\nlo", "snippet": "private", "message_id": "<1@x>"}]);
    let status = json!({"messages": 3, "uidnext": 8, "unseen": 2, "highestmodseq": 11, "uidvalidity": 9});
    assert_eq!(
        alice(events, status),
        [json!({"type": "MessageNew", "mailbox": INBOX, "uidvalidity": 9,
            "status": {"messages": 3, "uidnext": 8, "unseen": 2, "highestmodseq": "11"},
            "messages": [{"uid": 7, "flags": [],
                "envelope": {"from": "\"J \\\"the\\\" Ö\" <j@x.org>", "subject": "häl  lo", "message_id": "<1@x>"}}]})]
    );
}

#[test]
fn appended_messages_in_uid_order_with_their_whole_flags() {
    let message = |uid: u32, flags: Value, keywords: Value| {
        json!({"name": "MessageAppend", "mailbox": "Dest", "uid": uid, "uid_validity": 9, "flags": flags, "keywords": keywords,
            "internaldate": 3, "size": 100})
    };
    let events = json!([message(12, json!(["\\seen", "\\Recent"]), json!(["$Work"])), message(3, json!([]), json!([]))]);
    assert_eq!(
        alice(events, "No such mailbox".into()),
        [json!({"type": "MessageAppend", "mailbox": "#private:alice:Dest", "uidvalidity": 9, "messages": [
            {"uid": 3, "flags": [], "size": 100, "internaldate": 3000},
            {"uid": 12, "flags": ["$Work", "\\Seen"], "size": 100, "internaldate": 3000}]})]
    );
}

#[test]
fn set_and_cleared_flags_are_two_events_and_empty_ones_none() {
    let item = |name: &str, uid: u32, flags: Value, keywords: Value| {
        json!({"name": name, "mailbox": "INBOX", "uid": uid, "uid_validity": 9, "flags": flags, "keywords": keywords,
            "flags_old": ["\\Recent"], "keywords_old": []})
    };
    let store = json!([
        item("FlagsClear", 1, json!([]), json!([])),
        item("FlagsSet", 1, json!(["\\Seen"]), json!(["kw"])),
        item("MessageRead", 1, json!([]), json!([])),
    ]);
    let status = json!({"messages": 1, "uidvalidity": 9});
    assert_eq!(
        alice(store, status.clone()),
        [json!({"type": "FlagsSet", "mailbox": INBOX, "uidvalidity": 9, "status": {"messages": 1},
            "messages": [{"uid": 1, "changed": ["\\Seen", "kw"]}]})]
    );
    let replace = json!([
        item("FlagsSet", 2, json!(["\\Answered"]), json!([])),
        item("FlagsClear", 2, json!(["\\Flagged"]), json!([])),
        item("FlagsSet", 1, json!([]), json!([])),
        item("FlagsClear", 1, json!([]), json!(["kw"])),
    ]);
    assert_eq!(
        alice(replace, status),
        [
            json!({"type": "FlagsClear", "mailbox": INBOX, "uidvalidity": 9,
                "messages": [{"uid": 1, "changed": ["kw"]}, {"uid": 2, "changed": ["\\Flagged"]}]}),
            json!({"type": "FlagsSet", "mailbox": INBOX, "uidvalidity": 9, "status": {"messages": 1},
                "messages": [{"uid": 2, "changed": ["\\Answered"]}]}),
        ]
    );
    let neither = json!([item("FlagsClear", 1, json!([]), json!([])), item("FlagsSet", 1, json!([]), json!([]))]);
    assert_eq!(
        alice(neither, Value::Null),
        [json!({"type": "FlagsSet", "mailbox": INBOX, "uidvalidity": 9, "messages": [{"uid": 1, "changed": []}]})],
        "something changed: readers look"
    );
    let only_one = json!([item("FlagsClear", 1, json!([]), json!([]))]);
    assert_eq!(alice(only_one, Value::Null)[0]["type"], "FlagsSet");
}

#[test]
fn expunged_messages_are_one_event() {
    let events = json!([
        {"name": "MessageExpunge", "mailbox": "INBOX", "uid": 257, "uid_validity": 9},
        {"name": "MessageExpunge", "mailbox": "INBOX", "uids": [3, 1, 257], "uid_validity": 9},
        {"name": "MessageTrash", "mailbox": "INBOX", "uid": 1, "uid_validity": 9},
    ]);
    assert_eq!(
        alice(events, Value::Null),
        [json!({"type": "MessageExpunge", "mailbox": INBOX, "uidvalidity": 9, "uids": [1, 3, 257]})]
    );
}

#[test]
fn mailboxes_are_made_renamed_subscribed_and_deleted() {
    let one = |event: Value| alice(json!([event]), Value::Null).remove(0);
    let work = "#private:alice:Entwürfe/2026";
    for (name, kind) in [
        ("MailboxCreate", "MailboxCreate"),
        ("MailboxDelete", "MailboxDelete"),
        ("MailboxSubscribe", "MailboxSubscribe"),
        ("MailboxUnsubscribe", "MailboxUnSubscribe"),
    ] {
        assert_eq!(one(json!({"name": name, "mailbox": "Entwürfe/2026"})), json!({"type": kind, "mailbox": work}));
    }
    assert_eq!(
        one(json!({"name": "MailboxRename", "mailbox": "New", "mailbox_old": "Old"})),
        json!({"type": "MailboxRename", "mailbox": "#private:alice:Old", "to": "#private:alice:New"})
    );
}

#[test]
fn a_deleted_mailbox_takes_its_messages_along() {
    let events = json!([
        {"name": "MessageExpunge", "mailbox": "Old", "uid": 1, "uid_validity": 9},
        {"name": "MessageExpunge", "mailbox": "Old", "uid": 2, "uid_validity": 9},
        {"name": "MailboxDelete", "mailbox": "Old"},
    ]);
    assert_eq!(alice(events, Value::Null), [json!({"type": "MailboxDelete", "mailbox": "#private:alice:Old", "uidvalidity": 9})]);
}

#[test]
fn a_renamed_inbox_stays() {
    let events = json!([{"name": "MailboxRename", "mailbox": "Old", "mailbox_old": "INBOX"}]);
    assert_eq!(
        alice(events, Value::Null),
        [json!({"type": "MailboxChange", "mailbox": INBOX}), json!({"type": "MailboxCreate", "mailbox": "#private:alice:Old"})]
    );
}

#[test]
fn names_become_the_owners() {
    let rename = json!({"user": "Bob", "events": [{"name": "MailboxRename", "mailbox": "shared/Alice/B", "mailbox_old": "A"}]});
    let event = read(&rename, &naming()).unwrap().remove(0);
    assert_eq!((&event["mailbox"], &event["to"]), (&json!("#private:bob:A"), &json!("#private:alice:B")));
    assert_eq!(event["actor"], "bob");
}

#[test]
fn the_scripts_namespaces_win() {
    let path = |namespaces: Value, name: &str| {
        let document = json!({"user": "bob", "namespaces": namespaces, "events": [{"name": "MailboxCreate", "mailbox": name}]});
        read(&document, &naming()).map(|mut events| events.remove(0)["mailbox"].as_str().unwrap().to_owned())
    };
    let dots = json!({"personal": ["INBOX."], "shared": ["user."], "public": ["Public."], "alias": [], "separator": "."});
    assert_eq!(path(dots.clone(), "INBOX.Sent.2026").unwrap(), "#private:bob:Sent/2026");
    assert_eq!(path(dots.clone(), "user.alice.Team").unwrap(), "#private:alice:Team");
    assert_eq!(path(dots.clone(), "Public.News").unwrap(), "#shared::News");
    let error = path(dots, "shared/alice/Team").unwrap_err().to_string();
    assert_eq!(error, "events[0]: \"shared/alice/Team\" is no mailbox in the namespaces of agent.dovecot");
    // All of them count, once there is one.
    assert_eq!(path(json!({"personal": [], "public": ["P/"]}), "shared/alice/x").unwrap(), "#private:bob:shared/alice/x");
    let error = path(json!({"separator": "::"}), "x").unwrap_err().to_string();
    assert_eq!(error, "namespaces: the separator is not one ASCII character");
}

#[test]
fn two_mailboxes_in_one_transaction_are_two_events() {
    let events = json!([
        {"name": "MessageExpunge", "mailbox": "A", "uid": 1, "uid_validity": 9},
        {"name": "MessageExpunge", "mailbox": "B", "uid": 1, "uid_validity": 8},
    ]);
    let told = alice(events, json!({"messages": 4, "uidvalidity": 9}));
    assert_eq!(told[0]["status"], json!({"messages": 4}));
    assert_eq!((&told[1]["mailbox"], told[1].get("status")), (&json!("#private:alice:B"), None));
}

#[test]
fn what_was_rolled_back_did_not_happen() {
    let document = json!({"user": "alice", "success": false, "events": [{"name": "MailboxCreate", "mailbox": "A"}]});
    assert_eq!(read(&document, &naming()).unwrap(), Vec::<Value>::new());
}

#[test]
fn hostile_flags_are_no_flags() {
    let item = |name: &str| {
        json!({"user": "alice", "events": [{"name": name, "mailbox": "INBOX", "uid": 1, "uid_validity": 9,
            "flags": ["\\Seen"], "keywords": ["a\r\n* BYE", "ok"]}]})
    };
    assert_eq!(read(&item("MessageAppend"), &naming()).unwrap()[0]["messages"], json!([{"uid": 1}]), "unknown, not wrong");
    let messages = &read(&item("FlagsSet"), &naming()).unwrap()[0]["messages"];
    assert_eq!(*messages, json!([{"uid": 1, "changed": ["\\Seen", "ok"]}]));
}

#[test]
fn what_is_no_document_says_why() {
    let fault = |text: &str| translate(text.as_bytes(), &naming(), Stamp { at: 0, origin: "" }).unwrap_err().to_string();
    assert_eq!(fault("{"), "not a document of the script: it ends too early, at line 1 column 1");
    assert_eq!(fault("x"), "not a document of the script: not valid JSON, at line 1 column 1");
    assert!(fault("{\"user\":\"a\"}").contains("a field is missing or of the wrong type"));
    assert_eq!(faulty(&json!({"user": "a:b", "events": []})), "user: a user name must not hold ':' or control characters");
    let with = |event: Value| faulty(&json!({"user": "a", "events": [event]}));
    assert_eq!(with(json!({"name": "Quota\n", "mailbox": "x"})), "events[0]: \"Quota\" is no event of the script");
    assert_eq!(with(json!({"name": "MessageNew", "mailbox": "x", "uid": 0})), "events[0]: MessageNew names no message");
    assert_eq!(with(json!({"name": "MailboxRename", "mailbox": "x"})), "events[0]: MailboxRename without mailbox_old");
    assert_eq!(
        with(json!({"name": "MailboxCreate", "mailbox": ""})),
        "events[0]: \"\" is no mailbox in the namespaces of agent.dovecot"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_translated_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = translate(&bytes, &naming(), Stamp { at: 0, origin: "" });
    }

    /// Whatever a mail's sender or a user writes: one event, and nothing of it can break a line.
    #[test]
    fn texts_from_outside_are_harmless(mailbox in ".{1,40}", subject in any::<String>(), from in any::<String>(), flag in any::<String>()) {
        let document = json!({"user": "alice", "events": [{"name": "MessageNew", "mailbox": mailbox, "uid": 1, "flags": [flag],
            "keywords": [], "subject": subject, "from_address": from, "from_display_name": subject}]});
        if let Ok(events) = translate(document.to_string().as_bytes(), &naming(), Stamp { at: 0, origin: "" }) {
            prop_assert_eq!(events.len(), 1);
            let Change::MessageNew { messages } = &events[0].change else { panic!("another type") };
            let envelope = messages[0].envelope.clone().unwrap_or_default();
            for text in [envelope.subject, envelope.from].into_iter().flatten() {
                prop_assert!(!text.chars().any(char::is_control) && text.chars().count() <= 3 * LONGEST_TEXT + 10);
            }
        }
    }
}
