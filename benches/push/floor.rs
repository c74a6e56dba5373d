//! What the kernel alone allows: one `send` a client over loopback and nothing else. A server that writes to each
//! client's own socket cannot deliver single events faster than that.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;

const PAIRS: usize = 5_000;
const ROUNDS: u64 = 30;

/// Sends of `bytes` bytes per second of the sender's CPU time.
pub fn sends_per_core(bytes: usize, descriptors: usize) -> f64 {
    // Both ends are in this process.
    let pairs = PAIRS.min(descriptors.saturating_sub(500) / 2);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("the address");
    let read = Arc::new(AtomicU64::new(0));
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let sender = TcpStream::connect(address).expect("connect");
        sender.set_nodelay(true).expect("set TCP_NODELAY");
        socket2::SockRef::from(&sender).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
        senders.push(sender);
        let (reader, _) = listener.accept().expect("accept");
        reader.set_nonblocking(true).expect("not to block");
        readers.push(reader);
    }
    let counted = read.clone();
    let reading = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let readers = readers.into_iter().map(|reader| {
                let mut reader = tokio::net::TcpStream::from_std(reader).expect("a stream");
                let read = counted.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                        read.fetch_add(count as u64, Ordering::Release);
                    }
                })
            });
            futures::future::join_all(readers.collect::<Vec<_>>()).await;
        });
    });
    let payload = vec![b'x'; bytes];
    let mut spent = 0.0;
    // The first round warms up.
    for round in 0..=ROUNDS {
        let begun = thread_cpu();
        for sender in &mut senders {
            assert_eq!(sender.write(&payload).expect("send"), bytes, "nothing is in the way");
        }
        spent += if round == 0 { 0.0 } else { thread_cpu() - begun };
        while read.load(Ordering::Acquire) < (round + 1) * (pairs * bytes) as u64 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    drop(senders);
    reading.join().expect("the readers end");
    ROUNDS as f64 * pairs as f64 / spent
}

/// CPU time of this thread, in seconds.
fn thread_cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
