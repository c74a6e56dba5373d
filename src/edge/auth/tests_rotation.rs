//! Keys that change while we run: an issuer on loopback, and a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use issuer::{Answer, Issuer};

use super::test_keys::{TestKey, jwks, request};
use super::token::{TokenRequest, issue};
use super::*;
use crate::config::Millis;

/// A tiny issuer, whose answer tests set.
mod issuer {
    use super::*;
    use crate::lock::Mutex;
    use axum::http::StatusCode;

    pub type Answer = (StatusCode, String);

    pub struct Issuer {
        pub url: String,
        pub asked: Arc<AtomicUsize>,
        answer: Arc<Mutex<Answer>>,
    }

    impl Issuer {
        pub async fn start(answer: Answer) -> Self {
            let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
            let (served, counted) = (answer.clone(), asked.clone());
            let keys = axum::routing::get(move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
                served.lock().clone()
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/keys", listener.local_addr().unwrap());
            let moved = axum::routing::get(|| async { axum::response::Redirect::temporary("/keys") });
            let router = axum::Router::new().route("/keys", keys).route("/moved", moved);
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self { url, asked, answer }
        }

        pub fn answer(&self, answer: Answer) {
            *self.answer.lock() = answer;
        }
    }
}

fn ok(body: String) -> Answer {
    (axum::http::StatusCode::OK, body)
}

fn unwell() -> Answer {
    (axum::http::StatusCode::BAD_GATEWAY, String::new())
}

async fn at(url: &str, every: u64, at_most_every: u64) -> Arc<Authenticator> {
    let settings =
        AuthSettings { jwks_url: Some(url.parse().unwrap()), jwks_refresh_ms: Millis(every), ..AuthSettings::default() };
    Authenticator::with_floor(&settings, Some(Duration::from_millis(at_most_every))).await.unwrap()
}

/// Where tokens are presented from.
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Waits until `condition` holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen within 5 seconds");
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (TestKey::es256(), TestKey::ed25519());
    let (by_old, by_new) = (old.token(folder.path(), Some("old")), new.token(folder.path(), Some("new")));
    let issuer = Issuer::start(ok(jwks(&[old.jwk("old")]))).await;
    let auth = at(&issuer.url, 3_600_000, 20).await;
    assert!(auth.verify(&by_old).is_ok());
    assert_eq!(auth.verify(&by_new), Err(AuthError::UnknownKey));
    issuer.answer(ok(jwks(&[old.jwk("old"), new.jwk("new")])));
    assert!(auth.verify_or_refresh(&by_new, HERE).await.is_ok());
    assert!(auth.verify(&by_old).is_ok(), "the old key is in the new set");
    issuer.answer(ok(jwks(&[new.jwk("new")])));
    auth.shared.want_refresh();
    eventually("the old key is withdrawn", || auth.verify(&by_old) == Err(AuthError::UnknownKey)).await;
    assert!(auth.verify(&by_new).is_ok());
    assert!(auth.verify(&new.token(folder.path(), None)).is_ok(), "a token may leave the name away");
    let renamed = TestKey::es256().token(folder.path(), Some("new"));
    assert_eq!(auth.verify(&renamed), Err(AuthError::AlgorithmNotAllowed));
}

#[tokio::test]
async fn the_timer_fetches_too_and_failures_keep_the_last_good_set() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (TestKey::es256(), TestKey::es256());
    let token = old.token(folder.path(), Some("old"));
    let issuer = Issuer::start(ok(jwks(&[old.jwk("old")]))).await;
    let auth = at(&issuer.url, 20, 20).await;
    for bad in [unwell(), ok("not json".into()), ok(jwks(&[])), ok("x".repeat(600 * 1024))] {
        issuer.answer(bad);
        eventually("a failure", || auth.health().last_error.is_some()).await;
        assert!(auth.verify(&token).is_ok());
        assert_eq!(auth.health().usable_keys, 1);
        issuer.answer(ok(jwks(&[old.jwk("old")])));
        eventually("a recovery", || auth.health().last_error.is_none()).await;
    }
    issuer.answer(ok(jwks(&[new.jwk("new")])));
    eventually("the rotation", || auth.verify(&token) == Err(AuthError::UnknownKey)).await;
}

#[tokio::test]
async fn a_node_starts_while_the_issuer_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let key = TestKey::es256();
    let token = key.token(folder.path(), Some("a"));
    let issuer = Issuer::start(unwell()).await;
    let auth = at(&issuer.url, 3_600_000, 20).await;
    let refusal = auth.verify(&token).unwrap_err();
    assert_eq!(refusal, AuthError::KeysUnavailable);
    assert!(refusal.is_transient());
    assert_eq!(auth.health().usable_keys, 0);
    assert!(auth.health().last_error.unwrap().contains("502"));
    issuer.answer(ok(jwks(&[key.jwk("a")])));
    eventually("the keys", || auth.verify(&token).is_ok()).await;
}

#[tokio::test]
async fn made_up_keys_do_not_hammer_the_issuer() {
    let folder = tempfile::tempdir().unwrap();
    let key = TestKey::es256();
    let issuer = Issuer::start(ok(jwks(&[key.jwk("a")]))).await;
    let auth = at(&issuer.url, 3_600_000, 60_000).await;
    let made_up: Vec<_> = (0..20).map(|number| key.token(folder.path(), Some(&number.to_string()))).collect();
    let verdicts = futures::future::join_all(made_up.iter().map(|token| auth.verify_or_refresh(token, HERE))).await;
    for (token, verdict) in made_up.iter().zip(verdicts) {
        assert_eq!(auth.verify(token), Err(AuthError::UnknownKey));
        assert_eq!(verdict, Err(AuthError::KeyPending), "no set was fetched since it was presented");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
}

/// The issuer signs with a new key first and publishes it second; the gateway has just fetched the
/// set.
#[tokio::test]
async fn a_token_is_not_refused_for_good_by_a_set_older_than_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (TestKey::es256(), TestKey::es256());
    let issuer = Issuer::start(ok(jwks(&[old.jwk("old")]))).await;
    // The floor is longer than a door waits.
    let floor = REFRESH_PATIENCE + Duration::from_secs(1);
    let auth = at(&issuer.url, 3_600_000, floor.as_millis() as u64).await;
    let cases = [
        ("another name", new.token(folder.path(), Some("new")), AuthError::UnknownKey),
        ("the same name", new.token(folder.path(), Some("old")), AuthError::BadSignature),
        ("no name", new.token(folder.path(), None), AuthError::BadSignature),
        ("another kind", TestKey::ed25519().token(folder.path(), Some("old")), AuthError::AlgorithmNotAllowed),
    ];
    let present =
        || async { futures::future::join_all(cases.iter().map(|(_, token, _)| auth.verify_or_refresh(token, HERE))).await };
    for ((what, ..), verdict) in cases.iter().zip(present().await) {
        let refusal = verdict.unwrap_err();
        assert_eq!((refusal.clone(), refusal.is_transient()), (AuthError::KeyPending, true), "{what}");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "not even asked for");
    // Back a moment later: a set was fetched since, and lacks the key.
    for ((what, _, expected), verdict) in cases.iter().zip(present().await) {
        assert_eq!(verdict, Err(expected.clone()), "{what}");
        assert!(!expected.is_transient());
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2);
    // Whatever it says, it can be published yet.
    issuer.answer(ok(jwks(&[old.jwk("old"), new.jwk("new")])));
    let by_new = TokenRequest { user: "bob".into(), key_id: Some("new".into()), ..request() };
    let by_new = issue(&new.signer(folder.path()), &by_new, now_ms()).unwrap();
    assert_eq!(auth.verify_or_refresh(&by_new, HERE).await, Err(AuthError::KeyPending));
    assert_eq!(auth.verify_or_refresh(&by_new, HERE).await.unwrap().user.as_str(), "bob");
}

#[tokio::test]
async fn no_set_to_come_makes_these_good() {
    let folder = tempfile::tempdir().unwrap();
    let key = TestKey::es256();
    let issuer = Issuer::start(ok(jwks(&[key.jwk("a")]))).await;
    let only = AuthSettings {
        algorithms: vec!["ES256".parse().unwrap()],
        jwks_url: Some(issuer.url.parse().unwrap()),
        ..AuthSettings::default()
    };
    let auth = Authenticator::with_floor(&only, Some(Duration::from_millis(1))).await.unwrap();
    let hmac = jsonwebtoken::EncodingKey::from_secret(b"a secret of more than thirty-two bytes");
    let hmac = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &serde_json::json!({ "sub": "alice" }), &hmac).unwrap();
    for token in [hmac, TestKey::ed25519().token(folder.path(), Some("b")), "nonsense".to_owned()] {
        let refusal = auth.verify_or_refresh(&token, HERE).await.unwrap_err();
        assert_eq!(Err(refusal), auth.verify(&token));
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "and none is fetched for them");
}

/// One address with made-up names of keys; the others have the set fetched all the same.
#[tokio::test]
async fn one_address_cannot_have_the_set_fetched_all_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let key = TestKey::es256();
    let issuer = Issuer::start(ok(jwks(&[key.jwk("a")]))).await;
    let auth = at(&issuer.url, 3_600_000, 1).await;
    let (mut fetched, mut pending) = (0, 0);
    for number in 0..6 {
        let made_up = key.token(folder.path(), Some(&number.to_string()));
        match auth.verify_or_refresh(&made_up, HERE).await {
            Err(AuthError::UnknownKey) => fetched += 1,
            Err(AuthError::KeyPending) => pending += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((fetched, pending, issuer.asked.load(Ordering::SeqCst)), (5, 1, 6));
    let made_up = key.token(folder.path(), Some("more"));
    let elsewhere = "192.0.2.1".parse().unwrap();
    assert_eq!(auth.verify_or_refresh(&made_up, elsewhere).await, Err(AuthError::UnknownKey));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let issuer = Issuer::start(ok(jwks(&[TestKey::es256().jwk("a")]))).await;
    let auth = at(&issuer.url.replace("/keys", "/moved"), 3_600_000, 60_000).await;
    assert!(auth.health().last_error.unwrap().contains("307"));
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn errors_do_not_show_the_url() {
    let auth = at("http://127.0.0.1:1/keys?key=hunter2", 3_600_000, 60_000).await;
    let error = auth.health().last_error.unwrap();
    assert!(!error.contains("hunter2"), "{error}");
    let refused = "http://user:hunter2@127.0.0.1:1/keys".parse::<crate::config::KeySetUrl>().unwrap_err();
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
}

#[tokio::test]
async fn a_key_set_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (TestKey::es256(), TestKey::es384());
    let path = folder.path().join("keys.json");
    std::fs::write(&path, jwks(&[old.jwk("old")])).unwrap();
    let settings = AuthSettings { jwks_file: Some(path.clone()), jwks_refresh_ms: Millis(20), ..AuthSettings::default() };
    let auth = Authenticator::with_floor(&settings, Some(Duration::from_millis(20))).await.unwrap();
    assert!(auth.verify(&old.token(folder.path(), Some("old"))).is_ok());
    // Replaced within the clock's grain, or by a copy that kept its time.
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, jwks(&[new.jwk("new")])).unwrap();
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
    let by_new = new.token(folder.path(), Some("new"));
    eventually("the new key", || auth.verify(&by_new).is_ok()).await;
    assert!(auth.verify(&old.token(folder.path(), Some("old"))).is_err(), "what is withdrawn is not trusted any more");
    std::fs::remove_file(&path).unwrap();
    eventually("a failure", || auth.health().last_error.is_some()).await;
    assert!(auth.verify(&by_new).is_ok());
}
