//! Child processes that cannot outlive the test, nor the program of the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The kernel kills the child when the thread that starts it ends, however it ends.
pub fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is async-signal-safe, and nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Starts a process that may outlive the test, but not this program, even if this one is killed.
///
/// The kernel ties a child to the *thread* that made it, and a test's thread ends with the test: so one thread,
/// which never ends, makes them all.
pub fn spawn_tied(mut command: Command) -> std::io::Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static MAKER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let maker = MAKER.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in received {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    die_with_parent(&mut command);
    let (reply, made) = mpsc::channel();
    maker.send((command, reply)).expect("the maker of processes lives");
    made.recv().expect("the maker of processes answers")
}

/// When this program ends in an orderly way, it kills this child and then removes its folder: what all tests share is in
/// statics, which are never dropped.
pub fn end_at_exit(child: u32, folder: &Path) {
    static CHILDREN: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());
    fn children() -> MutexGuard<'static, Vec<(u32, PathBuf)>> {
        CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
    }
    extern "C" fn end() {
        let children = std::mem::take(&mut *children());
        children.iter().for_each(|(child, _)| signal(*child, libc::SIGKILL));
        let deadline = Instant::now() + Duration::from_secs(2);
        for (child, folder) in children {
            while Instant::now() < deadline && !is_over(child) {
                thread::yield_now();
            }
            let _ = fs::remove_dir_all(folder);
        }
    }
    let mut children = children();
    if children.is_empty() {
        // SAFETY: `end` does not unwind, and relies on nothing but the static.
        unsafe { libc::atexit(end) };
    }
    children.push((child, folder.to_owned()));
}

/// Makes something that all tests share, processes and all, on a thread of its own which never ends; it is dropped when this
/// program ends in an orderly way.
pub fn keep<T: Send + Sync + 'static>(make: impl AsyncFnOnce() -> T + Send + 'static) -> &'static T {
    type End = Box<dyn FnOnce() + Send>;
    static ENDS: Mutex<Vec<End>> = Mutex::new(Vec::new());
    extern "C" fn end_all() {
        let ends = std::mem::take(&mut *ENDS.lock().unwrap_or_else(PoisonError::into_inner));
        ends.into_iter().for_each(|end| end());
    }
    let (made, kept) = mpsc::channel();
    // The kernel kills the processes when the thread that started them ends: this one does not.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        made.send(Box::new(runtime.block_on(make()))).expect("somebody waits for it");
        loop {
            thread::park();
        }
    });
    let kept = Box::into_raw(kept.recv().expect("it starts"));
    let address = kept as usize;
    let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
    if ends.is_empty() {
        // SAFETY: `end_all` relies on nothing but the static.
        unsafe { libc::atexit(end_all) };
    }
    // SAFETY: it came out of a box, once; the tests that used it are over.
    ends.push(Box::new(move || drop(unsafe { Box::from_raw(address as *mut T) })));
    // SAFETY: it lives until the program ends.
    unsafe { &*kept }
}

/// Whether a child has ended; then it is reaped.
fn is_over(child: u32) -> bool {
    // SAFETY: a status is not asked for, so no memory is involved; whoever is not our child is an error code.
    unsafe { libc::waitpid(child as libc::pid_t, std::ptr::null_mut(), libc::WNOHANG) != 0 }
}

/// Sends a signal to a group of processes, which a process of ours leads.
pub fn signal_group(leader: u32, signal: i32) {
    // SAFETY: no memory is involved; a group that is gone is an error code.
    unsafe { libc::kill(-(leader as libc::pid_t), signal) };
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: no memory is involved; a wrong pid is an error code.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}
