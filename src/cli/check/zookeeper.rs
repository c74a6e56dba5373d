//! What ZooKeeper's servers say of themselves, so that servers of one ensemble are not taken for
//! ensembles of their own.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::HostPort;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer that is read: bytes.
const ANSWER: u64 = 16 * 1024;

/// What is wrong with `server` as an ensemble of its own, if it can be told: it follows or leads
/// others.
///
/// Asked by ZooKeeper's four-letter word `srvr`, which servers answer unless an operator has
/// forbidden it.
pub(super) async fn belongs_to_others(server: &HostPort) -> Option<String> {
    let answer = tokio::time::timeout(PATIENCE, ask(server)).await.ok()?.ok()?;
    let role = match mode(&answer)? {
        "leader" => "leads",
        "follower" | "observer" => "follows",
        _ => return None,
    };
    Some(format!(
        "{server} {role} other servers: it is one of an ensemble. Write the servers of an ensemble as one text, separated by commas"
    ))
}

async fn ask(server: &HostPort) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((server.host(), server.port())).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// `standalone`, `leader`, `follower` or `observer`.
fn mode(answer: &str) -> Option<&str> {
    answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn said_of(answer: &'static str) -> Option<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap().into();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"srvr");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let told = belongs_to_others(&server).await;
        answering.await.unwrap();
        told
    }

    #[tokio::test]
    async fn a_server_of_an_ensemble_is_told_from_one_that_stands_alone() {
        let told = said_of("Zookeeper version: 3.8.4\nLatency min/avg/max: 0/0.0/0\nMode: follower\nNode count: 5\n").await;
        assert!(told.unwrap().contains("follows other servers"));
        assert!(said_of("Mode: leader\n").await.unwrap().contains("leads other servers"));
        assert_eq!(said_of("Mode: standalone\n").await, None);
        assert_eq!(said_of("srvr is not executed because it is not in the whitelist.\n").await, None);
        assert_eq!(said_of("").await, None);
        assert_eq!(belongs_to_others(&"127.0.0.1:1".parse().unwrap()).await, None);
    }
}
