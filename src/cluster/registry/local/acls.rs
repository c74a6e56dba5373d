//! ACLs in process, for `dev` and tests: exact and immediate.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::cluster::acls::news::{Listeners, WATCHED, Watched};
use crate::cluster::acls::{AclNews, Acls, check_size, edited, moves, with_owner_renamed, with_user_renamed};
use crate::cluster::registry::RegistryError;
use crate::lock::{Mutex, MutexGuard, rank};
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, AclEdit, Identifier};
use crate::mail::user::UserName;

/// The ACLs of a [`super::LocalRegistry`]. News is told as ZooKeeper's watches would: of what was asked for, and once.
pub struct LocalAcls {
    state: Mutex<State, { rank::LOCAL_ACLS }>,
    listeners: Listeners,
}

struct State {
    /// None of them empty.
    acls: BTreeMap<MailboxPath, Acl>,
    watched: Watched<()>,
    outage: Option<String>,
}

impl LocalAcls {
    pub fn new() -> Arc<Self> {
        let state = State { acls: BTreeMap::new(), watched: Watched::new(WATCHED), outage: None };
        Arc::new(Self { state: Mutex::ranked(state), listeners: Listeners::new() })
    }

    /// For tests: from now on every call fails, as unreachable for this reason.
    #[cfg(test)]
    pub fn fail(&self, reason: &str) {
        let mut state = self.lock();
        state.outage = Some(reason.to_owned());
        state.watched.clear();
    }

    /// For tests: ends an outage, and tells so.
    #[cfg(test)]
    pub fn recover(&self) {
        let mut state = self.lock();
        state.outage = None;
        self.listeners.tell(&AclNews::Everything);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn reached(&self) -> Result<MutexGuard<'_, State>, RegistryError> {
        let state = self.lock();
        match &state.outage {
            Some(reason) => Err(RegistryError::Unreachable(reason.clone())),
            None => Ok(state),
        }
    }

    /// Puts it there, and returns what was.
    fn put(&self, state: &mut State, mailbox: &MailboxPath, acl: Acl) -> Result<Acl, RegistryError> {
        check_size(mailbox, &acl)?;
        let was = match acl.is_empty() {
            true => state.acls.remove(mailbox),
            false => state.acls.insert(mailbox.clone(), acl.clone()),
        }
        .unwrap_or_default();
        if was != acl {
            self.tell_watched(state, AclNews::Changed(mailbox.clone()));
        }
        let names = |acl: &Acl, identifier: &Identifier| acl.iter().any(|(entry, _)| entry.identifier == *identifier);
        let named = was.iter().chain(acl.iter()).map(|(entry, _)| &entry.identifier);
        for identifier in named.filter(|identifier| names(&was, identifier) != names(&acl, identifier)) {
            self.tell_watched(state, AclNews::Shares(identifier.clone()));
        }
        Ok(was)
    }

    fn tell_watched(&self, state: &mut State, news: AclNews) {
        if state.watched.remove(&news) {
            self.listeners.tell(&news);
        }
    }

    fn relocate(&self, state: &mut State, moves: Vec<(MailboxPath, MailboxPath)>) -> Result<(), RegistryError> {
        for (old, new) in moves {
            let acl = self.put(state, &old, Acl::default())?;
            self.put(state, &new, acl)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Acls for LocalAcls {
    async fn get(&self, mailbox: &MailboxPath) -> Result<Acl, RegistryError> {
        let mut state = self.reached()?;
        state.watched.insert(AclNews::Changed(mailbox.clone()), ());
        Ok(state.acls.get(mailbox).cloned().unwrap_or_default())
    }

    async fn edit(&self, mailbox: &MailboxPath, edits: &[AclEdit]) -> Result<(Acl, Acl), RegistryError> {
        let mut state = self.reached()?;
        let acl = edited(&state.acls.get(mailbox).cloned().unwrap_or_default(), edits);
        Ok((self.put(&mut state, mailbox, acl.clone())?, acl))
    }

    async fn replace(&self, mailbox: &MailboxPath, acl: &Acl) -> Result<Acl, RegistryError> {
        self.put(&mut *self.reached()?, mailbox, acl.clone())
    }

    async fn rename(&self, from: &MailboxPath, to: &MailboxPath) -> Result<(), RegistryError> {
        let mut state = self.reached()?;
        let moves = moves(state.acls.keys().cloned().collect(), from, to)?;
        self.relocate(&mut state, moves)
    }

    async fn rename_user(&self, from: &UserName, to: &UserName) -> Result<(), RegistryError> {
        let mut state = self.reached()?;
        if from == to {
            return Ok(());
        }
        let owned = state.acls.keys().filter_map(|old| Some((old.clone(), with_owner_renamed(old, from, to)?))).collect();
        self.relocate(&mut state, owned)?;
        let renamed: Vec<(MailboxPath, Acl)> =
            state.acls.iter().map(|(mailbox, acl)| (mailbox.clone(), with_user_renamed(acl, from, to))).collect();
        let mut result = Ok(());
        for (mailbox, acl) in renamed {
            // One that would become too large does not keep the others from it.
            result = result.and(self.put(&mut state, &mailbox, acl).map(drop));
        }
        result
    }

    async fn shared_with(&self, identifiers: &[Identifier]) -> Result<Vec<MailboxPath>, RegistryError> {
        let mut state = self.reached()?;
        for identifier in identifiers {
            state.watched.insert(AclNews::Shares(identifier.clone()), ());
        }
        let names = |acl: &Acl| acl.iter().any(|(entry, _)| identifiers.contains(&entry.identifier));
        Ok(state.acls.iter().filter(|(_, acl)| names(acl)).map(|(mailbox, _)| mailbox.clone()).collect())
    }

    fn news(&self) -> mpsc::UnboundedReceiver<AclNews> {
        self.listeners.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> MailboxPath {
        format!("#private:bob:{name}").parse().unwrap()
    }

    fn acl(text: &str) -> Acl {
        serde_json::from_str(text).unwrap()
    }

    #[tokio::test]
    async fn news_is_told_once_and_of_what_was_asked_for() {
        let acls = LocalAcls::new();
        let mut news = acls.news();
        acls.replace(&path("A"), &acl(r#"{"eve":"lr"}"#)).await.unwrap();
        assert!(news.try_recv().is_err(), "nobody asked");
        acls.get(&path("A")).await.unwrap();
        let eve: Identifier = "eve".parse().unwrap();
        assert_eq!(acls.shared_with(std::slice::from_ref(&eve)).await.unwrap(), [path("A")]);
        acls.replace(&path("A"), &acl(r#"{"eve":"lr"}"#)).await.unwrap();
        assert!(news.try_recv().is_err(), "nothing has changed");
        acls.replace(&path("A"), &acl(r#"{"eve":"l"}"#)).await.unwrap();
        acls.rename(&path("A"), &path("B")).await.unwrap();
        assert_eq!(news.try_recv(), Ok(AclNews::Changed(path("A"))));
        assert_eq!(news.try_recv(), Ok(AclNews::Shares(eve)));
        assert!(news.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_outage_is_played() {
        let acls = LocalAcls::new();
        let mut news = acls.news();
        acls.fail("a test");
        assert!(matches!(acls.get(&path("A")).await, Err(RegistryError::Unreachable(reason)) if reason == "a test"));
        assert!(acls.replace(&path("A"), &acl(r#"{"eve":"l"}"#)).await.is_err());
        acls.recover();
        assert_eq!(news.try_recv(), Ok(AclNews::Everything));
        assert!(acls.get(&path("A")).await.unwrap().is_empty());
    }
}
