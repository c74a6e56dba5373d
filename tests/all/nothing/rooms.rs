//! Which room may know which: the table in the library's front page, held by looking at what each file names.

use std::fs;
use std::path::{Path, PathBuf};

/// A room, and the rooms it may name.
const TABLE: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("wire", &["mail"]),
    ("cluster", &["mail", "config", "lock", "tasks"]),
    ("push", &["cluster", "mail", "lock", "tasks"]),
    ("http", &["push", "mail", "lock"]),
    ("imap", &["wire", "mail", "lock"]),
    ("tls", &["config", "lock"]),
    ("edge", &["http", "imap", "tls", "push", "wire", "cluster", "mail", "config", "lock", "tasks"]),
    ("agent", &["http", "imap", "tls", "push", "wire", "cluster", "mail", "config", "lock", "tasks"]),
    ("config", &["cluster", "edge", "mail"]),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("read a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a file holds tests alone: `tests.rs`, `framing_tests.rs`, and what lies in a folder `tests`.
fn is_test(file: &Path) -> bool {
    let in_folder = file.components().any(|part| part.as_os_str() == "tests");
    in_folder || file.file_name().is_some_and(|name| name.to_string_lossy().contains("test"))
}

#[test]
fn no_room_names_another_that_it_may_not_know() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    for (room, may_know) in TABLE {
        let mut all = Vec::new();
        files(&source.join(room), &mut all);
        assert!(!all.is_empty(), "there is no room {room}");
        for file in all {
            let text = fs::read_to_string(&file).expect("read a file");
            // Tests may borrow what they like.
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            if is_test(&file) {
                continue;
            }
            for named in product.split("crate::").skip(1) {
                let named: String = named.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if named != *room && !named.is_empty() && !may_know.contains(&named.as_str()) {
                    faults.push(format!("{} names crate::{named}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_pure_rooms_have_no_clock_no_socket_and_no_task() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in ["mail", "wire"] {
        let mut all = Vec::new();
        files(&source.join(room), &mut all);
        for file in all.into_iter().filter(|file| !is_test(file)) {
            let text = fs::read_to_string(&file).expect("read a file");
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            for impure in ["Instant::now", "SystemTime::now", "tokio::", "std::net", "async fn", ".await"] {
                // tungstenite comes in tokio's wrapping; what is used of it is sans-IO.
                let product = product.replace("tokio_tungstenite::", "");
                assert!(!product.contains(impure), "{} is not pure: {impure}", file.display());
            }
        }
    }
}
