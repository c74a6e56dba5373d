//! Child processes that cannot outlive the test.

use std::process::Command;

/// The kernel kills the child when the thread that starts it ends, however it ends.
pub fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is async-signal-safe, and nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
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
