//! Plain words for values that do not fit their setting.

use serde_json::Value;

use super::schema::{self, Kind};

/// What is wrong with `value` as the setting `path`, and what to write instead.
///
/// `reason` is serde's; only what it *expected* is read from it, for it may quote the value, which
/// may be a secret.
pub(super) fn misfit(path: &str, value: &Value, reason: &str) -> (String, String) {
    let shown = show(path, value);
    let expected = reason.rsplit_once("expected ").map_or("", |(_, expected)| expected);
    match schema::kind(path) {
        _ if path == "node.id" && value.is_string() => {
            let hint = "Use 1 to 40 letters, digits, '-' or '_', unique in the cluster; leave it empty for a random one.";
            (format!("is {shown}"), hint.to_owned())
        }
        Some(Kind::Flag) => (format!("is {shown}, neither true nor false"), "Write true or false.".to_owned()),
        Some(Kind::Number) => {
            let range = match expected {
                "u16" => format!("from 0 to {}", u16::MAX),
                "u32" => format!("from 0 to {}", u32::MAX),
                _ => "from 0 on".to_owned(),
            };
            let unit = unit(path);
            (format!("is {shown}, not a whole number {range}"), format!("Write a whole number{unit}, without a unit."))
        }
        Some(Kind::List) => (format!("is {shown}, not a list of texts"), "Write it as [\"first\", \"second\"].".to_owned()),
        Some(Kind::FreeTable) => (format!("is {shown}, not pairs"), "Write it as key=value,key=value.".to_owned()),
        Some(Kind::Text | Kind::OptionalText | Kind::Section) | None if !value.is_string() => {
            (format!("is {shown}, not a text"), "Put it in quotes.".to_owned())
        }
        _ if reason.contains("unknown variant") => {
            // serde lists the names in back quotes: every second piece is one.
            let choices: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
            (format!("is {shown}, which is unknown"), format!("Write one of: {}.", choices.join(", ")))
        }
        _ if reason.contains("socket address") => {
            let hint = "Write an IP address and a port, such as 0.0.0.0:8080 or [::]:8080.";
            (format!("is {shown}, not an address to listen on"), hint.to_owned())
        }
        _ => (format!("is {shown}, which does not fit"), "Compare it with `mailpush check --print-default`.".to_owned()),
    }
}

fn unit(path: &str) -> &'static str {
    match path {
        path if path.ends_with("_ms") => " of milliseconds",
        path if path.ends_with("_bytes") => " of bytes",
        _ => "",
    }
}

fn show(path: &str, value: &Value) -> String {
    const LONGEST: usize = 80;
    // The free table may hold passwords too.
    if schema::is_secret(path) || path.starts_with(schema::FREE_TABLE) {
        return "a value (not shown)".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
