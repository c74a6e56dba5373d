//! One question of the gateway's own, and how it is put to the server.

use std::io::Write;

use roaring::RoaringBitmap;

use super::common::Common;
use super::facts::Login;
use crate::mail::uid::ModSeq;
use crate::wire::imap::{set, write};

/// A list of UIDs to ask for is written out up to this length.
const LONGEST_SET: usize = 4096;

/// One thing to ask.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Question {
    /// The greeting of a new connection; nothing is sent.
    Greeting,
    Login,
    Enable,
    Capability,
    Namespace,
    /// Where there is no NAMESPACE: the hierarchy delimiter.
    Delimiter,
    /// Lets the server tell what is new.
    Noop,
    /// SELECT or EXAMINE again: a fresh view, with UIDNEXT. Expunges nothing.
    Select,
    /// All UIDs.
    Uids,
    Flags(RoaringBitmap),
    /// The flags of all messages, or of those changed since.
    AllFlags(Option<ModSeq>),
    /// What the user may do with the selected mailbox.
    MyRights,
    Idle,
}

impl Question {
    /// Writes it as a command with the tag of this number.
    pub fn write(&self, out: &mut Vec<u8>, serial: u32, common: &Common) {
        let facts = &common.facts;
        // RFC 7162 3.1: without asking for it, it may not be told, and then the client could not be
        // told either.
        let flags: &[u8] = if facts.features.fetch_has_modseq() { b" (FLAGS MODSEQ)" } else { b" (FLAGS)" };
        if *self != Self::Greeting {
            out.extend_from_slice(format!("mailpush{serial} ").as_bytes());
        }
        match self {
            Self::Greeting => return,
            Self::Login => write_login(out, common),
            Self::Enable => {
                out.extend_from_slice(b"ENABLE");
                for capability in &facts.enabled {
                    out.push(b' ');
                    out.extend_from_slice(capability.as_bytes());
                }
            }
            Self::Capability => out.extend_from_slice(b"CAPABILITY"),
            Self::Namespace => out.extend_from_slice(b"NAMESPACE"),
            Self::Delimiter => out.extend_from_slice(b"LIST \"\" \"\""),
            Self::Noop => out.extend_from_slice(b"NOOP"),
            Self::Select => {
                if let Some(selected) = &facts.selected {
                    out.extend_from_slice(if selected.examined { b"EXAMINE " } else { b"SELECT " });
                    // It came over the wire as a string; where that needs a literal, the server
                    // refuses this one.
                    let _ = write::astring(out, &selected.name, facts.utf8);
                    if facts.features.condstore && !facts.features.qresync {
                        out.extend_from_slice(b" (CONDSTORE)");
                    }
                }
            }
            // ALL and not a range: `1:*` is an error to some servers where the mailbox is empty.
            Self::Uids if facts.offers.esearch => out.extend_from_slice(b"UID SEARCH RETURN (ALL) ALL"),
            Self::Uids => out.extend_from_slice(b"UID SEARCH ALL"),
            Self::Flags(uids) => {
                out.extend_from_slice(b"UID FETCH ");
                let start = out.len();
                set::write(out, uids);
                if out.len() - start > LONGEST_SET {
                    // Servers bound their lines: too many are asked for, and told are those that
                    // are held.
                    out.truncate(start);
                    let _ = write!(out, "{}:{}", uids.min().unwrap_or(1), uids.max().unwrap_or(1));
                }
                out.extend_from_slice(flags);
            }
            Self::AllFlags(None) => {
                out.extend_from_slice(b"UID FETCH 1:*");
                out.extend_from_slice(flags);
            }
            Self::AllFlags(Some(since)) => {
                out.extend_from_slice(format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {})", since.0).as_bytes());
            }
            Self::MyRights => {
                out.extend_from_slice(b"MYRIGHTS ");
                let name = facts.selected.as_ref().map(|selected| selected.name.as_slice()).unwrap_or_default();
                // A name that needs a literal is refused here as by SELECT.
                let _ = write::astring(out, name, facts.utf8);
            }
            Self::Idle => out.extend_from_slice(b"IDLE"),
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn write_login(out: &mut Vec<u8>, common: &Common) {
    if let Some((authzid, credentials)) = common.plain_login() {
        out.extend_from_slice(b"AUTHENTICATE PLAIN");
        if common.facts.offers.sasl_ir {
            out.push(b' ');
            out.extend_from_slice(write::sasl_plain(authzid, credentials).as_bytes());
        }
    } else if let Some(Login::Login(credentials)) = common.facts.login.as_deref() {
        out.extend_from_slice(b"LOGIN ");
        // They came as strings that need no literal, or were not kept.
        let _ = write::astring(out, credentials.user.as_bytes(), false);
        out.push(b' ');
        let _ = write::astring(out, credentials.password.as_bytes(), false);
    }
}
