//! Every way in which a token can be refused, and what is accepted.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::test_keys::{TestKey, jwks, request};
use super::token::{IssueError, TokenRequest, issue};
use super::*;
use crate::config::{Millis, Secret};

const SECRET: &str = "a secret of more than sixty-four bytes, so that it is good for HS512 too";
/// The time at which tests look, in ms since 1970.
const NOW: u64 = 1_800_000_000_000;

fn settings() -> AuthSettings {
    AuthSettings { secret: Secret::new(SECRET), issuer: "https://issuer".into(), ..AuthSettings::default() }
}

async fn with(settings: AuthSettings) -> Arc<Authenticator> {
    Authenticator::new(&settings).await.unwrap()
}

fn good() -> Value {
    json!({"sub": "Alice", "iss": "https://issuer", "aud": "mailpush", "exp": NOW / 1000 + 60, "scope": "push"})
}

/// The good claims with `changes`; a change to null takes the claim away.
fn claims(changes: Value) -> Value {
    let mut claims = good();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn hs256(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A token with any header, signed with HS256 and the secret whatever the header says.
fn raw(header: &str, claims: &Value) -> String {
    let signed =
        format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn a_good_token_tells_who_its_bearer_is() {
    let claims = claims(json!({"groups": ["staff", "list"], "scope": "openid push sessions:write", "nbf": NOW / 1000}));
    let identity = with(settings()).await.verify_at(&hs256(&claims), NOW).unwrap();
    assert_eq!(identity.user.as_str(), "alice");
    assert_eq!(identity.groups, ["staff", "list"]);
    assert_eq!(identity.scopes, Scopes::PUSH.with(Scopes::SESSIONS_WRITE));
    assert_eq!(identity.expires_at, NOW + 60_000);
}

#[tokio::test]
async fn claims_come_in_several_shapes() {
    let auth = with(AuthSettings { default_domain: "example.org".into(), ..settings() }).await;
    let odd = json!({"aud": ["other", "mailpush"], "scope": ["push", "events:publish"], "groups": "staff", "exp": NOW as f64 / 1000.0 + 0.5});
    let identity = auth.verify_at(&hs256(&claims(odd)), NOW).unwrap();
    assert_eq!(identity.scopes, Scopes::PUSH.with(Scopes::EVENTS_PUBLISH));
    assert_eq!((identity.groups[0].as_str(), identity.user.as_str()), ("staff", "alice@example.org"));
    assert_eq!(identity.expires_at, NOW + 500);
    let least = auth.verify_at(&hs256(&claims(json!({"scope": null, "exp": 1e300}))), NOW).unwrap();
    assert_eq!((least.scopes, least.expires_at), (Scopes::NONE, 253_402_300_799_999));
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() {
    let auth = with(settings()).await;
    let leeway = 5;
    let now = NOW / 1000;
    let cases = [
        (json!({"exp": now - leeway}), AuthError::Expired),
        (json!({"exp": null}), AuthError::MissingClaim("exp")),
        (json!({"exp": "soon"}), AuthError::InvalidClaim("exp")),
        (json!({"exp": -1}), AuthError::InvalidClaim("exp")),
        (json!({"nbf": now + leeway + 1}), AuthError::NotYetValid),
        (json!({"nbf": []}), AuthError::InvalidClaim("nbf")),
        (json!({"iss": "https://other"}), AuthError::WrongIssuer),
        (json!({"iss": ["https://issuer"]}), AuthError::WrongIssuer),
        (json!({"iss": null}), AuthError::MissingClaim("iss")),
        (json!({"aud": "other"}), AuthError::WrongAudience),
        (json!({"aud": []}), AuthError::WrongAudience),
        (json!({"aud": null}), AuthError::MissingClaim("aud")),
        (json!({"aud": 1}), AuthError::InvalidClaim("aud")),
        (json!({"sub": null}), AuthError::MissingClaim("sub")),
        (json!({"sub": ""}), AuthError::InvalidClaim("sub")),
        (json!({"sub": "a:b"}), AuthError::InvalidClaim("sub")),
        (json!({"sub": " alice"}), AuthError::InvalidClaim("sub")),
        (json!({"sub": "alice\u{2003}"}), AuthError::InvalidClaim("sub")),
        (json!({"sub": 7}), AuthError::InvalidClaim("sub")),
        (json!({"groups": [1]}), AuthError::InvalidClaim("groups")),
        (json!({"groups": ["a\nb"]}), AuthError::InvalidClaim("groups")),
        (json!({"scope": 1}), AuthError::InvalidClaim("scope")),
    ];
    for (changes, expected) in cases {
        assert_eq!(auth.verify_at(&hs256(&claims(changes.clone())), NOW), Err(expected), "{changes}");
    }
    for within_leeway in [json!({"exp": now - leeway + 1}), json!({"nbf": now + leeway})] {
        assert!(auth.verify_at(&hs256(&claims(within_leeway.clone())), NOW).is_ok(), "{within_leeway}");
    }
    let twice = hs256_text(r#"{"sub":"a","sub":"b","iss":"https://issuer","aud":"mailpush","exp":9999999999}"#);
    assert_eq!(auth.verify_at(&twice, NOW), Err(AuthError::Malformed));
}

fn hs256_text(claims: &str) -> String {
    let signed = format!("{}.{}", BASE64URL_NOPAD.encode(br#"{"alg":"HS256"}"#), BASE64URL_NOPAD.encode(claims.as_bytes()));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap())
}

/// RFC 7519 4.1.3: a token for somebody else is refused by whoever does not know who they are.
#[tokio::test]
async fn without_an_audience_of_our_own_no_other_is_accepted() {
    let auth = with(AuthSettings { audience: String::new(), ..settings() }).await;
    assert_eq!(auth.verify_at(&hs256(&good()), NOW), Err(AuthError::WrongAudience));
    assert!(auth.verify_at(&hs256(&claims(json!({"aud": null}))), NOW).is_ok());
}

#[tokio::test]
async fn forms_that_are_not_ours_are_refused() {
    let auth = with(settings()).await;
    let refusal = |token: &str| auth.verify_at(token, NOW).unwrap_err();
    let none = raw(r#"{"alg":"none"}"#, &good());
    assert_eq!(refusal(&none), AuthError::AlgorithmNotAllowed);
    let unsigned = none.rsplit_once('.').unwrap().0.to_owned() + ".";
    assert_eq!(refusal(&unsigned), AuthError::AlgorithmNotAllowed);
    for alg in ["NONE", "None", "HS256 ", "ES512", "dir", ""] {
        assert_eq!(refusal(&raw(&json!({"alg": alg}).to_string(), &good())), AuthError::AlgorithmNotAllowed, "{alg}");
    }
    assert_eq!(refusal(&raw(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, &good())), AuthError::UnsupportedHeader);
    assert_eq!(refusal(&raw(r#"{"alg":"HS256","zip":"DEF"}"#, &good())), AuthError::UnsupportedHeader);
    assert_eq!(refusal(&raw(r#"{"alg":"HS256","b64":false}"#, &good())), AuthError::UnsupportedHeader);
    // The header's own key is never used (RFC 8725 3.10), and does no harm.
    assert!(auth.verify_at(&raw(r#"{"alg":"HS256","jku":"http://evil/","jwk":{"kty":"oct","k":"AA"}}"#, &good()), NOW).is_ok());
    for malformed in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d.e", "\u{0}", &hs256(&good()).replace('.', "")] {
        assert_eq!(refusal(malformed), AuthError::Malformed, "{malformed:?}");
    }
    assert_eq!(refusal(&raw(r#"{"typ":"JWT"}"#, &good())), AuthError::Malformed);
    assert_eq!(refusal(&raw(r#"["HS256"]"#, &good())), AuthError::Malformed);
    let long = hs256(&claims(json!({"x": "y".repeat(MAX_TOKEN_BYTES)})));
    assert_eq!(refusal(&long), AuthError::TooLong);
    let token = hs256(&good());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    assert!(matches!(refusal(&other), AuthError::BadSignature), "{:?}", refusal(&other));
    assert_eq!(refusal(&format!("{signed}.")), AuthError::BadSignature);
    assert_eq!(refusal(&format!("{signed}.!!")), AuthError::BadSignature);
    let other_claims = hs256(&claims(json!({"sub": "bob"})));
    let swapped = format!("{}.{}", other_claims.rsplit_once('.').unwrap().0, signature);
    assert_eq!(refusal(&swapped), AuthError::BadSignature);
}

/// RFC 9864 2.2: `Ed25519` is what `EdDSA` is with the one curve that is known here; in a token, a
/// key and the list.
#[tokio::test]
async fn ed25519_has_two_names() {
    let folder = tempfile::tempdir().unwrap();
    let key = TestKey::ed25519();
    let by_its_other_name = |kid: Option<&str>| {
        let token = key.token(folder.path(), kid);
        let payload = token.split('.').nth(1).unwrap();
        let header = json!({"alg": "Ed25519", "kid": kid}).to_string();
        let signed = format!("{}.{payload}", BASE64URL_NOPAD.encode(header.as_bytes()));
        let private = EncodingKey::from_ed_pem(key.private_pem.as_bytes()).unwrap();
        format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &private, Algorithm::EdDSA).unwrap())
    };
    let auth = with(key.verifier(folder.path())).await;
    assert_eq!(auth.verify(&by_its_other_name(None)).unwrap().user.as_str(), "alice");
    for (name, list) in [("EdDSA", "Ed25519"), ("Ed25519", "EdDSA"), ("Ed25519", "Ed25519")] {
        let mut jwk = key.jwk("a");
        jwk["alg"] = name.into();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, jwks(&[jwk])).unwrap();
        let list = vec![list.parse().unwrap()];
        let auth = with(AuthSettings { jwks_file: Some(path), algorithms: list, ..AuthSettings::default() }).await;
        assert!(auth.verify(&by_its_other_name(Some("a"))).is_ok() && auth.verify(&key.token(folder.path(), Some("a"))).is_ok());
    }
    let auth = with(TestKey::es256().verifier(folder.path())).await;
    assert_eq!(auth.verify(&by_its_other_name(None)), Err(AuthError::AlgorithmNotAllowed));
}

#[tokio::test]
async fn the_list_of_algorithms_binds() {
    let only =
        |names: &[&str]| AuthSettings { algorithms: names.iter().map(|name| name.parse().unwrap()).collect(), ..settings() };
    let token =
        |algorithm| jsonwebtoken::encode(&Header::new(algorithm), &good(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    let auth = with(only(&["HS512"])).await;
    assert_eq!(auth.verify_at(&token(Algorithm::HS256), NOW), Err(AuthError::AlgorithmNotAllowed));
    assert!(auth.verify_at(&token(Algorithm::HS512), NOW).is_ok());
    let refused = |settings| async move { Authenticator::new(&settings).await.err().unwrap() };
    assert!(matches!(refused(only(&["ES256"])).await, KeyError::NoFittingAlgorithm));
    assert!(matches!(refused(AuthSettings::default()).await, KeyError::NoSource));
    // Too short for HS384: not used with it (RFC 7518 3.2), though HS256 is fine.
    let short = AuthSettings { secret: Secret::new(&SECRET[..40]), algorithms: vec!["HS384".parse().unwrap()], ..settings() };
    assert!(matches!(refused(short).await, KeyError::NoFittingAlgorithm));
}

#[tokio::test]
async fn each_kind_of_key_verifies_its_own_tokens_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let made = [TestKey::es256(), TestKey::es384(), TestKey::ed25519()];
    let others = [TestKey::es256(), TestKey::es384(), TestKey::ed25519()];
    let keys: Vec<_> = made.iter().chain([TestKey::rsa()]).collect();
    for key in &keys {
        let auth = with(key.verifier(folder.path())).await;
        let verdict = auth.verify(&key.token(folder.path(), Some("any name")));
        assert_eq!(verdict.unwrap().user.as_str(), "alice", "{:?}", key.algorithm);
        for other in keys.iter().filter(|other| other.algorithm != key.algorithm) {
            let refusal = auth.verify(&other.token(folder.path(), None));
            assert_eq!(refusal, Err(AuthError::AlgorithmNotAllowed), "{:?} by {:?}", other.algorithm, key.algorithm);
        }
    }
    for (key, other) in made.iter().zip(&others) {
        let auth = with(key.verifier(folder.path())).await;
        assert_eq!(auth.verify(&other.token(folder.path(), None)), Err(AuthError::BadSignature), "{:?}", key.algorithm);
    }
}

/// RFC 8725 2.1: the public key, known to all, is no HMAC secret.
#[tokio::test]
async fn a_public_key_is_not_taken_for_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    for key in [TestKey::rsa(), &TestKey::es256(), &TestKey::ed25519()] {
        let auth = with(AuthSettings { issuer: "https://issuer".into(), ..key.verifier(folder.path()) }).await;
        let der = data_encoding::BASE64.decode(key.public_pem.lines().nth(1).unwrap().as_bytes()).unwrap();
        for secret in [key.public_pem.as_bytes(), key.public_pem.trim().as_bytes(), &der] {
            let forged =
                jsonwebtoken::encode(&Header::new(Algorithm::HS256), &good(), &EncodingKey::from_secret(secret)).unwrap();
            assert_eq!(auth.verify_at(&forged, NOW), Err(AuthError::AlgorithmNotAllowed));
        }
    }
}

#[tokio::test]
async fn files_that_are_not_public_keys_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &'static str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        async move { Authenticator::new(&AuthSettings { public_key_file: Some(path), ..Default::default() }).await.err().unwrap() }
    };
    let private = refused("private.pem", TestKey::es256().private_pem).await.to_string();
    assert!(private.contains("private.pem holds a private key"), "{private}");
    assert!(refused("text", "hello".into()).await.to_string().contains("is not PEM"));
    let broken = refused("broken", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into()).await;
    assert!(broken.to_string().contains("holds no key that can be used"));
    let absent = AuthSettings { public_key_file: Some("/nowhere.pem".into()), ..Default::default() };
    assert!(Authenticator::new(&absent).await.err().unwrap().to_string().starts_with("cannot read /nowhere.pem"));
}

/// A certificate counts for the key it holds.
#[test]
fn certificates_are_read_as_the_keys_they_hold() {
    let pairs = [
        (include_str!("testdata/ec-certificate.pem"), include_str!("testdata/ec-public.pem")),
        (include_str!("testdata/ed-certificate.pem"), include_str!("testdata/ed-public.pem")),
        (include_str!("testdata/rsa-certificate.pem"), include_str!("testdata/rsa-public.pem")),
    ];
    for (certificate, public) in pairs {
        let [of_certificate, of_public] = [certificate, public].map(|pem| VerifyingKey::from_pem(pem.as_bytes()).unwrap());
        assert_eq!(of_certificate.key().try_get_as_bytes().unwrap(), of_public.key().try_get_as_bytes().unwrap());
    }
    let refusal = |pem: &str| VerifyingKey::from_pem(pem.as_bytes()).err().unwrap();
    assert!(refusal(include_str!("testdata/rsa-1024-public.pem")).contains("fewer than 2048 bits"));
    assert!(refusal(include_str!("testdata/p521-public.pem")).contains("another curve"));
}

#[test]
fn key_sets_pass_over_what_they_cannot_use() {
    let key = TestKey::es256();
    let mut for_encryption = key.jwk("b");
    for_encryption["use"] = "enc".into();
    let mut mislabelled = key.jwk("c");
    mislabelled["alg"] = "HS256".into();
    let symmetric = json!({"kty": "oct", "k": BASE64URL_NOPAD.encode(SECRET.as_bytes()), "kid": "d"});
    let small = json!({"kty": "RSA", "n": BASE64URL_NOPAD.encode(&[255; 128]), "e": "AQAB", "kid": "e"});
    let odd = json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "f"});
    let all = Allowed::new(&AuthSettings::default());
    let unusable = [for_encryption, mislabelled, symmetric, small, odd, json!("x"), json!({})];
    assert!(KeySet::from_jwks(jwks(&unusable).as_bytes(), &all).is_err());
    let mut keys = unusable.to_vec();
    keys.push(key.jwk("a"));
    assert_eq!(KeySet::from_jwks(jwks(&keys).as_bytes(), &all).unwrap().len(), 1);
    let only = Allowed::new(&AuthSettings { algorithms: vec!["EdDSA".parse().unwrap()], ..Default::default() });
    assert!(KeySet::from_jwks(jwks(&keys).as_bytes(), &only).is_err());
    assert!(KeySet::from_jwks(b"{}", &all).is_err() && KeySet::from_jwks(b"", &all).is_err());
}

#[tokio::test]
async fn issued_tokens_are_accepted() {
    let settings = AuthSettings { algorithms: vec!["HS512".parse().unwrap()], ..settings() };
    let token = issue(&settings, &request(), NOW).unwrap();
    let identity = with(settings.clone()).await.verify_at(&token, NOW).unwrap();
    assert_eq!((identity.user.as_str(), identity.expires_at), ("alice", NOW + 900_000));
    assert_eq!(identity.groups, ["staff"]);
    let refused = |request: TokenRequest| issue(&settings, &request, NOW).unwrap_err();
    assert!(matches!(refused(TokenRequest { user: "a:b".into(), ..request() }), IssueError::User(_)));
    assert!(matches!(refused(TokenRequest { ttl: Duration::from_millis(999), ..request() }), IssueError::Lifetime));
    assert!(matches!(issue(&AuthSettings::default(), &request(), NOW), Err(IssueError::NoKey)));
}

#[test]
fn nothing_secret_is_printed() {
    let printed = format!("{:?}", AuthSettings { leeway_ms: Millis(1), ..settings() });
    assert!(!printed.contains("sixty-four"), "{printed}");
    let error = issue(&AuthSettings { algorithms: vec!["ES256".parse().unwrap()], ..settings() }, &request(), NOW).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("sixty-four"));
}
