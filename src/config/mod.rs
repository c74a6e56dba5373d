//! Settings: one TOML file, then the environment, then flags; each setting with its default, unit
//! and reason.
//!
//! The commented defaults are `default.toml` beside this file (`mailpush check --print-default`); a
//! test holds it and the `Default`s here to each other. Secrets are kept in [`Secret`], which does
//! not print.

mod check;
mod check_access;
mod check_agent;
mod check_cluster;
mod check_imap;
mod checker;
mod fault;
mod file;
mod load;
mod net;
mod purpose;
mod raw_setting;
mod schema;
mod settings;
mod settings_access;
mod settings_agent;
mod settings_imap;
mod text;
mod values;
mod warnings;
mod wording;

#[cfg(test)]
mod tests;

pub use fault::{Fault, Origin};
#[cfg(test)]
pub use load::load;
pub use load::{CLI_VARIABLES, Sources, load_for};
pub use net::Net;
pub use purpose::Purpose;
pub use settings::*;
pub use settings_access::*;
pub use settings_agent::*;
pub use settings_imap::*;
pub use values::{
    BaseUrl, Chroot, Ensemble, FileMode, HostPort, KeySetUrl, LogFilter, Millis, Misfit, ProxyUrl, Secret, Separator,
    SignatureAlgorithm, TlsName, TopicName, TopicPrefix, WebOrigin, join,
};
pub use warnings::Warning;

/// Every setting, commented, with its default: what `mailpush check --print-default` prints.
pub const DEFAULT_TOML: &str = include_str!("default.toml");
