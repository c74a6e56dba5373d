//! Key sets that change: read from a file or fetched from a URL, again and again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Url;
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::KeyError;
use super::keys::{Allowed, KeySet};
use crate::config::{KeySetUrl, ProxyUrl};
use crate::http::client;
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
    /// When the fetch of the newest good set began.
    fetched: RwLock<Option<Instant>>,
    /// Asks for a refresh soon.
    wanted: Notify,
    /// Whether one is asked for, and has not begun.
    is_wanted: AtomicBool,
    /// Counts attempts.
    attempts: watch::Sender<u64>,
}

impl Shared {
    /// Keys that never change.
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

    /// When the fetch of the newest good set began: what was published before then is in
    /// [`Self::keys`], if these are read afterwards.
    pub fn fetched(&self) -> Option<Instant> {
        *self.fetched.read()
    }

    /// Asks for a refresh as soon as the rate allows.
    pub fn want_refresh(&self) {
        self.is_wanted.store(true, Ordering::Release);
        self.wanted.notify_one();
    }

    /// Whether a refresh has been asked for that has not begun.
    pub fn is_refresh_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// Changes after each attempt.
    pub fn attempts(&self) -> watch::Receiver<u64> {
        self.attempts.subscribe()
    }

    /// Fetches the set and takes it up; whether that was good.
    pub async fn refresh(&self, source: &mut Source, allowed: &Allowed) -> bool {
        self.is_wanted.store(false, Ordering::Release);
        let began = Instant::now();
        let outcome = source.fetch(allowed).await;
        self.record(outcome, began)
    }

    /// Takes up the outcome of an attempt that began at `began`; whether it was good.
    fn record(&self, outcome: Result<Option<KeySet>, KeyError>, began: Instant) -> bool {
        let error = match outcome {
            Ok(fetched) => {
                if let Some(keys) = fetched {
                    tracing::info!(keys = keys.len(), "took up a new key set");
                    *self.keys.write() = Arc::new(keys);
                }
                // After the keys: whoever reads this first reads no older ones.
                *self.fetched.write() = Some(began);
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

/// A key set that is fetched again and again.
pub(super) struct Source {
    place: Place,
    /// What was taken up last, as it was written.
    taken: Option<Vec<u8>>,
}

/// Where a key set is.
enum Place {
    File(PathBuf),
    Url { client: reqwest::Client, url: Url },
}

impl Source {
    /// A set in a file.
    pub fn file(path: &Path) -> Self {
        Self { place: Place::File(path.to_owned()), taken: None }
    }

    /// A set that its issuer serves, fetched through `proxy` if there is one.
    pub fn url(url: &KeySetUrl, proxy: Option<&ProxyUrl>) -> Result<Self, KeyError> {
        let client = client::builder(proxy.map_or("", ProxyUrl::as_str)).and_then(|client| client.timeout(FETCH_TIMEOUT).build());
        let client = client.map_err(|error| KeyError::NotFetched(error.without_url().to_string()))?;
        Ok(Self { place: Place::Url { client, url: url.url().clone() }, taken: None })
    }

    /// An unknown key makes the set be fetched again at most this often: a file is read by us
    /// alone, an issuer is asked by all nodes.
    pub fn refetch_floor(&self) -> Duration {
        match self.place {
            Place::File(_) => Duration::from_secs(1),
            Place::Url { .. } => Duration::from_secs(10),
        }
    }

    /// The set as it is now; `None` where it is the same as at the last success. It is read whole
    /// each time: a file may be replaced by one with the same time of modification, and keys that
    /// are withdrawn must not stay trusted.
    async fn fetch(&mut self, allowed: &Allowed) -> Result<Option<KeySet>, KeyError> {
        let json = match &self.place {
            Place::File(path) => {
                let json = read(path).await;
                json.map_err(|error| KeyError::NotReadable { path: path.clone(), reason: error.to_string() })?
            }
            Place::Url { client, url } => download(client, url).await?,
        };
        if self.taken.as_ref() == Some(&json) {
            return Ok(None);
        }
        let invalid = |problem: String| match &self.place {
            Place::File(path) => KeyError::InvalidFile { path: path.clone(), problem },
            Place::Url { .. } => KeyError::InvalidSet(problem),
        };
        if json.len() > MAX_SET_BYTES {
            return Err(invalid(format!("is larger than {MAX_SET_BYTES} bytes")));
        }
        let keys = KeySet::from_jwks(&json, allowed).map_err(|problem| invalid(problem.to_owned()))?;
        self.taken = Some(json);
        Ok(Some(keys))
    }
}

/// A file, or as much of it as shows that it is too large.
async fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(MAX_SET_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// What a URL answers, or as much of it as shows that it is too large.
async fn download(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, KeyError> {
    // A URL may hold credentials, and errors are logged. What failed underneath says more than reqwest's own words.
    let not_fetched = |error: reqwest::Error| {
        let error = error.without_url();
        let cause = std::iter::successors(std::error::Error::source(&error), |error| error.source()).last();
        KeyError::NotFetched(cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
    };
    let mut response = client.get(url.clone()).send().await.map_err(not_fetched)?;
    if !response.status().is_success() {
        return Err(KeyError::NotFetched(format!("the answer was {}", response.status())));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(not_fetched)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_SET_BYTES {
            break;
        }
    }
    Ok(body)
}

/// How often to refresh.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// When nobody asks.
    pub every: Duration,
    /// When somebody does, or after a failure: no sooner than this after the last attempt, so that
    /// made-up key names cannot make us hammer the issuer.
    pub at_most_every: Duration,
}

/// Refreshes for as long as the task lives: its handle aborts it. The first attempt has been made
/// by the caller.
pub(super) async fn refresh(mut source: Source, allowed: Allowed, shared: Arc<Shared>, pace: Pace, mut good: bool) {
    loop {
        let attempted = Instant::now();
        let next = attempted + if good { pace.every } else { pace.at_most_every.min(pace.every) };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = shared.wanted.notified() => tokio::time::sleep_until(attempted + pace.at_most_every).await,
        }
        good = shared.refresh(&mut source, &allowed).await;
    }
}
