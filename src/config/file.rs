//! The configuration file: TOML, flattened to dotted settings, each with the line it stands on.

use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Origin};
use super::raw_setting::RawSetting;
use super::schema::{self, Kind};

/// What a file gave, and what is wrong with it.
#[derive(Default)]
pub(super) struct FileLayer {
    pub given: Vec<RawSetting>,
    pub faults: Vec<Fault>,
    /// The file could not be read as a whole: what it would have set is not known.
    pub unreadable: bool,
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> FileLayer {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) => {
            let problem = format!("cannot be read: {error}");
            let hint = "Give the path of a readable TOML file, or none at all.";
            let fault = Fault::new("the configuration file", problem, hint).from(Origin::File { path: path.into(), line: 0 });
            FileLayer { faults: vec![fault], unreadable: true, ..FileLayer::default() }
        }
    }
}

/// Reads the file's text; `path` is only for naming it.
pub(super) fn parse(path: &Path, text: &str) -> FileLayer {
    let mut reader = Reader { path, text, layer: FileLayer::default() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let origin = reader.origin(error.span().map_or(0, |span| span.start));
        // The parser's message names no value, only what it expected.
        let problem = format!("is not valid TOML: {}", error.message().replace('\n', "; "));
        reader.layer.faults.push(Fault::new("the configuration file", problem, "Correct the line.").from(origin));
    }
    // After a syntax error the rest may have slid into the wrong section: guesses about it would
    // mislead.
    if errors.is_empty() {
        reader.section("", table.get_ref());
    }
    reader.layer.unreadable = !errors.is_empty();
    reader.layer
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    layer: FileLayer,
}

impl Reader<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Origin::File { path: self.path.into(), line: 1 + before.iter().filter(|byte| **byte == b'\n').count() }
    }

    fn section(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref();
            let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
            let origin = self.origin(key.span().start);
            match (schema::kind(&path), value.get_ref()) {
                (None, _) => self.layer.faults.push(unknown(&path).from(origin)),
                (Some(Kind::Section), DeValue::Table(table)) => self.section(&path, table),
                (Some(Kind::FreeTable), DeValue::Table(table)) => self.free_table(&path, table),
                (Some(Kind::Section | Kind::FreeTable), _) => {
                    let hint = format!("Write its settings below a line [{path}].");
                    self.layer.faults.push(Fault::new(path, "is a section, not a single setting", hint).from(origin));
                }
                (Some(_), _) => self.leaf(path, value, origin),
            }
        }
    }

    /// `fetch.min.bytes = 1` makes nested tables where the quotes were forgotten: the dots are put
    /// back.
    fn free_table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = format!("{prefix}.{}", key.get_ref());
            let origin = self.origin(key.span().start);
            match value.get_ref() {
                DeValue::Table(table) => self.free_table(&path, table),
                DeValue::Integer(number) => {
                    let text = Value::String(number.to_string());
                    self.layer.given.push(RawSetting { path, value: text, origin });
                }
                DeValue::Boolean(flag) => {
                    self.layer.given.push(RawSetting { path, value: Value::String(flag.to_string()), origin })
                }
                _ => self.leaf(path, value, origin),
            }
        }
    }

    fn leaf(&mut self, path: String, value: &Spanned<DeValue<'_>>, origin: Origin) {
        self.layer.given.push(RawSetting { path, value: json(value.get_ref()), origin });
    }
}

/// The fault of naming a setting that is not there.
pub(super) fn unknown(path: &str) -> Fault {
    let hint = match schema::nearest(path) {
        Some(known) => format!("Did you mean {known}?"),
        None => "`mailpush check --print-default` lists every setting.".to_owned(),
    };
    Fault::new(path, "is not a setting", hint)
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => integer(number.as_str(), number.radix()),
        // No setting is a fraction: kept as written, so that the refusal can quote it.
        DeValue::Float(number) => Value::String(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(elements) => elements.iter().map(|element| json(element.get_ref())).collect(),
        DeValue::Table(table) => table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref()))).collect(),
    }
}

/// A number beyond 64 bits stays a text, so that its refusal can quote it.
fn integer(digits: &str, radix: u32) -> Value {
    let unsigned = u64::from_str_radix(digits, radix).map(Value::from);
    unsigned.or_else(|_| i64::from_str_radix(digits, radix).map(Value::from)).unwrap_or_else(|_| digits.into())
}
