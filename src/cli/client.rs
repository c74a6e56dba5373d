//! Talking to a node's REST interface, for the commands that do.

use std::time::Duration;

use clap::Args;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::CliError;
use crate::http::client;

/// Which node, as whom.
#[derive(Args)]
pub struct Remote {
    /// A node's URL, such as http://127.0.0.1:8080
    #[arg(long, env = "MAILPUSH_URL")]
    pub url: Option<String>,
    /// A token; better given as MAILPUSH_TOKEN, for command lines are seen by others
    #[arg(long, env = "MAILPUSH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A proxy to ask through, such as http://proxy.example.org:3128; HTTP_PROXY and ALL_PROXY are
    /// not heeded
    #[arg(long, env = "MAILPUSH_PROXY", default_value = "", hide_default_value = true)]
    pub proxy: String,
}

/// Longer than the node itself takes over anything.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A node to talk to.
pub struct Client {
    client: reqwest::Client,
    url: String,
    token: String,
}

impl Remote {
    /// The client, if a URL is given.
    pub fn client(&self) -> Result<Option<Client>, CliError> {
        let Some(url) = self.url.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        // A line end at its end, as scripts and files leave one, could not stand in a header.
        let token = self.token.as_deref().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| CliError::Usage("a token is needed: set MAILPUSH_TOKEN or --token".to_owned()))?;
        let builder =
            client::builder(&self.proxy).map_err(|_| CliError::Usage("--proxy is not the URL of a proxy".to_owned()))?;
        let client = builder.timeout(TIMEOUT).build().map_err(anyhow::Error::new)?;
        Ok(Some(Client { client, url: url.trim_end_matches('/').to_owned(), token }))
    }

    /// The client of a command that cannot do without.
    pub fn required(&self) -> Result<Client, CliError> {
        self.client()?.ok_or_else(|| CliError::Usage("a node's URL is needed: set MAILPUSH_URL or --url".to_owned()))
    }
}

impl Client {
    /// A request for a path of the node's, with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Sends a request; what is no success becomes an error in the server's own words. The answer's
    /// JSON otherwise.
    pub async fn send(&self, request: RequestBuilder) -> Result<Value, CliError> {
        let unreachable =
            |error: reqwest::Error| CliError::Unavailable(format!("{} cannot be reached: {}", self.url, words(&error)));
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let detail = body.get("detail").and_then(Value::as_str).unwrap_or("no detail given");
        let results = body.get("results").map(|results| format!("\n{results:#}")).unwrap_or_default();
        let text = format!("{} answered {status}: {detail}{results}", self.url);
        Err(if status.is_server_error() { CliError::Unavailable(text) } else { CliError::Other(anyhow::anyhow!(text)) })
    }
}

fn words(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    }
}
