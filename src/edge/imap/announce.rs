//! Publishes the ACL changes that a client made through the gateway: mail servers do not report
//! them.
//!
//! Each connection that changes ACLs has one task, so that its changes keep their order. The task
//! outlives the connection until everything is published.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Door;
use crate::edge::gateway::Gateway;
use crate::mail::event::{Change, Event};
use crate::mail::path::MailboxPath;
use crate::mail::user::UserName;
use crate::push::clock::{new_event_id, unix_ms};
use crate::push::metrics::Metrics;

/// Changes of one connection that wait to be published, and those of all connections of the node.
const WAITING: usize = 1024;
pub(super) const WAITING_IN_ALL: usize = 65_536;
/// How long one is tried to be published before it is lost, and the pauses in between. Nobody tells
/// of it again: what rights the mail server knows is asked for anew by and by, and ACLs that the
/// registry keeps would stay wrong. The changes of two connections come in no certain order
/// meanwhile.
const RETRY_LIMIT: Duration = Duration::from_secs(3600);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long each attempt may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// The ACL changes of one connection that wait to be published.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// `None` until there is something.
    waiting: Option<mpsc::Sender<Announcement>>,
}

#[derive(Debug)]
struct Announcement {
    event: Event,
    /// Whoever waits until it is told.
    told: oneshot::Sender<()>,
    _place: OwnedSemaphorePermit,
}

impl Announcements {
    /// Publishes that `actor` changed the rights of `identifier`, in its turn. What is returned
    /// resolves once every queue that wants it has taken it, or it is lost.
    pub fn acl_changed(
        &mut self,
        door: &Door,
        actor: UserName,
        mailbox: MailboxPath,
        identifier: String,
        rights: String,
    ) -> Option<oneshot::Receiver<()>> {
        let gateway = &door.gateway;
        let event = Event {
            id: new_event_id(),
            at: unix_ms(),
            origin: gateway.settings.node.origin.clone(),
            actor: Some(actor.to_string()),
            actor_session: None,
            mailbox,
            mailbox_id: None,
            uidvalidity: None,
            status: None,
            change: Change::AclChange { identifier, rights },
        };
        let waiting = self.waiting.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(WAITING);
            gateway.tasks.spawn(publish_all(gateway.clone(), receiver));
            sender
        });
        let (mailbox, id) = (event.mailbox.clone(), event.id);
        let (told, telling) = oneshot::channel();
        let place = door.announcements.clone().try_acquire_owned().ok();
        let announcement = place.map(|_place| Announcement { event, told, _place });
        if announcement.is_some_and(|announcement| waiting.try_send(announcement).is_ok()) {
            return Some(telling);
        }
        warn!(%mailbox, event = %id, "too many ACL changes wait to be published, and this one is lost");
        count(gateway, "lost");
        None
    }

    /// The client changed an ACL, and nobody can be told which.
    pub fn not_understood(gateway: &Gateway, actor: Option<UserName>) {
        let user = actor.as_ref().map(UserName::as_str).unwrap_or_default();
        warn!(user, "a client has changed an ACL by a command that the gateway cannot read: nobody is told of it");
        count(gateway, "not_understood");
    }

    /// A connection has ended before the server said whether it takes these changes.
    pub fn unanswered(gateway: &Gateway, peer: SocketAddr, changes: usize) {
        if changes > 0 {
            warn!(%peer, changes, "a connection has ended while ACLs were being changed: if they were, nobody is told of it");
            Metrics::add(&gateway.metrics.imap_acl_changes, "outcome", "unanswered", changes as u64);
        }
    }
}

fn count(gateway: &Gateway, outcome: &'static str) {
    Metrics::count(&gateway.metrics.imap_acl_changes, "outcome", outcome);
}

async fn publish_all(gateway: Arc<Gateway>, mut waiting: mpsc::Receiver<Announcement>) {
    while let Some(Announcement { event, told, _place }) = waiting.recv().await {
        let outcome = match retry(|| publish(&gateway, &event)).await {
            Ok(()) => "published",
            Err(Failed { reason, .. }) => {
                warn!(mailbox = %event.mailbox, event = %event.id, reason, "an ACL change could not be published");
                "lost"
            }
        };
        count(&gateway, outcome);
        // Nobody may be waiting any more.
        let _ = told.send(());
    }
}

/// Why an attempt has failed.
#[derive(Debug)]
struct Failed {
    reason: String,
    is_transient: bool,
}

async fn publish(gateway: &Gateway, event: &Event) -> Result<(), Failed> {
    match tokio::time::timeout(PUBLISH_TIMEOUT, gateway.publisher.publish(event)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failed { reason: error.to_string(), is_transient: error.is_transient() }),
        Err(_) => Err(Failed { reason: "it takes too long".to_owned(), is_transient: true }),
    }
}

/// Tries until it works, or never will: the same event, with the same id, until every queue that
/// wants it has taken it.
async fn retry<A: Future<Output = Result<(), Failed>>>(attempt: impl Fn() -> A) -> Result<(), Failed> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    while let Err(failed) = attempt().await {
        if !failed.is_transient || began.elapsed() >= RETRY_LIMIT {
            return Err(failed);
        }
        let reason = failed.reason;
        match pause {
            FIRST_PAUSE => info!(reason, "an ACL change is not published yet"),
            _ => debug!(reason, "an ACL change is not published yet"),
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn fails_for(span: Duration, is_transient: bool) -> (Result<(), Failed>, u32) {
        let (began, attempts) = (Instant::now(), Cell::new(0));
        let outcome = retry(|| {
            attempts.set(attempts.get() + 1);
            let failed = Failed { reason: "away".to_owned(), is_transient };
            std::future::ready(if began.elapsed() >= span { Ok(()) } else { Err(failed) })
        });
        (outcome.await, attempts.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_for_the_queues_to_come_back() {
        assert!(matches!(fails_for(Duration::ZERO, true).await, (Ok(()), 1)));
        assert!(fails_for(Duration::from_secs(50 * 60), true).await.0.is_ok());
        let (outcome, attempts) = fails_for(Duration::from_secs(2 * 3600), true).await;
        assert!(outcome.is_err() && (1_800..1_820).contains(&attempts), "{attempts}");
        assert!(matches!(fails_for(Duration::from_secs(1), false).await, (Err(_), 1)), "what never will");
    }
}
