//! Removes the topics of nodes that are gone.
//!
//! A topic is made before its node registers, a node may be away for a moment, and Kafka does not say when a topic
//! was made. So a topic is removed only where its node is not registered now, and
//! - either it has been missed, at every look, for the grace time (what live nodes find, which look on a timer),
//! - or nobody remembers its node, and by Kafka's own clock nothing was written for the grace time (all that a
//!   single look, as by `mailpush gc`, can prove).
//!
//! By the second rule a topic that was never written to stays until a live node has missed its node long enough,
//! and so does every topic whose last record the retention has removed, where the grace is longer than that.
//! Should a topic be removed under a living node after all, its consumer makes it anew and tells a gap (I-6).

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{NodeQueue, QueueError, QueueName, QueueSystem};
use crate::cluster::registry::QueueNames;
use crate::mail::ids::NodeId;

/// What earlier looks have found. Holds only nodes that have a topic.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    nodes: HashMap<NodeId, Sighting>,
}

/// How a node was found, at the last look. Times in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sighting {
    Registered,
    /// Missed at every look since; and whether it was ever seen registered before that.
    Missed {
        since: u64,
        known: bool,
    },
}

/// Which of `topics` to remove, and what to remember until the next look.
///
/// `registered` holds the nodes that the registry has now, and must be known for certain: while the registry cannot
/// be asked there is nothing to decide. `now` in milliseconds since 1970.
pub fn decide(
    topics: &[(NodeId, NodeQueue)],
    registered: &[NodeId],
    grace: Duration,
    memory: &mut Memory,
    now: u64,
) -> Vec<QueueName> {
    let grace = grace.as_millis() as u64;
    let passed = |since: u64| since.saturating_add(grace) <= now;
    let mut nodes = HashMap::with_capacity(topics.len());
    let mut dead = Vec::new();
    for (node, topic) in topics {
        if registered.contains(node) {
            nodes.insert(node.clone(), Sighting::Registered);
            continue;
        }
        let (since, known) = match memory.nodes.get(node) {
            Some(Sighting::Missed { since, known }) => (*since, *known),
            Some(Sighting::Registered) => (now, true),
            None => (now, false),
        };
        nodes.insert(node.clone(), Sighting::Missed { since, known });
        let unused = !known && topic.last_used.is_some_and(passed);
        // With no grace at all, one look would do by this rule; it takes two all the same.
        let missed = since < now && passed(since);
        if missed || unused {
            dead.push(topic.queue.clone());
        }
    }
    memory.nodes = nodes;
    dead
}

/// What one look has done.
#[derive(Debug, Default)]
pub struct Collected {
    /// Removed, or, in a dry run, what would have been.
    pub removed: Vec<QueueName>,
    pub failed: Vec<(QueueName, QueueError)>,
    /// How many topics of nodes are left.
    pub kept: usize,
}

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub grace: Duration,
    /// Say what would be removed, and leave it.
    pub dry_run: bool,
}

/// Looks once, and removes the topics of dead nodes.
///
/// Ask the registry for `registered` right before; keep `memory` from look to look, or begin with an empty one.
/// Several nodes may do this at once: a topic that is gone already is fine.
pub async fn collect(
    queues: &dyn QueueSystem,
    names: &QueueNames,
    registered: &[NodeId],
    rules: Rules,
    memory: &mut Memory,
) -> Result<Collected, QueueError> {
    let listed = queues.list(&names.node_prefix()).await?;
    // Whatever else begins with the prefix is not ours to remove.
    let topics: Vec<(NodeId, NodeQueue)> =
        listed.into_iter().filter_map(|topic| Some((names.node_of(&topic.queue)?, topic))).collect();
    // The clock is read once the topics are known: what the list says of their use is then in the past.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let dead = decide(&topics, registered, rules.grace, memory, now);
    let mut collected = Collected { kept: topics.len() - dead.len(), ..Collected::default() };
    for queue in dead {
        let removed = if rules.dry_run { Ok(()) } else { queues.remove(&queue).await };
        match removed {
            Ok(()) => collected.removed.push(queue),
            Err(error) => {
                collected.kept += 1;
                collected.failed.push((queue, error));
            }
        }
    }
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::queue::local::LocalQueues;

    const GRACE: Duration = Duration::from_millis(100);

    fn node(id: &str) -> NodeId {
        id.parse().unwrap()
    }

    fn topic(id: &str, last_used: Option<u64>) -> (NodeId, NodeQueue) {
        let queue = QueueName::topic(&format!("mp.node.{id}")).unwrap();
        (node(id), NodeQueue { queue, last_used })
    }

    /// One look at the topic of node `a`.
    fn look(memory: &mut Memory, last_used: Option<u64>, registered: bool, now: u64) -> bool {
        let registered = if registered { vec![node("a")] } else { vec![] };
        !decide(&[topic("a", last_used)], &registered, GRACE, memory, now).is_empty()
    }

    #[test]
    fn a_registered_node_keeps_its_topic_however_old_it_is() {
        let mut memory = Memory::default();
        for now in [1_000, 2_000, 3_000] {
            assert!(!look(&mut memory, Some(0), true, now));
        }
    }

    #[test]
    fn one_look_removes_only_what_kafka_proves_unused() {
        for (last_used, removed) in [(Some(900), true), (Some(901), false), (Some(1_000), false), (None, false)] {
            assert_eq!(look(&mut Memory::default(), last_used, false, 1_000), removed, "{last_used:?}");
        }
    }

    #[test]
    fn a_starting_node_whose_topic_is_new_is_left_alone() {
        let mut memory = Memory::default();
        assert!(!look(&mut memory, None, false, 1_000));
        assert!(!look(&mut memory, None, false, 1_099));
        assert!(!look(&mut memory, None, true, 1_200));
    }

    #[test]
    fn a_topic_whose_node_is_missed_for_the_grace_time_is_removed() {
        let mut memory = Memory::default();
        assert!(!look(&mut memory, None, false, 1_000));
        assert!(!look(&mut memory, None, false, 1_050));
        assert!(look(&mut memory, None, false, 1_100));
    }

    #[test]
    fn the_grace_begins_when_a_known_node_goes_even_if_its_topic_is_long_unused() {
        let mut memory = Memory::default();
        assert!(!look(&mut memory, Some(0), true, 1_000));
        assert!(!look(&mut memory, Some(0), false, 5_000));
        assert!(!look(&mut memory, Some(0), false, 5_099));
        assert!(look(&mut memory, Some(0), false, 5_100));
    }

    #[test]
    fn a_node_that_comes_back_starts_afresh() {
        let mut memory = Memory::default();
        assert!(!look(&mut memory, None, false, 1_000));
        assert!(!look(&mut memory, None, true, 1_090));
        assert!(!look(&mut memory, None, false, 1_150));
        assert!(!look(&mut memory, None, false, 1_249));
        assert!(look(&mut memory, None, false, 1_250));
    }

    #[test]
    fn no_grace_still_takes_two_looks_or_kafkas_proof() {
        let mut memory = Memory::default();
        let mut look = |now| decide(&[topic("a", None)], &[], Duration::ZERO, &mut memory, now).len();
        assert_eq!(look(1_000), 0);
        assert_eq!(look(1_001), 1);
    }

    #[test]
    fn only_nodes_with_topics_are_remembered() {
        let mut memory = Memory::default();
        decide(&[topic("a", None), topic("b", None)], &[node("c")], GRACE, &mut memory, 1_000);
        assert_eq!(memory.nodes.len(), 2);
        decide(&[topic("b", None)], &[], GRACE, &mut memory, 1_001);
        assert_eq!(memory.nodes.len(), 1);
    }

    #[tokio::test]
    async fn collecting_removes_the_dead_and_nothing_else() {
        let queues = LocalQueues::new(Duration::from_secs(60), 10);
        let names = QueueNames::new("mp").unwrap();
        for name in ["mp.node.dead", "mp.node.alive", "mp.node.not.a.node", "mp.all", "other.node.dead"] {
            queues.ensure(&name.parse().unwrap()).await.unwrap();
        }
        let look = async |dry_run| {
            let rules = Rules { grace: Duration::ZERO, dry_run };
            collect(&*queues, &names, &[node("alive")], rules, &mut Memory::default()).await.unwrap()
        };
        let dry = look(true).await;
        assert_eq!((dry.removed, dry.kept), (vec!["mp.node.dead".parse().unwrap()], 1));
        assert_eq!(queues.list("").await.unwrap().len(), 5);
        assert_eq!(look(false).await.removed.len(), 1);
        assert_eq!(queues.list("").await.unwrap().len(), 4);
        assert!(look(false).await.removed.is_empty());
    }
}
