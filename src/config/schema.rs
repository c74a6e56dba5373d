//! Which settings there are: read off the typed [`Settings`] themselves, so that the two cannot
//! drift apart.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::Settings;

/// What environment variables of settings begin with.
pub const ENVIRONMENT_PREFIX: &str = "MAILPUSH_";

/// Settings whose values are never printed, and which may be read from a file named in the
/// environment. A test holds this list to the [`super::Secret`] fields.
pub const SECRETS: [&str; 6] = [
    "agent.imap.master_password",
    "agent.token",
    "auth.secret",
    "imap.master.password",
    "queue.sasl_password",
    "registry.auth_password",
];

/// Lists whose elements hold commas: `;` separates them in the environment and in flags.
pub const SEMICOLON_LISTS: [&str; 1] = ["registry.ensembles"];

/// The table of free keys: librdkafka's names, which hold dots.
pub const FREE_TABLE: &str = "queue.properties";

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Flag,
    Number,
    Text,
    /// A text that may be absent; the empty text means absent.
    OptionalText,
    List,
    /// A table whose keys are free.
    FreeTable,
    Section,
}

/// Every setting and section by its dotted path.
pub fn known() -> &'static BTreeMap<String, Kind> {
    static KNOWN: OnceLock<BTreeMap<String, Kind>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let mut known = BTreeMap::new();
        // Plain structs of texts, numbers and lists always serialise; were it otherwise, every test
        // would fail.
        if let Ok(Value::Object(sections)) = serde_json::to_value(Settings::default()) {
            sections.iter().for_each(|(name, value)| collect(name.clone(), value, &mut known));
        }
        known
    })
}

fn collect(path: String, value: &Value, known: &mut BTreeMap<String, Kind>) {
    let kind = match value {
        Value::Null => Kind::OptionalText,
        Value::Bool(_) => Kind::Flag,
        Value::Number(_) => Kind::Number,
        Value::String(_) => Kind::Text,
        Value::Array(_) => Kind::List,
        Value::Object(fields) if fields.is_empty() => Kind::FreeTable,
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| collect(format!("{path}.{name}"), value, known));
            Kind::Section
        }
    };
    known.insert(path, kind);
}

/// What the setting at `path` holds; a key of the free table is a text.
pub fn kind(path: &str) -> Option<Kind> {
    let free = || path.strip_prefix(FREE_TABLE)?.strip_prefix('.').filter(|key| !key.is_empty()).map(|_| Kind::Text);
    known().get(path).copied().or_else(free)
}

pub fn is_secret(path: &str) -> bool {
    SECRETS.contains(&path)
}

/// The environment variable of a setting.
pub fn variable(path: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", path.to_ascii_uppercase().replace('.', "_"))
}

/// The setting that an environment variable sets.
pub fn setting_of(variable_name: &str) -> Option<&'static str> {
    static BY_VARIABLE: OnceLock<BTreeMap<String, &'static str>> = OnceLock::new();
    let table = BY_VARIABLE.get_or_init(|| {
        let settings = known().iter().filter(|(_, kind)| **kind != Kind::Section);
        settings.map(|(path, _)| (variable(path), path.as_str())).collect()
    });
    table.get(variable_name).copied()
}

/// The known setting (or section) that somebody who wrote `path` most likely meant.
pub fn nearest(path: &str) -> Option<&'static str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let name = last(path);
    let distance = |candidate: &str| {
        let whole = strsim::damerau_levenshtein(path, candidate);
        // The right name in the wrong section is as likely a mistake as a slip of the finger.
        let moved = strsim::damerau_levenshtein(&name, &last(candidate)) + 1;
        if candidate.contains('.') { whole.min(moved) } else { whole }
    };
    // Of equals, the one whose whole path is nearer.
    let whole = |candidate: &str| strsim::damerau_levenshtein(path, candidate);
    let (best, _, candidate) = known().keys().map(|candidate| (distance(candidate), whole(candidate), candidate)).min()?;
    (best <= 1 + name.len() / 3).then_some(candidate)
}

/// The known environment variable that somebody who wrote `name` most likely meant.
pub fn nearest_variable(name: &str) -> Option<String> {
    let settings = known().iter().filter(|(_, kind)| **kind != Kind::Section).map(|(path, _)| variable(path));
    let secrets = SECRETS.iter().map(|path| format!("{}_FILE", variable(path)));
    let (best, candidate) = settings.chain(secrets).map(|known| (strsim::damerau_levenshtein(name, &known), known)).min()?;
    (best <= 1 + (name.len() - ENVIRONMENT_PREFIX.len().min(name.len())) / 3).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_off_the_structs() {
        assert_eq!(kind("http"), Some(Kind::Section));
        assert_eq!(kind("http.listen"), Some(Kind::Text));
        assert_eq!(kind("queue.tls.enabled"), Some(Kind::Flag));
        assert_eq!(kind("queue.tls.ca_file"), Some(Kind::OptionalText));
        assert_eq!(kind("queue.properties"), Some(Kind::FreeTable));
        assert_eq!(kind("queue.properties.fetch.min.bytes"), Some(Kind::Text));
        assert_eq!(kind("queue.properties."), None);
        assert_eq!(kind("http.port"), None);
    }

    /// Fills every text with a mark: whatever `Debug` then does not print is a secret.
    #[test]
    fn the_list_of_secrets_is_complete() {
        for (path, _) in known().iter().filter(|(_, kind)| **kind == Kind::Text) {
            let mut value = serde_json::to_value(Settings::default()).unwrap();
            let pointer = format!("/{}", path.replace('.', "/"));
            *value.pointer_mut(&pointer).unwrap() = "sentinel".into();
            // Enums and addresses do not take the mark, and are no secrets.
            let Ok(settings) = serde_json::from_value::<Settings>(value) else { continue };
            assert_eq!(is_secret(path), !format!("{settings:?}").contains("sentinel"), "{path}");
        }
    }

    #[test]
    fn no_two_settings_share_a_variable() {
        let settings: Vec<_> = known().iter().filter(|(_, kind)| **kind != Kind::Section).collect();
        for (path, _) in &settings {
            assert_eq!(setting_of(&variable(path)), Some(path.as_str()));
        }
        for secret in SECRETS {
            assert_eq!(setting_of(&format!("{}_FILE", variable(secret))), None, "{secret}");
        }
    }

    #[test]
    fn slips_are_understood() {
        assert_eq!(nearest("http.lisen"), Some("http.listen"));
        assert_eq!(nearest("htp.listen"), Some("http.listen"));
        assert_eq!(nearest("sessions.advertise"), Some("http.advertise"));
        assert_eq!(nearest("quue"), Some("queue"));
        assert_eq!(nearest("http.zzzzzz"), None);
        assert_eq!(nearest_variable("MAILPUSH_HTTP_LISTN").as_deref(), Some("MAILPUSH_HTTP_LISTEN"));
        assert_eq!(nearest_variable("MAILPUSH_").as_deref(), None);
    }
}
