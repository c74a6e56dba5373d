//! Making tokens: for `mailpush token`, `mailpush dev` and tests. Production tokens come from the
//! mail system's own issuer, which has the private key; a gateway has not.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey};
use serde::Serialize;

use super::keys::Allowed;
use super::{KeyError, Scopes, user_names};
use crate::config::AuthSettings;
use crate::mail::user::InvalidUser;

/// What a new token is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Normalised before it becomes `sub`.
    pub user: String,
    pub groups: Vec<String>,
    pub scopes: Scopes,
    /// How long it is valid, from now; fractions of a second are dropped.
    pub ttl: Duration,
    /// The header's `kid`, which a key set needs.
    pub key_id: Option<String>,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("{0}")]
    User(#[from] InvalidUser),
    #[error("the token's lifetime must be at least one second")]
    Lifetime,
    #[error("there is no key to sign with: set auth.secret or auth.private_key_file")]
    NoKey,
    #[error("{0}")]
    Key(#[from] KeyError),
    /// No algorithm that the settings allow fits the key.
    #[error("the key signs with none of the allowed algorithms")]
    NoFittingAlgorithm,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    iss: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    aud: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    scope: Scopes,
}

/// Signs a token that an [`super::Authenticator`] with these settings accepts (given the matching
/// public key), valid from `now_ms` (ms since 1970). Reads `auth.private_key_file` where there is
/// no `auth.secret`.
pub fn issue(settings: &AuthSettings, request: &TokenRequest, now_ms: u64) -> Result<String, IssueError> {
    let user = user_names(settings).normalise(&request.user)?;
    if request.ttl.as_secs() == 0 {
        return Err(IssueError::Lifetime);
    }
    let iat = now_ms / 1000;
    let claims = Claims {
        sub: user.as_str(),
        iat,
        exp: iat.saturating_add(request.ttl.as_secs()),
        iss: &settings.issuer,
        aud: &settings.audience,
        groups: &request.groups,
        scope: request.scopes,
    };
    let (key, fitting) = signing_key(settings)?;
    let allowed = Allowed::new(settings);
    // A private key on P-384 does not sign with ES256 and the other way round: the first that does is its own.
    let mut tried = fitting.into_iter().filter(|algorithm| allowed.allows(*algorithm)).map(|algorithm| {
        let mut header = jsonwebtoken::Header::new(algorithm);
        header.kid = request.key_id.clone();
        jsonwebtoken::encode(&header, &claims, &key)
    });
    tried.find_map(Result::ok).ok_or(IssueError::NoFittingAlgorithm)
}

/// The key to sign with and the algorithms that may fit it, the usual one first.
fn signing_key(settings: &AuthSettings) -> Result<(EncodingKey, Vec<Algorithm>), IssueError> {
    if !settings.secret.is_empty() {
        let key = EncodingKey::from_secret(settings.secret.expose().as_bytes());
        return Ok((key, vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]));
    }
    let path = settings.private_key_file.as_ref().ok_or(IssueError::NoKey)?;
    let pem = std::fs::read(path);
    let pem = pem.map_err(|error| KeyError::NotReadable { path: path.clone(), reason: error.to_string() })?;
    if let Ok(key) = EncodingKey::from_ec_pem(&pem) {
        return Ok((key, vec![Algorithm::ES256, Algorithm::ES384]));
    }
    if let Ok(key) = EncodingKey::from_ed_pem(&pem) {
        return Ok((key, vec![Algorithm::EdDSA]));
    }
    if let Ok(key) = EncodingKey::from_rsa_pem(&pem) {
        let algorithms = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
        return Ok((key, [algorithms, [Algorithm::PS256, Algorithm::PS384, Algorithm::PS512]].concat()));
    }
    let problem = "holds no private key in PKCS #8 (openssl pkcs8 -topk8 -nocrypt makes it so)".to_owned();
    Err(KeyError::InvalidFile { path: path.clone(), problem }.into())
}
