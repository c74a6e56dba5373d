//! Logging: to standard error, one line an event, for people or for machines.
//!
//! What may be logged: names of nodes, queues, settings, refusals. Never tokens, passwords, or anything of a mail.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Starts logging for the process. A second call changes nothing.
pub fn start(settings: &LogSettings) {
    // The filter has been checked with the other settings.
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // It logs frames with all that is in them, tokens too: whatever the filter says, that stays out.
    let filter = match "tungstenite=info".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match settings.format {
        LogFormat::Human => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            logging.with_ansi(colours).try_init()
        }
        LogFormat::Json => logging.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    // Only fails where logging has been started already.
    drop(started);
}
