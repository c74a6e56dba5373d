//! Logging: to standard error, one line an event, for people or for machines.
//!
//! What may be logged: names of nodes, queues, settings, refusals. Never tokens, passwords, or
//! anything of a mail.
//!
//! A log that cannot be written costs log lines and nothing else. Lines wait, within bounds, for a
//! thread of their own: whoever logs never waits for the reader of a pipe, and never hears of an
//! error. How many lines are lost is told once one can be written again.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
#[expect(clippy::disallowed_types, reason = "with a condition; it is taken whatever locks are held, and takes none")]
use std::sync::Mutex;
use std::sync::{Arc, Condvar, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{error, warn};

use crate::config::{LogFormat, LogSettings};

/// What waits to be written, at most: bytes.
const WAITING_BYTES: usize = 1 << 20;

/// Between attempts to write to what takes nothing now (a pipe that somebody has made
/// non-blocking).
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// How long [`flush`] waits.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts logging for the process. A second call changes nothing.
pub fn start(settings: &LogSettings) {
    let filter = settings.filter.filter();
    // It logs frames with all that is in them, tokens too: whatever the filter says, that stays
    // out.
    let filter = match "tungstenite=info".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let log = LOG
        .get_or_init(|| Log::start(standard_error(), |lost| warn!(lost, "log lines are lost: standard error did not take them")));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || log.clone())
        // It would tell of its own errors on standard error, and panic where that is gone.
        .log_internal_errors(false);
    let started = match settings.format {
        LogFormat::Human => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            logging.with_ansi(colours).try_init()
        }
        LogFormat::Json => logging.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    // Only fails where logging has been started already.
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Waits until what was logged is written, but not for long.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

/// A handle of its own: the thread that writes must hold no lock that others may want.
fn standard_error() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(own) => Box::new(File::from(own)),
        Err(_) => Box::new(io::stderr()),
    }
}

/// A panic is an event of the log like any other.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let words = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let words = words.unwrap_or("without words");
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        error!(place, thread, %backtrace, "a thread has panicked: {words}");
    } else {
        error!(place, thread, "a thread has panicked: {words}");
    }
}

/// Lines on their way to where they are written.
#[derive(Clone)]
struct Log {
    shared: Arc<Shared>,
}

#[derive(Default)]
#[expect(clippy::disallowed_types, reason = "as above")]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that nobody will read, and that nobody has been told of.
    lost: u64,
    /// Whether lines that were taken out are being written.
    writing: bool,
}

impl Shared {
    /// A poisoned lock holds whole lines all the same.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Starts the thread that writes; it tells how many lines are lost once it can write again.
    /// Without it (there may be no thread to be had) all lines are lost.
    fn start(out: impl Write + Send + 'static, tell_lost: impl Fn(u64) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let writing = shared.clone();
        let _ = thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&writing, out, tell_lost));
        Self { shared }
    }

    fn flush(&self) {
        let waiting = self.shared.waiting();
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        // After the timeout they stay unwritten.
        drop(self.shared.changed.wait_timeout_while(waiting, FLUSH_PATIENCE, busy));
    }
}

/// Takes one whole line; never waits, never fails.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.shared.waiting();
        if waiting.bytes + line.len() > WAITING_BYTES {
            waiting.lost += 1;
        } else {
            waiting.bytes += line.len();
            waiting.lines.push_back(line.to_vec());
            self.shared.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what comes, for as long as the process lives.
fn write_lines(shared: &Shared, mut out: impl Write, tell_lost: impl Fn(u64)) {
    loop {
        let lines = {
            let waiting = shared.waiting();
            let mut waiting =
                shared.changed.wait_while(waiting, |waiting| waiting.lines.is_empty()).unwrap_or_else(PoisonError::into_inner);
            waiting.writing = true;
            waiting.bytes = 0;
            std::mem::take(&mut waiting.lines)
        };
        let count = lines.len() as u64;
        let unwritten = lines.iter().filter(|line| write_line(&mut out, line).is_err()).count() as u64;
        let lost = {
            let mut waiting = shared.waiting();
            waiting.writing = false;
            waiting.lost += unwritten;
            shared.changed.notify_all();
            if unwritten < count { std::mem::take(&mut waiting.lost) } else { 0 }
        };
        if lost > 0 {
            tell_lost(lost);
        }
    }
}

fn write_line(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes a write once it is let, with what it is then told to answer.
    struct Gate {
        let_go: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.let_go.recv().unwrap_or(Err(ErrorKind::BrokenPipe.into()))?;
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A log, and the other ends of its gate.
    struct Watched {
        log: Log,
        let_go: Sender<io::Result<()>>,
        written: Receiver<Vec<u8>>,
        told: Receiver<u64>,
    }

    fn gate() -> Watched {
        let ((let_go, gate), (sender, written), (teller, told)) = (channel(), channel(), channel());
        let tell = move |lost| {
            let _ = teller.send(lost);
        };
        Watched { log: Log::start(Gate { let_go: gate, written: sender }, tell), let_go, written, told }
    }

    #[test]
    fn whoever_logs_never_waits_and_nothing_grows_without_bound() {
        let Watched { mut log, let_go, written, told } = gate();
        let line = [b'x'; 1024];
        for _ in 0..10_000 {
            log.write_all(&line).unwrap();
        }
        let waiting = log.shared.waiting();
        assert!(waiting.bytes <= WAITING_BYTES && waiting.lost > 8_000, "{} {}", waiting.bytes, waiting.lost);
        let (lost, kept) = (waiting.lost, 10_000 - waiting.lost);
        drop(waiting);
        for _ in 0..kept {
            let_go.send(Ok(())).unwrap();
            assert_eq!(written.recv().unwrap(), line);
        }
        assert_eq!(told.recv().unwrap(), lost, "once somebody reads again it is told");
    }

    #[test]
    fn an_error_costs_its_line_and_a_full_pipe_none() {
        let Watched { mut log, let_go, written, told } = gate();
        for (line, answers) in [("a", vec![Err(ErrorKind::StorageFull)]), ("b", vec![Err(ErrorKind::WouldBlock), Ok(())])] {
            log.write_all(line.as_bytes()).unwrap();
            for answer in answers {
                let_go.send(answer.map_err(Into::into)).unwrap();
            }
        }
        log.flush();
        assert_eq!((written.recv().unwrap(), told.recv().unwrap()), (b"b".to_vec(), 1));
    }
}
