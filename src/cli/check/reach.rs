//! Whether servers' ports answer, and if not why, in words for whoever runs them. Libraries hide
//! it: to them a name that does not resolve and a port that nobody listens on are both "no
//! connection".

use std::io::{self, ErrorKind};
use std::time::Duration;

use futures::future::join_all;
use tokio::net::{TcpStream, lookup_host};

use crate::config::HostPort;

/// How long a port may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
const NO_NAME: &str = "the name does not resolve";
const REFUSED: &str = "connection refused";

/// What came of trying each server of a list.
pub(super) struct Reachability {
    reached: usize,
    /// `host:port`, and why it cannot be reached.
    failures: Vec<(String, String)>,
}

impl Reachability {
    /// Why none can be reached; `None` if one can.
    pub fn problem(&self) -> Option<String> {
        match &self.failures[..] {
            _ if self.reached > 0 => None,
            [(_, cause)] => Some(cause.clone()),
            failures => {
                Some(failures.iter().map(|(address, cause)| format!("{address}: {cause}")).collect::<Vec<_>>().join("; "))
            }
        }
    }

    /// A line for each that cannot be reached.
    pub fn warnings(&self) -> Vec<String> {
        self.failures.iter().map(|(address, cause)| format!("{address}: {cause}")).collect()
    }
}

/// Tries all servers, side by side.
pub(super) async fn reach_all(servers: &[HostPort]) -> Reachability {
    let tries = servers.iter().map(|server| async move { (server.to_string(), reach(server).await) });
    let mut tried = Reachability { reached: 0, failures: Vec::new() };
    for (address, outcome) in join_all(tries).await {
        match outcome {
            Ok(()) => tried.reached += 1,
            Err(cause) => tried.failures.push((address, cause)),
        }
    }
    tried
}

/// Connects to the server and hangs up. The error is the cause, such as "connection refused".
pub(super) async fn reach(server: &HostPort) -> Result<(), String> {
    let attempt = async {
        let found: Vec<_> = lookup_host((server.host(), server.port())).await.map_err(|error| name_error(&error))?.collect();
        TcpStream::connect(&found[..]).await.map(drop).map_err(|error| cause(&error))
    };
    let outcome = tokio::time::timeout(PATIENCE, attempt).await;
    outcome.unwrap_or_else(|_| Err(format!("no answer within {} seconds", PATIENCE.as_secs())))
}

/// The system tells them apart in its text alone.
fn name_error(error: &io::Error) -> String {
    match error.to_string().contains("Temporary failure") {
        true => "the name cannot be resolved: the name server does not answer".to_owned(),
        false => NO_NAME.to_owned(),
    }
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => REFUSED.to_owned(),
        ErrorKind::TimedOut => "no answer".to_owned(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "there is no route to it".to_owned(),
        _ => plain(&error.to_string()),
    }
}

/// An error of a library with the system's causes in plain words, and without the system's numbers.
pub(super) fn plain(text: &str) -> String {
    const LOOKUP: &str = "failed to lookup address information";
    const OS_ERROR: &str = " (os error ";
    let text = match text.split_once(LOOKUP) {
        Some((before, _)) => format!("{before}{NO_NAME}"),
        None => text.replace("Connection refused", REFUSED),
    };
    match text.split_once(OS_ERROR) {
        Some((before, after)) => format!("{before}{}", after.split_once(')').map_or("", |(_, rest)| rest)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_cause_is_told_in_plain_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = HostPort::from(listener.local_addr().unwrap());
        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            HostPort::from(gone.local_addr().unwrap())
        };
        assert_eq!(reach(&open).await, Ok(()));
        assert_eq!(reach(&closed).await, Err(REFUSED.to_owned()));
        // RFC 6761: never resolves. Where there is no name server at all, that is told.
        let unknown = reach(&"mx.invalid:143".parse().unwrap()).await.unwrap_err();
        assert!(unknown == NO_NAME || unknown.contains("name server"), "{unknown}");

        let some = reach_all(&[open.clone(), closed.clone()]).await;
        assert_eq!((some.problem(), some.warnings()), (None, vec![format!("{closed}: {REFUSED}")]));
        assert_eq!(reach_all(std::slice::from_ref(&closed)).await.problem().as_deref(), Some(REFUSED));
        let none = reach_all(&[closed.clone(), closed.clone()]).await.problem().unwrap();
        assert_eq!(none, format!("{closed}: {REFUSED}; {closed}: {REFUSED}"));
    }

    #[test]
    fn a_librarys_words_become_plain() {
        for (theirs, ours) in [
            ("error sending request: Connection refused (os error 111)", "error sending request: connection refused"),
            ("mx:143 failed to lookup address information: Name or service not known", "mx:143 the name does not resolve"),
            ("No such file or directory (os error 2): key.pem", "No such file or directory: key.pem"),
            ("the answer was 404", "the answer was 404"),
            ("(os error", "(os error"),
            (" (os error 2", ""),
        ] {
            assert_eq!(plain(theirs), ours);
        }
    }
}
