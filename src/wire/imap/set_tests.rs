use proptest::prelude::*;

use super::*;

fn text(set: &RoaringBitmap) -> String {
    let mut out = Vec::new();
    write(&mut out, set);
    String::from_utf8(out).unwrap()
}

#[test]
fn sets() {
    for (written, expected) in [
        ("41,43:116,118,120:211,214:540", Some("41,43:116,118,120:211,214:540")),
        ("5", Some("5")),
        ("7:5,6,1,2,3,3", Some("1:3,5:7")),
        ("4294967295", Some("4294967295")),
        ("4294967294:4294967295,1", Some("1,4294967294:4294967295")),
        ("65530:65540,65541", Some("65530:65541")),
        ("1:4294967295", Some("1:4294967295")),
        ("", None),
        ("*", None),
        ("1:*", None),
        ("0", None),
        ("0:5", None),
        ("1,", None),
        (",1", None),
        ("1:", None),
        ("1:2:3", None),
        ("1 2", None),
        ("4294967296", None),
        ("-1", None),
    ] {
        assert_eq!(parse(written.as_bytes()).as_ref().map(text).as_deref(), expected, "{written}");
    }
    assert_eq!(text(&RoaringBitmap::new()), "");
}

#[test]
fn a_hostile_set_costs_what_it_is_long() {
    // Each range alone touches all of 65,536 containers.
    let hostile = vec!["1:4294967295"; 5000].join(",");
    let set = parse(hostile.as_bytes()).unwrap();
    assert_eq!(set.len(), u64::from(u32::MAX));
    assert!(set.serialized_size() < 2_000_000, "{}", set.serialized_size());
    assert_eq!(text(&set), "1:4294967295");
}

proptest! {
    #[test]
    fn a_set_survives(numbers in prop::collection::btree_set(1u32..300, 0..200), offset in prop::sample::select(vec![0, 65_400, u32::MAX - 300])) {
        let set: RoaringBitmap = numbers.iter().map(|number| number + offset).collect();
        if !set.is_empty() {
            let written = text(&set);
            prop_assert_eq!(parse(written.as_bytes()), Some(set));
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter(ranges in prop::collection::vec((1u32..50, 1u32..50), 1..12)) {
        let written: Vec<String> = ranges.iter().map(|(a, b)| format!("{a}:{b}")).collect();
        let set: RoaringBitmap = ranges.iter().flat_map(|(a, b)| *a.min(b)..=*a.max(b)).collect();
        prop_assert_eq!(parse(written.join(",").as_bytes()), Some(set));
    }
}
