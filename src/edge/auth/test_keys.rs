//! Key pairs made anew for each test run, so that no private key lies in the repository.

use std::path::Path;
use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair};
use data_encoding::BASE64;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::Scopes;
use super::token::{TokenRequest, issue};
use crate::config::AuthSettings;

/// A key pair in PEM.
pub struct TestKey {
    pub algorithm: Algorithm,
    pub private_pem: String,
    pub public_pem: String,
}

impl TestKey {
    fn new(algorithm: Algorithm, private: &[u8], public: &[u8]) -> Self {
        Self { algorithm, private_pem: pem("PRIVATE KEY", private), public_pem: pem("PUBLIC KEY", public) }
    }

    pub fn es256() -> Self {
        Self::ecdsa(Algorithm::ES256, &signature::ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    pub fn es384() -> Self {
        Self::ecdsa(Algorithm::ES384, &signature::ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    fn ecdsa(algorithm: Algorithm, curve: &'static EcdsaSigningAlgorithm) -> Self {
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        Self::new(algorithm, pair.to_pkcs8v1().unwrap().as_ref(), public.as_ref())
    }

    pub fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private: Pkcs8V1Der = pair.as_der().unwrap();
        let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        Self::new(Algorithm::EdDSA, private.as_ref(), public.as_ref())
    }

    /// The same one for all tests: making it takes a while.
    pub fn rsa() -> &'static Self {
        static KEY: OnceLock<TestKey> = OnceLock::new();
        KEY.get_or_init(|| {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let private: Pkcs8V1Der = pair.as_der().unwrap();
            let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
            Self::new(Algorithm::RS256, private.as_ref(), public.as_ref())
        })
    }

    /// The public key as a JSON Web Key.
    pub fn jwk(&self, kid: &str) -> Value {
        let pem = self.private_pem.as_bytes();
        let key =
            EncodingKey::from_ec_pem(pem).or_else(|_| EncodingKey::from_ed_pem(pem)).or_else(|_| EncodingKey::from_rsa_pem(pem));
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key.unwrap(), self.algorithm).unwrap()).unwrap();
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// Settings to sign with this key; its file is written into `folder`.
    pub fn signer(&self, folder: &Path) -> AuthSettings {
        let path = folder.join(format!("{}.pem", uuid::Uuid::new_v4()));
        std::fs::write(&path, &self.private_pem).unwrap();
        AuthSettings { private_key_file: Some(path), ..AuthSettings::default() }
    }

    /// Settings to verify with this key; its file is written into `folder`.
    pub fn verifier(&self, folder: &Path) -> AuthSettings {
        let path = folder.join(format!("{}.pem", uuid::Uuid::new_v4()));
        std::fs::write(&path, &self.public_pem).unwrap();
        AuthSettings { public_key_file: Some(path), ..AuthSettings::default() }
    }

    /// A token of alice's, by this key.
    pub fn token(&self, folder: &Path, kid: Option<&str>) -> String {
        let request = TokenRequest { key_id: kid.map(str::to_owned), ..request() };
        issue(&self.signer(folder), &request, super::now_ms()).unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

/// A key set of these keys.
pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// For a quarter of an hour, alice.
pub fn request() -> TokenRequest {
    TokenRequest {
        user: "Alice".to_owned(),
        groups: vec!["staff".to_owned()],
        scopes: Scopes::PUSH,
        ttl: std::time::Duration::from_secs(900),
        key_id: None,
    }
}
