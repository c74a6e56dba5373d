//! Keys that verify tokens, each with the algorithms it may be used with (RFC 8725 3.1). Pure:
//! bytes come in.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::KeyError;
use crate::config::{AuthSettings, SignatureAlgorithm};

/// Keys tried for a token that names none: each costs a signature check.
const MAX_TRIED: usize = 8;

/// The least RSA modulus, in bytes: 2048 bits (RFC 7518 3.3).
const LEAST_RSA_BYTES: usize = 256;

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// A key and what it is good for.
pub(super) struct VerifyingKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// The key itself.
    pub fn key(&self) -> &DecodingKey {
        &self.key
    }

    /// A shared secret: of HMAC's hashes, those it is long enough for (RFC 7518 3.2).
    pub fn from_secret(secret: &[u8]) -> Self {
        let sizes = [(Algorithm::HS256, 0), (Algorithm::HS384, 48), (Algorithm::HS512, 64)];
        let algorithms = sizes.into_iter().filter(|(_, least)| secret.len() >= *least).map(|(name, _)| name).collect();
        Self { id: None, algorithms, key: DecodingKey::from_secret(secret) }
    }

    /// A public key (SubjectPublicKeyInfo, or PKCS #1 of RSA) or certificate in PEM. On error, what
    /// is wrong with it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(pem).map_err(|_| "is not PEM")?;
        let label = text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----"));
        match label.ok_or("is not PEM")?.0 {
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" => {}
            label if label.contains("PRIVATE KEY") => {
                return Err("holds a private key: gateways get the public one (openssl pkey -pubout)");
            }
            _ => return Err("holds neither a public key nor a certificate"),
        }
        let bytes = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
        let (key, algorithms) = if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            // An uncompressed point: a byte, then two coordinates.
            let algorithm = match bytes(&key) {
                65 => Algorithm::ES256,
                97 => Algorithm::ES384,
                _ => return Err("holds a key on another curve than P-256 and P-384"),
            };
            (key, vec![algorithm])
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            if bytes(&key) != 32 {
                return Err("holds a key that is not Ed25519");
            }
            (key, vec![Algorithm::EdDSA])
        } else if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            // The modulus and little else.
            if bytes(&key) < LEAST_RSA_BYTES {
                return Err("holds an RSA key of fewer than 2048 bits");
            }
            (key, RSA.to_vec())
        } else {
            return Err("holds no key that can be used: RSA, P-256, P-384 and Ed25519 can");
        };
        Ok(Self { id: None, algorithms, key })
    }

    /// A public key of a set (RFC 7517 4); `None` for what cannot verify signatures here, which
    /// sets may well hold.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        // Symmetric keys have no place in a set that is handed around.
        let for_verifying = jwk.public_key_use.as_deref().is_none_or(|name| name == "sig")
            && jwk.key_ops.as_ref().is_none_or(|names| names.iter().any(|name| name == "verify"));
        let length = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).ok().map(|bytes| bytes.len());
        let point = |x: &str, y: &str, size| length(x) == Some(size) && length(y) == Some(size);
        let (key, mut algorithms) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (jwk.n.as_deref()?, jwk.e.as_deref()?);
                let key = DecodingKey::from_rsa_components(n, e).ok().filter(|_| length(n) >= Some(LEAST_RSA_BYTES))?;
                (key, RSA.to_vec())
            }
            ("EC", Some(curve)) => {
                let (x, y) = (jwk.x.as_deref()?, jwk.y.as_deref()?);
                let algorithm = match curve {
                    "P-256" if point(x, y, 32) => Algorithm::ES256,
                    "P-384" if point(x, y, 48) => Algorithm::ES384,
                    _ => return None,
                };
                (DecodingKey::from_ec_components(x, y).ok()?, vec![algorithm])
            }
            ("OKP", Some("Ed25519")) => {
                let x = jwk.x.as_deref().filter(|x| length(x) == Some(32))?;
                (DecodingKey::from_ed_components(x).ok()?, vec![Algorithm::EdDSA])
            }
            _ => return None,
        };
        if let Some(only) = &jwk.alg {
            let only = only.parse().map(SignatureAlgorithm::algorithm);
            algorithms.retain(|algorithm| only == Ok(*algorithm));
        }
        (for_verifying && !algorithms.is_empty()).then(|| Self { id: jwk.kid.clone(), algorithms, key })
    }
}

/// The members of a JSON Web Key that matter here (RFC 7517 4, RFC 7518 6, RFC 8037 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    public_key_use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Which algorithms the settings allow: a list, or whatever fits the key.
#[derive(Clone)]
pub(super) struct Allowed(Option<Vec<Algorithm>>);

impl Allowed {
    pub fn new(settings: &AuthSettings) -> Self {
        let list: Vec<Algorithm> = settings.algorithms.iter().map(|name| name.algorithm()).collect();
        Self(Some(list).filter(|list| !list.is_empty()))
    }

    /// Whether a token may be signed so.
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.0.as_ref().is_none_or(|list| list.contains(&algorithm))
    }
}

/// The keys in use at one moment.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<VerifyingKey>,
    /// Whether tokens choose among the keys by name; a lone key is meant whatever a token calls it.
    named: bool,
}

/// Why no key of a set fits a token.
pub(super) enum NoKey {
    Algorithm,
    Unknown,
}

impl KeySet {
    /// One key from a secret or a PEM file. Fails where the settings allow none of its algorithms.
    pub fn of_one(mut key: VerifyingKey, allowed: &Allowed) -> Result<Self, KeyError> {
        key.algorithms.retain(|algorithm| allowed.allows(*algorithm));
        if key.algorithms.is_empty() {
            return Err(KeyError::NoFittingAlgorithm);
        }
        Ok(Self { keys: vec![key], named: false })
    }

    /// A JSON Web Key Set. Keys that cannot be used are passed over (RFC 7517 5), but not all of
    /// them may be.
    pub fn from_jwks(json: &[u8], allowed: &Allowed) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<Value>,
        }
        let set: Jwks = serde_json::from_slice(json).map_err(|_| "is not a JSON Web Key Set")?;
        let mut keys: Vec<_> =
            set.keys.into_iter().filter_map(|key| VerifyingKey::from_jwk(&serde_json::from_value(key).ok()?)).collect();
        for key in &mut keys {
            key.algorithms.retain(|algorithm| allowed.allows(*algorithm));
        }
        keys.retain(|key| !key.algorithms.is_empty());
        if keys.is_empty() {
            return Err("holds no public key that can be used");
        }
        Ok(Self { keys, named: true })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys that may have signed a token with this header, at least one.
    pub fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<&VerifyingKey>, NoKey> {
        let called = |key: &&VerifyingKey| key.id.as_deref() == id;
        // A key without a name could be the one meant.
        let unnamed = |key: &&VerifyingKey| key.id.is_none();
        let mut keys: Vec<_> = match id {
            Some(_) if self.named => self.keys.iter().filter(called).collect(),
            _ => self.keys.iter().collect(),
        };
        if keys.is_empty() {
            keys = self.keys.iter().filter(unnamed).collect();
        }
        if keys.is_empty() {
            return Err(NoKey::Unknown);
        }
        keys.retain(|key| key.algorithms.contains(&algorithm));
        keys.truncate(MAX_TRIED);
        if keys.is_empty() { Err(NoKey::Algorithm) } else { Ok(keys) }
    }
}
