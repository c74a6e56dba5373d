//! Who is at the door: bearer tokens (JWT, RFC 7519) and the keys that verify them.
//!
//! A token is looked at in the order in which it can do least harm: length, form, algorithm, key, signature, and
//! only then what it says. RFC 8725 is followed: algorithms are bound to keys (3.1), `none` does not exist here,
//! issuer and audience are checked (3.8, 3.9), nothing in a header makes us fetch anything (3.10).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use crate::config::AuthSettings;
use crate::mail::UserName;
use claims::Policy;
use keys::{Allowed, KeySet, NoKey, VerifyingKey};
use source::{Pace, Shared, Source};

mod claims;
mod error;
mod keys;
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

/// An unknown key makes the key set be fetched again at most this often.
const REFETCH_FLOOR: Duration = Duration::from_secs(10);

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
    shared: Arc<Shared>,
    /// `None` where the keys never change.
    refresher: Option<AbortOnDropHandle<()>>,
}

impl Authenticator {
    /// Reads the keys. Where they are fetched from a URL and that fails, this succeeds all the same, with no keys
    /// until a later attempt does: a node must be able to start while the issuer is away. Needs a Tokio runtime.
    ///
    /// # Errors
    /// There is no source of keys, a file cannot be read or used, or the algorithms fit no key.
    pub async fn new(settings: &AuthSettings) -> Result<Arc<Self>, KeyError> {
        Self::with_floor(settings, REFETCH_FLOOR).await
    }

    async fn with_floor(settings: &AuthSettings, at_most_every: Duration) -> Result<Arc<Self>, KeyError> {
        let policy = Policy::new(settings);
        let allowed = Allowed::new(settings)?;
        let mut source = if !settings.secret.is_empty() {
            let key = VerifyingKey::from_secret(settings.secret.expose().as_bytes());
            return Ok(Self::fixed(policy, KeySet::of_one(key, &allowed)?));
        } else if let Some(path) = &settings.public_key_file {
            return Ok(Self::fixed(policy, KeySet::of_one(read_pem(path).await?, &allowed)?));
        } else if let Some(path) = &settings.jwks_file {
            Source::file(path)
        } else if !settings.jwks_url.is_empty() {
            Source::url(&settings.jwks_url)?
        } else {
            return Err(KeyError::NoSource);
        };
        let shared = Arc::new(Shared::default());
        let good = shared.record(source.fetch(&allowed).await);
        let pace = Pace { every: settings.jwks_refresh_ms.into(), at_most_every };
        let task = source::refresh(source, allowed, shared.clone(), pace, good);
        let refresher = AbortOnDropHandle::new(tokio::spawn(task));
        Ok(Arc::new(Self { policy, shared, refresher: Some(refresher) }))
    }

    fn fixed(policy: Policy, keys: KeySet) -> Arc<Self> {
        Arc::new(Self { policy, shared: Arc::new(Shared::new(keys)), refresher: None })
    }

    /// Who bears this token (without `Bearer `). No waiting: an unknown key only asks for a refresh.
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        self.verify_at(token, now_ms())
    }

    /// As [`Self::verify`], but where the token's key is not known waits a few seconds for a fresh key set: for
    /// doors, so that the first tokens after a rotation are not turned away.
    pub async fn verify_or_refresh(&self, token: &str) -> Result<Identity, AuthError> {
        let mut attempts = self.shared.attempts();
        let mut verdict = self.verify(token);
        let deadline = tokio::time::Instant::now() + REFRESH_PATIENCE;
        // Twice: the first attempt to end may have begun, and been answered, before the new key was published.
        for _ in 0..2 {
            let curable = matches!(verdict, Err(AuthError::UnknownKey | AuthError::KeysUnavailable));
            if !curable || self.refresher.is_none() {
                break;
            }
            // On a timeout there is no news, and the answer is the same as before.
            let _ = tokio::time::timeout_at(deadline, attempts.changed()).await;
            verdict = self.verify(token);
        }
        verdict
    }

    /// How the keys are.
    pub fn health(&self) -> KeyHealth {
        KeyHealth { usable_keys: self.shared.keys().len(), last_error: self.shared.last_error() }
    }

    fn verify_at(&self, token: &str, now_ms: u64) -> Result<Identity, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TooLong);
        }
        let parts = Parts::split(token)?;
        let algorithm = parts.algorithm()?;
        let keys = self.shared.keys();
        if keys.len() == 0 {
            self.shared.want_refresh();
            return Err(AuthError::KeysUnavailable);
        }
        let candidates = keys.candidates(parts.header.kid.as_deref(), algorithm).map_err(|why| match why {
            NoKey::Algorithm => AuthError::AlgorithmNotAllowed,
            NoKey::Unknown => {
                self.shared.want_refresh();
                AuthError::UnknownKey
            }
        })?;
        let signed = |key: &&VerifyingKey| {
            jsonwebtoken::crypto::verify(parts.signature, parts.signed.as_bytes(), key.key(), algorithm).unwrap_or(false)
        };
        if !candidates.iter().any(signed) {
            return Err(AuthError::BadSignature);
        }
        self.policy.identify(&decode(parts.payload)?, now_ms)
    }
}

/// The header's members that matter (RFC 7515 4.1). `jku`, `jwk`, `x5u` and their like are deliberately not read.
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

    /// No extension is understood, so none may be critical (RFC 7515 4.1.11), and the payload is as it seems.
    fn algorithm(&self) -> Result<Algorithm, AuthError> {
        let Header { alg, crit, zip, b64, .. } = &self.header;
        if crit.is_some() || zip.is_some() || b64.is_some() {
            return Err(AuthError::UnsupportedHeader);
        }
        alg.parse().map_err(|_| AuthError::AlgorithmNotAllowed)
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
    // A clock before 1970 makes every token valid for longer than it should be: then refuse all of them as expired.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_millis() as u64)
}
