use super::*;
use crate::cluster::queue::local::LocalQueues;
use crate::cluster::registry::QueueNames;
use crate::cluster::registry::local::LocalRegistry;
use crate::mail::codec::tests::sample;
use crate::mail::ids::EventId;
use crate::mail::user::UserName;

fn event(mailbox: &str, change: Change) -> Event {
    Event { id: EventId::now(), mailbox: mailbox.parse().unwrap(), change, ..sample() }
}

fn acl(identifier: &str) -> Change {
    Change::AclChange { identifier: identifier.to_owned(), rights: String::new() }
}

/// Whether each of these is taken while the registry's ACLs are away, in as many steps as there are
/// events.
async fn taken(events: &[Event]) -> Vec<bool> {
    let names = QueueNames::new("t").unwrap();
    let registry = LocalRegistry::new(names);
    let acls = registry.acls();
    acls.fail("away");
    let options = Options {
        firehose: None,
        max_event_bytes: 10_000,
        max_in_flight: 1,
        everyone: Everyone::Queues(Vec::new()),
        acls: Some(WriteThrough::new(acls, true, HashMap::new())),
    };
    let queues = LocalQueues::new(Duration::from_secs(60), 10);
    let publisher = Publisher::new(registry.node(), queues, Arc::default(), options);
    let results = publisher.publish_batch(events).await;
    let is_taken = |result: &Result<Destinations, PublishError>| match result {
        Ok(_) => true,
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            false
        }
    };
    results.iter().map(is_taken).collect()
}

#[tokio::test]
async fn what_comes_behind_an_unwritten_change_waits_with_it() {
    let (team, other) = ("#private:alice:Team", "#private:alice:Other");
    let events = [
        event(team, Change::MailboxChange),
        event(team, acl("bob")),
        event(team, Change::MailboxChange),
        event(other, Change::MailboxChange),
    ];
    assert_eq!(taken(&events).await, [true, false, false, true]);
}

#[tokio::test]
async fn what_comes_behind_an_unwritten_rename_waits_under_both_names() {
    let to = "#private:alice:New".parse().unwrap();
    let events = [
        event("#private:alice:Old", Change::MailboxRename { to }),
        event("#private:alice:Old/Below", Change::MailboxChange),
        event("#private:alice:New", Change::MailboxChange),
        event("#private:bob:New", Change::MailboxChange),
    ];
    assert_eq!(taken(&events).await, [false, false, false, true]);
    let events = [
        event("#private:alice:INBOX", Change::AccountRename { to: UserName::new("eve").unwrap() }),
        event("#private:alice:Team", Change::MailboxChange),
        event("#private:eve:Team", Change::MailboxChange),
        event("#private:bob:Team", Change::MailboxChange),
    ];
    assert_eq!(taken(&events).await, [false, false, false, true]);
}
