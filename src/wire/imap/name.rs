//! Mailbox names as they are written on the wire: modified UTF-7 (RFC 3501 5.1.3), or UTF-8 once
//! the client has enabled it (RFC 6855, RFC 9051 5.1).

use std::borrow::Cow;

/// The base64 of modified UTF-7, by value.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// The text of a name. `None`: it is not in the form it should be in.
pub fn decode(name: &[u8], utf8: bool) -> Option<Cow<'_, str>> {
    if utf8 { std::str::from_utf8(name).ok().map(Cow::Borrowed) } else { decode_utf7(name) }
}

/// The name for a text.
pub fn encode(text: &str, utf8: bool) -> Cow<'_, [u8]> {
    if utf8 { Cow::Borrowed(text.as_bytes()) } else { encode_utf7(text) }
}

/// Strict: each text has one form, so that nobody can write one mailbox in two ways. Printable
/// ASCII must stand for itself, `&` is `&-`, two encoded stretches do not touch, padding bits are
/// zero, surrogates come in pairs.
pub fn decode_utf7(name: &[u8]) -> Option<Cow<'_, str>> {
    if name.iter().all(|b| matches!(b, b' '..=b'~') && *b != b'&') {
        return std::str::from_utf8(name).ok().map(Cow::Borrowed);
    }
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    let mut after_shift = false;
    while let Some((b, tail)) = rest.split_first() {
        rest = tail;
        match b {
            b'&' => {
                let end = memchr::memchr(b'-', rest)?;
                let (shifted, tail) = (&rest[..end], &rest[end + 1..]);
                rest = tail;
                if shifted.is_empty() {
                    text.push('&');
                    after_shift = false;
                } else if after_shift {
                    return None;
                } else {
                    decode_shifted(shifted, &mut text)?;
                    after_shift = true;
                }
            }
            b' '..=b'~' => {
                text.push(char::from(*b));
                after_shift = false;
            }
            _ => return None,
        }
    }
    Some(Cow::Owned(text))
}

/// UTF-16BE in base64 without padding.
fn decode_shifted(shifted: &[u8], text: &mut String) -> Option<()> {
    let (mut bits, mut held) = (0u32, 0u32);
    let mut units = Vec::with_capacity(shifted.len() * 3 / 8);
    for b in shifted {
        let value = BASE64.iter().position(|known| known == b)? as u32;
        bits = bits << 6 | value;
        held += 6;
        if held >= 16 {
            held -= 16;
            units.push((bits >> held) as u16);
            bits &= (1 << held) - 1;
        }
    }
    if held >= 6 || bits != 0 {
        return None;
    }
    for c in char::decode_utf16(units) {
        let c = c.ok().filter(|c| !matches!(c, ' '..='~'))?;
        text.push(c);
    }
    Some(())
}

pub fn encode_utf7(text: &str) -> Cow<'_, [u8]> {
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'&') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut name = Vec::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if matches!(c, ' '..='~') {
            name.push(c as u8);
            if c == '&' {
                name.push(b'-');
            }
            rest = &rest[1..];
            continue;
        }
        let end = rest.find(|c| matches!(c, ' '..='~')).unwrap_or(rest.len());
        let (stretch, tail) = rest.split_at(end);
        rest = tail;
        name.push(b'&');
        encode_shifted(stretch, &mut name);
        name.push(b'-');
    }
    Cow::Owned(name)
}

fn encode_shifted(stretch: &str, name: &mut Vec<u8>) {
    let (mut bits, mut held) = (0u32, 0u32);
    for unit in stretch.encode_utf16() {
        bits = bits << 16 | u32::from(unit);
        held += 16;
        while held >= 6 {
            held -= 6;
            name.push(BASE64[(bits >> held & 63) as usize]);
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        name.push(BASE64[(bits << (6 - held) & 63) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples() {
        for (text, name) in [
            ("INBOX", "INBOX"),
            ("", ""),
            ("R&D", "R&-D"),
            ("Entw\u{fc}rfe", "Entw&APw-rfe"),
            // RFC 3501 5.1.3.
            ("~peter/mail/\u{53f0}\u{5317}/\u{65e5}\u{672c}\u{8a9e}", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("\u{1f600}", "&2D3eAA-"),
            ("&&", "&-&-"),
            ("\u{e9}&", "&AOk-&-"),
            ("a\tb", "a&AAk-b"),
        ] {
            assert_eq!(encode_utf7(text), name.as_bytes(), "{text}");
            assert_eq!(decode_utf7(name.as_bytes()).as_deref(), Some(text), "{name}");
        }
    }

    #[test]
    fn what_has_another_form_is_refused() {
        for bad in [
            "&",
            "&AOk",
            "&A-",
            "&AO-",
            "&AOl-",
            "R&D",
            "&AGE-",
            "&Jjo!",
            "&U,BTFw-&ZeVnLIqe-",
            "&2D0-",
            "&3gA-",
            "caf\u{e9}",
            "&AOkA-",
            "a\u{7f}",
            "&ImIiAA==-",
        ] {
            assert_eq!(decode_utf7(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn utf8_is_taken_as_it_is() {
        assert_eq!(decode("R&D caf\u{e9}".as_bytes(), true).as_deref(), Some("R&D caf\u{e9}"));
        assert_eq!(encode("R&D caf\u{e9}", true), "R&D caf\u{e9}".as_bytes());
        assert_eq!(decode(b"\xff", true), None);
    }

    proptest! {
        #[test]
        fn a_text_survives_and_is_printable(text in any::<String>()) {
            let name = encode_utf7(&text).into_owned();
            prop_assert!(name.iter().all(|b| matches!(b, b' '..=b'~')));
            let decoded = decode_utf7(&name);
            prop_assert_eq!(decoded.as_deref(), Some(text.as_str()));
        }

        #[test]
        fn what_decodes_has_one_form(name in "[ -~]{0,12}|(&[A-Z+,a]{1,8}-){1,3}") {
            if let Some(text) = decode_utf7(name.as_bytes()) {
                let encoded = encode_utf7(&text);
                prop_assert_eq!(encoded.as_ref(), name.as_bytes());
            }
        }
    }
}
