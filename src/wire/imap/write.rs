//! What the gateway itself says, to clients and to servers. Nothing given to these functions can
//! break a line (I-2).

use std::io::Write;

use data_encoding::BASE64;
use roaring::RoaringBitmap;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::scan::is_atom_char;
use super::set;
use crate::mail::flags::{Flag, Flags};
use crate::mail::uid::{ModSeq, Uid};

/// Formats onto bytes; writing to a Vec cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = write!($out, $($arg)*); }};
}

/// `* 23 EXISTS` (RFC 9051 7.4.1).
pub fn exists(out: &mut Vec<u8>, count: u32) {
    put!(out, "* {count} EXISTS\r\n");
}

/// `* 5 RECENT` (RFC 3501 7.3.2).
pub fn recent(out: &mut Vec<u8>, count: u32) {
    put!(out, "* {count} RECENT\r\n");
}

/// `* 44 EXPUNGE` (RFC 9051 7.5.1).
pub fn expunge(out: &mut Vec<u8>, seq: u32) {
    put!(out, "* {seq} EXPUNGE\r\n");
}

/// `* VANISHED 405,407` (RFC 7162 3.2.10.2); nothing when there is nothing to tell.
pub fn vanished(out: &mut Vec<u8>, uids: &RoaringBitmap) {
    if !uids.is_empty() {
        out.extend_from_slice(b"* VANISHED ");
        set::write(out, uids);
        out.extend_from_slice(b"\r\n");
    }
}

/// What a FETCH response that the gateway makes says of one message.
#[derive(Debug, Clone, Copy)]
pub struct Changed<'a> {
    pub seq: u32,
    /// Said once QRESYNC is enabled (RFC 7162 3.2.4).
    pub uid: Option<Uid>,
    pub flags: &'a Flags,
    /// `\Recent` as well.
    pub recent: bool,
    /// Said once CONDSTORE is enabled (RFC 7162 3.1).
    pub modseq: Option<ModSeq>,
}

/// `* 23 FETCH (UID 4827313 FLAGS (\Seen) MODSEQ (65402))` (RFC 9051 7.5.2).
pub fn fetch(out: &mut Vec<u8>, changed: &Changed<'_>) {
    put!(out, "* {} FETCH (", changed.seq);
    if let Some(uid) = changed.uid {
        put!(out, "UID {uid} ");
    }
    out.extend_from_slice(b"FLAGS (");
    flag_list(out, changed.flags, changed.recent.then_some("\\Recent"));
    out.push(b')');
    if let Some(ModSeq(modseq)) = changed.modseq {
        put!(out, " MODSEQ ({modseq})");
    }
    out.extend_from_slice(b")\r\n");
}

/// `* OK [HIGHESTMODSEQ n]` (RFC 7162 3.1.2.1).
pub fn highestmodseq(out: &mut Vec<u8>, modseq: ModSeq) {
    out.extend_from_slice(format!("* OK [HIGHESTMODSEQ {}] Highest\r\n", modseq.0).as_bytes());
}

/// `* FLAGS (\Answered $Work)` (RFC 9051 7.3.5).
pub fn flags(out: &mut Vec<u8>, flags: &Flags) {
    out.extend_from_slice(b"* FLAGS (");
    flag_list(out, flags, None);
    out.extend_from_slice(b")\r\n");
}

/// `* OK [PERMANENTFLAGS (\Deleted \*)] …` (RFC 9051 7.1); `new_keywords`: `\*`, clients may make
/// keywords.
pub fn permanent_flags(out: &mut Vec<u8>, flags: &Flags, new_keywords: bool) {
    out.extend_from_slice(b"* OK [PERMANENTFLAGS (");
    flag_list(out, flags, new_keywords.then_some("\\*"));
    out.extend_from_slice(b")] Flags permitted.\r\n");
}

fn flag_list(out: &mut Vec<u8>, flags: &Flags, last: Option<&str>) {
    for (at, flag) in flags.iter().map(Flag::as_str).chain(last).enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(flag.as_bytes());
    }
}

/// Why a string cannot be written in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOneLine {
    #[error("it needs a literal, for it holds a line's end or bytes that are not UTF-8")]
    NeedsLiteral,
    #[error("it holds NUL, which no string may")]
    Nul,
}

/// An `astring` for a command's argument, within the line: an atom where it can be, else quoted.
/// Bytes beyond ASCII are quoted too where `utf8` allows them (RFC 6855), else they need a literal.
pub fn astring(out: &mut Vec<u8>, bytes: &[u8], utf8: bool) -> Result<(), NotOneLine> {
    if bytes.contains(&0) {
        return Err(NotOneLine::Nul);
    }
    if !bytes.is_empty() && bytes.iter().all(|b| is_atom_char(*b)) && !bytes.eq_ignore_ascii_case(b"NIL") {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    let breaks = bytes.iter().any(|b| matches!(b, b'\r' | b'\n'));
    if breaks || !(bytes.is_ascii() || utf8 && std::str::from_utf8(bytes).is_ok()) {
        return Err(NotOneLine::NeedsLiteral);
    }
    quoted(out, bytes);
    Ok(())
}

fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for b in bytes {
        if matches!(b, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*b);
    }
    out.push(b'"');
}

/// The same for any bytes but NUL: where a line does not do, a literal, which the server lets in
/// without asking when it has LITERAL+ or LITERAL-. Without those the caller must wait for a
/// continuation request after each `{n}` line.
#[allow(dead_code, reason = "for the fuzz targets, which compare")]
pub fn astring_or_literal(out: &mut Vec<u8>, bytes: &[u8], utf8: bool, non_sync: bool) -> Result<(), NotOneLine> {
    match astring(out, bytes, utf8) {
        Err(NotOneLine::NeedsLiteral) => {
            put!(out, "{{{}{}}}\r\n", bytes.len(), if non_sync { "+" } else { "" });
            out.extend_from_slice(bytes);
            Ok(())
        }
        done => done,
    }
}

/// The client's answer in SASL PLAIN, in base64 (RFC 4616): `authzid` empty means the user itself.
pub fn sasl_plain(authzid: &str, credentials: &Credentials) -> Zeroizing<String> {
    let message = Zeroizing::new([authzid, "\0", &credentials.user, "\0", credentials.password.as_str()].concat().into_bytes());
    Zeroizing::new(BASE64.encode(&message))
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
