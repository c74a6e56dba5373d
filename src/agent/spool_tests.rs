use proptest::prelude::*;

use super::*;

const ROOM: u64 = 1 << 20;

fn open(folder: &Path, limit: u64) -> Spool {
    Spool::open(folder, limit).unwrap()
}

fn all(spool: &Spool) -> Vec<(u64, String)> {
    let mut cursor = Cursor::default();
    let mut records = Vec::new();
    loop {
        // Less than most records are long: one at a time.
        let some = spool.read(&mut cursor, 10);
        if some.is_empty() {
            return records;
        }
        records.extend(some.into_iter().map(|(number, payload)| (number, String::from_utf8(payload).unwrap())));
    }
}

fn texts(spool: &Spool) -> Vec<String> {
    all(spool).into_iter().map(|(_, text)| text).collect()
}

fn append(spool: &Spool, texts: &[&str]) {
    spool.append(texts.iter().map(|text| text.as_bytes())).unwrap();
}

fn segments(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().extension().is_some()).count()
}

#[test]
fn what_is_not_done_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), ROOM);
    append(&spool, &["one", "two"]);
    append(&spool, &["three"]);
    assert_eq!(all(&spool), [(0, "one".into()), (1, "two".into()), (2, "three".into())]);
    spool.done(1);
    spool.done(0);
    spool.checkpoint().unwrap();
    drop(spool);
    let spool = open(folder.path(), ROOM);
    assert_eq!(all(&spool), [(2, "three".into())]);
    append(&spool, &["four"]);
    assert_eq!(texts(&spool), ["three", "four"]);
    assert_eq!(spool.backlog().records, 2);
}

#[test]
fn what_is_done_behind_the_head_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), ROOM);
    append(&spool, &["a", "b", "c"]);
    spool.done(2);
    spool.done(0);
    spool.checkpoint().unwrap();
    drop(spool);
    assert_eq!(texts(&open(folder.path(), ROOM)), ["b", "c"], "at least once");
}

#[test]
fn a_lost_checkpoint_brings_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), ROOM);
    append(&spool, &["a", "b"]);
    spool.done(0);
    spool.checkpoint().unwrap();
    drop(spool);
    fs::write(folder.path().join("checkpoint"), "").unwrap();
    assert_eq!(texts(&open(folder.path(), ROOM)), ["a", "b"]);
}

#[test]
fn a_checkpoint_ahead_of_the_records_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), ROOM);
    append(&spool, &["a", "b"]);
    drop(spool);
    fs::write(folder.path().join("checkpoint"), "7\n").unwrap();
    let spool = open(folder.path(), ROOM);
    append(&spool, &["c"]);
    assert_eq!(all(&spool), [(7, "c".into())]);
    spool.done(7);
    assert_eq!(spool.backlog().records, 0);
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), ROOM);
    assert!(matches!(Spool::open(folder.path(), ROOM), Err(OpenError::InUse(_))));
    drop(spool);
    open(folder.path(), ROOM);
}

#[test]
fn a_full_spool_refuses_and_takes_in_again_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), 1600);
    let text = "x".repeat(92);
    for _ in 0..16 {
        append(&spool, &[&text]);
    }
    assert!(matches!(spool.append([b"one more".as_slice()]), Err(SpoolError::Full(1600))));
    assert!(!spool.has_room(1));
    (0..8).for_each(|number| spool.done(number));
    assert!(matches!(spool.append([b"one more".as_slice()]), Err(SpoolError::Full(_))), "not before it is written down");
    spool.checkpoint().unwrap();
    assert_eq!(spool.backlog(), Backlog { records: 8, bytes: 800 });
    append(&spool, &["one more"]);
    assert_eq!(texts(&spool).len(), 9);
    (8..17).for_each(|number| spool.done(number));
    spool.checkpoint().unwrap();
    assert_eq!((spool.backlog().bytes, segments(folder.path())), (0, 0));
}

#[test]
fn a_damaged_segment_costs_its_own_records_only() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), 1600);
    let text = "x".repeat(92);
    for _ in 0..3 {
        append(&spool, &[&text]);
    }
    let middle = folder.path().join(file_name(1));
    fs::write(&middle, "rubbish").unwrap();
    assert_eq!(all(&spool).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2]);
    spool.done(0);
    spool.done(2);
    assert_eq!(spool.backlog().records, 0, "what is lost holds up nothing");
    drop(spool);
    let spool = open(folder.path(), 1600);
    assert_eq!(all(&spool).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2]);
    spool.done(0);
    spool.done(2);
    assert_eq!(spool.backlog().records, 0);
}

#[tokio::test]
async fn whoever_waits_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(open(folder.path(), ROOM));
    spool.emptied().await;
    let waiting = tokio::spawn({
        let spool = spool.clone();
        async move {
            spool.appended().await;
            spool.emptied().await;
        }
    });
    append(&spool, &["a"]);
    tokio::task::yield_now().await;
    spool.done(0);
    waiting.await.unwrap();
}

proptest! {
    /// A crash at any byte of the last segment: what was whole is read, in order, and the spool goes on behind it.
    #[test]
    fn a_torn_tail_is_cut(lengths in prop::collection::vec(0_usize..40, 1..20), cut in any::<prop::sample::Index>(), zeros in 0_usize..20) {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path(), ROOM);
        let texts_in: Vec<String> = lengths.iter().enumerate().map(|(i, n)| format!("{i}{}", "y".repeat(*n))).collect();
        for text in &texts_in {
            append(&spool, &[text]);
        }
        let total = spool.backlog().bytes;
        drop(spool);
        let path = folder.path().join(file_name(0));
        let keep = cut.index(total as usize + 1) as u64;
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(keep).unwrap();
        file.set_len(keep + zeros as u64).unwrap();
        drop(file);
        let mut end = 0;
        let whole: Vec<&String> = texts_in
            .iter()
            .take_while(|text| { end += (HEADER + text.len()) as u64; end <= keep })
            .collect();
        let spool = open(folder.path(), ROOM);
        let read = texts(&spool);
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), whole.clone());
        append(&spool, &["after"]);
        let read = texts(&spool);
        prop_assert_eq!(read.len(), whole.len() + 1);
        prop_assert_eq!(read.last().map(String::as_str), Some("after"));
    }

    /// Whatever is appended, done, written down and restarted: everything not done is read again, in order, and the bound holds.
    #[test]
    fn nothing_is_lost_and_nothing_swapped(steps in prop::collection::vec((0_u8..6, 0_usize..120), 1..80)) {
        const LIMIT: u64 = 2000;
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path(), LIMIT);
        let mut alive: BTreeMap<u64, String> = BTreeMap::new();
        let mut next = 0;
        for (kind, size) in steps {
            match kind {
                0..=2 => {
                    let text = format!("{next}:{}", "z".repeat(size));
                    if spool.append([text.as_bytes()]).is_ok() {
                        alive.insert(next, text);
                        next += 1;
                    }
                }
                3 => if let Some(number) = alive.keys().nth(size % alive.len().max(1)).copied() {
                    spool.done(number);
                    alive.remove(&number);
                },
                4 => spool.checkpoint().unwrap(),
                _ => {
                    drop(spool);
                    spool = open(folder.path(), LIMIT);
                }
            }
            prop_assert!(spool.backlog().bytes <= LIMIT);
            let read = all(&spool);
            prop_assert!(read.is_sorted());
            for (number, text) in &alive {
                prop_assert!(read.iter().any(|(n, t)| n == number && t == text), "{number} is lost");
            }
        }
    }
}
