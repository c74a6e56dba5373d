//! Shares that take long, or that are gone before they stand.

use super::play::*;
use crate::cluster::registry::{Discontinuity, RegistryError, RegistryHealth};

/// A registry that keeps some keys waiting.
struct Stuck {
    node: Arc<LocalNode>,
    keys: Arc<Mutex<Vec<Key>>>,
}

#[async_trait]
impl Registrar for Stuck {
    async fn announce(&self, node: NodeRecord) -> Result<(), RegistryError> {
        self.node.announce(node).await
    }

    async fn register(&self, key: Key) -> Result<(), RegistryError> {
        while self.keys.lock().contains(&key) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.node.register(key).await
    }

    fn unregister(&self, key: Key) {
        self.node.unregister(key);
    }

    fn discontinuities(&self) -> UnboundedReceiver<Discontinuity> {
        self.node.discontinuities()
    }

    fn health(&self) -> tokio::sync::watch::Receiver<RegistryHealth> {
        self.node.health()
    }

    async fn close(&self) {}
}

async fn stuck() -> (Play, Arc<Mutex<Vec<Key>>>) {
    let keys: Arc<Mutex<Vec<Key>>> = Arc::new(Mutex::new(vec![mailbox(TEAM)]));
    let held = keys.clone();
    let play = Play::with_registrar(|node| Arc::new(Stuck { node, keys: held }), |options| options).await;
    play.script.set(TEAM, "bob", "lr");
    play.script.set("#private:alice:Plans", "bob", "lr");
    (play, keys)
}

fn account(play: &Play, shared: bool) {
    play.subscriptions.subscribe(&play.session, 1, Key::Account(user("bob")), Wish { shared, ..ALL });
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_hangs_keeps_neither_the_account_nor_who_asks_for_it_waiting() {
    let (play, keys) = stuck().await;
    account(&play, true);
    pass(6_000).await;
    play.comes("#private:alice:Plans", message(1));
    assert_eq!(play.heard(), ["settled lrswipkxtea", "message 1"]);
    play.subscribe(mailbox(TEAM));
    pass(25_000).await;
    assert_eq!(play.heard(), ["Unavailable { kept: false }"]);
    keys.lock().clear();
    pass(10_000).await;
    assert_eq!(play.heard(), ["resync Team shared"]);
    play.comes(TEAM, message(2));
    assert_eq!(play.heard(), ["message 2"]);
    assert!(play.session.book().unwrap().iter().all(|subscription| !subscription.is_busy()));
}

/// The account's own time is over before that of what was taken in on its way.
#[tokio::test(start_paused = true)]
async fn what_an_account_that_stood_already_takes_in_comes_to_an_end() {
    let (play, keys) = stuck().await;
    account(&play, false);
    pass(1_000).await;
    play.script.pauses.lock().push(3_000);
    account(&play, true);
    pass(4_000).await;
    assert_eq!(play.heard(), ["settled lrswipkxtea", "resync Plans Team shared"], "early");
    play.comes(TEAM, message(1));
    pass(8_000).await;
    assert_eq!(play.heard(), ["message 1", "settled lrswipkxtea"]);
    play.subscribe(mailbox(TEAM));
    pass(23_000).await;
    assert_eq!(play.heard(), ["Unavailable { kept: true }"]);
    assert!(play.session.book().unwrap().iter().all(|subscription| !subscription.is_busy()));
    // Whatever publishers did not find it for is made good, however late.
    pass(60_000).await;
    keys.lock().clear();
    play.heard();
    pass(40_000).await;
    assert_eq!(play.heard(), ["resync Team shared"]);
    assert!(play.session.book().unwrap().iter().all(|subscription| !subscription.is_busy()));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_shares_settle_together() {
    let play = Play::new().await;
    for number in 0..1_000 {
        play.script.set(&format!("#private:alice:{number}"), "bob", "lr");
    }
    account(&play, true);
    pass(1_000).await;
    assert_eq!(play.heard(), ["settled lrswipkxtea"]);
    assert_eq!(play.session.subscriptions().len(), 1_001);
    assert_eq!(play.script.questions.load(Ordering::Relaxed), 2_000, "on the way in, and once settled");
}

/// Told of before it has settled, and not to be read any more when it has.
#[tokio::test(start_paused = true)]
async fn an_early_share_does_not_end_without_a_word() {
    let play = Play::new().await;
    account(&play, true);
    pass(1_000).await;
    play.script.set(TEAM, "bob", "lr");
    play.comes(TEAM, acl("bob", "lr"));
    pass(10).await;
    assert_eq!(play.heard(), ["settled lrswipkxtea", "resync Team shared"]);
    play.script.set(TEAM, "bob", "");
    pass(1_000).await;
    assert_eq!(play.heard(), ["revoked Team"]);
    assert_eq!(play.subscriptions.hub.keys(), 1);
}
