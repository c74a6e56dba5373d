//! The mail store's own word on rights.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::shared::Shared;
use crate::cluster::acls::AclNews;
use crate::mail::MailboxPath;
use crate::mail::path::PRIVATE;
use crate::mail::rights::{Rights, Subject};
use crate::push::access::source::{NoAnswer, RightsSource};

/// Rights as they are in the mail store at the moment of the question.
pub struct StoreRights {
    shared: Arc<Shared>,
}

impl StoreRights {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl RightsSource for StoreRights {
    async fn rights(&self, subject: &Subject, mailbox: &MailboxPath) -> Result<Rights, NoAnswer> {
        let model = self.shared.model();
        let owner = mailbox.owner_name().filter(|_| mailbox.namespace() == PRIVATE);
        let found = owner.and_then(|owner| model.named(&owner, mailbox.name())).and_then(|id| model.mailbox(id));
        Ok(found.map(|found| found.acl.effective(mailbox, subject)).unwrap_or_default())
    }

    async fn shared_with(&self, subject: &Subject) -> Result<Vec<MailboxPath>, NoAnswer> {
        let model = self.shared.model();
        let others = model.mailboxes().filter(|mailbox| mailbox.owner != subject.user);
        let mut shared: Vec<MailboxPath> = others
            .filter(|mailbox| mailbox.acl.leaves(subject).contains(Rights::LOOKUP))
            .filter_map(|mailbox| mailbox.path())
            .collect();
        shared.sort_unstable();
        Ok(shared)
    }

    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        self.shared.listen()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::dev::store::mailbox::Stamp;
    use crate::dev::store::model::{Model, Refusal};
    use crate::dev::store::{Store, StoreOptions};
    use crate::mail::UserName;
    use crate::mail::rights::Identifier;

    struct World {
        _store: Store,
        rights: StoreRights,
    }

    impl World {
        async fn new() -> Self {
            let store = Store::start(StoreOptions::default()).await.unwrap();
            Self { rights: store.rights(), _store: store }
        }

        /// Something that alice does.
        fn alice<T>(&self, act: impl FnOnce(&mut Model, Stamp, &UserName) -> T) -> T {
            let stamp = Stamp { now: Instant::now(), unix_ms: 0, session: 0 };
            self.rights.shared.change(|model| act(model, stamp, &user("alice")))
        }

        fn set_acl(&self, mailbox: &str, identifier: &str, change: &str) -> Result<(), Refusal> {
            self.alice(|model, stamp, alice| model.set_acl(stamp, alice, mailbox, identifier, change.parse().unwrap()))
        }

        async fn told(&self, name: &str, path: &str) -> String {
            self.rights.rights(&Subject::alone(user(name)), &path.parse().unwrap()).await.unwrap().to_string()
        }

        async fn shared(&self, name: &str) -> Vec<String> {
            let shared = self.rights.shared_with(&Subject::alone(user(name))).await.unwrap();
            shared.iter().map(|path| path.name().to_owned()).collect()
        }
    }

    fn user(name: &str) -> UserName {
        UserName::new(format!("{name}@example.org")).unwrap()
    }

    const TEAM: &str = "#private:alice@example.org:Team";

    #[tokio::test]
    async fn rights_are_those_of_the_store_now() {
        let world = World::new().await;
        assert_eq!(world.told("bob", TEAM).await, "lrs");
        assert_eq!(world.shared("bob").await, ["Team"]);
        world.set_acl("Team", "anyone", "lr").unwrap();
        assert_eq!((world.told("carol", TEAM).await.as_str(), world.shared("carol").await.len()), ("lr", 1));
        world.set_acl("Team", "-carol", "l").unwrap();
        assert_eq!((world.told("carol", TEAM).await.as_str(), world.shared("carol").await.len()), ("r", 0));
        world.set_acl("Team", "-anyone", "+rs").unwrap();
        assert_eq!(world.told("bob", TEAM).await, "l");
        assert_eq!(world.told("alice", TEAM).await, "lrswipkxtea");
        // A mailbox that is not there, and one that may not be seen (I-9).
        for path in [
            "#private:alice@example.org:Drafts",
            "#private:alice@example.org:Nothing",
            "#shared::Team",
            "#shared:alice@example.org:Team",
        ] {
            assert_eq!(world.told("bob", path).await, "", "{path}");
        }
    }

    #[tokio::test]
    async fn entries_that_mean_nothing_here_are_refused() {
        let world = World::new().await;
        for identifier in ["dave", "-dave", "group:staff", "$staff", "owner", "alice", "-alice@example.org", "Anyone", ""] {
            let refused = world.set_acl("Team", identifier, "lr");
            assert!(matches!(refused, Err(Refusal::Cannot(_))), "{identifier}: {refused:?}");
        }
        assert_eq!(world.told("bob", TEAM).await, "lrs");
    }

    #[tokio::test]
    async fn news_come_with_every_change_of_rights() {
        let world = World::new().await;
        let mut news = world.rights.news();
        let changed = |path: &str| AclNews::Changed(format!("#private:alice@example.org:{path}").parse().unwrap());
        let shares = |name: &str| AclNews::Shares(Identifier::User(user(name)));
        world.set_acl("Team", "bob", "+r").unwrap();
        world.set_acl("Team", "-carol", "r").unwrap();
        world.set_acl("Team", "-carol", "").unwrap();
        world.alice(|model, stamp, alice| model.create(stamp, alice, "Team/Old")).unwrap();
        world.alice(|model, stamp, alice| model.rename(stamp, alice, "Team/Old", "New")).unwrap();
        world.alice(|model, stamp, alice| model.delete(stamp, alice, "New")).unwrap();
        for (mailbox, name) in
            [("Team", "carol"), ("Team", "carol"), ("Team/Old", "bob"), ("Team/Old", "bob"), ("New", "bob"), ("New", "bob")]
        {
            assert_eq!(news.recv().await, Some(changed(mailbox)));
            assert_eq!(news.recv().await, Some(shares(name)));
        }
        assert!(news.try_recv().is_err(), "what changes nothing is no news");
    }
}
