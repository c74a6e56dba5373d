use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::agent::complete::Known;
use crate::mail::codec::to_msgpack;
use crate::mail::event::FlagChange;
use crate::mail::ids::EventId;
use crate::mail::uid::{Uid, UidValidity};

/// Takes events down; refuses while told to, and one kind for ever.
#[derive(Default)]
struct Recorder {
    taken: Mutex<Vec<Event>>,
    away: AtomicBool,
    told: Notify,
}

#[async_trait]
impl Sink for Recorder {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), Refusal>> {
        let mut taken = self.taken.lock();
        let results = events
            .iter()
            .map(|event| match (&event.change, self.away.load(Ordering::SeqCst)) {
                (Change::MailboxDelete, _) => Err(Refusal { reason: "never".into(), transient: false }),
                (_, true) => Err(Refusal { reason: "away".into(), transient: true }),
                (_, false) => {
                    taken.push(event.clone());
                    Ok(())
                }
            })
            .collect();
        self.told.notify_waiters();
        results
    }
}

/// Knows that every message is \Seen; hangs for one mailbox until let go.
#[derive(Default)]
struct Flagger {
    release: Notify,
}

#[async_trait]
impl FlagSource for Flagger {
    async fn flags(
        &self,
        mailbox: &MailboxPath,
        uidvalidity: Option<UidValidity>,
        uids: &BTreeSet<Uid>,
    ) -> Result<BTreeMap<Uid, Known>, String> {
        if mailbox.name() == "Slow" {
            self.release.notified().await;
        }
        if uidvalidity != UidValidity::new(9) {
            return Err("its UIDVALIDITY is another".into());
        }
        let seen = Known { flags: ["\\Seen".parse().unwrap()].into_iter().collect(), modseq: None };
        Ok(uids.iter().filter(|uid| uid.get() != 404).map(|uid| (*uid, seen.clone())).collect())
    }
}

fn event(mailbox: &str, change: Change) -> Event {
    Event {
        id: EventId::now(),
        at: 1,
        origin: "mx1".into(),
        actor: None,
        actor_session: None,
        mailbox: format!("#private:alice:{mailbox}").parse().unwrap(),
        mailbox_id: None,
        uidvalidity: UidValidity::new(9),
        status: None,
        change,
    }
}

fn flagged(mailbox: &str, uids: &[u32]) -> Event {
    let change = |uid: &u32| FlagChange {
        uid: Uid::new(*uid).unwrap(),
        changed: ["\\Seen".parse().unwrap()].into_iter().collect(),
        flags: None,
        modseq: None,
    };
    event(mailbox, Change::FlagsSet { messages: uids.iter().map(change).collect() })
}

struct Bench {
    _folder: tempfile::TempDir,
    spool: Arc<Spool>,
    sink: Arc<Recorder>,
    flags: Arc<Flagger>,
    metrics: Arc<AgentMetrics>,
    pipeline: Arc<Pipeline>,
    stop: CancellationToken,
}

impl Bench {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::open(folder.path(), 1 << 20).unwrap());
        let (sink, flags, metrics) =
            (Arc::new(Recorder::default()), Arc::new(Flagger::default()), Arc::new(AgentMetrics::default()));
        let stop = CancellationToken::new();
        let parts = Parts { spool: spool.clone(), sink: sink.clone(), flags: Some(flags.clone()), metrics: metrics.clone() };
        let pipeline = Pipeline::start(parts, stop.clone());
        Self { _folder: folder, spool, sink, flags, metrics, pipeline, stop }
    }

    fn put(&self, events: &[Event]) {
        for event in events {
            let mut payload = Vec::new();
            to_msgpack(event, &mut payload);
            self.spool.append([payload.as_slice()]).unwrap();
        }
    }

    /// The mailboxes' names and types, in the order taken.
    fn taken(&self) -> Vec<String> {
        let taken = self.sink.taken.lock();
        taken.iter().map(|event| format!("{} {}", event.mailbox.name(), event.event_type())).collect()
    }
}

#[tokio::test]
async fn events_are_completed_published_and_done() {
    let bench = Bench::start();
    let other = Event { uidvalidity: UidValidity::new(8), ..flagged("Older", &[1]) };
    bench.put(&[flagged("INBOX", &[1, 404]), other, event("INBOX", Change::MailboxChange)]);
    bench.spool.emptied().await;
    let taken = bench.sink.taken.lock().clone();
    let flags = |name: &str| {
        let event = taken.iter().find(|e| e.mailbox.name() == name && matches!(e.change, Change::FlagsSet { .. })).unwrap();
        let Change::FlagsSet { messages } = &event.change else { panic!("another type") };
        messages.iter().map(|m| m.flags.as_ref().map(|flags| flags.contains("\\Seen"))).collect::<Vec<_>>()
    };
    assert_eq!(flags("INBOX"), [Some(true), None], "a message that is gone stays incomplete");
    assert_eq!(flags("Older"), [None], "never guessed");
}

#[tokio::test]
async fn a_mailbox_that_waits_holds_up_no_other_and_keeps_its_order() {
    let bench = Bench::start();
    bench.put(&[flagged("Slow", &[1]), event("Slow", Change::MailboxChange), event("INBOX", Change::MailboxChange)]);
    while bench.taken().is_empty() {
        bench.sink.told.notified().await;
    }
    assert_eq!(bench.taken(), ["INBOX MailboxChange"]);
    bench.flags.release.notify_one();
    bench.spool.emptied().await;
    assert_eq!(bench.taken(), ["INBOX MailboxChange", "Slow FlagsSet", "Slow MailboxChange"]);
}

#[tokio::test]
async fn what_follows_a_rename_comes_behind_it() {
    let bench = Bench::start();
    let to = "#private:alice:New".parse().unwrap();
    bench.put(&[flagged("Slow", &[1]), event("Slow", Change::MailboxRename { to }), event("New", Change::MailboxChange)]);
    bench.flags.release.notify_one();
    bench.spool.emptied().await;
    assert_eq!(bench.taken(), ["Slow FlagsSet", "Slow MailboxRename", "New MailboxChange"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_now_goes_again_in_order() {
    let bench = Bench::start();
    bench.sink.away.store(true, Ordering::SeqCst);
    bench.put(&[event("INBOX", Change::MailboxCreate), event("INBOX", Change::MailboxChange)]);
    while bench.pipeline.trouble().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((bench.taken().len(), bench.spool.backlog().records), (0, 2));
    bench.sink.away.store(false, Ordering::SeqCst);
    bench.spool.emptied().await;
    assert_eq!(bench.taken(), ["INBOX MailboxCreate", "INBOX MailboxChange"]);
    assert_eq!(bench.pipeline.trouble(), None);
}

#[tokio::test]
async fn what_can_never_be_published_blocks_nobody() {
    let bench = Bench::start();
    bench.put(&[event("INBOX", Change::MailboxDelete), event("INBOX", Change::MailboxChange)]);
    bench.spool.append([b"no event".as_slice()]).unwrap();
    bench.spool.emptied().await;
    assert_eq!(bench.taken(), ["INBOX MailboxChange"]);
    assert_eq!(bench.metrics.dropped.get(), 2);
}

#[tokio::test]
async fn what_waits_when_it_stops_is_not_done() {
    let bench = Bench::start();
    bench.put(&[flagged("Slow", &[1]), event("INBOX", Change::MailboxChange)]);
    while bench.taken().is_empty() {
        bench.sink.told.notified().await;
    }
    bench.stop.cancel();
    bench.pipeline.ended().await;
    assert_eq!(bench.spool.backlog().records, 2, "behind the head nothing counts yet");
}
