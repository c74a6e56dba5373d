//! How mailboxes are called: the two namespaces, and LIST's wildcards.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
