//! Values written as plain text, in the environment and after `--set`, read by their setting's
//! kind.

use serde_json::Value;

use super::fault::Origin;
use super::raw_setting::RawSetting;
use super::schema::{self, Kind, SEMICOLON_LISTS};

/// What `value` gives to the setting `path`: one value, or one per key of the free table.
///
/// A text that is not of the setting's kind stays a text: deserialising it then says what is wrong.
pub(super) fn parse(path: &str, value: &str, origin: &Origin) -> Vec<RawSetting> {
    let one = |value: Value| vec![RawSetting { path: path.to_owned(), value, origin: origin.clone() }];
    match schema::kind(path) {
        Some(Kind::Flag) => one(value.trim().parse().map_or_else(|_| value.into(), Value::Bool)),
        Some(Kind::Number) => one(number(value)),
        Some(Kind::List) => one(list(path, value)),
        Some(Kind::FreeTable) => pairs(path, value, origin),
        Some(Kind::Text | Kind::OptionalText | Kind::Section) | None => one(without_line_end(value).into()),
    }
}

/// Scripts and Kubernetes' secrets leave a line end at the end of a variable. A text of several
/// lines (a certificate among the free keys) keeps its own.
fn without_line_end(text: &str) -> &str {
    let line = text.trim_end_matches(['\r', '\n']);
    if line.contains('\n') { text } else { line }
}

fn number(text: &str) -> Value {
    let digits = text.trim().replace('_', "");
    let unsigned = digits.parse::<u64>().map(Value::from);
    unsigned.or_else(|_| digits.parse::<i64>().map(Value::from)).unwrap_or_else(|_| text.into())
}

/// `a,b` or, as in the file, `["a", "b"]`. A bracket alone does not mean the latter: `[::1]:9092`
/// is an address.
fn list(path: &str, text: &str) -> Value {
    let text = text.trim();
    let in_brackets = text.strip_prefix('[').map(str::trim_start);
    if in_brackets.is_some_and(|rest| rest.starts_with(['"', '\'', ']'])) {
        return serde_json::from_str(text).unwrap_or_else(|_| text.into());
    }
    let separator = if SEMICOLON_LISTS.contains(&path) { ';' } else { ',' };
    text.split(separator).map(str::trim).filter(|element| !element.is_empty()).collect()
}

/// `key=value,key=value`.
fn pairs(path: &str, text: &str, origin: &Origin) -> Vec<RawSetting> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let given = |pair: &str| match pair.split_once('=') {
        Some((key, value)) => {
            RawSetting { path: format!("{path}.{}", key.trim()), value: value.trim().into(), origin: origin.clone() }
        }
        None => RawSetting { path: path.to_owned(), value: pair.into(), origin: origin.clone() },
    };
    pairs.map(given).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(path: &str, value: &str) -> Vec<(String, Value)> {
        parse(path, value, &Origin::Flag).into_iter().map(|given| (given.path, given.value)).collect()
    }

    fn value(path: &str, text: &str) -> Value {
        values(path, text).remove(0).1
    }

    #[test]
    fn values_are_read_by_their_kind() {
        assert_eq!(value("http.max_connections", "10_000"), json!(10_000));
        assert_eq!(value("http.max_connections", "-1"), json!(-1));
        assert_eq!(value("http.max_connections", "many"), json!("many"));
        assert_eq!(value("auth.lowercase_users", "false"), json!(false));
        assert_eq!(value("auth.lowercase_users", "yes"), json!("yes"));
        assert_eq!(value("auth.secret", "12"), json!("12"));
        assert_eq!(value("queue.brokers", "a:1, b:2"), json!(["a:1", "b:2"]));
        assert_eq!(value("queue.brokers", r#"["a:1"]"#), json!(["a:1"]));
        assert_eq!(value("queue.brokers", ""), json!([]));
        assert_eq!(value("registry.ensembles", "a:1,b:1;c:1"), json!(["a:1,b:1", "c:1"]));
    }

    /// An IPv6 address with a port begins with a bracket, as a list in the file does.
    #[test]
    fn a_bracket_begins_an_address_or_a_list() {
        for (path, text, list) in [
            ("queue.brokers", "[::1]:9092", json!(["[::1]:9092"])),
            ("queue.brokers", "[::1]:9092,[fd00::2]:9092, kafka:9092", json!(["[::1]:9092", "[fd00::2]:9092", "kafka:9092"])),
            ("imap.upstream.addresses", "[2001:db8::1]:143", json!(["[2001:db8::1]:143"])),
            ("registry.ensembles", "[::1]:1,[::1]:2;[::1]:3", json!(["[::1]:1,[::1]:2", "[::1]:3"])),
            ("queue.brokers", r#"["[::1]:9092"]"#, json!(["[::1]:9092"])),
            ("queue.brokers", r#" [ "a:1", "b:2" ] "#, json!(["a:1", "b:2"])),
            ("queue.brokers", "[]", json!([])),
            ("queue.brokers", "[ ]", json!([])),
            // Taken as one element, which its setting refuses by itself, or as a text that is no
            // list.
            ("queue.brokers", "[a:1]", json!(["[a:1]"])),
            ("queue.brokers", "['a:1']", json!("['a:1']")),
        ] {
            assert_eq!(value(path, text), list, "{path} {text}");
        }
    }

    #[test]
    fn a_line_end_at_the_end_is_not_part_of_a_text() {
        for (path, text, read) in [
            ("queue.sasl_user", "mailpush\n", "mailpush"),
            ("queue.sasl_user", "mailpush\r\n\n", "mailpush"),
            ("queue.tls.ca_file", "/ca.pem\n", "/ca.pem"),
            ("auth.secret", "a b \n", "a b "),
            ("queue.properties.ssl.key.password", "hunter2\n", "hunter2"),
            ("queue.properties.ssl.ca.pem", "-----BEGIN\nAA\n", "-----BEGIN\nAA\n"),
        ] {
            assert_eq!(value(path, text), json!(read), "{path}");
        }
        assert_eq!(value("queue.brokers", "a:1,b:2\n"), json!(["a:1", "b:2"]));
        assert_eq!(value("http.max_connections", "5\n"), json!(5));
        assert_eq!(value("auth.lowercase_users", "false\r\n"), json!(false));
    }

    #[test]
    fn properties_are_pairs() {
        assert_eq!(
            values("queue.properties", "fetch.min.bytes=1,debug=all"),
            [("queue.properties.fetch.min.bytes".into(), json!("1")), ("queue.properties.debug".into(), json!("all"))]
        );
        assert_eq!(values("queue.properties.debug", "a,b=c"), [("queue.properties.debug".into(), json!("a,b=c"))]);
    }
}
