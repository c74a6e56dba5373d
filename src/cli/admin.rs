//! `mailpush subscriptions` and `mailpush nodes`: what the cluster is doing.

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::client::Remote;
use super::{CliError, print};

/// The flags of `mailpush subscriptions`.
#[derive(Args)]
pub struct SubscriptionsArgs {
    #[command(flatten)]
    pub remote: Remote,
    /// Only this user's
    #[arg(long)]
    pub user: Option<String>,
    /// Only of this mailbox, such as '#private:alice@example.org:INBOX'
    #[arg(long)]
    pub mailbox: Option<String>,
    /// Only on this node
    #[arg(long)]
    pub node: Option<String>,
    /// Only over this transport: websocket, sse or imap
    #[arg(long)]
    pub transport: Option<String>,
    /// Print JSON, one subscription a line
    #[arg(long)]
    pub json: bool,
}

/// The flags of `mailpush nodes`.
#[derive(Args)]
pub struct NodesArgs {
    #[command(flatten)]
    pub remote: Remote,
    /// Print the answer's JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints all pages of the listing. Nodes that did not answer are named, and make it an error.
pub async fn subscriptions(args: SubscriptionsArgs) -> Result<(), CliError> {
    let client = args.remote.required()?;
    let filters = [("user", args.user), ("mailbox", args.mailbox), ("node", args.node), ("transport", args.transport)];
    let mut query: Vec<(&str, String)> = filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    query.push(("limit", "1000".to_owned()));
    let mut after: Option<String> = None;
    loop {
        let mut request = client.request(Method::GET, "/v1/subscriptions").query(&query);
        if let Some(after) = &after {
            request = request.query(&[("after", after)]);
        }
        let page = client.send(request).await?;
        for subscription in page["subscriptions"].as_array().into_iter().flatten() {
            print(if args.json { format!("{subscription}\n") } else { line(subscription) })?;
        }
        let silent: Vec<&Value> = page["partial"].as_array().into_iter().flatten().collect();
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return if silent.is_empty() { Ok(()) } else { Err(incomplete(&silent)) };
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn line(s: &Value) -> String {
    let key = s["key"]["mailbox"].as_str().map(str::to_owned);
    let key = key.unwrap_or_else(|| format!("account {}", text(&s["key"]["account"])));
    // A mailbox's name may hold anything, a terminal's escapes too.
    let key: String = key.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("{:<10} {:<32} {:<44} {}\n", text(&s["transport"]), text(&s["user"]), text(&s["session"]), key)
}

/// The listing lacks nodes: said, and told by the exit code.
fn incomplete(silent: &[&Value]) -> CliError {
    let nodes: Vec<String> = silent.iter().map(|s| format!("{} ({})", text(&s["node"]), text(&s["reason"]))).collect();
    CliError::Unavailable(format!("the list is incomplete, these nodes did not answer: {}", nodes.join(", ")))
}

/// Prints the nodes. Those that did not answer are named, and make it an error.
pub async fn nodes(args: NodesArgs) -> Result<(), CliError> {
    let client = args.remote.required()?;
    let answer = client.send(client.request(Method::GET, "/v1/nodes")).await?;
    if args.json {
        return print(format!("{answer:#}\n"));
    }
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let lag = node["lag"].as_u64().map_or("-".to_owned(), |lag| lag.to_string());
        print(format!(
            "{:<28} {:<9} {:<28} sessions {:<7} keys {:<7} lag {lag:<6} {}\n",
            text(&node["id"]),
            text(&node["state"]),
            text(&node["url"]),
            node["sessions"],
            node["keys"],
            text(&node["queue"]),
        ))?;
    }
    for left in answer["left"].as_array().into_iter().flatten() {
        print(format!("{:<28} left\n", text(&left["id"])))?;
    }
    let silent: Vec<&Value> = answer["partial"].as_array().into_iter().flatten().collect();
    if silent.is_empty() { Ok(()) } else { Err(incomplete(&silent)) }
}
