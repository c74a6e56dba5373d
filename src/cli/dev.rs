//! `mailpush dev`: a whole cluster in one process.

use std::fmt::Write;

use clap::Args;

use super::signals::Signals;
use super::{CliError, Global, print};
use crate::config::Purpose;
use crate::dev::{Description, Dev, Ports};

/// The flags of `mailpush dev`.
#[derive(Args)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: u16,
    /// The first node's port, the others follow; 0 picks free ones
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// The first node's IMAP port, the others follow; 0 picks free ones
    #[arg(long, default_value_t = 1143)]
    pub imap_port: u16,
    /// Print one line of JSON once all is ready, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Runs until SIGTERM or SIGINT, then drains all nodes.
pub async fn run(global: &Global, args: DevArgs) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let settings = global.start(Purpose::Dev)?;
    super::raise_open_files();
    let dev = Dev::start(settings, usize::from(args.nodes), Ports { http: args.port, imap: args.imap_port }).await?;
    let description = dev.description();
    if args.json {
        let line = serde_json::to_string(description).map_err(anyhow::Error::new)?;
        print(line + "\n")?;
    } else {
        print(introduction(description))?;
    }
    let outcome = tokio::select! {
        () = signals.stop() => Ok(()),
        () = dev.failed() => Err(anyhow::anyhow!("a part of the cluster has failed, its log says which").into()),
    };
    signals.drain(|hurry| dev.stop(hurry)).await;
    outcome
}

/// What to paste where.
fn introduction(dev: &Description) -> String {
    // As it was called: the program need not be on the path.
    let program = std::env::args().next().unwrap_or_else(|| "mailpush".to_owned());
    let mut text = String::from("mailpush dev: everything in this process, nothing is kept.\n\n");
    // Writing to a String cannot fail.
    for node in &dev.nodes {
        let imap = node.imap.as_deref().unwrap_or("none");
        let _ = writeln!(text, "  node {}  page {}/  websocket {}  imap {imap}", node.id, node.http, node.ws);
    }
    let _ = writeln!(
        text,
        "\nIMAP is without TLS, and everybody's password is the name before the @. The mail store itself: {}",
        dev.store_imap
    );
    let (Some(first), Some(last), Some(alice)) = (dev.nodes.first(), dev.nodes.last(), dev.users.first()) else { return text };
    let _ = writeln!(
        text,
        "\nThe page with a token filled in (it stays in the browser, and leaves the address bar at once), and the token:"
    );
    let administrator = ("administrator", &dev.admin_token);
    for (name, token) in dev.users.iter().map(|user| (user.user.as_str(), &user.token)).chain([administrator]) {
        let _ = writeln!(text, "  {name}\n    {}/#token={token}\n    {token}", first.http);
    }
    if let (Some(idling), Some(appending)) = (&last.imap, &first.imap) {
        let door = idling.replacen(':', "/", 1);
        let name = alice.user.split('@').next().unwrap_or_default();
        let _ = write!(
            text,
            "\nIdle in alice's INBOX by IMAP, at node {}:\n\n  bash -c \"exec 3<>/dev/tcp/{door}; printf 'a LOGIN {name} {}\\r\\nb SELECT \
             INBOX\\r\\nc IDLE\\r\\n' >&3; cat <&3\"\n\nLet a message arrive there, at node {} (in another terminal):\n\n  \
             printf 'Subject: lunch?\\r\\n\\r\\nAt noon?\\r\\n' > mail.txt\n  curl -T mail.txt imap://{appending}/INBOX -u {name}:{}\n",
            last.id, alice.password, first.id, alice.password
        );
    }
    let _ = write!(
        text,
        "\nThe same by HTTP: hear what happens in alice's INBOX, at node {}:\n\n  curl -N -H 'Authorization: Bearer {}' \\\n    '{}/v1/stream?mailbox=%23private:{}:INBOX'\n",
        last.id, alice.token, last.http, alice.user
    );
    let _ = write!(
        text,
        "\nLet a message arrive there, at node {} (in another terminal):\n\n  export MAILPUSH_URL={} MAILPUSH_TOKEN={}\n  \
         {program} publish --type MessageNew --mailbox '#private:{}:INBOX' --uid 1\n\nor\n\n  \
         curl -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' {}/v1/events \\\n    \
         -d '{{\"type\":\"MessageNew\",\"mailbox\":\"#private:{}:INBOX\",\"messages\":[{{\"uid\":1}}]}}'\n\nCtrl-C ends it.\n",
        first.id, first.http, dev.admin_token, alice.user, dev.admin_token, first.http, alice.user
    );
    text
}
