//! The command line: one file per command; this one holds what all of them share.
//!
//! Results go to standard output, everything else to standard error. Exit codes follow sysexits
//! where scripts and supervisors care: see [`CliError::exit_code`].

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use tracing::{info, warn};

use crate::config::{Fault, Purpose, Settings, Sources, load_for};
use crate::http::files;

mod acl;
mod admin;
mod agent;
mod check;
mod client;
mod dev;
mod duration;
mod gc;
mod logging;
mod publish;
mod serve;
mod signals;
mod token;

pub use check::{Probe, probe_dependencies};
pub use duration::parse_duration;

/// Bad flags or settings: nothing will change by trying again (EX_USAGE).
pub const EXIT_USAGE: u8 = 64;
/// Something that mailpush needs is away: trying again may help (EX_UNAVAILABLE).
pub const EXIT_UNAVAILABLE: u8 = 69;

/// How long the process waits, at its end, for threads that are blocked.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

const EXIT_CODES: &str = "Exit codes: 0 done, 64 bad flags or settings, 69 something needed is unavailable, 1 anything else.";

// No `Debug` here and in the commands: flags may hold secrets and tokens.
/// Cluster-wide push for mail.
#[derive(Parser)]
#[command(name = "mailpush", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Default, Args)]
pub struct Global {
    /// The configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "MAILPUSH_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one setting, such as http.listen=0.0.0.0:8080; wins over file and environment. May be
    /// repeated
    #[arg(long, global = true, value_name = "SETTING=VALUE")]
    pub set: Vec<String>,
    /// How to log: human or json (the setting log.format)
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["human", "json"])]
    pub log_format: Option<String>,
    /// Log more of mailpush's own doings; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run a gateway node
    Serve,
    /// Run on a mail server: take its changes in, keep them on disk, publish them
    Agent,
    /// Run a whole cluster in this process, with nothing installed
    Dev(dev::DevArgs),
    /// Publish events, straight into the queues or through a node (--url)
    Publish(Box<publish::PublishArgs>),
    /// List the cluster's live subscriptions
    Subscriptions(admin::SubscriptionsArgs),
    /// See and change who has which rights on a mailbox, where the registry keeps them
    #[command(subcommand)]
    Acl(acl::AclCommand),
    /// List the cluster's nodes
    Nodes(admin::NodesArgs),
    /// Remove the queues of nodes that are gone
    Gc(gc::GcArgs),
    /// Check the configuration, then whether what it names can be reached
    Check(check::CheckArgs),
    /// Make or inspect tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
}

impl Global {
    /// Where settings come from: the process's environment and these flags.
    pub fn sources(&self) -> Sources {
        let mut overrides = self.set.clone();
        overrides.extend(self.log_format.as_ref().map(|format| format!("log.format={format}")));
        match self.verbose {
            0 => {}
            1 => overrides.push("log.filter=mailpush=debug,info".to_owned()),
            _ => overrides.push("log.filter=mailpush=trace,info".to_owned()),
        }
        // An empty MAILPUSH_CONFIG is as good as none.
        let file = self.config.clone().filter(|path| !path.as_os_str().is_empty());
        Sources::of_process(file, overrides)
    }

    /// Loads the settings, and starts nothing.
    pub fn load(&self, purpose: Purpose) -> Result<Settings, CliError> {
        load_for(&self.sources(), purpose).map_err(CliError::Config)
    }

    /// Loads the settings, starts logging as they say, and logs what in them is seldom meant.
    pub fn start(&self, purpose: Purpose) -> Result<Settings, CliError> {
        let settings = self.load(purpose)?;
        logging::start(&settings.log);
        for warning in settings.warnings(purpose) {
            tracing::warn!(setting = warning.setting, "{warning}");
        }
        Ok(settings)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Flags that make no sense, or a file they name that cannot be used.
    #[error("{0}")]
    Usage(String),
    #[error("{}", faults(.0))]
    Config(Vec<Fault>),
    /// A dependency is away.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl CliError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => EXIT_USAGE,
            Self::Unavailable(_) => EXIT_UNAVAILABLE,
            Self::Other(_) => 1,
        }
    }
}

fn faults(faults: &[Fault]) -> String {
    let count = match faults.len() {
        1 => "the configuration has 1 fault:".to_owned(),
        many => format!("the configuration has {many} faults:"),
    };
    faults.iter().fold(count, |text, fault| format!("{text}\n  - {fault}"))
}

/// Parses the command line, runs the command, and tells its failure.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap would exit with 2; all usage errors are 64 here. `--help` and `--version` are no
            // errors.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let outcome = run(cli);
    logging::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "mailpush: {error}");
            error.exit_code().into()
        }
    }
}

/// Runs one command on a runtime of its own.
pub fn run(cli: Cli) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| anyhow::Error::new(error).context("cannot start the runtime"))?;
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve => serve::run(&cli.global).await,
            Command::Agent => agent::run(&cli.global).await,
            Command::Dev(args) => dev::run(&cli.global, args).await,
            Command::Publish(args) => publish::run(&cli.global, *args).await,
            Command::Subscriptions(args) => admin::subscriptions(args).await,
            Command::Acl(command) => acl::run(command).await,
            Command::Nodes(args) => admin::nodes(args).await,
            Command::Gc(args) => gc::run(&cli.global, args).await,
            Command::Check(args) => check::run(&cli.global, args).await,
            Command::Token(command) => token::run(&cli.global, command).await,
        }
    });
    // What still blocks a thread (a library's close, a read of standard input) must not keep the
    // process.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    outcome
}

/// As many open files as the system lets the process have: the soft limit, 1,024 on most systems,
/// is for programs that use `select`, and each client needs one or two.
fn raise_open_files() {
    match files::raise_limit() {
        Ok(limit) => info!(limit, "open files at most"),
        Err(error) => warn!(%error, limit = files::limit(), "cannot raise the number of open files"),
    }
}

/// Writes a result to standard output. Whoever reads it may stop early (`| head`): that is no
/// failure.
pub fn print(text: impl AsRef<str>) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_ref().as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output").into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_overrides() {
        let cli = Cli::try_parse_from(["mailpush", "check", "--set", "node.id=a", "-vv", "--log-format", "json"]).unwrap();
        let sources = cli.global.sources();
        assert_eq!(sources.overrides, ["node.id=a", "log.format=json", "log.filter=mailpush=trace,info"]);
    }
}
