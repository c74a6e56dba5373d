//! The server responses that the proxy must understand, read leniently: what is not understood is
//! `Other`, and passes unchanged.
//!
//! Servers leave spaces at the end of lines, write in lower case, leave texts out; clients live
//! with it, and so does this.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use super::acl::{self, AclData, ListRights, MyRights};
use super::namespace::Namespaces;
use super::scan::{Scan, is_atom_char, without_end};
use super::set::{self, Ranges};
use crate::mail::flags::Flags;
use crate::mail::uid::{ModSeq, Uid, UidValidity};

/// One response (RFC 9051 section 7).
#[derive(Debug, PartialEq)]
pub enum Response<'a> {
    /// `+ …`; the text may be missing.
    Continuation {
        text: &'a [u8],
    },
    /// The end of a command.
    Tagged {
        tag: &'a [u8],
        status: Status,
        code: Option<Code<'a>>,
        text: &'a [u8],
    },
    Untagged(Untagged<'a>),
    /// No response at all.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    No,
    Bad,
    /// Only untagged.
    Bye,
    /// Only as a greeting.
    PreAuth,
}

/// `* …`.
#[derive(Debug, PartialEq)]
pub enum Untagged<'a> {
    Status {
        status: Status,
        code: Option<Code<'a>>,
        text: &'a [u8],
    },
    /// The list as it is written: [`words`] takes it apart.
    Capability(&'a [u8]),
    Exists(u32),
    Recent(u32),
    Expunge(u32),
    Fetch(Fetch),
    /// The flags that are defined in the mailbox, as they are written.
    Flags(Vec<&'a [u8]>),
    /// RFC 7162 3.2.10.
    Vanished {
        earlier: bool,
        uids: RoaringBitmap,
    },
    /// Numbers or UIDs, as was asked for.
    Search(RoaringBitmap),
    Esearch(Esearch<'a>),
    Namespace(Namespaces),
    List(List<'a>),
    Acl(AclData<'a>),
    ListRights(ListRights<'a>),
    MyRights(MyRights<'a>),
    /// What was enabled, as it is written: [`words`] takes it apart (RFC 5161).
    Enabled(&'a [u8]),
    Other,
}

/// `* n FETCH (…)`, of which the line up to its first literal is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub seq: u32,
    pub uid: Option<Uid>,
    /// Without `\Recent`, and without what is no flag.
    pub flags: Option<Flags>,
    /// `\Recent` is among the flags.
    pub recent: bool,
    pub modseq: Option<ModSeq>,
    /// There are further items, or what follows could not be read.
    pub other: bool,
}

/// RFC 4731 3.1.
#[derive(Debug, PartialEq)]
pub struct Esearch<'a> {
    pub tag: Option<Cow<'a, [u8]>>,
    /// The numbers are UIDs.
    pub uid: bool,
    /// `ALL`. A search that finds nothing has none.
    pub all: Option<RoaringBitmap>,
}

/// RFC 9051 7.3.1.
#[derive(Debug, PartialEq, Eq)]
pub struct List<'a> {
    pub attributes: Vec<&'a [u8]>,
    pub delimiter: Option<u8>,
    pub name: Cow<'a, [u8]>,
}

/// What stands in brackets before a status response's text (RFC 9051 7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code<'a> {
    /// The list as it is written.
    Capability(&'a [u8]),
    UidValidity(UidValidity),
    UidNext(u32),
    HighestModSeq(ModSeq),
    NoModSeq,
    /// As they are written, `\*` among them.
    PermanentFlags(Vec<&'a [u8]>),
    ReadOnly,
    ReadWrite,
    Closed,
    /// Everything in the brackets.
    Other(&'a [u8]),
}

/// The response codes of a NO that another time may be none (RFC 5530 3): something is busy or
/// broken. They say nothing of what was asked about. The one list for all who ask a mail server
/// something.
const TEMPORARY: [&str; 5] = ["UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "CORRUPTION"];

/// Whether a refusal with this response code may be none another time: nothing is concluded from
/// it, and it is asked again.
pub fn is_temporary(code: Option<&Code<'_>>) -> bool {
    matches!(code, Some(Code::Other(inner)) if words(inner).next().is_some_and(is_temporary_code))
}

/// The same of the code's name alone, in any case.
pub fn is_temporary_code(name: &[u8]) -> bool {
    TEMPORARY.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// The words of a list that is separated by spaces.
pub fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b' ').filter(|word| !word.is_empty())
}

/// Reads a complete response, or of one with literals its first line segment.
pub fn parse(bytes: &[u8]) -> Response<'_> {
    let mut scan = Scan::new(bytes);
    if scan.eat(b'+') {
        scan.eat(b' ');
        return Response::Continuation { text: without_end(scan.rest()) };
    }
    if scan.eat(b'*') {
        return if scan.spaces() { Response::Untagged(untagged(scan).unwrap_or(Untagged::Other)) } else { Response::Other };
    }
    tagged(scan).unwrap_or(Response::Other)
}

fn tagged(mut scan: Scan<'_>) -> Option<Response<'_>> {
    let tag = scan.take_while(|b| is_atom_char(b) || b == b']');
    if tag.is_empty() || !scan.spaces() {
        return None;
    }
    let status = match status(scan.word()?)? {
        Status::Bye | Status::PreAuth => return None,
        status => status,
    };
    let (code, text) = code_and_text(scan);
    Some(Response::Tagged { tag, status, code, text })
}

fn status(word: &[u8]) -> Option<Status> {
    let known =
        [("OK", Status::Ok), ("NO", Status::No), ("BAD", Status::Bad), ("BYE", Status::Bye), ("PREAUTH", Status::PreAuth)];
    known.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes())).map(|(_, status)| *status)
}

fn code_and_text(mut scan: Scan<'_>) -> (Option<Code<'_>>, &[u8]) {
    scan.spaces();
    let mut ahead = scan;
    let code = bracketed(&mut ahead).map(|inner| {
        ahead.spaces();
        scan = ahead;
        code(inner).unwrap_or(Code::Other(inner))
    });
    (code, without_end(scan.rest()))
}

/// What stands in `[…]`, if the text begins so: up to the first `]`, which no code may hold (RFC
/// 9051 section 9, `resp-text-code`).
fn bracketed<'a>(scan: &mut Scan<'a>) -> Option<&'a [u8]> {
    let mut ahead = *scan;
    if !ahead.eat(b'[') {
        return None;
    }
    let inner = ahead.take_until(b']').filter(|inner| !inner.iter().any(|b| matches!(b, b'\r' | b'\n')))?;
    *scan = ahead;
    Some(inner)
}

fn code(inner: &[u8]) -> Option<Code<'_>> {
    let mut scan = Scan::new(inner);
    scan.spaces();
    let name = scan.word()?.to_ascii_uppercase();
    scan.spaces();
    Some(match name.as_slice() {
        b"CAPABILITY" => Code::Capability(scan.rest()),
        b"UIDVALIDITY" => Code::UidValidity(UidValidity::new(scan.number()?)?),
        b"UIDNEXT" => Code::UidNext(scan.number()?),
        b"HIGHESTMODSEQ" => Code::HighestModSeq(ModSeq(scan.number64()?)),
        b"NOMODSEQ" => Code::NoModSeq,
        b"PERMANENTFLAGS" => Code::PermanentFlags(scan.list(Scan::flag)?),
        b"READ-ONLY" => Code::ReadOnly,
        b"READ-WRITE" => Code::ReadWrite,
        b"CLOSED" => Code::Closed,
        _ => return None,
    })
}

fn untagged(mut scan: Scan<'_>) -> Option<Untagged<'_>> {
    if scan.peek().is_some_and(|b| b.is_ascii_digit()) {
        let number = scan.number()?;
        scan.spaces();
        return numbered(number, scan);
    }
    let word = scan.word()?;
    if let Some(status) = status(word) {
        let (code, text) = code_and_text(scan);
        return Some(Untagged::Status { status, code, text });
    }
    let name = word.to_ascii_uppercase();
    scan.spaces();
    Some(match name.as_slice() {
        b"CAPABILITY" => Untagged::Capability(without_end(scan.rest())),
        b"ENABLED" => Untagged::Enabled(without_end(scan.rest())),
        b"FLAGS" => Untagged::Flags(scan.list(Scan::flag)?),
        b"SEARCH" => Untagged::Search(search(scan)?),
        b"ESEARCH" => Untagged::Esearch(esearch(scan)?),
        b"VANISHED" => vanished(scan)?,
        b"NAMESPACE" => Untagged::Namespace(Namespaces::scan(&mut scan)?),
        b"LIST" => Untagged::List(list(scan)?),
        b"ACL" => Untagged::Acl(acl::acl(&mut scan)?),
        b"LISTRIGHTS" => Untagged::ListRights(acl::list_rights(&mut scan)?),
        b"MYRIGHTS" => Untagged::MyRights(acl::my_rights(&mut scan)?),
        _ => return None,
    })
}

fn numbered(number: u32, mut scan: Scan<'_>) -> Option<Untagged<'_>> {
    let word = scan.word()?.to_ascii_uppercase();
    scan.spaces();
    Some(match word.as_slice() {
        b"EXISTS" => Untagged::Exists(number),
        b"RECENT" => Untagged::Recent(number),
        b"EXPUNGE" if number > 0 => Untagged::Expunge(number),
        b"FETCH" if number > 0 => Untagged::Fetch(fetch(number, scan)),
        _ => return None,
    })
}

fn fetch(seq: u32, mut scan: Scan<'_>) -> Fetch {
    let mut fetch = Fetch { seq, uid: None, flags: None, recent: false, modseq: None, other: false };
    fetch.other = fetch_items(&mut scan, &mut fetch).is_none() || fetch.other;
    fetch
}

fn fetch_items(scan: &mut Scan<'_>, fetch: &mut Fetch) -> Option<()> {
    if !scan.eat(b'(') {
        return None;
    }
    loop {
        scan.spaces();
        if scan.eat(b')') {
            return Some(());
        }
        let name = scan.word()?;
        scan.spaces();
        if name.eq_ignore_ascii_case(b"UID") {
            fetch.uid = Some(Uid::new(scan.number()?)?);
        } else if name.eq_ignore_ascii_case(b"FLAGS") {
            let raw = scan.list(Scan::flag)?;
            fetch.recent = raw.iter().any(|flag| flag.eq_ignore_ascii_case(b"\\Recent"));
            let texts = raw.into_iter().filter(|flag| !flag.eq_ignore_ascii_case(b"\\Recent"));
            fetch.flags = Some(Flags::sift(texts.filter_map(|flag| std::str::from_utf8(flag).ok())).0);
        } else if name.eq_ignore_ascii_case(b"MODSEQ") {
            fetch.modseq = scan.list(Scan::number64)?.first().copied().map(ModSeq);
        } else {
            fetch.other = true;
            // `BODY[TEXT]<0>`: the section belongs to the name.
            if scan.peek() == Some(b'[') {
                scan.skip_value()?;
                scan.spaces();
            }
            scan.skip_value()?;
        }
    }
}

/// `* SEARCH 2 84 882 (MODSEQ 917162500)`, the numbers in any order.
fn search(mut scan: Scan<'_>) -> Option<RoaringBitmap> {
    let mut ranges = Ranges::default();
    while let Some(number) = scan.number() {
        ranges.add(number, number)?;
        scan.spaces();
    }
    if scan.peek() == Some(b'(') {
        scan.skip_value()?;
    }
    scan.at_end().then(|| ranges.finish())
}

fn esearch(mut scan: Scan<'_>) -> Option<Esearch<'_>> {
    let mut found = Esearch { tag: None, uid: false, all: None };
    if scan.eat(b'(') {
        while !scan.eat(b')') {
            let name = scan.word()?;
            scan.spaces();
            let value = scan.astring()?;
            if name.eq_ignore_ascii_case(b"TAG") {
                found.tag = Some(value);
            }
            scan.spaces();
        }
        scan.spaces();
    }
    while !scan.at_end() {
        let name = scan.word()?;
        scan.spaces();
        if name.eq_ignore_ascii_case(b"UID") {
            found.uid = true;
        } else if name.eq_ignore_ascii_case(b"ALL") {
            found.all = Some(set::scan_set(&mut scan)?);
        } else {
            scan.skip_value()?;
        }
        scan.spaces();
    }
    Some(found)
}

fn vanished(mut scan: Scan<'_>) -> Option<Untagged<'_>> {
    let earlier = scan.eat(b'(');
    if earlier && !(scan.eat_word("EARLIER") && scan.eat(b')') && scan.spaces()) {
        return None;
    }
    let uids = set::scan_set(&mut scan)?;
    scan.at_end().then_some(Untagged::Vanished { earlier, uids })
}

fn list(mut scan: Scan<'_>) -> Option<List<'_>> {
    let attributes = scan.list(Scan::flag)?;
    scan.spaces();
    let delimiter = scan.delimiter()?;
    scan.spaces();
    Some(List { attributes, delimiter, name: scan.astring()? })
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
