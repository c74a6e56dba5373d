//! Who hears the news, and what there is to be heard of.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::mpsc;

use super::AclNews;
use crate::lock::Mutex;

/// Answers of one ensemble that are remembered, so that their change can be told; of those beyond it the longest unused is
/// forgotten. That is not told: where more are in use than are remembered, each would be asked for again, and make the next
/// one be forgotten, without end.
pub const WATCHED: usize = 50_000;

/// Those who hear the news.
pub struct Listeners(Mutex<Option<Vec<mpsc::UnboundedSender<AclNews>>>>);

impl Listeners {
    pub fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// A channel with the news from now on; at its end already where there will be no more.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<AclNews> {
        let (telling, told) = mpsc::unbounded_channel();
        if let Some(listeners) = &mut *self.0.lock() {
            listeners.push(telling);
        }
        told
    }

    pub fn tell(&self, news: &AclNews) {
        if let Some(listeners) = &mut *self.0.lock() {
            listeners.retain(|listener| listener.send(news.clone()).is_ok());
        }
    }

    /// Ends every channel.
    pub fn close(&self) {
        self.0.lock().take();
    }
}

/// The answers whose change is news, each with what watches it. Bounded.
pub struct Watched<V> {
    capacity: usize,
    uses: u64,
    watches: HashMap<AclNews, (u64, V)>,
    by_use: BTreeMap<u64, AclNews>,
}

impl<V> Watched<V> {
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), uses: 0, watches: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Watches an answer, unless it is watched: then the older watch stays, for what it has to tell may be under way.
    pub fn insert(&mut self, news: AclNews, watch: V) {
        self.uses += 1;
        let uses = self.uses;
        let watch = match self.watches.remove(&news) {
            Some((last, older)) => {
                self.by_use.remove(&last);
                older
            }
            None => watch,
        };
        self.by_use.insert(uses, news.clone());
        self.watches.insert(news, (uses, watch));
        if self.watches.len() > self.capacity
            && let Some((_, forgotten)) = self.by_use.pop_first()
        {
            self.watches.remove(&forgotten);
        }
    }

    /// Whether it was watched; it is not any more.
    pub fn remove(&mut self, news: &AclNews) -> bool {
        let removed = self.watches.remove(news);
        if let Some((last, _)) = &removed {
            self.by_use.remove(last);
        }
        removed.is_some()
    }

    pub fn clear(&mut self) {
        self.watches.clear();
        self.by_use.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(name: &str) -> AclNews {
        AclNews::Changed(format!("#private:bob:{name}").parse().unwrap())
    }

    #[test]
    fn every_listener_hears_it_until_the_end() {
        let listeners = Listeners::new();
        let (mut first, second) = (listeners.subscribe(), listeners.subscribe());
        drop(second);
        listeners.tell(&changed("A"));
        assert_eq!(first.try_recv(), Ok(changed("A")));
        listeners.close();
        assert_eq!(first.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert_eq!(listeners.subscribe().try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn the_longest_unused_is_forgotten_and_an_older_watch_stays() {
        let mut watched = Watched::new(2);
        watched.insert(changed("A"), 1);
        watched.insert(changed("B"), 2);
        watched.insert(changed("A"), 3);
        assert_eq!(watched.watches[&changed("A")].1, 1);
        watched.insert(changed("C"), 4);
        assert!(!watched.remove(&changed("B")));
        assert!(watched.remove(&changed("A")));
        watched.insert(changed("D"), 5);
        watched.clear();
        assert!(!watched.remove(&changed("C")));
        assert!(watched.by_use.is_empty());
    }
}
