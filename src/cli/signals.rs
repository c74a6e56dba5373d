//! Signals that a process which runs for long is sent.

use std::pin::pin;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::CliError;

/// Listens from when it is made: from then on none of these signals ends the process by itself.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Listens to all of them.
    pub fn listen() -> Result<Self, CliError> {
        let listen = |kind, name: &str| signal(kind).with_context(|| format!("cannot listen for {name}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            hangup: listen(SignalKind::hangup(), "SIGHUP")?,
            user1: listen(SignalKind::user_defined1(), "SIGUSR1")?,
            user2: listen(SignalKind::user_defined2(), "SIGUSR2")?,
        })
    }

    /// Waits for SIGTERM or SIGINT. SIGHUP, SIGUSR1 and SIGUSR2 mean nothing yet: they are logged,
    /// and change nothing.
    pub async fn stop(&mut self) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => return info!("told to stop (SIGTERM)"),
                _ = self.interrupt.recv() => return info!("told to stop (SIGINT)"),
                _ = self.hangup.recv() => "SIGHUP",
                _ = self.user1.recv() => "SIGUSR1",
                _ = self.user2.recv() => "SIGUSR2",
            };
            info!(signal = name, "a signal that changes nothing: settings are read at the start");
        }
    }

    /// Runs a drain to its end. Another SIGTERM or SIGINT hastens it.
    pub async fn drain<F: Future<Output = ()>>(&mut self, drain: impl FnOnce(CancellationToken) -> F) {
        let hurry = CancellationToken::new();
        let mut drain = pin!(drain(hurry.clone()));
        loop {
            tokio::select! {
                () = drain.as_mut() => return,
                () = self.stop() => hurry.cancel(),
            }
        }
    }
}
