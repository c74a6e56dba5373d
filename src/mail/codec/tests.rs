//! The codec's tables and properties.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::mail::event::*;
use crate::mail::flags::Flags;
use crate::mail::ids::EventId;
use crate::mail::path::MailboxPath;
use crate::mail::uid::{ModSeq, Uid, UidValidity};
use crate::mail::user::UserName;

/// A delivery such as a mail server reports.
pub(crate) fn sample() -> Event {
    let mut message = NewMessage::new(Uid::new(4711).unwrap());
    message.flags = Some(Flags::default());
    message.size = Some(18_213);
    message.internaldate = Some(1_795_467_000_000);
    message.modseq = Some(ModSeq(90_211));
    Event {
        id: EventId(Uuid::from_u128(0x019a_b27c_7d40_7000_8000_0123_4567_89ab)),
        at: 1_795_467_000_123,
        origin: "mail2".into(),
        actor: None,
        actor_session: None,
        mailbox: "#private:bob@x.org:INBOX".parse().unwrap(),
        mailbox_id: None,
        uidvalidity: UidValidity::new(1_700_000_000),
        status: Some(Status { messages: Some(812), uidnext: Some(4712), unseen: Some(3), highestmodseq: Some(ModSeq(90_211)) }),
        change: Change::MessageNew { messages: vec![message] },
    }
}

fn encode(event: &Event) -> Vec<u8> {
    let mut buffer = Vec::new();
    to_msgpack(event, &mut buffer);
    buffer
}

fn flags() -> impl Strategy<Value = Flags> {
    vec(prop_oneof![Just("\\Seen".to_owned()), Just("\\Deleted".to_owned()), "[$a-z][a-z0-9]{0,6}"], 0..4)
        .prop_map(|texts| Flags::sift(texts.iter().map(String::as_str)).0)
}

fn uid() -> impl Strategy<Value = Uid> {
    (1..=u32::MAX).prop_map(|n| Uid::new(n).unwrap())
}

fn modseq() -> impl Strategy<Value = Option<ModSeq>> {
    option::of(any::<u64>().prop_map(ModSeq))
}

fn path() -> impl Strategy<Value = MailboxPath> {
    ("#[a-z]{1,9}", "[^:\\p{Cc}]{0,12}", "\\PC{1,20}|[\\x00-\\x20/%]{1,8}")
        .prop_map(|(namespace, owner, name)| MailboxPath::new(&namespace, &owner, &name).unwrap())
}

fn new_messages() -> impl Strategy<Value = Vec<NewMessage>> {
    let envelope = (option::of(any::<String>()), option::of(any::<String>()), option::of(any::<String>()))
        .prop_map(|(from, subject, message_id)| Envelope { from, subject, message_id });
    let message =
        (uid(), option::of(flags()), option::of(any::<u64>()), option::of(any::<u64>()), modseq(), option::of(envelope))
            .prop_map(|(uid, flags, size, internaldate, modseq, envelope)| NewMessage {
                uid,
                flags,
                size,
                internaldate,
                modseq,
                envelope,
            });
    vec(message, 0..5).prop_map(|mut messages| {
        messages.sort_by_key(|m| m.uid);
        messages.dedup_by_key(|m| m.uid);
        messages
    })
}

fn flag_changes() -> impl Strategy<Value = Vec<FlagChange>> {
    let change = (uid(), flags(), option::of(flags()), modseq()).prop_map(|(uid, changed, flags, modseq)| FlagChange {
        uid,
        changed,
        flags,
        modseq,
    });
    vec(change, 0..5).prop_map(|mut messages| {
        messages.sort_by_key(|m| m.uid);
        messages.dedup_by_key(|m| m.uid);
        messages
    })
}

fn change() -> impl Strategy<Value = Change> {
    let quota = || (any::<u64>(), option::of(any::<u64>())).prop_map(|(used, limit)| Quota { used, limit });
    let uids = vec(uid(), 0..6).prop_map(|mut uids| {
        uids.sort_unstable();
        uids.dedup();
        uids
    });
    prop_oneof![
        new_messages().prop_map(|messages| Change::MessageNew { messages }),
        new_messages().prop_map(|messages| Change::MessageAppend { messages }),
        (uids, modseq()).prop_map(|(uids, modseq)| Change::MessageExpunge { uids, modseq }),
        flag_changes().prop_map(|messages| Change::FlagsSet { messages }),
        flag_changes().prop_map(|messages| Change::FlagsClear { messages }),
        path().prop_map(|to| Change::MailboxRename { to }),
        "[a-z@.]{1,20}".prop_map(|to| Change::AccountRename { to: UserName::new(to).unwrap() }),
        Just(Change::MailboxDelete),
        Just(Change::MailboxCreate),
        Just(Change::MailboxSubscribe),
        Just(Change::MailboxUnSubscribe),
        (any::<String>(), any::<String>()).prop_map(|(identifier, rights)| Change::AclChange { identifier, rights }),
        quota().prop_map(Change::QuotaChange),
        quota().prop_map(Change::QuotaExceed),
        quota().prop_map(Change::QuotaWithin),
        Just(Change::MailboxChange),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let status = (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u32>()), modseq())
        .prop_map(|(messages, uidnext, unseen, highestmodseq)| Status { messages, uidnext, unseen, highestmodseq });
    let who = (any::<String>(), option::of(any::<String>()), option::of(any::<String>()), option::of(any::<String>()));
    let what = (path(), option::of(1..=u32::MAX), option::of(status), change());
    (any::<u128>(), any::<u64>(), who, what).prop_map(
        |(id, at, (origin, actor, actor_session, mailbox_id), (mailbox, uidvalidity, status, change))| Event {
            id: EventId(Uuid::from_u128(id)),
            at,
            origin,
            actor,
            actor_session,
            mailbox,
            mailbox_id,
            uidvalidity: uidvalidity.and_then(UidValidity::new),
            status,
            change,
        },
    )
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(event in event()) {
        prop_assert_eq!(&from_msgpack(&encode(&event), None).unwrap(), &event);
        prop_assert_eq!(&from_json(to_json(&event).as_bytes(), None).unwrap(), &event);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = from_msgpack(&bytes, None);
        let _ = from_json(&bytes, None);
        let _ = split_msgpack(&bytes);
    }

    #[test]
    fn a_damaged_event_is_decoded_or_refused(event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = encode(&event);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut { bytes.truncate(at); }
        let _ = from_msgpack(&bytes, None);
    }

    #[test]
    fn a_batch_is_cut_where_its_events_end(events in vec(event(), 0..5)) {
        let singles: Vec<Vec<u8>> = events.iter().map(encode).collect();
        let stream = singles.concat();
        let mut array = vec![0xdc, 0, singles.len() as u8];
        array.extend(&stream);
        for batch in [stream, array] {
            let cut = split_msgpack(&batch).unwrap();
            prop_assert_eq!(&cut, &singles.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_typical_event_is_small() {
    assert!(encode(&sample()).len() <= 300, "{} bytes", encode(&sample()).len());
}

#[test]
fn json_is_what_a_browser_expects() {
    let json: serde_json::Value = serde_json::from_str(&to_json(&sample())).unwrap();
    assert_eq!(json["type"], "MessageNew");
    assert_eq!(json["mailbox"], "#private:bob@x.org:INBOX");
    assert_eq!(json["messages"][0]["uid"], 4711);
    assert_eq!(json["messages"][0]["modseq"], "90211", "a string: 63 bits do not fit JavaScript's numbers");
    assert_eq!(json["id"], "019ab27c-7d40-7000-8000-0123456789ab");
}

#[test]
fn an_envelope_is_shown_in_part_or_not_at_all() {
    let mut event = sample();
    let Change::MessageNew { messages } = &mut event.change else { unreachable!("the sample is a delivery") };
    messages[0].envelope = Some(Envelope { from: Some("a@b".into()), subject: Some("s".into()), message_id: None });
    let shown = |fields| serde_json::to_value(JsonEvent(&event, fields)).unwrap()["messages"][0]["envelope"].clone();
    assert_eq!(shown(EnvelopeFields::NONE), serde_json::Value::Null);
    assert_eq!(shown(EnvelopeFields { from: true, ..Default::default() }), serde_json::json!({"from": "a@b"}));
    assert_eq!(shown(EnvelopeFields::ALL), serde_json::json!({"from": "a@b", "subject": "s"}));
}

#[test]
fn unknown_fields_are_ignored_and_unknown_types_named() {
    let mut json: serde_json::Value = serde_json::from_str(&to_json(&sample())).unwrap();
    json["from_the_future"] = serde_json::json!({"deep": [1, 2, {"x": null}]});
    json["v"] = 9.into();
    let packed = rmp_serde::to_vec_named(&json).unwrap();
    assert_eq!(from_msgpack(&packed, None).unwrap(), sample());
    json["type"] = "MessageTeleport".into();
    let packed = rmp_serde::to_vec_named(&json).unwrap();
    assert_eq!(from_msgpack(&packed, None), Err(DecodeError::UnknownType("MessageTeleport".into())));
}

#[test]
fn an_origin_may_leave_out_what_it_cannot_know() {
    let text = br##"{"type":"MessageExpunge","mailbox":"#private:bob@x.org:inbox","uids":[9,7,9]}"##;
    let id = EventId(Uuid::from_u128(7));
    let event = from_json(text, Some(Defaults { id, at: 12, origin: "mail1" })).unwrap();
    assert_eq!((event.id, event.at, event.origin.as_str()), (id, 12, "mail1"));
    assert_eq!(event.mailbox.name(), "INBOX");
    let uids = [7, 9].map(|n| Uid::new(n).unwrap()).to_vec();
    assert_eq!(event.change, Change::MessageExpunge { uids, modseq: None });
    assert_eq!(from_json(text, None), Err(DecodeError::missing("id")));
}

#[test]
fn bad_events_say_what_is_wrong() {
    let defaults = Some(Defaults { id: EventId(Uuid::nil()), at: 0, origin: "o" });
    let refused = |text: &str| from_json(text.as_bytes(), defaults).unwrap_err().to_string();
    assert!(refused("[1,2").contains("not an event"));
    assert!(refused("{}").contains("missing field `type`"));
    assert!(refused(r#"{"type":"MailboxChange","mailbox":"INBOX"}"#).contains("field \"mailbox\": a mailbox path has the form"));
    assert!(refused(r##"{"type":"MessageExpunge","mailbox":"#private:b:INBOX"}"##).contains("field \"uids\": is required"));
    assert!(refused(r##"{"type":"MessageExpunge","mailbox":"#private:b:INBOX","uids":[0]}"##).contains("must not be 0"));
    assert!(refused(r##"{"type":"MailboxChange","mailbox":"#private:b:INBOX","uidvalidity":0}"##).contains("must not be 0"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refused(&deep).contains("not an event"));
    let deep = vec![0x91; 100_000];
    assert!(matches!(from_msgpack(&deep, defaults), Err(DecodeError::Malformed(_))));
    let huge = [0xdd, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert!(matches!(from_msgpack(&huge, defaults), Err(DecodeError::Malformed(_))));
}

#[test]
fn an_impossible_flag_makes_the_set_unknown_not_wrong() {
    let text = br##"{"type":"FlagsSet","mailbox":"#private:b:INBOX","messages":[{"uid":1,"changed":["\\seen","a\r\n* BYE"],"flags":["\\Seen","a b"]}]}"##;
    let event = from_json(text, Some(Defaults { id: EventId(Uuid::nil()), at: 0, origin: "o" })).unwrap();
    let Change::FlagsSet { messages } = event.change else { panic!("{event:?}") };
    assert_eq!(messages[0].changed, Flags::sift(["\\Seen"]).0);
    assert_eq!(messages[0].flags, None);
}

mod james {
    use serde_json::{Value, json};

    use super::*;

    fn james(event: Value) -> Result<Event, DecodeError> {
        from_msgpack(&rmp_serde::to_vec_named(&event).unwrap(), None)
    }

    fn mailbox(name: &str) -> Value {
        json!({"serializedMailboxId": "18", "namespace": "#private", "user": "bob", "name": name,
               "uidValidity": 1234, "serializedACL": "{\"entries\":{\"alice\":\"lr\"}}"})
    }

    fn session() -> Value {
        json!({"sessionId": -6_148_914_691_236_517_206_i64, "username": "bob", "sharedSpaces": [], "otherUserSpace": "#user",
               "separator": ".", "locales": [], "r": 0})
    }

    fn flags(seen: bool, user: &[&str]) -> Value {
        json!({"answered": false, "flagged": false, "recent": true, "deleted": false, "draft": false, "seen": seen, "userFlags": user})
    }

    #[test]
    fn added_with_uids_as_numbers_and_as_strings() {
        for uids in [json!([43, 42]), json!(["43", "42"])] {
            let event = james(json!({"type": 0, "mailbox": mailbox("INBOX.Work/a"), "session": session(), "uids": uids,
                "metaData": {"42": {"uid": 42, "modseq": 7, "flags": flags(true, &["k"]), "size": 45, "date": "2015/11/28 10:11:12", "messageId": "1"}},
                "updatedFlags": null, "from": null}))
            .unwrap();
            assert_eq!(event.mailbox.as_str(), "#private:bob:INBOX/Work.a");
            assert_eq!(event.actor_session.as_deref(), Some("-6148914691236517206"));
            assert_eq!((event.mailbox_id.as_deref(), event.uidvalidity), (Some("18"), UidValidity::new(1234)));
            let Change::MessageAppend { messages } = &event.change else { panic!("{event:?}") };
            assert_eq!(messages.iter().map(|m| m.uid.get()).collect::<Vec<_>>(), [42, 43]);
            assert_eq!(messages[0].flags, Some(Flags::sift(["\\Seen", "k"]).0));
            assert_eq!(messages[0].internaldate, Some(1_448_705_472_000));
            assert_eq!(messages[1], NewMessage::new(Uid::new(43).unwrap()));
        }
    }

    #[test]
    fn expunged_flags_renamed_created_deleted() {
        let event = james(json!({"type": 1, "mailbox": mailbox("INBOX"), "session": session(), "uids": ["5", 3]})).unwrap();
        assert!(matches!(&event.change, Change::MessageExpunge { uids, .. } if uids.len() == 2 && uids[0].get() == 3));

        let update = json!([{"uid": 9, "modseq": 3, "oldFlags": flags(false, &[]), "newFlags": flags(true, &[])}]);
        let event = james(json!({"type": 2, "mailbox": mailbox("INBOX"), "session": null, "updatedFlags": update})).unwrap();
        let seen = Flags::sift(["\\Seen"]).0;
        let expected =
            FlagChange { uid: Uid::new(9).unwrap(), changed: seen.clone(), flags: Some(seen), modseq: Some(ModSeq(3)) };
        assert_eq!(event.change, Change::FlagsSet { messages: vec![expected] });

        let from = json!({"namespace": "#private", "user": "bob", "name": "old"});
        let event = james(json!({"type": 3, "mailbox": mailbox("new"), "session": session(), "from": from})).unwrap();
        assert_eq!(event.mailbox.name(), "old");
        assert_eq!(event.change, Change::MailboxRename { to: "#private:bob:new".parse().unwrap() });

        assert_eq!(james(json!({"type": 4, "mailbox": mailbox("x")})).unwrap().change, Change::MailboxCreate);
        assert_eq!(james(json!({"type": 5, "mailbox": mailbox("x")})).unwrap().change, Change::MailboxDelete);
        assert_eq!(james(json!({"type": 6, "mailbox": mailbox("x")})), Err(DecodeError::UnknownType("6".into())));
    }

    #[test]
    fn the_same_bytes_are_the_same_event() {
        let make = |uid: u32| james(json!({"type": 1, "mailbox": mailbox("INBOX"), "uids": [uid]})).unwrap().id;
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
