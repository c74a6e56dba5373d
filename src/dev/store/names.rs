//! How mailboxes are called: modified UTF-7, the two namespaces, and LIST's wildcards.

use data_encoding::{BASE64_NOPAD, Specification};

use crate::mail::UserName;

/// Where other users' mailboxes are found.
const SHARED: &str = "shared";

/// How the store shows names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// The hierarchy separator: `/` or `.`.
    pub delimiter: char,
}

impl Default for Style {
    fn default() -> Self {
        Self { delimiter: '/' }
    }
}

impl Style {
    /// The prefix of all other users' mailboxes.
    pub fn shared_prefix(self) -> String {
        format!("{SHARED}{}", self.delimiter)
    }

    /// How `user` calls this mailbox.
    pub fn shown(self, user: &UserName, owner: &UserName, name: &str) -> String {
        let name = name.replace('/', self.delimiter.encode_utf8(&mut [0; 4]));
        if user == owner { name } else { format!("{SHARED}{d}{owner}{d}{name}", d = self.delimiter) }
    }

    /// What `user` means by a name: owner and name; `None` if it can be nobody's.
    pub fn meant(self, user: &UserName, users: &[UserName], shown: &str) -> Option<(UserName, String)> {
        let (owner, name) = match shown.strip_prefix(SHARED).and_then(|rest| rest.strip_prefix(self.delimiter)) {
            None => (user, shown),
            // The owner's name may hold the delimiter: it is known whose names there are.
            Some(rest) => users.iter().find_map(|owner| {
                let name = rest.strip_prefix(owner.as_str())?.strip_prefix(self.delimiter)?;
                (owner != user).then_some((owner, name))
            })?,
        };
        if self.delimiter != '/' && name.contains('/') {
            return None;
        }
        let name = name.replace(self.delimiter, "/");
        let good = !name.is_empty() && !name.split('/').any(str::is_empty) && name.len() <= 1_000;
        let good = good && name != SHARED && !name.chars().any(char::is_control);
        good.then(|| (owner.clone(), if name.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { name }))
    }

    /// Whether a pattern of LIST covers a name (RFC 9051 6.3.9). INBOX has no case.
    pub fn covers(self, pattern: &str, name: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
        // Which prefixes of the name the pattern so far covers.
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        let fold = name.iter().collect::<String>().eq_ignore_ascii_case("INBOX");
        for wanted in pattern {
            match wanted {
                '*' | '%' => {
                    for at in 0..name.len() {
                        reached[at + 1] |= reached[at] && (wanted == '*' || name[at] != self.delimiter);
                    }
                }
                wanted => {
                    for at in (0..name.len()).rev() {
                        let same = name[at] == wanted || fold && name[at].eq_ignore_ascii_case(&wanted);
                        reached[at + 1] = reached[at] && same;
                    }
                    reached[0] = false;
                }
            }
        }
        reached[name.len()]
    }
}

/// RFC 3501 5.1.3, forgiving of plain UTF-8; `None` for what is neither.
pub fn from_utf7(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, shifted)) = rest.split_once('&') {
        let (encoded, after) = shifted.split_once('-')?;
        decoded.push_str(plain);
        if encoded.is_empty() {
            decoded.push('&');
        } else {
            let mut lenient = Specification::new();
            lenient.symbols.push_str(&BASE64_NOPAD.specification().symbols);
            lenient.check_trailing_bits = false;
            let bytes = lenient.encoding().ok()?.decode(encoded.replace(',', "/").as_bytes()).ok()?;
            let units: Vec<u16> =
                bytes.chunks(2).map(|pair| pair.try_into().map(u16::from_be_bytes)).collect::<Result<_, _>>().ok()?;
            decoded.push_str(&String::from_utf16(&units).ok()?);
        }
        rest = after;
    }
    decoded.push_str(rest);
    Some(decoded)
}

/// RFC 3501 5.1.3.
pub fn to_utf7(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    let mut shifted: Vec<u8> = Vec::new();
    let flush = |shifted: &mut Vec<u8>, encoded: &mut String| {
        if !shifted.is_empty() {
            encoded.push('&');
            encoded.push_str(&BASE64_NOPAD.encode(shifted).replace('/', ","));
            encoded.push('-');
            shifted.clear();
        }
    };
    for c in text.chars() {
        if (' '..='~').contains(&c) {
            flush(&mut shifted, &mut encoded);
            encoded.push(c);
            if c == '&' {
                encoded.push('-');
            }
        } else {
            shifted.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut shifted, &mut encoded);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    #[test]
    fn names_are_of_ones_own_or_of_others() {
        let users = [user("a@x.org"), user("b@x.org")];
        let style = Style::default();
        assert_eq!(style.meant(&users[1], &users, "shared/a@x.org/Team/Old"), Some((users[0].clone(), "Team/Old".into())));
        assert_eq!(style.meant(&users[1], &users, "inbox"), Some((users[1].clone(), "INBOX".into())));
        for nobodys in ["shared/z@x.org/Team", "shared", "shared/a@x.org", "a//b", "", "/a", "a\nb"] {
            assert_eq!(style.meant(&users[1], &users, nobodys), None, "{nobodys}");
        }
        let dots = Style { delimiter: '.' };
        assert_eq!(dots.shown(&users[1], &users[0], "Team/Old"), "shared.a@x.org.Team.Old");
        assert_eq!(dots.meant(&users[1], &users, "shared.a@x.org.Team.Old"), Some((users[0].clone(), "Team/Old".into())));
        assert_eq!(dots.meant(&users[1], &users, "a/b"), None);
    }

    #[test]
    fn wildcards() {
        let style = Style::default();
        for (pattern, name, covers) in [
            ("*", "a/b", true),
            ("%", "a/b", false),
            ("%", "a", true),
            ("a/%", "a/b", true),
            ("a*b", "a/x/b", true),
            ("a%b", "a/b", false),
            ("inbox", "INBOX", true),
            ("Team", "team", false),
            ("", "a", false),
        ] {
            assert_eq!(style.covers(pattern, name), covers, "{pattern} {name}");
        }
    }

    #[test]
    fn the_standard_s_example() {
        assert_eq!(to_utf7("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(from_utf7(b"&Jjo-!").unwrap(), "☺!");
        assert_eq!(from_utf7(b"&Jjo"), None);
    }

    proptest! {
        #[test]
        fn both_ways(text in any::<String>()) {
            prop_assert_eq!(from_utf7(to_utf7(&text).as_bytes()), Some(text));
        }
    }
}
