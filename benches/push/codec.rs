//! Encoding and decoding a typical event.

use std::hint::black_box;
use std::time::Instant;

use mailpush::mail::codec::{from_json, from_msgpack, to_msgpack};
use mailpush::mail::event::Event;

use super::report::{Report, Target, quantile};

/// A delivery as a mail server reports it.
pub const TYPICAL: &str = r##"{"v":1,"type":"MessageNew","id":"019ab27c-7d40-7000-8000-0123456789ab","at":1795467000123,"origin":"mail2",
"mailbox":"#private:bob@example.org:INBOX","uidvalidity":1700000000,
"status":{"messages":812,"uidnext":4712,"unseen":3,"highestmodseq":90211},
"messages":[{"uid":4711,"flags":[],"size":18213,"internaldate":1795467000000,"modseq":90211}]}"##;

const CALLS: u32 = 200_000;
const ROUNDS: usize = 7;

/// Measures both ways, and both together.
pub fn run(report: &mut Report) {
    println!("codec");
    let event: Event = from_json(TYPICAL.as_bytes(), None).expect("the typical event");
    let mut buffer = Vec::new();
    to_msgpack(&event, &mut buffer);
    let bytes = buffer.clone();
    assert_eq!(from_msgpack(&bytes, None).expect("decodes"), event, "what is measured is right");

    let encode = median(|| to_msgpack(black_box(&event), black_box(&mut buffer)));
    let decode = median(|| drop(black_box(from_msgpack(black_box(&bytes), None))));
    let both = median(|| {
        to_msgpack(black_box(&event), &mut buffer);
        drop(black_box(from_msgpack(black_box(&buffer), None)));
    });
    let note = format!("median of {ROUNDS} rounds of {CALLS}");
    report.add("codec: encode, reused buffer", encode, "µs", Target::None, &note);
    report.add("codec: decode", decode, "µs", Target::None, &note);
    report.add("codec: encode + decode", both, "µs", Target::AtMost(2.0), &note);
    report.add("codec: size of a typical event", bytes.len() as f64, "bytes", Target::AtMost(300.0), "MessagePack");
}

/// Microseconds a call.
fn median(mut call: impl FnMut()) -> f64 {
    // The first round warms up.
    let mut rounds: Vec<f64> = (0..=ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            (0..CALLS).for_each(|_| call());
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
        })
        .skip(1)
        .collect();
    quantile(&mut rounds, 0.5)
}
