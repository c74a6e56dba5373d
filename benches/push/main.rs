//! The numbers of this implementation, measured: `cargo bench`, or `cargo bench -- codec memory` for some of them.
//!
//! Servers run as processes of their own, as in production. `BENCH_BINARY` names another program than the
//! one that Cargo built along (which has the test dependencies' features), such as a release.

#[path = "../../tests/support/mod.rs"]
mod support;

mod codec;
mod crowd;
mod fanout;
mod floor;
mod imap_crowd;
mod imap_latency;
mod imap_memory;
mod imap_relay;
mod imap_upstream;
mod latency;
mod lookup;
mod memory;
mod report;
mod rights;
mod server;
mod setup;
mod view;

use report::Report;

/// The program's own: what runs in this process is measured with it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NAMES: [&str; 11] = [
    "codec",
    "view",
    "lookup",
    "registration",
    "fan-out",
    "memory",
    "latency",
    "rights",
    "imap-latency",
    "imap-memory",
    "imap-relay",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this without the flag: nothing to test here.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run me with: cargo bench -- [{}]", NAMES.join("|"));
        return;
    }
    if arguments.iter().any(|argument| argument == imap_upstream::MODE) {
        return imap_upstream::main();
    }
    let chosen: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = chosen.iter().find(|name| !NAMES.contains(&name.as_str())) {
        println!("no bench is called {unknown}: there are {}", NAMES.join(", "));
        std::process::exit(2);
    }
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| *chosen == name);
    let sockets = setup::raise_descriptor_limit();
    setup::print(sockets);
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if wanted("codec") {
        codec::run(&mut report);
    }
    if wanted("view") {
        view::run(&mut report);
    }
    if wanted("lookup") {
        runtime.block_on(lookup::run(&mut report));
    }
    if wanted("registration") {
        runtime.block_on(lookup::run_registration(&mut report));
    }
    if wanted("fan-out") {
        let floor = floor::sends_per_core(300, sockets);
        let note = "one send of 300 bytes to each of many clients and nothing else: single events cannot go faster";
        report.add("fan-out: what the kernel allows", floor, "/s", report::Target::None, note);
        runtime.block_on(fanout::run(&mut report, sockets));
    }
    if wanted("memory") {
        runtime.block_on(memory::run(&mut report, sockets));
    }
    if wanted("latency") {
        runtime.block_on(latency::run(&mut report));
    }
    if wanted("rights") {
        runtime.block_on(rights::run(&mut report));
    }
    if wanted("imap-latency") {
        runtime.block_on(imap_latency::run(&mut report));
    }
    if wanted("imap-memory") {
        runtime.block_on(imap_memory::run(&mut report, sockets));
    }
    if wanted("imap-relay") {
        runtime.block_on(imap_relay::run(&mut report));
    }
    report.print();
}
