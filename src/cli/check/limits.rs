//! Whether the process may open as many files as its limits on connections need.

use crate::config::{Purpose, Settings};

/// What is wrong with the limit of open files, if anything. `limits` is the text of Linux's
/// `/proc/self/limits`.
pub(super) fn open_files(settings: &Settings, purpose: Purpose, limits: &str) -> Option<String> {
    let (needed, what) = settings.open_files(purpose);
    // The hard limit: `serve` raises the soft one to it.
    let allowed = hard_limit(limits)?;
    (needed > allowed).then(|| {
        format!(
            "{what} need {needed} open files, but {allowed} are allowed here: connections beyond that fail. Lower the settings, or raise \
             the limit where mailpush runs (systemd: LimitNOFILE, shell: ulimit -Hn)."
        )
    })
}

/// `None` where there is no limit, or none is told.
fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max processes             1                    2                    processes
Max open files            1024                 524288               files
";

    #[test]
    fn the_hard_limit_must_hold_all_connections() {
        let mut settings = Settings::default();
        assert_eq!(open_files(&settings, Purpose::Serve, LIMITS), None);
        settings.http.max_connections = 524_288;
        let problem = open_files(&settings, Purpose::Serve, LIMITS).unwrap();
        assert!(problem.starts_with("http.max_connections need 524352 open files, but 524288 are allowed here"), "{problem}");
        for text in ["", "Max open files", "Max open files   1024   unlimited   files"] {
            assert_eq!(open_files(&settings, Purpose::Serve, text), None, "{text:?}");
        }
    }
}
