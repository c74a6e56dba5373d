//! The walls between the rooms: the table in the library's front page, held by looking at what each
//! file of the product names. `planted` tests this test: each way around it that somebody may find
//! is planted, and must be found.

mod planted;
mod rules;
mod source;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use source::Sources;

/// The rooms without clocks, sockets and tasks.
const PURE: [&str; 2] = ["mail", "wire"];

/// Circles that are known, each as the files that may be part of it. This list only ever becomes shorter.
const KNOWN_CIRCLES: &[&[&str]] = &[&["cluster/registry/zookeeper/link.rs", "cluster/registry/zookeeper/lookups.rs"]];

/// The product's sources.
fn product() -> Sources {
    fn collect(root: &Path, folder: &Path, found: &mut Sources) {
        for entry in fs::read_dir(folder).expect("read a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("read a file");
                found.insert(path.strip_prefix(root).expect("below it").to_owned(), text);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Sources::new();
    collect(&root, &root, &mut found);
    found
}

#[test]
fn rooms_name_what_the_front_page_says_and_no_others() {
    let sources = product();
    let table = table::read(&sources[Path::new("lib.rs")]).expect("a table");
    let modules = source::read(&sources).expect("sources");
    let faults = rules::walls(&table, &modules);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_pure_rooms_have_no_clock_no_socket_and_no_task() {
    let modules = source::read(&product()).expect("sources");
    let faults = rules::purity(&PURE, &modules);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let modules = source::read(&product()).expect("sources");
    let known: Vec<BTreeSet<PathBuf>> = KNOWN_CIRCLES.iter().map(|files| files.iter().map(PathBuf::from).collect()).collect();
    let unknown: Vec<_> = rules::circles(&modules)
        .into_iter()
        .filter(|circle| !known.iter().any(|known| circle.is_subset(known)))
        .map(|circle| circle.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ↔ "))
        .collect();
    assert!(unknown.is_empty(), "move what is shared into a file of its own:\n{}", unknown.join("\n"));
}
