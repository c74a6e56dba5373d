//! Tells the cluster of the ACL changes that a client made through the door: no mail server does it for us.
//!
//! One task for each connection that makes any, so that its changes keep their order and it never waits for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::edge::gateway::Gateway;
use crate::mail::event::{Change, Event};
use crate::mail::ids::EventId;
use crate::mail::path::MailboxPath;
use crate::mail::user::UserName;
use crate::push::clock::unix_ms;
use crate::push::metrics::Metrics;

/// Changes of one connection that wait to be published.
const WAITING: usize = 1024;
/// How often one is published before it is given up, and the pauses in between: some ten seconds in all.
const ATTEMPTS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one connection has to tell.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// `None` until there is something.
    waiting: Option<mpsc::Sender<Event>>,
}

impl Announcements {
    /// Publishes that `actor` changed the rights of `identifier`, in its turn.
    pub fn acl_changed(
        &mut self,
        gateway: &Arc<Gateway>,
        actor: UserName,
        mailbox: MailboxPath,
        identifier: String,
        rights: String,
    ) {
        let event = Event {
            id: EventId::now(),
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
            // It ends once the connection has gone and everything is told.
            gateway.tasks.spawn(publish_all(gateway.clone(), receiver));
            sender
        });
        if let Err(error) = waiting.try_send(event) {
            let event = error.into_inner();
            warn!(mailbox = %event.mailbox, event = %event.id, "too many ACL changes wait to be published, and this one is lost");
            count(gateway, "lost");
        }
    }

    /// The client changed an ACL, and nobody can be told which.
    pub fn not_understood(gateway: &Gateway, actor: Option<UserName>) {
        let user = actor.as_ref().map(UserName::as_str).unwrap_or_default();
        warn!(user, "a client has changed an ACL by a command that the gateway cannot read: nobody is told of it");
        count(gateway, "not_understood");
    }
}

fn count(gateway: &Gateway, outcome: &'static str) {
    Metrics::count(&gateway.metrics.imap_acl_changes, "outcome", outcome);
}

async fn publish_all(gateway: Arc<Gateway>, mut waiting: mpsc::Receiver<Event>) {
    while let Some(event) = waiting.recv().await {
        let outcome = match publish(&gateway, &event).await {
            Ok(()) => "published",
            Err(reason) => {
                warn!(mailbox = %event.mailbox, event = %event.id, reason, "an ACL change could not be published");
                "lost"
            }
        };
        count(&gateway, outcome);
    }
}

/// Publishes the same event, with the same id, until every queue that wants it has taken it.
async fn publish(gateway: &Gateway, event: &Event) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let (reason, is_transient) = match tokio::time::timeout(PATIENCE, gateway.publisher.publish(event)).await {
            Ok(Ok(_)) => break,
            Ok(Err(error)) => (error.to_string(), error.is_transient()),
            Err(_) => ("it takes too long".to_owned(), true),
        };
        if !is_transient || attempt >= ATTEMPTS {
            return Err(reason);
        }
        info!(event = %event.id, reason, "an ACL change is not published yet");
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
    Ok(())
}
