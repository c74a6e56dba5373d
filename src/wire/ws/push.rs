//! What the server says: replies repeat the command's id and key, pushes have no id.

use bytes::Bytes;
use serde::Serialize;

use super::close::Goodbye;
use super::codec::text_frame;
use super::command::{CommandError, Refusal};
use crate::mail::codec::{EnvelopeFields, JsonEvent};
use crate::mail::event::Event;
use crate::mail::ids::{NodeId, SessionId};
use crate::mail::key::Key;
use crate::mail::rights::Rights;
use crate::mail::user::UserName;

/// What a session may do, told in the reply to `connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToldLimits {
    pub frame_bytes: usize,
    pub subscriptions: usize,
    pub commands_per_second: u32,
}

/// The reply to `connect`.
#[derive(Debug, Clone, Serialize)]
pub struct Connected<'a> {
    pub session: &'a SessionId,
    pub node: &'a NodeId,
    pub user: &'a UserName,
    pub heartbeat_ms: u64,
    /// Milliseconds since 1970, UTC.
    pub token_expires_at: u64,
    pub limits: &'a ToldLimits,
    /// One entry per subscription of `resume`, all of them settled or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Vec<Resumed>>,
}

/// What became of one subscription of a returning client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resumed {
    pub key: Key,
    /// Whether everything missed was replayed; otherwise the client reads its state now.
    pub recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<Rights>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CommandError>,
}

#[derive(Serialize)]
struct Reply<'a, T: Serialize> {
    id: u32,
    #[serde(flatten)]
    body: Body<'a, T>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Body<'a, T: Serialize> {
    Connect(T),
    Subscribe { key: &'a Key, rights: Rights },
    Unsubscribe { key: &'a Key },
    Refresh { token_expires_at: u64 },
    Ping {},
}

#[derive(Serialize)]
struct ErrorReply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    error: &'a CommandError,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Push<'a> {
    Event {
        event: JsonEvent<'a>,
        pos: &'a str,
    },
    Resync {
        keys: &'a [Key],
        reason: &'a str,
    },
    Revoked {
        key: &'a Key,
    },
    Expiring {
        in_ms: u64,
    },
    Disconnect {
        code: u16,
        reason: &'a str,
        reconnect: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        reconnect_after_ms: Option<u64>,
    },
}

fn json(value: &impl Serialize) -> Bytes {
    // Cannot fail: string keys only, and nothing of ours refuses to be serialised.
    text_frame(&serde_json::to_vec(value).unwrap_or_default())
}

fn reply<T: Serialize>(id: u32, body: Body<'_, T>) -> Bytes {
    json(&Reply { id, body })
}

pub fn connected(id: u32, connected: &Connected<'_>) -> Bytes {
    reply(id, Body::Connect(connected))
}

pub fn subscribed(id: u32, key: &Key, rights: Rights) -> Bytes {
    reply::<()>(id, Body::Subscribe { key, rights })
}

pub fn unsubscribed(id: u32, key: &Key) -> Bytes {
    reply::<()>(id, Body::Unsubscribe { key })
}

/// `token_expires_at` in milliseconds since 1970, UTC.
pub fn refreshed(id: u32, token_expires_at: u64) -> Bytes {
    reply::<()>(id, Body::Refresh { token_expires_at })
}

pub fn pong(id: u32) -> Bytes {
    reply::<()>(id, Body::Ping {})
}

pub fn refused(refusal: &Refusal) -> Bytes {
    json(&ErrorReply { id: refusal.id, error: &refusal.error })
}

pub fn event(event: &Event, fields: EnvelopeFields, pos: &str) -> Bytes {
    json(&Push::Event { event: JsonEvent(event, fields), pos })
}

pub fn resync(keys: &[Key], reason: &str) -> Bytes {
    json(&Push::Resync { keys, reason })
}

/// The right to hear of this is gone, and the subscription with it.
pub fn revoked(key: &Key) -> Bytes {
    json(&Push::Revoked { key })
}

pub fn expiring(in_ms: u64) -> Bytes {
    json(&Push::Expiring { in_ms })
}

pub fn disconnect(goodbye: Goodbye) -> Bytes {
    json(&Push::Disconnect {
        code: goodbye.reason.code(),
        reason: goodbye.reason.words(),
        reconnect: goodbye.reason.reconnect(),
        reconnect_after_ms: goodbye.reconnect_after.map(|d| d.as_millis() as u64),
    })
}

/// The heartbeat: an empty object.
pub fn heartbeat() -> Bytes {
    text_frame(b"{}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::close::CloseReason;
    use super::super::codec::frame_payload;
    use super::*;

    fn text(frame: Bytes) -> String {
        String::from_utf8(frame_payload(&frame).to_vec()).unwrap()
    }

    #[test]
    fn frames_as_documented() {
        let key = Key::Mailbox("#private:bob:INBOX".parse().unwrap());
        assert_eq!(
            text(subscribed(2, &key, Rights::READ)),
            r##"{"id":2,"subscribe":{"key":{"mailbox":"#private:bob:INBOX"},"rights":"lr"}}"##
        );
        assert_eq!(text(pong(3)), r#"{"id":3,"ping":{}}"#);
        let account = Key::Account(UserName::new("bob").unwrap());
        assert_eq!(text(resync(&[account], "overflow")), r#"{"resync":{"keys":[{"account":"bob"}],"reason":"overflow"}}"#);
        assert_eq!(text(revoked(&key)), r##"{"revoked":{"key":{"mailbox":"#private:bob:INBOX"}}}"##);
        let goodbye = Goodbye { reason: CloseReason::Draining, reconnect_after: Some(Duration::from_millis(1500)) };
        let expected =
            r#"{"disconnect":{"code":4412,"reason":"the node is going down","reconnect":true,"reconnect_after_ms":1500}}"#;
        assert_eq!(text(disconnect(goodbye)), expected);
        let refusal = Refusal { id: Some(9), error: CommandError::not_found() };
        assert!(text(refused(&refusal)).starts_with(r#"{"id":9,"error":{"code":404,"name":"not_found","#));
        assert!(text(event(&crate::mail::codec::tests::sample(), EnvelopeFields::NONE, "q@1")).ends_with(r#","pos":"q@1"}}"#));
    }

    #[test]
    fn what_a_stranger_wrote_cannot_break_a_frame() {
        let mut sample = crate::mail::codec::tests::sample();
        sample.mailbox = crate::mail::MailboxPath::new("#private", "bob", "a\r\n\u{2028}\"\\\0</script>").unwrap();
        let json: serde_json::Value = serde_json::from_str(&text(event(&sample, EnvelopeFields::ALL, "q@1"))).unwrap();
        assert_eq!(json["event"]["event"]["mailbox"], sample.mailbox.as_str());
        assert!(!text(event(&sample, EnvelopeFields::ALL, "q@1")).contains('\n'));
    }
}
