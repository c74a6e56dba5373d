//! Key sets that change: read from a file or fetched from a URL, again and again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::KeyError;
use super::keys::{Allowed, KeySet};
use crate::config::is_loopback_http;
use crate::lock::RwLock;

/// A key set larger than this is not read: bytes.
const MAX_SET_BYTES: usize = 512 * 1024;

/// How long fetching may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys in use, shared between those who verify (readers) and the one task that refreshes.
#[derive(Default)]
pub(super) struct Shared {
    keys: RwLock<Arc<KeySet>>,
    last_error: RwLock<Option<String>>,
    /// Asks for a refresh soon.
    wanted: Notify,
    /// Counts attempts.
    attempts: watch::Sender<u64>,
}

impl Shared {
    pub fn new(keys: KeySet) -> Self {
        Self { keys: RwLock::new(Arc::new(keys)), ..Self::default() }
    }

    /// What verifies tokens now.
    pub fn keys(&self) -> Arc<KeySet> {
        self.keys.read().clone()
    }

    /// Why the last attempt failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.read().clone()
    }

    /// Asks for a refresh as soon as the rate allows.
    pub fn want_refresh(&self) {
        self.wanted.notify_one();
    }

    /// Changes after each attempt.
    pub fn attempts(&self) -> watch::Receiver<u64> {
        self.attempts.subscribe()
    }

    /// Takes up the outcome of an attempt; whether it was good.
    pub fn record(&self, outcome: Result<Option<KeySet>, KeyError>) -> bool {
        let error = match outcome {
            Ok(fetched) => {
                if let Some(keys) = fetched {
                    tracing::info!(keys = keys.len(), "took up a new key set");
                    *self.keys.write() = Arc::new(keys);
                }
                None
            }
            Err(error) => {
                tracing::warn!(%error, kept = self.keys().len(), "could not refresh the key set; the last good one stays in use");
                Some(error.to_string())
            }
        };
        let good = error.is_none();
        *self.last_error.write() = error;
        self.attempts.send_modify(|attempts| *attempts += 1);
        good
    }
}

/// Where a key set is.
pub(super) enum Source {
    File { path: PathBuf, seen: Option<SystemTime> },
    Url { client: reqwest::Client, url: String },
}

impl Source {
    pub fn file(path: &Path) -> Self {
        Self::File { path: path.to_owned(), seen: None }
    }

    /// Redirects are not followed: they would lead away from the place that was configured, perhaps off TLS.
    pub fn url(url: &str) -> Result<Self, KeyError> {
        let mut client = reqwest::Client::builder();
        if reqwest::Url::parse(url).is_ok_and(|url| is_loopback_http(&url)) {
            // A proxy (HTTP_PROXY) has its own idea of what this machine is.
            client = client.no_proxy();
        }
        let client = client
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("mailpush/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|error| KeyError::NotFetched(error.without_url().to_string()))?;
        Ok(Self::Url { client, url: url.to_owned() })
    }

    /// The set as it is now; `None` where it is known not to have changed since the last success.
    pub async fn fetch(&mut self, allowed: &Allowed) -> Result<Option<KeySet>, KeyError> {
        match self {
            Self::File { path, seen } => {
                let not_readable =
                    |error: std::io::Error| KeyError::NotReadable { path: path.clone(), reason: error.to_string() };
                let modified = tokio::fs::metadata(&*path).await.and_then(|data| data.modified()).map_err(not_readable)?;
                if *seen == Some(modified) {
                    return Ok(None);
                }
                let json = tokio::fs::read(&*path).await.map_err(not_readable)?;
                let keys = KeySet::from_jwks(&json, allowed)
                    .map_err(|problem| KeyError::InvalidFile { path: path.clone(), problem: problem.to_owned() })?;
                *seen = Some(modified);
                Ok(Some(keys))
            }
            Self::Url { client, url } => {
                let json = download(client, url).await?;
                KeySet::from_jwks(&json, allowed).map(Some).map_err(|problem| KeyError::InvalidSet(problem.to_owned()))
            }
        }
    }
}

async fn download(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, KeyError> {
    // A URL may hold credentials, and errors are logged. What failed underneath says more than reqwest's own words.
    let not_fetched = |error: reqwest::Error| {
        let error = error.without_url();
        let cause = std::iter::successors(std::error::Error::source(&error), |error| error.source()).last();
        KeyError::NotFetched(cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
    };
    let mut response = client.get(url).send().await.map_err(not_fetched)?;
    if !response.status().is_success() {
        return Err(KeyError::NotFetched(format!("the answer was {}", response.status())));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(not_fetched)? {
        if body.len() + chunk.len() > MAX_SET_BYTES {
            return Err(KeyError::InvalidSet(format!("is larger than {MAX_SET_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// How often to refresh.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// When nobody asks.
    pub every: Duration,
    /// When somebody does, or after a failure: no sooner than this after the last attempt, so that made-up key
    /// names cannot make us hammer the issuer.
    pub at_most_every: Duration,
}

/// Refreshes for as long as the task lives: its handle aborts it. The first attempt has been made by the caller.
pub(super) async fn refresh(mut source: Source, allowed: Allowed, shared: Arc<Shared>, pace: Pace, mut good: bool) {
    loop {
        let attempted = Instant::now();
        let next = attempted + if good { pace.every } else { pace.at_most_every.min(pace.every) };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = shared.wanted.notified() => tokio::time::sleep_until(attempted + pace.at_most_every).await,
        }
        good = shared.record(source.fetch(&allowed).await);
    }
}
