//! What a token says (RFC 7519 4), once its signature is known to be good. Pure: the time comes in.

use serde::Deserialize;
use serde_json::Value;

use super::{AuthError, Identity, Scopes};
use crate::config::AuthSettings;
use crate::mail::UserNames;

/// The end of the year 9999, in ms since 1970: later expiries are brought down to it, so that sums
/// do not overflow.
const LATEST_MS: f64 = 253_402_300_799_999.0;

/// The claims that are looked at; a claim given twice is refused (RFC 7519 4 allows it).
#[derive(Deserialize)]
struct Claims {
    sub: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    groups: Option<Value>,
    scope: Option<Value>,
}

/// What claims must be.
pub(super) struct Policy {
    issuer: Option<String>,
    audience: Option<String>,
    leeway_ms: u64,
    users: UserNames,
}

impl Policy {
    /// The policy of these settings.
    pub fn new(settings: &AuthSettings) -> Self {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Self {
            issuer: given(&settings.issuer),
            audience: given(&settings.audience),
            leeway_ms: settings.leeway_ms.0,
            users: user_names(settings),
        }
    }

    /// Who the token's bearer is, at `now_ms` (ms since 1970). Whether the token is for us is asked
    /// before whether it is current: a bearer of somebody else's token learns no more than that.
    pub fn identify(&self, payload: &[u8], now_ms: u64) -> Result<Identity, AuthError> {
        let claims: Claims = serde_json::from_slice(payload).map_err(|_| AuthError::Malformed)?;
        self.check_issuer(claims.iss.as_ref())?;
        self.check_audience(claims.aud.as_ref())?;
        let expires_at = numeric_date("exp", claims.exp.as_ref())?.ok_or(AuthError::MissingClaim("exp"))?;
        // RFC 7519 4.1.4: not on or after it.
        if now_ms >= expires_at.saturating_add(self.leeway_ms) {
            return Err(AuthError::Expired);
        }
        if numeric_date("nbf", claims.nbf.as_ref())?.is_some_and(|nbf| now_ms.saturating_add(self.leeway_ms) < nbf) {
            return Err(AuthError::NotYetValid);
        }
        let Some(sub) = claims.sub else { return Err(AuthError::MissingClaim("sub")) };
        let sub = sub.as_str().ok_or(AuthError::InvalidClaim("sub"))?;
        let user = self.users.normalise(sub).map_err(|_| AuthError::InvalidClaim("sub"))?;
        let groups = texts("groups", claims.groups.as_ref())?.into_iter().map(str::to_owned).collect();
        let scopes = texts("scope", claims.scope.as_ref())?.into_iter().map(Scopes::from_claim).collect();
        Ok(Identity { user, groups, scopes, expires_at })
    }

    fn check_issuer(&self, claim: Option<&Value>) -> Result<(), AuthError> {
        let Some(wanted) = &self.issuer else { return Ok(()) };
        let issuer = claim.ok_or(AuthError::MissingClaim("iss"))?;
        if issuer == wanted { Ok(()) } else { Err(AuthError::WrongIssuer) }
    }

    /// RFC 7519 4.1.3: a token with an audience is only for those it names; with none wanted, for
    /// nobody here.
    fn check_audience(&self, claim: Option<&Value>) -> Result<(), AuthError> {
        match (&self.audience, claim) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(AuthError::MissingClaim("aud")),
            (wanted, Some(claim)) => {
                let audiences = texts("aud", Some(claim))?;
                let ours = wanted.as_ref().is_some_and(|wanted| audiences.contains(&wanted.as_str()));
                if ours { Ok(()) } else { Err(AuthError::WrongAudience) }
            }
        }
    }
}

/// How user names are brought to their normal form, by the settings.
pub fn user_names(settings: &AuthSettings) -> UserNames {
    let domain = Some(settings.default_domain.clone()).filter(|domain| !domain.is_empty());
    UserNames { lowercase: settings.lowercase_users, default_domain: domain }
}

/// A NumericDate (RFC 7519 2: seconds, maybe with a fraction) in ms since 1970.
fn numeric_date(name: &'static str, claim: Option<&Value>) -> Result<Option<u64>, AuthError> {
    let Some(claim) = claim else { return Ok(None) };
    let seconds = claim.as_f64().filter(|seconds| *seconds >= 0.0).ok_or(AuthError::InvalidClaim(name))?;
    Ok(Some((seconds * 1000.0).min(LATEST_MS) as u64))
}

/// A text, or a list of texts; none empty or with control characters.
fn texts<'a>(name: &'static str, claim: Option<&'a Value>) -> Result<Vec<&'a str>, AuthError> {
    let texts: Option<Vec<&str>> = match claim {
        None => Some(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Some(Vec::new()),
        Some(Value::String(text)) => Some(vec![text]),
        Some(Value::Array(elements)) => elements.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    let good = |text: &&str| !text.is_empty() && !text.chars().any(char::is_control);
    texts.filter(|texts| texts.iter().all(good)).ok_or(AuthError::InvalidClaim(name))
}
