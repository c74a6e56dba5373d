//! The numbers of RFC 9051 2.3.1 and RFC 7162.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A message's unique identifier within one mailbox and one [`UidValidity`] (RFC 9051 2.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(NonZeroU32);

impl Uid {
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// While it stays the same, UIDs keep their meaning (RFC 9051 2.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UidValidity(NonZeroU32);

impl UidValidity {
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// A modification sequence: 63 bits, grows with every change of a mailbox (RFC 7162 3.1).
///
/// In JSON it is a decimal string, for it can exceed the 53 bits that JavaScript's numbers hold;
/// a number is understood too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModSeq(pub u64);

impl Serialize for ModSeq {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(&self.0) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for ModSeq {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ModSeq;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a modification sequence, as a number or a decimal string")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ModSeq, E> {
                Ok(ModSeq(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ModSeq, E> {
                text.parse().map(ModSeq).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        // Not `deserialize_any` on MessagePack's side alone: both formats describe themselves.
        deserializer.deserialize_any(Visitor)
    }
}
