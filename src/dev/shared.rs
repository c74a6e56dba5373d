//! What the store's connections, its rights and its owner share.

use tokio::sync::{mpsc, watch};

use super::store::model::Model;
use crate::cluster::acls::AclNews;
use crate::lock::{Mutex, MutexGuard};

/// The store's state, and who waits for its changes.
#[derive(Debug)]
pub(super) struct Shared {
    model: Mutex<Model>,
    /// Counts changes.
    pub(super) changed: watch::Sender<u64>,
    /// Who wants to hear of rights.
    listeners: Mutex<Vec<mpsc::UnboundedSender<AclNews>>>,
}

impl Shared {
    pub(super) fn new(model: Model) -> Self {
        Self { model: Mutex::new(model), changed: watch::Sender::new(0), listeners: Mutex::default() }
    }

    /// The state, locked.
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock()
    }

    /// Carries out something, and wakes whoever waits for changes if there was one.
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.model();
        let before = model.changes();
        let result = act(&mut model);
        let changed = model.changes() != before;
        let news = std::mem::take(&mut model.news);
        drop(model);
        self.tell_news(news);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        result
    }

    /// News of rights, from now on.
    pub(super) fn listen(&self) -> mpsc::UnboundedReceiver<AclNews> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.lock().push(sender);
        receiver
    }

    fn tell_news(&self, news: Vec<AclNews>) {
        if !news.is_empty() {
            let mut listeners = self.listeners.lock();
            listeners.retain(|listener| news.iter().all(|told| listener.send(told.clone()).is_ok()));
        }
    }
}
