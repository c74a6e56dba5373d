//! `mailpush acl`: who has which rights on a mailbox (RFC 4314), where the registry keeps the ACLs.

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Remote;
use super::{CliError, print};

/// The commands below `mailpush acl`.
#[derive(Subcommand)]
pub enum AclCommand {
    /// Show a mailbox's ACL: an identifier and its rights a line
    Get(GetArgs),
    /// Give rights to an identifier, or take them
    Set(SetArgs),
    /// Remove an identifier from a mailbox's ACL, or the whole ACL
    Delete(DeleteArgs),
}

/// The flags of `mailpush acl get`.
#[derive(Args)]
pub struct GetArgs {
    #[command(flatten)]
    pub target: Target,
}

/// The flags of `mailpush acl set`.
#[derive(Args)]
pub struct SetArgs {
    #[command(flatten)]
    pub target: Target,
    /// bob@example.org, group:staff, anyone or authenticated; with - in front the rights are taken,
    /// whoever else gives them
    #[arg(allow_hyphen_values = true)]
    pub identifier: String,
    /// Letters of lrswipkxtea; with + or - in front they are added to what the identifier has, or
    /// taken from it
    #[arg(allow_hyphen_values = true)]
    pub rights: String,
}

/// The flags of `mailpush acl delete`.
#[derive(Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    pub target: Target,
    /// Only this one
    #[arg(allow_hyphen_values = true)]
    pub identifier: Option<String>,
}

/// Which mailbox, and by which node.
#[derive(Args)]
pub struct Target {
    #[command(flatten)]
    pub remote: Remote,
    /// Print the answer's JSON
    #[arg(long)]
    pub json: bool,
    /// The mailbox's path, such as '#private:alice@example.org:Team'
    pub mailbox: String,
}

/// Asks a node, and prints what it answers.
pub async fn run(command: AclCommand) -> Result<(), CliError> {
    match command {
        AclCommand::Get(GetArgs { target }) => target.ask(Method::GET, None, None).await,
        AclCommand::Set(SetArgs { target, identifier, rights }) => {
            target.ask(Method::PUT, Some(identifier), Some(json!({ "rights": rights }))).await
        }
        AclCommand::Delete(DeleteArgs { target, identifier }) => target.ask(Method::DELETE, identifier, None).await,
    }
}

impl Target {
    async fn ask(&self, method: Method, identifier: Option<String>, body: Option<Value>) -> Result<(), CliError> {
        let client = self.remote.required()?;
        let path = format!("/v1/mailboxes/{}/acl", utf8_percent_encode(&self.mailbox, NON_ALPHANUMERIC));
        let is_change = method != Method::GET;
        let mut request = client.request(method, &path);
        if let Some(identifier) = identifier {
            request = request.query(&[("identifier", identifier)]);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = client.send(request).await?;
        if self.json {
            return print(format!("{answer}\n"));
        }
        let entries = answer[if is_change { "changed" } else { "acl" }].as_object();
        let lines: String = entries.into_iter().flatten().map(|(entry, rights)| line(entry, rights)).collect();
        match (lines.is_empty(), is_change) {
            (false, _) => print(lines),
            (true, true) => print("nothing has changed\n"),
            (true, false) => print("no entries: nobody but its owner has rights on it\n"),
        }
    }
}

fn line(entry: &str, rights: &Value) -> String {
    // A group may be called anything, but for control characters.
    let rights = rights.as_str().filter(|rights| !rights.is_empty()).unwrap_or("nothing any more");
    format!("{entry:<40} {rights}\n")
}
