//! Violations planted into small crates, and into the product itself: a rule that finds none of
//! them holds nothing.

use std::path::{Path, PathBuf};

use super::source::{self, Sources};
use super::{PURE, product, rules, table};

const FRONT_PAGE: &str = "\
//! | room | what it holds | what it may name | what may not go in it |
//! |---|---|---|---|
//! | [`mail`] | words | none | clocks |
//! | [`wire`] | protocols | `mail` | sockets |
//! | [`edge`] | doors | `wire`, `mail` | rules |
//! | [`node`] | all of it | all | logic |
pub mod edge; pub mod mail; pub mod node; pub mod wire;";

/// A crate that keeps every rule.
fn good() -> Sources {
    let files = [
        ("lib.rs", FRONT_PAGE),
        ("main.rs", "fn main() {}"),
        ("mail/mod.rs", "pub mod uid; pub mod view;\npub use uid::Uid;"),
        ("mail/uid.rs", "pub struct Uid;"),
        ("mail/view.rs", "use super::Uid;\npub struct View(Uid);"),
        ("wire/mod.rs", "use crate::mail::Uid;\npub fn write(_: Uid) {}"),
        ("edge/mod.rs", "pub mod door;"),
        ("edge/door.rs", "use crate::{mail::view::View, wire};\npub async fn run(_: View) { wire::write(todo!()) }"),
        ("node.rs", "use crate::edge::door;\npub fn start() { let _ = door::run; }"),
    ];
    files.into_iter().map(|(file, text)| (PathBuf::from(file), text.to_owned())).collect()
}

fn walls(sources: &Sources) -> Vec<String> {
    let table = table::read(&sources[Path::new("lib.rs")]).unwrap();
    rules::walls(&table, &source::read(sources).unwrap())
}

fn purity(sources: &Sources) -> Vec<String> {
    rules::purity(&PURE, &source::read(sources).unwrap())
}

/// The product's own view, alone below the same front page.
fn products_view() -> Sources {
    let front_page = FRONT_PAGE.replace("pub mod edge; pub mod mail; pub mod node; pub mod wire;", "pub mod mail;");
    let around = [("lib.rs", front_page.as_str()), ("mail/mod.rs", "pub mod view;")];
    let around = around.map(|(file, text)| (PathBuf::from(file), text.to_owned()));
    product()
        .into_iter()
        .filter(|(file, _)| file.starts_with("mail/view") || file.ends_with("mail/view.rs"))
        .chain(around)
        .collect()
}

/// The sources with `text` at the end of one of their files.
fn with(mut sources: Sources, file: &str, text: &str) -> Sources {
    let whole = sources.entry(PathBuf::from(file)).or_default();
    *whole += &format!("\n{text}\n");
    sources
}

#[test]
fn a_good_crate_is_good() {
    assert_eq!(walls(&good()), [""; 0]);
    assert_eq!(purity(&good()), [""; 0]);
    assert_eq!(rules::circles(&source::read(&good()).unwrap()).len(), 0);
}

#[test]
fn a_forbidden_name_is_found_however_it_is_written() {
    let product = products_view();
    for planted in [
        "use crate::edge::door;",
        "use crate::{edge::door};",
        "use crate::{wire, edge::{self as e, door::run}};",
        "use crate::edge as wire_to_me;",
        "use super::super::edge::door;",
        "use super::super::{edge};",
        "use self::super::super::edge;",
        "pub use crate::edge::door::run;",
        "fn f() { crate::edge::door::run; }",
        "fn f() { super::super::edge::door::run; }",
        "fn f() { use crate::edge::door; }",
        "fn f(_: crate::edge::Door) {}",
        "fn f(_: Vec<crate::edge::Door>) -> impl Iterator<Item = crate::edge::Door> {}",
        "impl From<crate::edge::Door> for View {}",
        "impl crate::edge::Open for View {}",
        "fn f() { vec![crate::edge::Door]; }",
        "fn f() { assert!(matches!(x, crate::edge::Door { .. })); }",
        "macro_rules! door { () => { $crate::edge::Door } }",
        "#[derive(crate::edge::Derive)] struct X;",
        "struct X { #[serde(with = \"crate::edge::door\")] x: u8 }",
        "#[cfg(test)]\nmod tests {}\nuse crate::edge::door;",
        "#[cfg(test)]\nuse crate::node;\n#[cfg(not(test))]\nuse crate::edge::door;",
        "#[cfg(any(test, unix))]\nuse crate::edge::door;",
        "#[cfg_attr(test, allow(unused))]\nuse crate::edge::door;",
        "mod inner { use super::super::super::edge; }",
        "mod inner { fn f() { crate::edge::door::run; } }",
        "use crate as all;",
        "use crate::*;",
        "use super::super::*;",
        "use super::super as all;",
        "extern crate self as all;",
        "include!(\"../edge/door.rs\");",
        "#[path = \"../edge/door.rs\"]\nmod door;",
        "pub(in crate::edge) struct X;",
        "fn f() { join!(crate::{edge::door}); }",
    ] {
        let faults = walls(&with(good(), "mail/view.rs", planted));
        assert!(faults.iter().any(|fault| fault.starts_with("mail/view.rs ")), "{planted}: {faults:?}");
        // The same in the product's own file, behind all that stands there.
        let faults = walls(&with(product.clone(), "mail/view.rs", planted));
        assert!(faults.iter().any(|fault| fault.starts_with("mail/view.rs ")), "{planted}: {faults:?}");
    }
    // Of the crate's root, one step shorter.
    let faults = walls(&with(good(), "mail/mod.rs", "use super::edge;"));
    assert_eq!(faults, ["mail/mod.rs names crate::edge"]);
    let faults = walls(&with(good(), "mail/mod.rs", "use super::*;"));
    assert_eq!(faults, ["mail/mod.rs names the crate's root"]);
}

#[test]
fn tests_may_name_what_they_like() {
    for fine in [
        "#[cfg(test)]\nmod tests { use crate::edge::door; }",
        "#[cfg(test)]\n#[path = \"view_tests.rs\"]\nmod tests;",
        "#[cfg(test)]\nuse crate::edge::door;",
        "#[cfg(all(test, unix))]\nuse crate::edge::door;",
        "impl View { #[cfg(test)] fn f() { crate::edge::door::run; } }",
        "#[cfg(test)]\nfn f() { std::time::Instant::now(); }",
        "/// As `crate::edge::door` says.\nfn f() { let _ = \"crate::edge is a room\"; }",
    ] {
        let sources = with(good(), "mail/view.rs", fine);
        let sources = with(sources, "mail/view_tests.rs", "use crate::edge::door;");
        let sources = match fine.contains("view_tests") {
            true => sources,
            false => good().into_iter().chain(sources.into_iter().filter(|(file, _)| file.ends_with("view.rs"))).collect(),
        };
        assert_eq!(walls(&sources), [""; 0], "{fine}");
        assert_eq!(purity(&sources), [""; 0], "{fine}");
    }
}

#[test]
fn what_is_not_pure_is_found_however_it_is_written() {
    let product = products_view();
    for planted in [
        "fn f() { std::time::Instant::now(); }",
        "use std::time::Instant;\nfn f() { Instant::now(); }",
        "use std::time::Instant as I;\nfn f() { I::now(); }",
        "use std::time::SystemTime;\nfn f() { Some(0).unwrap_or_else(SystemTime::now); }",
        "fn f() { vec![std::time::Instant::now()]; }",
        "fn f(t: std::time::Instant) { t.elapsed(); }",
        "fn f(t: std::time::Instant) { dbg!(t.elapsed()); }",
        "fn f() { jiff::Timestamp::now(); }",
        "fn f() { uuid::Uuid::now_v7(); }",
        "use std::{net::TcpStream, fmt};",
        "fn f() { std::net::TcpListener::bind(x); }",
        "use std::os::unix::net::UnixStream;",
        "fn f() { std::thread::sleep(x); }",
        "fn f() { std::fs::read(x); }",
        "use tokio::time;",
        "use tokio::{sync::mpsc};",
        "fn f() { tokio::spawn(x); }",
        "async fn f() {}",
        "impl View { async fn f(&self) {} }",
        "trait T { async fn f(&self); }",
        "fn f() { async {}; }",
        "fn f() { async move || {}; }",
        "async fn f() { g().await }",
        "fn f() { select! { x = g().await => {} } }",
        "fn f() { spawn!(async move {}); }",
        "#[cfg(test)]\nmod tests {}\nfn f() { std::time::Instant::now(); }",
        "mod inner { fn f() { std::time::Instant::now(); } }",
    ] {
        for sources in [good(), product.clone()] {
            let faults = purity(&with(sources, "mail/view.rs", planted));
            assert!(faults.iter().any(|fault| fault.starts_with("mail/view.rs is not pure")), "{planted}: {faults:?}");
        }
        let elsewhere = with(good(), "edge/door.rs", planted);
        assert_eq!(purity(&elsewhere), [""; 0], "{planted}");
    }
    for fine in ["use std::time::Instant;\nfn f(now: Instant) { let now = now; g(now) }", "use tokio_tungstenite::tungstenite;"] {
        assert_eq!(purity(&with(good(), "mail/view.rs", fine)), [""; 0], "{fine}");
    }
}

#[test]
fn the_table_is_exactly_what_the_rooms_do() {
    let told = |front_page: String| walls(&good().into_iter().chain([(PathBuf::from("lib.rs"), front_page)]).collect());
    assert_eq!(told(FRONT_PAGE.replace("`wire`, `mail`", "`mail`")), ["edge/door.rs names crate::wire"]);
    assert_eq!(told(FRONT_PAGE.replace("| none |", "| `wire` |")), ["mail may name wire, and does not"]);
    assert_eq!(
        told(FRONT_PAGE.replace("//! | [`wire`] | protocols | `mail` | sockets |\n", "").replace("`wire`, ", ""))[0],
        "wire is not in the table"
    );
    let more = FRONT_PAGE.replace("pub mod edge;", "//! | [`attic`] | dust | none | light |\npub mod edge;");
    assert_eq!(told(more), ["there is no room attic"]);
    assert!(table::read("//! nothing").is_err());
    assert!(table::read("//! | [`a`] | x | `b` | y |").is_err(), "b has no row");
    assert!(table::read("//! | [`a`] | x | y |").is_err(), "a cell is missing");
    assert!(source::read(&with(good(), "mail/lost.rs", "")).is_err(), "a file that no module is");
}

/// The files of each circle, joined.
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let lib = ("lib.rs", "pub mod a;");
    let sources: Sources = [lib].iter().chain(files).map(|(file, text)| (PathBuf::from(file), (*text).to_owned())).collect();
    let circles = rules::circles(&source::read(&sources).unwrap());
    circles.iter().map(|circle| circle.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn circles_are_found_through_whatever_passes_names_on() {
    let none: [&str; 0] = [];
    // A straight line, through the parent that passes it on.
    assert_eq!(
        circles(&[
            ("a/mod.rs", "mod b; mod c;\npub use b::B;"),
            ("a/b.rs", "pub struct B;"),
            ("a/c.rs", "use super::B;\nfn f(_: B) {}")
        ]),
        none
    );
    for (parent, one, other) in [
        ("mod b; mod c;", "use super::c::C;\npub struct B(C);", "use super::b::B;\npub struct C(Box<B>);"),
        ("mod b; mod c;", "pub fn b() { super::c::c() }", "pub fn c() { crate::a::b::b() }"),
        (
            "mod b; mod c;\npub use b::B;\npub use c::*;",
            "use super::C;\npub struct B(C);",
            "use crate::a::B;\npub struct C(Box<B>);",
        ),
        ("mod b; mod c;", "use super::*;\npub fn b() { c::c() }", "use super::b;\npub fn c() { b::b() }"),
        (
            "mod b; mod c;\npub use b::B as D;",
            "pub fn f() { vec![super::c::C] }\npub struct B;",
            "use super::D;\npub struct C(D);",
        ),
    ] {
        let found = circles(&[("a/mod.rs", parent), ("a/b.rs", one), ("a/c.rs", other)]);
        assert!(found.iter().any(|circle| circle.contains("a/b.rs a/c.rs")), "{parent} {one} {other}: {found:?}");
    }
    let parent_and_child = [("a/mod.rs", "mod b;\npub fn a() { b::b() }"), ("a/b.rs", "pub fn b() { super::a() }")];
    assert_eq!(circles(&parent_and_child), none, "they belong together");
    let of_tests = [
        ("a/mod.rs", "mod b; mod c;"),
        ("a/b.rs", "pub fn b() { super::c::c() }"),
        ("a/c.rs", "pub fn c() {}\n#[cfg(test)]\nmod tests { fn f() { super::super::b::b() } }"),
    ];
    assert_eq!(circles(&of_tests), none);
    let three = [
        ("a/mod.rs", "mod b; mod c; mod d;"),
        ("a/b.rs", "use super::c;\npub fn b() { c::c() }"),
        ("a/c.rs", "use super::d;\npub fn c() { d::d() }"),
        ("a/d.rs", "use super::b;\npub fn d() { b::b() }"),
    ];
    assert_eq!(circles(&three), ["a/b.rs a/c.rs a/d.rs"]);
}
