//! The real servers that the tests run against: Apache Kafka and Apache ZooKeeper, as jars from Maven Central.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The folder with Kafka's and ZooKeeper's jars, fetched on first use (needs `mvn`, nothing else).
///
/// Test binaries run side by side: a file lock lets one of them fetch.
pub fn server_jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("target/fixtures");
        fs::create_dir_all(&folder).expect("make the folder for fixtures");
        let lock = File::create(folder.join("lock")).expect("make the lock file");
        lock.lock().expect("lock the fixtures");
        let jars = folder.join("servers");
        if !jars.join("complete").exists() {
            let status = Command::new("mvn")
                .args(["-q", "-B", "-f"])
                .arg(root.join("tests/fixtures/servers/pom.xml"))
                .arg("org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies")
                .arg(format!("-DoutputDirectory={}", jars.display()))
                .arg("-DincludeScope=runtime")
                .status();
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => panic!("Maven could not fetch the test servers ({status}): is a repository reachable?"),
                Err(error) => panic!("the tests need Maven (`mvn`) and a JDK 17 to fetch and run Kafka and ZooKeeper: {error}"),
            }
            File::create(jars.join("complete")).expect("mark the jars as complete");
        }
        jars
    })
}

/// A free loopback port, below those that the kernel gives to connections that go out: a server that is killed and started
/// again finds it free. Another process of tests may take it before its user does; starting a server on it retries.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes that begin one after another begin far apart.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let number = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + number).expect("a port");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
