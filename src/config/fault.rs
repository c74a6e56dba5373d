//! What is wrong with a configuration, in words that say what to do.

use std::fmt;
use std::path::PathBuf;

/// Where a setting's value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file; the line counts from 1, 0 means the file as a whole.
    File { path: PathBuf, line: usize },
    /// An environment variable.
    Environment(String),
    /// A flag: `--set`.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// One thing wrong with a configuration. Holds no secret: values of secret settings are never
/// quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting (`http.listen`), or what stands in its place: a file, a variable, a flag.
    pub setting: String,
    /// What is wrong: goes on where the setting's name ends.
    pub problem: String,
    /// What to do: a whole sentence.
    pub hint: String,
    /// Where the value stands; `None` where it is the default.
    pub origin: Option<Origin>,
}

impl Fault {
    pub(super) fn new(setting: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { setting: setting.into(), problem: problem.into(), hint: hint.into(), origin: None }
    }

    pub(super) fn from(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}. {}", self.setting, self.problem, self.hint)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}
