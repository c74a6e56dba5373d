//! Values written as plain text, in the environment and after `--set`, read by their setting's kind.

use serde_json::Value;

use super::fault::Origin;
use super::load::Given;
use super::schema::{self, Kind, SEMICOLON_LISTS};

/// What `value` gives to the setting `path`: one value, or one per key of the free table.
///
/// A text that is not of the setting's kind stays a text: deserialising it then says what is wrong.
pub(super) fn parse(path: &str, value: &str, origin: &Origin) -> Vec<Given> {
    let one = |value: Value| vec![Given { path: path.to_owned(), value, origin: origin.clone() }];
    match schema::kind(path) {
        Some(Kind::Flag) => one(value.trim().parse().map_or_else(|_| value.into(), Value::Bool)),
        Some(Kind::Number) => one(number(value)),
        Some(Kind::List) => one(list(path, value)),
        Some(Kind::FreeTable) => pairs(path, value, origin),
        Some(Kind::Text | Kind::OptionalText | Kind::Section) | None => one(value.into()),
    }
}

fn number(text: &str) -> Value {
    let digits = text.trim().replace('_', "");
    let unsigned = digits.parse::<u64>().map(Value::from);
    unsigned.or_else(|_| digits.parse::<i64>().map(Value::from)).unwrap_or_else(|_| text.into())
}

/// `a,b` or, as in the file, `["a", "b"]`.
fn list(path: &str, text: &str) -> Value {
    let text = text.trim();
    if text.starts_with('[') {
        return serde_json::from_str(text).unwrap_or_else(|_| text.into());
    }
    let separator = if SEMICOLON_LISTS.contains(&path) { ';' } else { ',' };
    text.split(separator).map(str::trim).filter(|element| !element.is_empty()).collect()
}

/// `key=value,key=value`.
fn pairs(path: &str, text: &str, origin: &Origin) -> Vec<Given> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let given = |pair: &str| match pair.split_once('=') {
        Some((key, value)) => {
            Given { path: format!("{path}.{}", key.trim()), value: value.trim().into(), origin: origin.clone() }
        }
        None => Given { path: path.to_owned(), value: pair.into(), origin: origin.clone() },
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

    #[test]
    fn properties_are_pairs() {
        assert_eq!(
            values("queue.properties", "fetch.min.bytes=1,debug=all"),
            [("queue.properties.fetch.min.bytes".into(), json!("1")), ("queue.properties.debug".into(), json!("all"))]
        );
        assert_eq!(values("queue.properties.debug", "a,b=c"), [("queue.properties.debug".into(), json!("a,b=c"))]);
    }
}
