//! Whether the process may open as many files as its limits on connections need.

use rlimit::Resource;

use crate::config::{Purpose, Settings};
use crate::http::files;

/// What is wrong with the limit of open files, if anything.
pub(super) fn open_files(settings: &Settings, purpose: Purpose) -> Option<String> {
    // `serve` and `agent` raise the soft limit to the hard one. A limit that cannot be asked for is
    // not ours to judge.
    let (_, hard) = Resource::NOFILE.get().ok()?;
    problem(settings, purpose, hard)
}

fn problem(settings: &Settings, purpose: Purpose, limit: u64) -> Option<String> {
    let (needed, what) = settings.open_files(purpose);
    let reserve = files::reserve_of(limit);
    (needed > limit.saturating_sub(reserve)).then(|| {
        format!(
            "{what} need {needed} open files, and {reserve} are kept for everything else, but {limit} are allowed here: \
             connections beyond that are turned away. Lower the settings, or raise the limit where mailpush runs (systemd: \
             LimitNOFILE, shell: ulimit -Hn)."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_must_hold_all_connections() {
        let mut settings = Settings::default();
        settings.http.max_connections = 1_000;
        assert_eq!(problem(&settings, Purpose::Serve, 1_256), None);
        let told = problem(&settings, Purpose::Serve, 1_024).unwrap();
        let expected =
            "http.max_connections need 1000 open files, and 128 are kept for everything else, but 1024 are allowed here";
        assert!(told.starts_with(expected), "{told}");
        assert_eq!(problem(&settings, Purpose::Serve, u64::MAX), None);
    }
}
