//! What Node's test runner says in the end.

use std::collections::HashMap;

/// Every test has passed, none was left out, and there was one. Node says so as TAP (`# pass 7`) or in its own way (`ℹ pass 7`).
pub fn all_passed(said: &str) {
    let counts: HashMap<&str, u32> = said
        .lines()
        .filter_map(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ ")))
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name, count.trim().parse().ok()?)))
        .collect();
    let count = |name: &str| *counts.get(name).unwrap_or_else(|| panic!("Node does not say how many {name}:\n{said}"));
    assert!(count("tests") > 0, "no tests were run:\n{said}");
    assert_eq!(count("pass"), count("tests"), "{said}");
    for bad in ["fail", "cancelled", "skipped", "todo"] {
        assert_eq!(count(bad), 0, "{bad}:\n{said}");
    }
}
