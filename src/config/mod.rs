//! Settings: one TOML file, then the environment, then flags; each setting with its default, unit and reason.
//!
//! The commented defaults are `default.toml` beside this file (`mailpush check --print-default`); a test
//! holds it and the `Default`s here to each other. Secrets are kept in [`Secret`], which does not print.

mod settings;

pub use settings::*;
