//! One event to very many subscribers of one node.

use std::time::Instant;

use mailpush::edge::auth::Scopes;

use super::crowd::{Crowd, Member};
use super::report::{Report, Target, quantile};
use super::server::{Server, token};

const CLIENTS: usize = 10_000;
const USER: &str = "alice@example.org";
const MAILBOX: &str = "#private:alice@example.org:INBOX";
const SINGLES: usize = 50;
const BURSTS: usize = 5;
const BURST: usize = 20;
/// Of one core of the server: deliveries in a second of its CPU time.
const PER_CORE: Target = Target::AtLeast(300_000.0);

/// Connects the crowd, then lets single events and bursts of them go to everybody.
pub async fn run(report: &mut Report, descriptors: usize) {
    let clients = CLIENTS.min(descriptors.saturating_sub(500));
    println!("fan-out to {clients} clients");
    let server = Server::dev(&["sessions.sessions_per_user=100000"]).await;
    let token = token(USER, Scopes::PUSH);
    let member = |_| Member { token: token.clone(), mailbox: MAILBOX.to_owned() };
    let crowd = Crowd::connect(&server.address, (0..clients).map(member).collect()).await;
    let mut told = 0;

    let mut number = 0;
    let mut event = || {
        number += 1;
        event(number)
    };
    // Warms up both sides.
    for _ in 0..10 {
        server.publish(event()).await;
        told += clients as u64;
        crowd.wait_for(told).await;
    }

    let (mut times, cpu) = (Vec::new(), server.cpu());
    for _ in 0..SINGLES {
        let begun = Instant::now();
        server.publish(event()).await;
        told += clients as u64;
        times.push((crowd.wait_for(told).await - begun).as_secs_f64());
    }
    let spent = server.cpu() - cpu;
    let median = quantile(&mut times, 0.5);
    let note = format!("{SINGLES} events one by one to {clients} clients, {} bytes of JSON", event().len());
    report.add("fan-out: per core of the server", (SINGLES * clients) as f64 / spent, "/s", PER_CORE, &note);
    report.add("fan-out: publish to the last of all clients", median * 1e3, "ms", Target::None, "median of the same");
    let wall = clients as f64 / median;
    report.add("fan-out: by the clock", wall, "/s", Target::None, "the same; the clients run on the same machine");

    let (mut rates, cpu) = (Vec::new(), server.cpu());
    for _ in 0..BURSTS {
        let batch: Vec<String> = (0..BURST).map(|_| event()).collect();
        let begun = Instant::now();
        server.publish(format!("[{}]", batch.join(","))).await;
        told += (BURST * clients) as u64;
        rates.push((BURST * clients) as f64 / (crowd.wait_for(told).await - begun).as_secs_f64());
    }
    let spent = server.cpu() - cpu;
    let note = format!("{BURSTS} bursts of {BURST}");
    report.add("fan-out of bursts: per core of the server", (BURSTS * BURST * clients) as f64 / spent, "/s", PER_CORE, &note);
    report.add("fan-out of bursts: by the clock", quantile(&mut rates, 0.5), "/s", Target::None, "the same, median");
    crowd.check(told);
}

fn event(number: u32) -> String {
    format!(
        r##"{{"type":"MessageNew","mailbox":"{MAILBOX}","uidvalidity":1700000000,
"status":{{"messages":812,"uidnext":{},"unseen":3,"highestmodseq":90211}},
"messages":[{{"uid":{number},"flags":[],"size":18213,"internaldate":1795467000000,"modseq":90211}}]}}"##,
        number + 1
    )
}
