//! The servers that the tests start: none outlives this program, however it ends.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::process::{die_with_parent, spawn_tied};
use crate::support::wait::eventually;
use crate::support::zookeeper::TestZookeeper;

const PATIENCE: Duration = Duration::from_secs(30);
/// Set in a program of tests that is to be killed.
const MARK: &str = "TEST_IS_TO_BE_KILLED";

/// This program again, with one test that starts what all tests share, and is then killed without a word.
#[tokio::test]
async fn what_all_tests_share_ends_with_a_program_that_is_killed() {
    if std::env::var_os(MARK).is_some() {
        let zookeeper = TestZookeeper::shared().await;
        println!("\nstarted {}", zookeeper.pid());
        std::io::stdout().flush().expect("tell it");
        std::future::pending::<()>().await;
    }
    let mut again = Command::new(std::env::current_exe().expect("where this program is"));
    again.args(["--exact", "jdk::servers::what_all_tests_share_ends_with_a_program_that_is_killed", "--nocapture"]);
    again.env(MARK, "1").stdin(Stdio::null()).stdout(Stdio::piped());
    die_with_parent(&mut again);
    let mut program = again.spawn().expect("run this program again");
    let lines = BufReader::new(program.stdout.take().expect("its output")).lines();
    let server = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("started ")?.parse::<u32>().ok());
    let server = Path::new("/proc").join(server.expect("it starts ZooKeeper").to_string());
    assert!(server.exists(), "ZooKeeper runs");
    program.kill().expect("kill it");
    program.wait().expect("wait for it");
    eventually("ZooKeeper has ended", PATIENCE, async || (!server.exists()).then_some(())).await;
}

#[tokio::test]
async fn what_all_tests_share_outlives_the_test_that_starts_it() {
    let starter = std::thread::spawn(|| {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        spawn_tied(command).expect("start cat")
    });
    let mut cat = starter.join().expect("the thread that starts it ends");
    cat.stdin.take().expect("its input").write_all(b"here\n").expect("it listens");
    let mut line = String::new();
    BufReader::new(cat.stdout.take().expect("its output")).read_line(&mut line).expect("it answers");
    assert_eq!(line, "here\n");
    assert!(cat.wait().expect("it ends by itself").success());
}
