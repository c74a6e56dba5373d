//! Settings that work and yet are seldom what was meant. Pure, as the checks are; `mailpush check`
//! and the log tell them.

use std::fmt;

use super::{ImapTls, ProxyHeader, Purpose, QueueKind, RegistryKind, SaslMechanism, Settings, join};

/// A setting that works, with a consequence that is seldom meant. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The setting.
    pub setting: String,
    /// What it is: goes on where the setting's name ends.
    pub problem: String,
    /// What follows, and what to do: whole sentences.
    pub hint: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}. {}", self.setting, self.problem, self.hint)
    }
}

impl Settings {
    /// What is seldom meant in these settings, for this purpose; empty if all is well.
    pub fn warnings(&self, purpose: Purpose) -> Vec<Warning> {
        let mut found = Warnings(Vec::new());
        if matches!(purpose, Purpose::Serve | Purpose::Publish | Purpose::Agent) {
            ensembles(&mut found, self);
            sasl(&mut found, self);
        }
        if purpose == Purpose::Serve {
            replication(&mut found, self);
            advertise(&mut found, self);
            imap(&mut found, self);
        }
        blanks(&mut found, self);
        found.0
    }

    /// How many sockets the limits on connections allow, and the settings that say so.
    pub fn open_files(&self, purpose: Purpose) -> (u64, &'static str) {
        let (imap, agent) = (&self.imap, &self.agent);
        let sum = |one: usize, other: usize| (one as u64).saturating_add(other as u64);
        match purpose {
            // A relayed client's connection has another one to the mail server.
            Purpose::Serve if imap.is_on() => {
                let sockets = sum(self.http.max_connections, imap.max_connections.saturating_mul(2));
                (sockets, "http.max_connections and twice imap.max_connections")
            }
            Purpose::Serve => (sum(self.http.max_connections, 0), "http.max_connections"),
            Purpose::Agent => {
                let sockets = sum(agent.max_connections, agent.imap.max_connections);
                (sockets, "agent.max_connections and agent.imap.max_connections")
            }
            Purpose::Dev | Purpose::Publish | Purpose::Token => (0, "connections"),
        }
    }
}

struct Warnings(Vec<Warning>);

impl Warnings {
    fn warn_if(&mut self, met: bool, setting: &str, problem: impl Into<String>, hint: impl Into<String>) {
        if met {
            self.0.push(Warning { setting: setting.to_owned(), problem: problem.into(), hint: hint.into() });
        }
    }
}

/// `["zk-1:2181", "zk-2:2181", "zk-3:2181"]` is how every other program is told of one ensemble.
fn ensembles(found: &mut Warnings, settings: &Settings) {
    let registry = &settings.registry;
    let lonely = registry.ensembles.iter().filter(|ensemble| ensemble.servers().len() == 1).count();
    let met = registry.kind == RegistryKind::Zookeeper && registry.ensembles.len() > 1 && lonely > 0;
    let which = if lonely == registry.ensembles.len() {
        "each of one server".to_owned()
    } else {
        format!("{lonely} of them of one server")
    };
    found.warn_if(
        met,
        "registry.ensembles",
        format!("names {} ensembles, {which}", registry.ensembles.len()),
        format!(
            "Each keeps its share of all registrations, and where its server is away nobody can register or be found there. If these are \
             the servers of one ensemble, write them as one text: [\"{}\"].",
            join(&registry.ensembles, ",")
        ),
    );
}

/// Nodes make topics, nobody else.
fn replication(found: &mut Warnings, settings: &Settings) {
    let queue = &settings.queue;
    found.warn_if(
        queue.kind == QueueKind::Kafka && queue.replication == 1,
        "queue.replication",
        "is 1",
        "While a broker is away its queues are away too, and a lost disk loses their events. Set it to 3 in production.",
    );
}

fn sasl(found: &mut Warnings, settings: &Settings) {
    let queue = &settings.queue;
    found.warn_if(
        queue.kind == QueueKind::Kafka && queue.sasl_mechanism == Some(SaslMechanism::Plain) && !queue.tls.enabled,
        "queue.sasl_mechanism",
        "is PLAIN although queue.tls.enabled is false",
        "The password can be read on the network: use TLS, or SCRAM-SHA-512.",
    );
}

fn advertise(found: &mut Warnings, settings: &Settings) {
    let http = &settings.http;
    let hint = "Other nodes cannot ask this one, and their cluster-wide answers will lack it: set http.advertise to a URL that they reach, \
                such as http://gw-1.example.org:8080.";
    match &http.advertise {
        None => {
            let problem = format!("is missing although http.listen is {}", http.listen);
            found.warn_if(http.listen.ip().is_unspecified(), "http.advertise", problem, hint);
        }
        Some(url) => {
            let is_nowhere = url.address().is_some_and(|ip| ip.is_unspecified());
            found.warn_if(is_nowhere, "http.advertise", format!("is {url}, which is no machine's address"), hint);
        }
    }
}

fn imap(found: &mut Warnings, settings: &Settings) {
    let imap = &settings.imap;
    if !imap.is_on() {
        return;
    }
    for net in imap.proxy_protocol_from.iter().filter(|net| net.is_everything()) {
        found.warn_if(
            true,
            "imap.proxy_protocol_from",
            format!("holds {net}, which is every address"),
            "Any client can claim to come from anywhere, this machine too, and one that sends no PROXY header is dropped: name the load \
             balancers' nets alone.",
        );
    }
    found.warn_if(
        imap.upstream.proxy_protocol == ProxyHeader::None,
        "imap.upstream.proxy_protocol",
        "is none",
        "To the mail servers all clients come from this machine: their limits and penalties for one address then meet everybody (Dovecot: \
         mail_max_userip_connections, auth penalty). Set v2 here and let them expect it (Dovecot: haproxy = yes), or raise those limits.",
    );
    let plain = imap.upstream.tls == ImapTls::None && imap.upstream.addresses.iter().any(|server| !server.is_this_machine());
    found.warn_if(
        plain,
        "imap.upstream.tls",
        "is none although a mail server is another machine",
        "Passwords and mail can be read on the way there: use starttls or tls, unless that network is as safe as this machine.",
    );
}

/// A blank at an end of a secret is kept, for it may be meant; who copies the secret by hand will
/// leave it out.
fn blanks(found: &mut Warnings, settings: &Settings) {
    let secrets = [
        ("agent.imap.master_password", &settings.agent.imap.master_password),
        ("agent.token", &settings.agent.token),
        ("auth.secret", &settings.auth.secret),
        ("imap.master.password", &settings.imap.master.password),
        ("queue.sasl_password", &settings.queue.sasl_password),
        ("registry.auth_password", &settings.registry.auth_password),
    ];
    for (setting, secret) in secrets {
        let met = secret.expose().trim() != secret.expose();
        found.warn_if(
            met,
            setting,
            "begins or ends with a blank",
            "It is part of the secret: remove it here if it is not meant.",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load_for, schema};

    fn settings(overrides: &[&str], purpose: Purpose) -> Settings {
        let secret = "auth.secret=a secret of more than thirty-two bytes, for tests";
        let overrides = [&[secret, "queue.replication=3"][..], overrides].concat().into_iter().map(str::to_owned).collect();
        load_for(&Sources { overrides, ..Sources::default() }, purpose).unwrap()
    }

    /// Each warning as "SETTING problem".
    fn warned(overrides: &[&str], purpose: Purpose) -> Vec<String> {
        let warnings = settings(overrides, purpose).warnings(purpose);
        warnings.iter().map(|warning| format!("{} {}", warning.setting, warning.problem)).collect()
    }

    #[test]
    fn what_is_seldom_meant_is_told() {
        const DOOR: [&str; 3] =
            ["imap.listen=0.0.0.0:143", "imap.upstream.addresses=127.0.0.1:143", "imap.upstream.proxy_protocol=v2"];
        let door = |more: &[&'static str]| [&DOOR[..], more].concat();
        for (overrides, expected) in [
            (vec![], vec![]),
            (vec!["queue.replication=1"], vec!["queue.replication is 1"]),
            (vec!["queue.replication=1", "queue.topology=broadcast"], vec!["queue.replication is 1"]),
            (vec!["registry.ensembles=a:1;b:1;c:1"], vec!["registry.ensembles names 3 ensembles, each of one server"]),
            (vec!["registry.ensembles=[\"a:1\", \"b:1\"]"], vec!["registry.ensembles names 2 ensembles, each of one server"]),
            (vec!["registry.ensembles=a:1,b:1;c:1"], vec!["registry.ensembles names 2 ensembles, 1 of them of one server"]),
            (vec!["registry.ensembles=a:1,b:1;c:1,d:1"], vec![]),
            (vec!["registry.ensembles=a:1,b:1,c:1"], vec![]),
            (vec!["http.listen=0.0.0.0:80"], vec!["http.advertise is missing although http.listen is 0.0.0.0:80"]),
            (vec!["http.listen=[::]:80"], vec!["http.advertise is missing although http.listen is [::]:80"]),
            (vec!["http.listen=0.0.0.0:80", "http.advertise=http://gw-1"], vec![]),
            (
                vec!["http.listen=0.0.0.0:80", "http.advertise=http://0.0.0.0:80"],
                vec!["http.advertise is http://0.0.0.0:80, which is no machine's address"],
            ),
            (vec!["http.listen=192.0.2.1:80"], vec![]),
            (
                vec!["queue.sasl_mechanism=PLAIN", "queue.sasl_user=u", "queue.sasl_password=p"],
                vec!["queue.sasl_mechanism is PLAIN although queue.tls.enabled is false"],
            ),
            (vec!["queue.sasl_mechanism=PLAIN", "queue.sasl_user=u", "queue.sasl_password=p", "queue.tls.enabled=true"], vec![]),
            (vec!["queue.sasl_mechanism=SCRAM-SHA-512", "queue.sasl_user=u", "queue.sasl_password=p"], vec![]),
            (door(&[]), vec![]),
            (door(&["imap.upstream.proxy_protocol=none"]), vec!["imap.upstream.proxy_protocol is none"]),
            (
                door(&["imap.proxy_protocol_from=10.0.0.0/8,0.0.0.0/0,::/0"]),
                vec![
                    "imap.proxy_protocol_from holds 0.0.0.0/0, which is every address",
                    "imap.proxy_protocol_from holds ::/0, which is every address",
                ],
            ),
            (
                door(&["imap.upstream.addresses=[::1]:143,mx:143"]),
                vec!["imap.upstream.tls is none although a mail server is another machine"],
            ),
            (door(&["imap.upstream.addresses=mx:143", "imap.upstream.tls=starttls"]), vec![]),
            (
                vec!["registry.auth_user=u", "registry.auth_password=p "],
                vec!["registry.auth_password begins or ends with a blank"],
            ),
        ] {
            assert_eq!(warned(&overrides, Purpose::Serve), expected, "{overrides:?}");
        }
    }

    #[test]
    fn only_what_the_purpose_uses_is_told() {
        let all = ["registry.ensembles=a:1;b:1", "queue.replication=1", "http.listen=0.0.0.0:80"];
        let told = ["registry.ensembles names 2 ensembles, each of one server"];
        assert_eq!(warned(&all, Purpose::Agent), told);
        assert_eq!(warned(&all, Purpose::Publish), told);
        assert_eq!(warned(&all, Purpose::Token), [""; 0]);
        assert_eq!(warned(&["registry.kind=broadcast", "queue.topology=broadcast", all[0]], Purpose::Serve), [""; 0]);
    }

    #[test]
    fn one_ensemble_is_written_as_it_should_be() {
        let warnings = settings(&["registry.ensembles=[::1]:1;zk-2:2181"], Purpose::Serve).warnings(Purpose::Serve);
        assert!(warnings[0].hint.contains("[\"[::1]:1,zk-2:2181\"]"), "{warnings:?}");
    }

    /// A secret that is added must be looked at here too.
    #[test]
    fn every_secret_is_looked_at_for_blanks() {
        for setting in schema::SECRETS {
            let mut value = serde_json::to_value(Settings::default()).unwrap();
            *value.pointer_mut(&format!("/{}", setting.replace('.', "/"))).unwrap() = " hunter2".into();
            let warnings = serde_json::from_value::<Settings>(value).unwrap().warnings(Purpose::Token);
            assert_eq!(warnings.len(), 1, "{setting}");
            assert_eq!(warnings[0].setting, setting);
            assert!(!warnings[0].to_string().contains("hunter2"));
        }
    }

    #[test]
    fn open_files_are_what_the_limits_allow() {
        let serve = settings(&["http.max_connections=1000"], Purpose::Serve);
        assert_eq!(serve.open_files(Purpose::Serve), (1_000, "http.max_connections"));
        let door =
            ["http.max_connections=1000", "imap.max_connections=500", "imap.listen=[::]:143", "imap.upstream.addresses=a:1"];
        let serve = settings(&door, Purpose::Serve);
        assert_eq!(serve.open_files(Purpose::Serve), (2_000, "http.max_connections and twice imap.max_connections"));
        let agent = settings(&["agent.max_connections=10", "agent.imap.max_connections=5"], Purpose::Agent);
        assert_eq!(agent.open_files(Purpose::Agent).0, 15);
        let much = settings(&["http.max_connections=18446744073709551615"], Purpose::Serve);
        assert_eq!(much.open_files(Purpose::Serve).0, u64::MAX);
    }
}
