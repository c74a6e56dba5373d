//! The checks of the IMAP door.

use super::checker::Checker;
use super::{ImapSettings, ImapTls, Park, Purpose, Settings};

/// RFC 9051 5.4: an autologout timer must be at least 30 minutes.
const AUTOLOGOUT_MS: u64 = 30 * 60 * 1000;

pub(super) fn imap(checker: &mut Checker<'_>, settings: &Settings, purpose: Purpose) {
    let imap = &settings.imap;
    numbers(checker, imap, purpose);
    certificate(checker, imap);
    upstream(checker, imap, purpose);
    parking(checker, imap);
    let domain = &settings.auth.default_domain;
    checker.require(
        &["imap.master.strip_domain", "auth.default_domain"],
        !imap.master.strip_domain || !domain.is_empty(),
        "is set although auth.default_domain is not",
        "Name the domain that the mail server's users are called without.",
    );
}

fn numbers(checker: &mut Checker<'_>, imap: &ImapSettings, purpose: Purpose) {
    let least = [
        ("max_connections", imap.max_connections as u64, 1),
        ("connections_per_user", imap.connections_per_user as u64, 1),
        ("connections_per_address", imap.connections_per_address as u64, 1),
        ("unauthenticated_connections", imap.unauthenticated_connections as u64, 1),
        ("line_limit_bytes", imap.line_limit_bytes as u64, 8192),
        ("register_timeout_ms", imap.register_timeout_ms.0, 1),
        ("catch_up_ms", imap.catch_up_ms.0, 1),
        ("unpark_per_second", imap.unpark_per_second.into(), 1),
        ("upstream.connect_timeout_ms", imap.upstream.connect_timeout_ms.0, 1),
    ];
    // Somebody who tries things out does not want to wait for minutes.
    let patient = |least: u64| if purpose == Purpose::Dev { 1 } else { least };
    let times = [
        ("login_deadline_ms", imap.login_deadline_ms.0, patient(1_000)),
        ("keepalive_ms", imap.keepalive_ms.0, patient(1_000)),
        ("audit_ms", imap.audit_ms.0, patient(1_000)),
        ("poll_ms", imap.poll_ms.0, patient(1_000)),
        ("idle_timeout_ms", imap.idle_timeout_ms.0, patient(AUTOLOGOUT_MS)),
    ];
    for (name, value, least) in least.into_iter().chain(times) {
        checker.at_least(&format!("imap.{name}"), value, least);
    }
}

fn certificate(checker: &mut Checker<'_>, imap: &ImapSettings) {
    let files = [("imap.certificate_file", imap.certificate_file.is_some()), ("imap.key_file", imap.key_file.is_some())];
    checker.together(files[0], files[1], "A certificate needs its key; without one, set neither.");
    checker.require(
        &["imap.certificate_file", "imap.listen_tls"],
        imap.listen_tls.is_none() || files.iter().any(|(_, set)| *set),
        "is missing although imap.listen_tls is set",
        "Name the certificate chain and its key in PEM, or remove imap.listen_tls.",
    );
    let same = imap.listen.is_some_and(|listen| listen.port() != 0 && imap.listen_tls == Some(listen));
    let hint = "Choose another port: 143 is usual for imap.listen, 993 for imap.listen_tls.";
    checker.require(&["imap.listen_tls", "imap.listen"], !same, "is the address of imap.listen too", hint);
}

fn upstream(checker: &mut Checker<'_>, imap: &ImapSettings, purpose: Purpose) {
    let upstream = &imap.upstream;
    // `mailpush dev` brings its own mail store.
    let needed = imap.is_on() && purpose == Purpose::Serve;
    checker.require(
        &["imap.upstream.addresses", "imap.listen", "imap.listen_tls"],
        !needed || !upstream.addresses.is_empty(),
        "is empty although the IMAP door is open",
        "Name at least one mail server, such as [\"mail-1.example.org:143\"].",
    );
    let plain = upstream.tls == ImapTls::None;
    for (name, set) in [("ca_file", upstream.ca_file.is_some()), ("tls_name", upstream.tls_name.is_some())] {
        let setting = format!("imap.upstream.{name}");
        let hint = "Set imap.upstream.tls to starttls or tls, or remove it: as it is, nothing would be encrypted.";
        checker.require(&[&setting, "imap.upstream.tls"], !(plain && set), "is set although imap.upstream.tls is none", hint);
    }
}

fn parking(checker: &mut Checker<'_>, imap: &ImapSettings) {
    let (user, password) = (!imap.master.user.is_empty(), !imap.master.password.is_empty());
    let hint = "A master user needs a name and a password; without one, set neither.";
    checker.together(("imap.master.user", user), ("imap.master.password", password), hint);
    checker.require(
        &["imap.master.user", "imap.park"],
        imap.park != Park::MasterUser || user || password,
        "is missing although imap.park is master-user",
        "Name the mail server's master user and the password, or choose another way to park.",
    );
}
