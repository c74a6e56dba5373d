//! Loading: flags over the environment over the file over the defaults, and every fault at once.
//!
//! Each layer is flattened to dotted settings, each with its [`Origin`]; the later layer wins,
//! setting by setting. What is left is deserialised; a value that does not fit is reported, taken
//! out, and the rest tried again, so that one bad value never hides the next.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::check::check;
use super::fault::{Fault, Origin};
use super::raw_setting::RawSetting;
use super::schema::{self, ENVIRONMENT_PREFIX, FREE_TABLE, Kind};
use super::{Purpose, Settings, file, text, wording};

/// Variables with our prefix that are no settings but belong to the command line.
pub const CLI_VARIABLES: [&str; 4] = ["MAILPUSH_CONFIG", "MAILPUSH_PROXY", "MAILPUSH_TOKEN", "MAILPUSH_URL"];

/// Where settings come from. Prints names only: values may be secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The environment: only names that begin with `MAILPUSH_` are looked at.
    pub environment: BTreeMap<String, OsString>,
    /// `setting=value`, as given to `--set`; a later one wins.
    pub overrides: Vec<String>,
}

impl Sources {
    /// The process's own environment with this file and these overrides.
    pub fn of_process(file: Option<PathBuf>, overrides: Vec<String>) -> Self {
        // A name that is not UTF-8 cannot be one of ours.
        let ours = |(name, value): (OsString, OsString)| {
            name.into_string().ok().filter(|name| name.starts_with(ENVIRONMENT_PREFIX)).map(|name| (name, value))
        };
        Self { file, environment: std::env::vars_os().filter_map(ours).collect(), overrides }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overrides: Vec<_> = self.overrides.iter().map(|pair| setting_like(pair)).collect();
        let variables: Vec<_> = self.environment.keys().collect();
        let mut shown = f.debug_struct("Sources");
        shown.field("file", &self.file).field("environment", &variables).field("overrides", &overrides).finish()
    }
}

/// What of a `setting=value` can be a setting's name: all that may be shown of it.
fn setting_like(pair: &str) -> &str {
    pair.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).next().unwrap_or_default()
}

/// Loads the settings of a gateway node: [`load_for`] with [`Purpose::Serve`].
#[cfg(test)]
pub fn load(sources: &Sources) -> Result<Settings, Vec<Fault>> {
    load_for(sources, Purpose::Serve)
}

/// Loads and checks the settings for one purpose. Reads the file and the files that `*_FILE`
/// variables name; opens nothing else. On error, all faults: in the order file, environment, flags,
/// then what does not fit together.
pub fn load_for(sources: &Sources, purpose: Purpose) -> Result<Settings, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut given = BTreeMap::new();
    let mut file_unreadable = false;
    if let Some(path) = &sources.file {
        let layer = file::read(path);
        file_unreadable = layer.unreadable;
        faults.extend(layer.faults);
        merge(&mut given, layer.given);
    }
    merge(&mut given, environment(&sources.environment, &mut faults));
    merge(&mut given, overrides(&sources.overrides, &mut faults));

    refuse_control_characters(&mut given, &mut faults);
    let mut lists = Lists::default();
    let settings = deserialise(&mut given, &mut lists, &mut faults);
    // While the file cannot be read, "this is missing" would only be noise.
    if !file_unreadable {
        // Elements of lists that are bad are out: what is left in their places is not.
        let known_bad = |fault: &Fault| match fault.setting.split_once('[') {
            Some((list, _)) => format!("{list}[]"),
            None => fault.setting.clone(),
        };
        let known_bad: BTreeSet<String> = faults.iter().map(known_bad).collect();
        let located = check(&settings, purpose, &known_bad).into_iter().map(|mut fault| {
            let setting = fault.setting.split('[').next().unwrap_or_default();
            fault.origin = given.get(setting).map(|(_, origin)| origin.clone());
            fault.setting = lists.as_given(&fault.setting);
            fault
        });
        faults.extend(located);
    }
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

type RawSettings = BTreeMap<String, (Value, Origin)>;

fn merge(merged: &mut RawSettings, layer: Vec<RawSetting>) {
    for RawSetting { path, value, origin } in layer {
        // The empty text means "absent" where absence is possible.
        let absent = schema::kind(&path) == Some(Kind::OptionalText) && value == "";
        merged.insert(path, (if absent { Value::Null } else { value }, origin));
    }
}

fn environment(variables: &BTreeMap<String, OsString>, faults: &mut Vec<Fault>) -> Vec<RawSetting> {
    let mut given = Vec::new();
    for (name, value) in variables {
        if !name.starts_with(ENVIRONMENT_PREFIX) || CLI_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        let Some(value) = value.to_str() else {
            faults.push(Fault::new(name, "is not UTF-8", "Set it to a plain text."));
            continue;
        };
        if let Some(path) = schema::setting_of(name) {
            given.extend(text::parse(path, value, &origin));
        } else if let Some(path) = secret_file_setting(name) {
            if variables.contains_key(&schema::variable(path)) {
                let problem = format!("and {} are both set", schema::variable(path));
                faults.push(Fault::new(name, problem, "Keep one of them."));
            }
            match read_secret(value) {
                Ok(secret) => given.push(RawSetting { path: path.to_owned(), value: secret.into(), origin }),
                Err(problem) => {
                    faults.push(Fault::new(path, problem, "Name a readable file that holds the secret.").from(origin));
                }
            }
        } else if !is_kubernetes_service(name, value) {
            let hint = match schema::nearest_variable(name) {
                Some(known) => format!("Did you mean {known}?"),
                None => "A setting SECTION.KEY is MAILPUSH_SECTION_KEY; unset what is not meant for mailpush.".to_owned(),
            };
            faults.push(Fault::new(name, "is not the variable of any setting", hint));
        }
    }
    given
}

fn secret_file_setting(name: &str) -> Option<&'static str> {
    schema::SECRETS.into_iter().find(|path| name.strip_suffix("_FILE") == Some(&schema::variable(path)))
}

/// The text of a secret's file; [`super::Secret`] takes the line end off.
fn read_secret(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read from {path}: {error}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("cannot be read from {path}: the file is empty")),
        _ => Ok(text),
    }
}

/// Kubernetes sets such variables in every container of a namespace that has a service named
/// `mailpush` (or `mailpush-…`): `MAILPUSH_SERVICE_HOST`, `MAILPUSH_PORT=tcp://…`,
/// `MAILPUSH_PORT_80_TCP_ADDR`.
fn is_kubernetes_service(name: &str, value: &str) -> bool {
    let of_protocol = ["TCP", "UDP", "SCTP"];
    let address = of_protocol.iter().any(|p| value.starts_with(&format!("{}://", p.to_ascii_lowercase())));
    let port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let mut words = rest.split('_');
        words.next().is_some_and(|number| number.parse::<u16>().is_ok()) && words.next().is_some_and(|p| of_protocol.contains(&p))
    });
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || port || (name.ends_with("_PORT") && address)
}

fn overrides(pairs: &[String], faults: &mut Vec<Fault>) -> Vec<RawSetting> {
    let mut given = Vec::new();
    for pair in pairs {
        let Some((path, value)) = pair.split_once('=') else {
            let hint = "Write it as SETTING=VALUE, such as http.listen=0.0.0.0:8080.";
            faults.push(Fault::new(format!("--set {}", setting_like(pair)), "has no '='", hint));
            continue;
        };
        let path = path.trim();
        match schema::kind(path) {
            None => faults.push(file::unknown(path).from(Origin::Flag)),
            Some(Kind::Section) => {
                let hint = format!("Name one of its settings: {path}.KEY=VALUE.");
                faults.push(Fault::new(path, "is a section, not a single setting", hint).from(Origin::Flag));
            }
            Some(_) => given.extend(text::parse(path, value, &Origin::Flag)),
        }
    }
    given
}

/// No setting holds line ends or NULs but secrets and the free table (certificates in PEM), and
/// those no NULs either, which C libraries take for the end.
fn refuse_control_characters(given: &mut RawSettings, faults: &mut Vec<Fault>) {
    fn holds(value: &Value, bad: &dyn Fn(char) -> bool) -> bool {
        match value {
            Value::String(text) => text.contains(bad),
            Value::Array(elements) => elements.iter().any(|element| holds(element, bad)),
            _ => false,
        }
    }
    given.retain(|path, (value, origin)| {
        let may_have_lines = schema::is_secret(path) || path.starts_with(FREE_TABLE);
        let (bad, what): (&dyn Fn(char) -> bool, _) = match may_have_lines {
            true => (&|c| c == '\0', "a NUL"),
            false => (&char::is_control, "a line end or another control character"),
        };
        let good = !holds(value, bad);
        if !good {
            let hint = "Write it as plain text, on one line.";
            faults.push(Fault::new(path, format!("holds {what}"), hint).from(origin.clone()));
        }
        good
    });
}

/// Which elements of lists are left once those that do not fit are out: for each list their places
/// as they were given.
#[derive(Default)]
struct Lists(BTreeMap<String, Vec<usize>>);

impl Lists {
    /// Takes out the element at `index` of what is left; its place as it was given.
    fn take(&mut self, path: &str, elements: &mut Vec<Value>, index: usize) -> Option<(usize, Value)> {
        if index >= elements.len() {
            return None;
        }
        let places = self.0.entry(path.to_owned()).or_insert_with(|| (0..elements.len()).collect());
        Some((places.remove(index), elements.remove(index)))
    }

    /// `queue.brokers[0]` of what is left, by its place as it was given.
    fn as_given(&self, setting: &str) -> String {
        let given = || {
            let (list, index) = setting.strip_suffix(']')?.split_once('[')?;
            let place = self.0.get(list)?.get(index.parse::<usize>().ok()?)?;
            Some(format!("{list}[{place}]"))
        };
        given().unwrap_or_else(|| setting.to_owned())
    }
}

/// Deserialises what was given; values that do not fit become faults and leave their default
/// behind. Of a list only the elements that do not fit are taken out.
fn deserialise(given: &mut RawSettings, lists: &mut Lists, faults: &mut Vec<Fault>) -> Settings {
    loop {
        let error = match serde_path_to_error::deserialize::<_, Settings>(tree(given)) {
            Ok(settings) => return settings,
            Err(error) => error,
        };
        let (path, index) = setting_at(error.path());
        let reason = error.inner().to_string();
        let own_words = reason.split_once('\n');
        let element = match (given.get_mut(&path), index, own_words) {
            (Some((Value::Array(elements), origin)), Some(index), Some(_)) => {
                lists.take(&path, elements, index).map(|(place, value)| (format!("{path}[{place}]"), value, origin.clone()))
            }
            _ => None,
        };
        let taken = element.or_else(|| given.remove(&path).map(|(value, origin)| (path.clone(), value, origin)));
        let Some((setting, value, origin)) = taken else {
            // Every value in the tree came from `given`, so this is not reached; were it, the loop
            // must still end.
            faults.push(Fault::new(path, "does not fit", "Compare it with `mailpush check --print-default`."));
            return Settings::default();
        };
        // A type's own words (`Misfit`), or serde's.
        let (problem, hint) = match own_words {
            Some((problem, hint)) => (problem.to_owned(), hint.to_owned()),
            None => wording::misfit(&path, &value, &reason),
        };
        faults.push(Fault::new(setting, problem, hint).from(origin));
    }
}

/// The dotted setting of a path, and the place in it where it is a list.
fn setting_at(path: &serde_path_to_error::Path) -> (String, Option<usize>) {
    let (mut names, mut place) = (Vec::new(), None);
    for segment in path.iter() {
        match segment {
            Segment::Map { key } => names.push(key.as_str()),
            Segment::Seq { index } => place = Some(*index),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    (names.join("."), place)
}

/// The nested form of the flat settings.
fn tree(given: &RawSettings) -> Value {
    let mut root = Map::new();
    'settings: for (path, (value, _)) in given {
        let free = path.strip_prefix(FREE_TABLE).and_then(|rest| rest.strip_prefix('.'));
        let (section, name) = match free {
            Some(key) => (FREE_TABLE, key),
            None => path.rsplit_once('.').unwrap_or(("", path)),
        };
        let mut table = &mut root;
        for step in section.split('.').filter(|step| !step.is_empty()) {
            let next = table.entry(step).or_insert_with(|| Value::Object(Map::new()));
            // Something else than pairs was given for the whole free table: its keys wait until
            // that is out.
            let Value::Object(next) = next else { continue 'settings };
            table = next;
        }
        table.insert(name.to_owned(), value.clone());
    }
    Value::Object(root)
}
