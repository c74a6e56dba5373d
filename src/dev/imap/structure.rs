//! ENVELOPE, BODY, BODYSTRUCTURE and the sections of a message (RFC 9051 7.5.2, 6.4.5).

use std::borrow::Cow;

use data_encoding::BASE64;
use imap_codec::imap_types::fetch::{Part, Section};
use mail_parser::{Addr, Address, ContentType, Header, HeaderName, Message, MessagePart, MimeHeaders, PartType};

use super::grammar::{nstring, string};

/// `envelope`; of a message that cannot be parsed, one of NILs.
pub fn envelope(out: &mut Vec<u8>, message: Option<&Message<'_>>) {
    let Some(message) = message else { return out.extend_from_slice(b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)") };
    let from = addresses(message, HeaderName::From);
    out.push(b'(');
    nstring(out, raw_header(message, HeaderName::Date).as_deref());
    out.push(b' ');
    nstring(out, raw_header(message, HeaderName::Subject).as_deref());
    for name in [HeaderName::From, HeaderName::Sender, HeaderName::ReplyTo, HeaderName::To, HeaderName::Cc, HeaderName::Bcc] {
        // RFC 9051: Sender and Reply-To default to From.
        let defaults = matches!(name, HeaderName::Sender | HeaderName::ReplyTo);
        let found = addresses(message, name);
        let shown = if found.is_empty() && defaults { &from } else { &found };
        out.push(b' ');
        if shown.is_empty() {
            out.extend_from_slice(b"NIL");
        } else {
            out.push(b'(');
            out.extend_from_slice(shown);
            out.push(b')');
        }
    }
    for name in [HeaderName::InReplyTo, HeaderName::MessageId] {
        out.push(b' ');
        nstring(out, raw_header(message, name).as_deref());
    }
    out.push(b')');
}

/// A header's value as it was sent, unfolded.
fn raw_header(message: &Message<'_>, name: HeaderName<'_>) -> Option<Vec<u8>> {
    let header = message.headers().iter().rev().find(|header| header.name == name)?;
    Some(unfolded(message, header))
}

fn unfolded(message: &Message<'_>, header: &Header<'_>) -> Vec<u8> {
    let value = message.raw_message.get(header.offset_start as usize..header.offset_end as usize).unwrap_or_default();
    value.trim_ascii().iter().copied().filter(|b| !b"\r\n\0".contains(b)).collect()
}

/// All addresses of all headers of that name, without the outer parentheses.
fn addresses(message: &Message<'_>, name: HeaderName<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for header in message.headers().iter().filter(|header| header.name == name) {
        match header.value.as_address() {
            Some(Address::List(list)) => list.iter().for_each(|addr| address(&mut out, addr)),
            Some(Address::Group(groups)) => {
                for group in groups {
                    // A group's beginning has no host, its end has nothing (RFC 9051 7.5.2).
                    if let Some(name) = &group.name {
                        out.extend_from_slice(b"(NIL NIL ");
                        string(&mut out, encoded_word(name).as_bytes());
                        out.extend_from_slice(b" NIL)");
                    }
                    group.addresses.iter().for_each(|addr| address(&mut out, addr));
                    if group.name.is_some() {
                        out.extend_from_slice(b"(NIL NIL NIL NIL)");
                    }
                }
            }
            None => {}
        }
    }
    out
}

fn address(out: &mut Vec<u8>, addr: &Addr<'_>) {
    let text = addr.address.as_deref().unwrap_or_default();
    let (local, host) = text.rsplit_once('@').unwrap_or((text, ""));
    out.push(b'(');
    nstring(out, addr.name.as_deref().map(encoded_word).as_deref().map(str::as_bytes));
    out.extend_from_slice(b" NIL ");
    string(out, local.as_bytes());
    out.push(b' ');
    string(out, host.as_bytes());
    out.push(b')');
}

/// What the parser decoded, as a header can hold it (RFC 2047).
fn encoded_word(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return text.into();
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if word.len() + c.len_utf8() > 42 {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    words.iter().map(|word| format!("=?utf-8?B?{}?=", BASE64.encode(word.as_bytes()))).collect::<Vec<_>>().join(" ").into()
}

/// `body`; with `extended`, BODYSTRUCTURE's extension data too.
pub fn structure(out: &mut Vec<u8>, message: Option<&Message<'_>>, raw: &[u8], extended: bool) {
    match message {
        Some(message) => part_structure(out, message, 0, extended),
        None => {
            let body = body_of(raw);
            plain_structure(out, body.len(), lines(body), extended);
        }
    }
}

fn plain_structure(out: &mut Vec<u8>, size: usize, lines: usize, extended: bool) {
    let text = format!("(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" {size} {lines}");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(if extended { b" NIL NIL NIL NIL)" } else { b")" });
}

fn part_structure(out: &mut Vec<u8>, message: &Message<'_>, at: u32, extended: bool) {
    let Some(part) = message.parts.get(at as usize) else { return plain_structure(out, 0, 0, extended) };
    let content_type = part.content_type();
    if let PartType::Multipart(ids) = &part.body {
        out.push(b'(');
        if ids.is_empty() {
            plain_structure(out, 0, 0, extended);
        }
        for id in ids {
            part_structure(out, message, *id, extended);
        }
        out.push(b' ');
        string(out, content_type.and_then(ContentType::subtype).unwrap_or("mixed").as_bytes());
        if extended {
            out.push(b' ');
            parameters(out, content_type);
            out.push(b' ');
            disposition(out, part);
            out.extend_from_slice(b" NIL NIL");
        }
        return out.push(b')');
    }
    let body = slice(message, part.offset_body, part.offset_end);
    let (kind, subtype) = match (&part.body, content_type) {
        (PartType::Message(_), _) => ("message", "rfc822"),
        // It says so, and is not: RFC 9051 has no way to show that.
        (_, Some(said)) if said.ctype() == "message" && said.subtype() == Some("rfc822") => ("application", "octet-stream"),
        (_, Some(said)) if said.ctype() != "multipart" => (said.ctype(), said.subtype().unwrap_or("plain")),
        _ => ("text", "plain"),
    };
    out.push(b'(');
    string(out, kind.as_bytes());
    out.push(b' ');
    string(out, subtype.as_bytes());
    out.push(b' ');
    match content_type {
        None if kind == "text" => out.extend_from_slice(b"(\"charset\" \"us-ascii\")"),
        said => parameters(out, said),
    }
    out.push(b' ');
    nstring(out, part_header(message, part, HeaderName::ContentId).as_deref());
    out.push(b' ');
    nstring(out, part_header(message, part, HeaderName::ContentDescription).as_deref());
    out.push(b' ');
    let encoding = part_header(message, part, HeaderName::ContentTransferEncoding);
    string(out, encoding.as_deref().filter(|encoding| !encoding.is_empty()).unwrap_or(b"7bit"));
    out.extend_from_slice(format!(" {}", body.len()).as_bytes());
    if let PartType::Message(inner) = &part.body {
        out.push(b' ');
        envelope(out, Some(inner));
        out.push(b' ');
        part_structure(out, inner, 0, extended);
    }
    if kind == "message" || kind.eq_ignore_ascii_case("text") {
        out.extend_from_slice(format!(" {}", lines(body)).as_bytes());
    }
    if extended {
        out.extend_from_slice(b" NIL ");
        disposition(out, part);
        out.extend_from_slice(b" NIL NIL");
    }
    out.push(b')');
}

fn part_header(message: &Message<'_>, part: &MessagePart<'_>, name: HeaderName<'_>) -> Option<Vec<u8>> {
    part.headers.iter().find(|header| header.name == name).map(|header| unfolded(message, header))
}

fn parameters(out: &mut Vec<u8>, of: Option<&ContentType<'_>>) {
    let attributes = of.and_then(ContentType::attributes).unwrap_or_default();
    if attributes.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    let mut before = b'(';
    for attribute in attributes {
        out.push(before);
        string(out, attribute.name.as_bytes());
        out.push(b' ');
        string(out, encoded_word(&attribute.value).as_bytes());
        before = b' ';
    }
    out.push(b')');
}

fn disposition(out: &mut Vec<u8>, part: &MessagePart<'_>) {
    match part.content_disposition() {
        None => out.extend_from_slice(b"NIL"),
        Some(disposition) => {
            out.push(b'(');
            string(out, disposition.ctype().as_bytes());
            out.push(b' ');
            parameters(out, Some(disposition));
            out.push(b')');
        }
    }
}

/// What a section holds; `None` if there is no such part.
pub fn section<'a>(message: Option<&'a Message<'_>>, raw: &'a [u8], section: Option<&Section<'_>>) -> Option<Cow<'a, [u8]>> {
    let filtered = |of: &Option<Part>, names: &[imap_codec::imap_types::core::AString<'_>], listed: bool| {
        let header = header_of(message, raw, of.as_ref())?;
        Some(fields(header, |name| names.iter().any(|wanted| wanted.as_ref().eq_ignore_ascii_case(name)) == listed).into())
    };
    Some(match section {
        None => raw.into(),
        Some(Section::Header(of)) => header_of(message, raw, of.as_ref())?.into(),
        Some(Section::HeaderFields(of, names)) => filtered(of, names.as_ref(), true)?,
        Some(Section::HeaderFieldsNot(of, names)) => filtered(of, names.as_ref(), false)?,
        Some(Section::Text(None)) => body_of(raw).into(),
        Some(Section::Text(Some(of))) => {
            let (_, part) = locate(message?, of)?;
            let PartType::Message(inner) = &part.body else { return None };
            let root = inner.parts.first()?;
            slice(inner, root.offset_body, root.offset_end).into()
        }
        Some(Section::Part(of)) => match message {
            Some(message) => {
                let (message, part) = locate(message, of)?;
                slice(message, part.offset_body, part.offset_end).into()
            }
            None if numbers(of) == [1] => body_of(raw).into(),
            None => return None,
        },
        Some(Section::Mime(of)) => {
            let (message, part) = locate(message?, of)?;
            slice(message, part.offset_header, part.offset_body).into()
        }
    })
}

fn header_of<'a>(message: Option<&'a Message<'_>>, raw: &'a [u8], of: Option<&Part>) -> Option<&'a [u8]> {
    let Some(of) = of else { return raw.get(..raw.len() - body_of(raw).len()) };
    let (_, part) = locate(message?, of)?;
    let PartType::Message(inner) = &part.body else { return None };
    let root = inner.parts.first()?;
    Some(slice(inner, root.offset_header, root.offset_body))
}

fn numbers(part: &Part) -> Vec<u32> {
    part.0.as_ref().iter().map(|number| number.get()).collect()
}

/// Finds a part by its numbers (RFC 9051 6.4.5): within a multipart they count, anything else has a
/// part 1 that is its body, and a message's numbers go on with those of what is in it.
fn locate<'a, 'x>(message: &'a Message<'x>, part: &Part) -> Option<(&'a Message<'x>, &'a MessagePart<'x>)> {
    let (mut message, mut part_now) = (message, message.parts.first()?);
    let mut is_root = true;
    for number in numbers(part) {
        if let (PartType::Message(inner), false) = (&part_now.body, is_root) {
            (message, part_now) = (inner, inner.parts.first()?);
        }
        match &part_now.body {
            PartType::Multipart(ids) => {
                part_now = message.parts.get(*ids.get(number as usize - 1)? as usize)?;
                is_root = false;
            }
            // Part 1 of a message without parts is its body.
            _ if number == 1 => is_root = false,
            _ => return None,
        }
    }
    Some((message, part_now))
}

fn slice<'a>(message: &'a Message<'_>, from: u32, to: u32) -> &'a [u8] {
    message.raw_message.get(from as usize..(to as usize).min(message.raw_message.len())).unwrap_or_default()
}

/// What comes after the first empty line.
pub fn body_of(raw: &[u8]) -> &[u8] {
    let mut at = 0;
    while at < raw.len() {
        let end = memchr::memchr(b'\n', &raw[at..]).map_or(raw.len(), |end| at + end + 1);
        let line = raw[at..end].trim_ascii_end();
        at = end;
        if line.is_empty() {
            break;
        }
    }
    &raw[at..]
}

fn lines(body: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', body).count()
}

/// The fields of a header whose names are wanted, and the empty line.
fn fields(header: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut keep = false;
    for line in header.split_inclusive(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|b| *b == b':').next().unwrap_or_default();
            keep = wanted(name.trim_ascii());
        }
        if keep {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}
