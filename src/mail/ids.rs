//! Identifiers of events, nodes and sessions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, de};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// An event's identifier, a UUIDv7 (RFC 9562 5.7): duplicates are recognised by it (I-8).
///
/// Sixteen bytes in MessagePack, text in JSON; either is read from either, for not every origin has
/// a UUID type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = EventId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID, as text or as 16 bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<EventId, E> {
                Uuid::from_slice(bytes).map(EventId).map_err(|_| E::invalid_value(de::Unexpected::Bytes(bytes), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<EventId, E> {
                Uuid::parse_str(text).map(EventId).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl EventId {
    /// A fresh one, for tests: it reads the clock.
    #[cfg(test)]
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }

    /// That of news which follow from this event for something by that name: the same wherever and
    /// however often it is made.
    pub fn derived(self, name: &str) -> Self {
        let digest = Sha256::new().chain_update(self.0.as_bytes()).chain_update(name).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(
            uuid::Builder::from_bytes(bytes).with_version(uuid::Version::Custom).with_variant(uuid::Variant::RFC4122).into_uuid(),
        )
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The longest node id, in bytes.
pub const MAX_NODE_ID: usize = 40;

/// A running gateway: 1 to 40 letters, digits, `-` or `_`, safe in a znode's and in a topic's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("a node id is 1 to {MAX_NODE_ID} letters, digits, '-' or '_'")]
    Node,
    #[error("a session id has the form NODE.NUMBER")]
    Session,
}

impl NodeId {
    /// A random one: 128 random bits of a UUIDv4, in 26 characters, for znode paths had better be
    /// short (I-14).
    pub fn random() -> Self {
        Self(BASE32_NOPAD.encode(Uuid::new_v4().as_bytes()).to_lowercase().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if text.is_empty() || text.len() > MAX_NODE_ID || !text.bytes().all(plain) {
            return Err(InvalidId::Node);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One client connection, unique in the cluster: it names its node, so that whoever has the id
/// knows whom to ask. `NODE.NUMBER`, the number 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId {
    node: NodeId,
    number: u64,
}

impl SessionId {
    pub fn new(node: NodeId, number: u64) -> Self {
        Self { node, number }
    }

    /// A fresh one on `node`.
    pub fn random(node: NodeId) -> Self {
        Self::new(node, Uuid::new_v4().as_u64_pair().0)
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.node, self.number)
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (node, number) = text.rsplit_once('.').ok_or(InvalidId::Session)?;
        let bytes: [u8; 8] =
            HEXLOWER.decode(number.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidId::Session)?;
        Ok(Self { node: node.parse()?, number: u64::from_be_bytes(bytes) })
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_node_id_is_a_node_id() {
        let id = NodeId::random();
        assert_eq!(id.as_str().len(), 26);
        assert_eq!(id.as_str().parse::<NodeId>().unwrap(), id);
    }

    #[test]
    fn node_ids_are_safe_in_names() {
        for bad in ["", "a.b", "a/b", "a b", "é", &"x".repeat(41)] {
            assert_eq!(bad.parse::<NodeId>(), Err(InvalidId::Node), "{bad:?}");
        }
    }

    #[test]
    fn a_session_id_names_its_node() {
        let id = SessionId::random("gw-1".parse().unwrap());
        let read: SessionId = id.to_string().parse().unwrap();
        assert_eq!((&read, read.node().as_str()), (&id, "gw-1"));
        for bad in ["gw-1", "gw-1.12", "gw-1.zzzzzzzzzzzzzzzz", ".0000000000000000"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
        }
    }
}
