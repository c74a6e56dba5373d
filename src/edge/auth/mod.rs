//! Who is at the door: bearer tokens (JWT, RFC 7519) and the keys that verify them.
//!
//! A token is looked at in the order in which it can do least harm: length, form, algorithm, key,
//! signature, and only then what it says. RFC 8725 is followed: algorithms are bound to keys (3.1),
//! `none` does not exist here, issuer and audience are checked (3.8, 3.9), nothing in a header
//! makes us fetch anything (3.10).

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{AuthSettings, SignatureAlgorithm};
use crate::lock::Mutex;
use crate::mail::UserName;
use crate::tasks::vital;
use claims::Policy;
use keys::{Allowed, KeySet, NoKey, VerifyingKey};
use presented::Presented;
use source::{Pace, Shared, Source};

mod claims;
mod error;
mod keys;
mod presented;
mod scopes;
mod source;
pub mod token;

#[cfg(test)]
mod test_keys;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_rotation;

pub use claims::user_names;
pub use error::{AuthError, KeyError};
pub use scopes::{InvalidScope, Scopes};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How long [`Authenticator::verify_or_refresh`] waits for a key set that may hold an unknown key.
const REFRESH_PATIENCE: Duration = Duration::from_secs(3);

/// Who a token's bearer is, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The claim `sub`, normalised.
    pub user: UserName,
    /// The claim `groups`, as it is.
    pub groups: Vec<String>,
    /// The claim `scope`.
    pub scopes: Scopes,
    /// The claim `exp`, in ms since 1970, UTC. May lie in the past by up to the leeway.
    pub expires_at: u64,
}

/// How the keys are, for readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHealth {
    /// With none, every token is refused with [`AuthError::KeysUnavailable`].
    pub usable_keys: usize,
    /// Why the last refresh of a key set failed, if it did.
    pub last_error: Option<String>,
}

/// Verifies tokens. A key set is kept fresh by a task of its own, which ends when this is dropped.
pub struct Authenticator {
    policy: Policy,
    allowed: Allowed,
    shared: Arc<Shared>,
    /// `None` where the keys never change.
    changing: Option<Changing>,
}

/// What there is where the keys change.
struct Changing {
    presented: Mutex<Presented>,
    /// Keeps the keys fresh.
    _refresher: AbortOnDropHandle<()>,
}

/// Why the keys at hand do not accept a token.
enum Refusal {
    /// Whatever the keys were.
    Final(AuthError),
    /// By these keys; another set of them may.
    ByTheseKeys(AuthError),
}

impl Refusal {
    fn into_error(self) -> AuthError {
        match self {
            Self::Final(error) | Self::ByTheseKeys(error) => error,
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::Final(error)
    }
}

impl Authenticator {
    /// Reads the keys. Where they are fetched from a URL and that fails, this succeeds all the
    /// same, with no keys until a later attempt does: a node must be able to start while the issuer
    /// is away. Needs a Tokio runtime.
    ///
    /// # Errors
    /// There is no source of keys, a file cannot be read or used, or the algorithms fit no key.
    pub async fn new(settings: &AuthSettings) -> Result<Arc<Self>, KeyError> {
        Self::with_floor(settings, None).await
    }

    /// With another floor between fetches than the source's own.
    async fn with_floor(settings: &AuthSettings, floor: Option<Duration>) -> Result<Arc<Self>, KeyError> {
        let policy = Policy::new(settings);
        let allowed = Allowed::new(settings);
        let mut source = if !settings.secret.is_empty() {
            let key = VerifyingKey::from_secret(settings.secret.expose().as_bytes());
            return Self::fixed(policy, allowed, key);
        } else if let Some(path) = &settings.public_key_file {
            return Self::fixed(policy, allowed, read_pem(path).await?);
        } else if let Some(path) = &settings.jwks_file {
            Source::file(path)
        } else if let Some(url) = &settings.jwks_url {
            Source::url(url, settings.jwks_proxy.as_ref())?
        } else {
            return Err(KeyError::NoSource);
        };
        let shared = Arc::new(Shared::default());
        let good = shared.refresh(&mut source, &allowed).await;
        let at_most_every = floor.unwrap_or_else(|| source.refetch_floor());
        let pace = Pace { every: settings.jwks_refresh_ms.into(), at_most_every };
        let task = source::refresh(source, allowed.clone(), shared.clone(), pace, good);
        let refresher = AbortOnDropHandle::new(tokio::spawn(vital("token keys", task)));
        let changing = Some(Changing { presented: Mutex::default(), _refresher: refresher });
        Ok(Arc::new(Self { policy, allowed, shared, changing }))
    }

    fn fixed(policy: Policy, allowed: Allowed, key: VerifyingKey) -> Result<Arc<Self>, KeyError> {
        let shared = Arc::new(Shared::new(KeySet::of_one(key, &allowed)?));
        Ok(Arc::new(Self { policy, allowed, shared, changing: None }))
    }

    /// Who bears this token (without `Bearer `), by the keys at hand. No waiting.
    ///
    /// # Errors
    /// Why the token is refused. [`Self::verify_or_refresh`] says whether it may be accepted later.
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        self.verify_at(token, now_ms())
    }

    /// As [`Self::verify`], for doors. Where other keys might accept the token, the key set is
    /// fetched again, and waited for a few seconds. `from` is who presents the token: each address
    /// can cause few fetches.
    ///
    /// # Errors
    /// [`AuthError::KeyPending`] where other keys might accept the token and no set has been
    /// fetched since it was first presented: its bearer shall come back with it. Otherwise the
    /// refusal is final.
    pub async fn verify_or_refresh(&self, token: &str, from: IpAddr) -> Result<Identity, AuthError> {
        let Some(changing) = &self.changing else { return self.verify(token) };
        let mut attempts = self.shared.attempts();
        let deadline = tokio::time::Instant::now() + REFRESH_PATIENCE;
        loop {
            // In this order: the keys are those of that fetch, or newer ones.
            let fetched = self.shared.fetched();
            let (error, pending) = match self.look(token, now_ms()) {
                Ok(identity) => return Ok(identity),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::ByTheseKeys(AuthError::KeysUnavailable)) => (AuthError::KeysUnavailable, AuthError::KeysUnavailable),
                Err(Refusal::ByTheseKeys(error)) => (error, AuthError::KeyPending),
            };
            let now = tokio::time::Instant::now();
            {
                let mut presented = changing.presented.lock();
                let first = presented.first_at(token, now);
                if fetched.is_some_and(|fetched| fetched > first) {
                    return Err(error);
                }
                if !self.shared.is_refresh_wanted() && presented.may_ask(from, now) {
                    self.shared.want_refresh();
                }
            }
            if !matches!(tokio::time::timeout_at(deadline, attempts.changed()).await, Ok(Ok(()))) {
                return Err(pending);
            }
        }
    }

    /// How the keys are.
    pub fn health(&self) -> KeyHealth {
        KeyHealth { usable_keys: self.shared.keys().len(), last_error: self.shared.last_error() }
    }

    fn verify_at(&self, token: &str, now_ms: u64) -> Result<Identity, AuthError> {
        self.look(token, now_ms).map_err(Refusal::into_error)
    }

    fn look(&self, token: &str, now_ms: u64) -> Result<Identity, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TooLong.into());
        }
        let parts = Parts::split(token)?;
        let algorithm = parts.algorithm()?;
        let keys = self.shared.keys();
        if keys.len() == 0 {
            return Err(Refusal::ByTheseKeys(AuthError::KeysUnavailable));
        }
        // A set holds public keys only: no set to come will verify an HMAC, or what the settings do
        // not allow.
        let is_possible = self.allowed.allows(algorithm) && algorithm.family() != AlgorithmFamily::Hmac;
        let candidates = keys.candidates(parts.header.kid.as_deref(), algorithm).map_err(|why| match why {
            NoKey::Algorithm if is_possible => Refusal::ByTheseKeys(AuthError::AlgorithmNotAllowed),
            NoKey::Algorithm => Refusal::Final(AuthError::AlgorithmNotAllowed),
            NoKey::Unknown if is_possible => Refusal::ByTheseKeys(AuthError::UnknownKey),
            NoKey::Unknown => Refusal::Final(AuthError::UnknownKey),
        })?;
        let signed = |key: &&VerifyingKey| {
            jsonwebtoken::crypto::verify(parts.signature, parts.signed.as_bytes(), key.key(), algorithm).unwrap_or(false)
        };
        if !candidates.iter().any(signed) {
            // A key may be replaced by another of the same name, or by another without one.
            return Err(Refusal::ByTheseKeys(AuthError::BadSignature));
        }
        Ok(self.policy.identify(&decode(parts.payload)?, now_ms)?)
    }
}

/// The header's members that matter (RFC 7515 4.1). `jku`, `jwk`, `x5u` and their like are
/// deliberately not read.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
    zip: Option<Value>,
    b64: Option<Value>,
}

/// A token in compact form (RFC 7515 7.1).
struct Parts<'a> {
    header: Header,
    /// Header and payload as they were signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, AuthError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(AuthError::Malformed)?;
        if payload.contains('.') {
            return Err(AuthError::Malformed);
        }
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| AuthError::Malformed)?;
        Ok(Self { header, signed, payload, signature })
    }

    /// No extension is understood, so none may be critical (RFC 7515 4.1.11), and the payload is as
    /// it seems.
    fn algorithm(&self) -> Result<Algorithm, AuthError> {
        let Header { alg, crit, zip, b64, .. } = &self.header;
        if crit.is_some() || zip.is_some() || b64.is_some() {
            return Err(AuthError::UnsupportedHeader);
        }
        let known = alg.parse().map(SignatureAlgorithm::algorithm);
        known.map_err(|_| AuthError::AlgorithmNotAllowed)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, AuthError> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| AuthError::Malformed)
}

async fn read_pem(path: &Path) -> Result<VerifyingKey, KeyError> {
    let pem = tokio::fs::read(path).await;
    let pem = pem.map_err(|error| KeyError::NotReadable { path: path.into(), reason: error.to_string() })?;
    VerifyingKey::from_pem(&pem).map_err(|problem| KeyError::InvalidFile { path: path.into(), problem: problem.to_owned() })
}

fn now_ms() -> u64 {
    // A clock before 1970 makes every token valid for longer than it should be: then refuse all of
    // them as expired.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_millis() as u64)
}
