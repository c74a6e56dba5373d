//! The checks of the agent on a mail server.

use std::collections::BTreeSet;

use super::checker::Checker;
use super::{AgentImapSettings, AgentSettings, DovecotSettings, ImapTls, SpoolSync};

pub(super) fn agent(checker: &mut Checker<'_>, agent: &AgentSettings) {
    let hint = "Anybody who reaches it could publish events: listen on 127.0.0.1 or [::1], or set agent.token.";
    let good = agent.listen.ip().is_loopback() || !agent.token.is_empty();
    let problem = format!("is {}, which other machines reach", agent.listen);
    checker.require(&["agent.listen", "agent.token"], good, problem, hint);
    let length = agent.token.expose().len();
    let hint = "Use at least 32 random bytes, such as `openssl rand -base64 48` prints.";
    checker.require(&["agent.token"], length == 0 || length >= 32, "is too short", hint);
    let good = agent.token.expose().bytes().all(|b| b.is_ascii_graphic());
    checker.require(&["agent.token"], good, "cannot stand in a header", "Use letters, digits and punctuation, without spaces.");
    checker.at_least("agent.max_connections", agent.max_connections as u64, 1);
    checker.at_least("agent.header_timeout_ms", agent.header_timeout_ms.0, 1);
    checker.at_least("agent.body_limit_bytes", agent.body_limit_bytes as u64, 1024);
    checker.require(
        &["agent.body_limit_bytes", "agent.spool_bytes"],
        agent.body_limit_bytes as u64 <= agent.spool_bytes / 4,
        format!("is {}, more than a quarter of agent.spool_bytes", agent.body_limit_bytes),
        "What is taken in must fit into the spool: lower it, or raise agent.spool_bytes.",
    );
    let named = !agent.spool_dir.as_os_str().is_empty();
    checker.require(&["agent.spool_dir"], named, "is empty", "Name a folder that only the agent may read.");
    checker.at_least("agent.spool_bytes", agent.spool_bytes, 1024 * 1024);
    if agent.spool_sync == SpoolSync::Interval {
        checker.at_least("agent.spool_sync_interval_ms", agent.spool_sync_interval_ms.0, 10);
    }
    checker.at_least("agent.drain_deadline_ms", agent.drain_deadline_ms.0, 1);
    imap(checker, &agent.imap);
    dovecot(checker, &agent.dovecot);
}

fn imap(checker: &mut Checker<'_>, imap: &AgentImapSettings) {
    checker.together(
        ("agent.imap.master_user", !imap.master_user.is_empty()),
        ("agent.imap.master_password", !imap.master_password.is_empty()),
        "A master user needs a password; without one, set neither.",
    );
    checker.require(
        &["agent.imap.tls", "agent.imap.address"],
        imap.address.is_this_machine() || imap.tls != ImapTls::None || imap.master_user.is_empty(),
        format!("is none although {} may be another machine", imap.address),
        "The master password would be readable on the way: use starttls or tls.",
    );
    let clean = |text: &str| !text.contains('\0');
    let good = clean(&imap.master_user) && clean(imap.master_password.expose());
    checker.require(&["agent.imap.master_user"], good, "or its password holds a NUL", "SASL PLAIN cannot carry one.");
    checker.at_least("agent.imap.timeout_ms", imap.timeout_ms.0, 1);
    checker.at_least("agent.imap.max_connections", imap.max_connections as u64, 1);
    checker.at_least("agent.imap.connections_per_owner", imap.connections_per_owner as u64, 1);
    checker.at_least("agent.imap.idle_timeout_ms", imap.idle_timeout_ms.0, 1);
}

fn dovecot(checker: &mut Checker<'_>, dovecot: &DovecotSettings) {
    let named = !dovecot.personal_prefixes.is_empty();
    let hint = "Name what users' own mailboxes begin with, \"\" if it is nothing.";
    checker.require(&["agent.dovecot.personal_prefixes"], named, "is empty", hint);
    let lists = [
        ("agent.dovecot.personal_prefixes", dovecot.personal_prefixes.as_slice(), "Write it as NAMESPACE tells, such as INBOX."),
        (
            "agent.dovecot.shared_prefix",
            std::slice::from_ref(&dovecot.shared_prefix),
            "Write it as far as the owner, such as shared/.",
        ),
        ("agent.dovecot.public_prefixes", &dovecot.public_prefixes, "Write it as NAMESPACE tells, such as Public/."),
        ("agent.dovecot.alias_prefixes", &dovecot.alias_prefixes, "Write it as Dovecot's configuration has it."),
    ];
    let mut seen = BTreeSet::new();
    for (setting, prefixes, hint) in lists {
        for prefix in prefixes {
            let ends = prefix.is_empty() || prefix.ends_with(char::from(dovecot.separator.byte()));
            let problem = format!("has {prefix:?}, which does not end with the separator");
            checker.require(&[setting, "agent.dovecot.separator"], ends, problem, hint);
            // No shared prefix: there is no such namespace.
            let once = setting == "agent.dovecot.shared_prefix" && prefix.is_empty() || seen.insert(prefix);
            let hint = "A prefix belongs to one namespace.";
            checker.require(&[setting], once, format!("has {prefix:?}, which stands twice in agent.dovecot"), hint);
        }
    }
}
