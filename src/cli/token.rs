//! `mailpush token`: make tokens, and see why one is refused.

use std::io::{IsTerminal, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::{CliError, Global, parse_duration, print};
use crate::config::Purpose;
use crate::edge::auth::token::{TokenRequest, issue};
use crate::edge::auth::{AuthError, Authenticator, Identity, KeyError, MAX_TOKEN_BYTES, Scopes};

/// The commands below `mailpush token`.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Print a new token, signed with auth.secret or auth.private_key_file
    Issue(IssueArgs),
    /// Say whether a token would be accepted, whose it is, and what it claims
    Check(CheckArgs),
}

/// The flags of `mailpush token issue`.
#[derive(Args)]
pub struct IssueArgs {
    /// Whose token it is
    #[arg(long)]
    user: String,
    /// push, subscriptions:read, sessions:write, events:publish, acl:read or acl:write; may be
    /// repeated. Without any: push
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scopes>,
    /// A group of the user's; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// How long it is valid: 90s, 15m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// The name of the key (`kid`), where verifiers have a set of them
    #[arg(long)]
    kid: Option<String>,
}

/// The flags of `mailpush token check`.
#[derive(Args)]
pub struct CheckArgs {
    /// The token, or - to read it from standard input
    #[arg(env = "MAILPUSH_TOKEN", hide_env_values = true)]
    token: String,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(global: &Global, command: TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::Issue(args) => run_issue(global, args),
        TokenCommand::Check(args) => run_check(global, args).await,
    }
}

fn run_issue(global: &Global, args: IssueArgs) -> Result<(), CliError> {
    let settings = global.start(Purpose::Token)?;
    let scopes = if args.scopes.is_empty() { Scopes::PUSH } else { args.scopes.into_iter().collect() };
    let request = TokenRequest { user: args.user, groups: args.groups, scopes, ttl: args.ttl, key_id: args.kid };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let token = issue(&settings.auth, &request, now.as_millis() as u64).map_err(|error| CliError::Usage(error.to_string()))?;
    print(token + "\n")
}

async fn run_check(global: &Global, args: CheckArgs) -> Result<(), CliError> {
    let settings = global.start(Purpose::Token)?;
    let token = if args.token == "-" { read_stdin()? } else { args.token };
    let token = token.trim();
    // As it stands in a header somebody copied.
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    let authenticator = Authenticator::new(&settings.auth).await.map_err(|error| match error {
        KeyError::NotFetched(_) | KeyError::InvalidSet(_) => CliError::Unavailable(error.to_string()),
        _ => CliError::Usage(error.to_string()),
    })?;
    let verdict = authenticator.verify(token);
    let report = if args.json { json_report(token, &verdict) } else { human_report(token, &verdict) };
    print(report)?;
    match verdict {
        Ok(_) => Ok(()),
        Err(error) if error.is_transient() => {
            Err(CliError::Unavailable(authenticator.health().last_error.unwrap_or_else(|| error.to_string())))
        }
        Err(error) => Err(anyhow::Error::new(error).into()),
    }
}

/// One token, and a bit more than one may be long, so that a longer one is told from it.
fn read_stdin() -> Result<String, CliError> {
    if std::io::stdin().is_terminal() {
        return Err(CliError::Usage("there is no token on standard input".to_owned()));
    }
    let mut token = String::new();
    let mut stdin = std::io::stdin().lock().take(2 * MAX_TOKEN_BYTES as u64);
    stdin.read_to_string(&mut token).context("cannot read the token from standard input")?;
    Ok(token)
}

fn json_report(token: &str, verdict: &Result<Identity, AuthError>) -> String {
    let mut report = match verdict {
        Ok(identity) => json!({ "valid": true, "identity": identity }),
        Err(error) => json!({ "valid": false, "error": error.name(), "message": error.to_string() }),
    };
    report["header"] = part(token, 0);
    report["claims"] = part(token, 1);
    format!("{report}\n")
}

fn human_report(token: &str, verdict: &Result<Identity, AuthError>) -> String {
    let verdict = match verdict {
        Ok(identity) => {
            let expires = i64::try_from(identity.expires_at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            let expires = expires.map_or_else(|| "far in the future".to_owned(), |time| time.to_string());
            let list = |text: String| if text.is_empty() { "none".to_owned() } else { text };
            let (scopes, groups) = (list(identity.scopes.to_string()), list(identity.groups.join(", ")));
            format!("valid\nuser     {}\nscopes   {scopes}\ngroups   {groups}\nexpires  {expires}\n", identity.user)
        }
        Err(error) => format!("refused: {error} ({})\n", error.name()),
    };
    // JSON escapes control characters: what a stranger wrote into the token cannot play with the
    // terminal.
    format!("{verdict}header   {}\nclaims   {}\n", part(token, 0), part(token, 1))
}

/// A part of the token as it claims to be, whether or not the token is any good; null if
/// unreadable.
fn part(token: &str, index: usize) -> Value {
    let bytes = token.split('.').nth(index).and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok());
    bytes.filter(|_| token.len() <= MAX_TOKEN_BYTES).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
