//! Loading as a whole: precedence, faults, and that `default.toml` tells the truth.

use std::collections::BTreeSet;
use std::path::Path;

use super::schema::{self, Kind};
use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes, for tests";

#[derive(Default)]
struct Case {
    file: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
    flags: Vec<&'static str>,
}

impl Case {
    fn file(mut self, text: &'static str) -> Self {
        self.file = Some(text);
        self
    }

    fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn set(mut self, pair: &'static str) -> Self {
        self.flags.push(pair);
        self
    }

    /// With a secret, which nothing works without.
    fn keyed() -> Self {
        Self::default().env("MAILPUSH_AUTH_SECRET", SECRET)
    }

    fn load(self) -> Result<Settings, Vec<Fault>> {
        let folder = tempfile::tempdir().unwrap();
        let file = self.file.map(|text| {
            let path = folder.path().join("mailpush.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let environment = self.environment.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        load(&Sources { file, environment, overrides: self.flags.into_iter().map(str::to_owned).collect() })
    }

    /// The faults, each as "SETTING problem", sorted.
    fn faults(self) -> Vec<String> {
        let faults = self.load().expect_err("there are faults");
        let mut shown: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.setting, fault.problem)).collect();
        shown.sort();
        shown
    }

    /// The settings that have a fault.
    fn faulty(self) -> BTreeSet<String> {
        self.load().expect_err("there are faults").into_iter().map(|fault| fault.setting).collect()
    }
}

#[test]
fn defaults_and_a_secret_are_enough() {
    let settings = Case::keyed().load().unwrap();
    assert_eq!(
        settings,
        Settings { auth: AuthSettings { secret: Secret::new(SECRET), ..Default::default() }, ..Default::default() }
    );
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let load = |case: Case| case.file("[http]\nlisten = '127.0.0.1:1'\nmax_connections = 1").load().unwrap().http;
    let http = load(Case::keyed());
    assert_eq!((http.listen.port(), http.max_connections, http.body_limit_bytes), (1, 1, 1024 * 1024));
    let http = load(Case::keyed().env("MAILPUSH_HTTP_LISTEN", "127.0.0.1:2"));
    assert_eq!((http.listen.port(), http.max_connections), (2, 1));
    let flagged = Case::keyed().env("MAILPUSH_HTTP_LISTEN", "127.0.0.1:2").set("http.listen=[::1]:3").set("http.listen=[::1]:4");
    assert_eq!(load(flagged).listen.to_string(), "[::1]:4");
}

#[test]
fn the_environment_reaches_every_kind_of_setting() {
    let settings = Case::keyed()
        .env("MAILPUSH_QUEUE_TLS_CA_FILE", "/etc/ca.pem")
        .env("MAILPUSH_QUEUE_TLS_ENABLED", "true")
        .env("MAILPUSH_QUEUE_BROKERS", "kafka-1:9092,kafka-2:9092")
        .env("MAILPUSH_QUEUE_TOPOLOGY", "sharded")
        .env("MAILPUSH_QUEUE_PROPERTIES", "client.rack=a,fetch.min.bytes=1")
        .env("MAILPUSH_REGISTRY_ENSEMBLES", "a:2181,b:2181;c:2181")
        .env("MAILPUSH_CONFIG", "belongs to the command line")
        .env("MAILPUSH_SERVICE_HOST", "10.0.0.1")
        .env("MAILPUSH_PORT", "tcp://10.0.0.1:80")
        .env("MAILPUSH_HTTP_PORT_80_TCP_ADDR", "10.0.0.1")
        .load()
        .unwrap();
    assert_eq!(settings.queue.tls.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(join(&settings.queue.brokers, " "), "kafka-1:9092 kafka-2:9092");
    assert_eq!(settings.queue.topology, Topology::Sharded);
    assert_eq!(settings.queue.properties.0["fetch.min.bytes"], "1");
    assert_eq!(join(&settings.registry.ensembles, " "), "a:2181,b:2181 c:2181");
}

#[test]
fn an_empty_path_takes_a_path_away() {
    let case = Case::keyed().file("[auth]\npublic_key_file = 'key.pem'").env("MAILPUSH_AUTH_PUBLIC_KEY_FILE", "");
    assert_eq!(case.load().unwrap().auth.public_key_file, None);
}

#[test]
fn properties_with_dots_need_no_quotes() {
    let settings = Case::keyed().file("[queue.properties]\nfetch.min.bytes = 1\n'client.rack' = 'a'").load().unwrap();
    let properties: Vec<_> = settings.queue.properties.into_iter().collect();
    assert_eq!(properties.len(), 2);
    assert_eq!(settings.queue.properties.0["fetch.min.bytes"], "1");
}

#[test]
fn secrets_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let file = path.to_str().unwrap();
    let settings = Case::default().env("MAILPUSH_AUTH_SECRET_FILE", file).load().unwrap();
    assert_eq!(settings.auth.secret.expose(), SECRET);

    let both = Case::keyed().env("MAILPUSH_AUTH_SECRET_FILE", file);
    assert_eq!(both.faults(), ["MAILPUSH_AUTH_SECRET_FILE and MAILPUSH_AUTH_SECRET are both set"]);
    let missing = Case::default().env("MAILPUSH_AUTH_SECRET_FILE", "/nowhere/at/all");
    let faults = missing.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("auth.secret cannot be read from /nowhere/at/all"), "{faults:?}");
}

/// Whatever leaves a line end: a variable, a flag, a file of its own, the configuration file.
#[test]
fn a_line_end_is_no_part_of_any_secret() {
    let folder = tempfile::tempdir().unwrap();
    for end in ["", "\n", "\r\n", "\n\n"] {
        for setting in schema::SECRETS {
            let text = format!("{SECRET}{end}");
            let read = |sources: Sources| {
                let settings = load_for(&sources, Purpose::Token).map(|settings| serde_json::to_value(settings).unwrap());
                let value = settings.expect(setting).pointer(&format!("/{}", setting.replace('.', "/"))).cloned();
                assert_eq!(value, Some(SECRET.into()), "{setting} with {end:?}: {sources:?}");
            };
            let variable = schema::variable(setting);
            read(Sources { environment: [(variable.clone(), text.clone().into())].into(), ..Default::default() });
            read(Sources { overrides: vec![format!("{setting}={text}")], ..Default::default() });
            let file = folder.path().join("secret");
            std::fs::write(&file, &text).unwrap();
            read(Sources { environment: [(format!("{variable}_FILE"), file.into())].into(), ..Default::default() });
            let file = folder.path().join("mailpush.toml");
            let (section, key) = setting.rsplit_once('.').unwrap();
            std::fs::write(&file, format!("[{section}]\n{key} = {}", serde_json::to_string(&text).unwrap())).unwrap();
            read(Sources { file: Some(file), ..Default::default() });
        }
    }
}

#[test]
fn a_control_character_is_refused_where_it_stands() {
    let file = "[queue]\nsasl_user = \"u\\n\"\nbrokers = [\"a:1\\t\"]\n[auth]\nsecret = \"a\\u0000b\"\naudience = \"a\\rb\"\n\
                [queue.properties]\n\"ssl.ca.pem\" = \"a\\nb\\n\"";
    assert_eq!(
        Case::default().file(file).faults(),
        [
            "auth.audience holds a line end or another control character",
            "auth.secret holds a NUL",
            "queue.brokers holds a line end or another control character",
            "queue.sasl_user holds a line end or another control character",
        ]
    );
    assert_eq!(Case::keyed().set("node.id=a\nb").faults(), ["node.id holds a line end or another control character"]);
}

/// Before, these were read as JSON, which they are not.
#[test]
fn ipv6_brokers_come_by_variable_and_flag() {
    let by_flag = Case::keyed().set("queue.brokers=[::1]:9092").load().unwrap();
    assert_eq!(join(&by_flag.queue.brokers, " "), "[::1]:9092");
    let by_variable = Case::keyed().env("MAILPUSH_QUEUE_BROKERS", "[::1]:9092,[::1]:9093").load().unwrap();
    assert_eq!(join(&by_variable.queue.brokers, " "), "[::1]:9092 [::1]:9093");
}

#[test]
fn all_faults_are_told_at_once_and_say_where() {
    let faults = Case::default()
        .file("[http]\nlisten = 'localhost'\nlissten = 1\n\n[queue]\ntopology = 'pernode'\nreplication = 70000\n[quue]\n")
        .env("MAILPUSH_AUTH_LOWERCASE_USERS", "yes")
        .env("MAILPUSH_HTTP_LISTN", "x")
        .set("sessions.heartbeat_ms=0")
        .set("registry.settle_ms")
        .load()
        .unwrap_err();
    let shown: Vec<_> = faults.iter().map(Fault::to_string).collect();
    let expect = |text: &str| assert!(shown.iter().any(|fault| fault.contains(text)), "{text}\n{shown:#?}");
    expect("http.lissten is not a setting. Did you mean http.listen? (");
    expect("mailpush.toml, line 3)");
    expect("quue is not a setting. Did you mean queue?");
    expect("MAILPUSH_HTTP_LISTN is not the variable of any setting. Did you mean MAILPUSH_HTTP_LISTEN?");
    expect("http.listen is \"localhost\", not an address to listen on. Write an IP address and a port");
    expect("queue.topology is \"pernode\", which is unknown. Write one of: per-node, sharded, broadcast.");
    expect("queue.replication is 70000, not a whole number from 0 to 65535.");
    expect(
        "auth.lowercase_users is \"yes\", neither true nor false. Write true or false. (environment variable MAILPUSH_AUTH_LOWERCASE_USERS)",
    );
    expect("sessions.heartbeat_ms is 0. It must be greater than 0. (--set)");
    expect("--set registry.settle_ms has no '='");
    expect("auth has no key to check tokens with");
    assert_eq!(faults.len(), 10, "{shown:#?}");
}

#[test]
fn a_broken_file_is_told_by_line_without_consequences() {
    let faults = Case::default().file("[http]\nlisten = \n[auth\n").load().unwrap_err();
    let shown: Vec<_> = faults.iter().map(Fault::to_string).collect();
    assert!(shown.iter().any(|fault| fault.contains("line 2")), "{shown:?}");
    assert!(shown.iter().all(|fault| fault.starts_with("the configuration file is not valid TOML")), "{shown:?}");
    let absent = load(&Sources { file: Some("/nowhere.toml".into()), ..Default::default() }).unwrap_err();
    assert!(absent[0].to_string().starts_with("the configuration file cannot be read"), "{absent:?}");
}

#[test]
fn a_wrong_type_says_what_to_write() {
    let file =
        "auth = 1\n[http]\nlisten = 80\nadvertise = 1.5\nallowed_origins = 'x'\nmax_connections = '5'\nbody_limit_bytes = -1";
    assert_eq!(
        Case::default().file(file).faults(),
        [
            "auth is a section, not a single setting",
            "http.advertise is \"1.5\", not the URL of a node",
            "http.allowed_origins is \"x\", not a list of texts",
            "http.body_limit_bytes is -1, not a whole number from 0 on",
            "http.listen is 80, not a text",
            "http.max_connections is \"5\", not a whole number from 0 on",
        ]
    );
    let faulty = Case::keyed().env("MAILPUSH_QUEUE_PROPERTIES", "debug=all,oops").faults();
    assert_eq!(faulty, ["queue.properties is a value (not shown), not pairs"]);
}

#[test]
fn secrets_are_never_shown() {
    let file = "[auth]\nsecret = 123454321\n[queue]\nsasl_password = ['123454321']\n[queue.properties]\nx = [123454321]";
    let faults = Case::default().file(file).load().unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(!format!("{faults:?}").contains("123454321"), "{faults:?}");
    let short = Case::default().env("MAILPUSH_AUTH_SECRET", "123454321").load().unwrap_err();
    assert!(!format!("{short:?}").contains("123454321"), "{short:?}");
    let settings = Case::keyed().set("queue.properties.ssl.key.password=123454321").load().unwrap();
    assert!(!format!("{settings:?}").contains("123454321"), "{settings:?}");
    assert!(!format!("{settings:?}").contains(SECRET));
    let overrides = vec!["auth.secret=123454321".to_owned(), "auth.secret:123454321".to_owned()];
    let sources = Sources { overrides, environment: [("MAILPUSH_AUTH_SECRET".into(), "123454321".into())].into(), file: None };
    assert!(!format!("{sources:?} {:?}", load(&sources)).contains("123454321"), "{sources:?}");
}

#[test]
fn settings_must_fit_together() {
    let faulty = |case: Case, expected: &[&str]| {
        let found = case.faulty();
        assert_eq!(found, expected.iter().map(|name| (*name).to_owned()).collect(), "{found:?}");
    };
    faulty(Case::keyed().set("registry.kind=broadcast"), &["queue.topology"]);
    assert!(Case::keyed().set("registry.kind=broadcast").set("queue.topology=broadcast").load().is_ok());
    assert!(Case::keyed().set("queue.topology=broadcast").load().is_ok());
    faulty(Case::keyed().set("registry.kind=local").set("queue.kind=local"), &["queue.kind", "registry.kind"]);
    faulty(Case::keyed().set("auth.jwks_url=https://a/keys"), &["auth"]);
    faulty(Case::default().set("auth.jwks_url=http://a/keys"), &["auth.jwks_url"]);
    let faults = Case::default().set("auth.jwks_url=https://u:123454321@a/keys").faults();
    assert_eq!(faults, ["auth.jwks_url holds a user or a password"]);
    assert!(Case::default().set("auth.jwks_url=http://[::1]:1/keys").load().is_ok());
    faulty(Case::keyed().set("auth.algorithms=none,ES256,HS512"), &["auth.algorithms[0]", "auth.algorithms[1]", "auth.secret"]);
    faulty(Case::default().set("auth.public_key_file=k.pem").set("auth.algorithms=HS256"), &["auth.algorithms[0]"]);
    faulty(Case::keyed().set("auth.algorithms=Ed25519"), &["auth.algorithms[0]"]);
    faulty(Case::default().set("auth.public_key_file=k.pem").set("auth.algorithms=Ed25519,Ed448"), &["auth.algorithms[1]"]);
    faulty(Case::default().set("auth.secret=thirty-one bytes are not enough"), &["auth.secret"]);
    faulty(Case::keyed().set("node.id=gw 1").set("queue.prefix=a/b"), &["node.id", "queue.prefix"]);
    faulty(Case::keyed().set("sessions.pong_timeout_ms=25000"), &["sessions.pong_timeout_ms"]);
    faulty(Case::keyed().set("registry.settle_ms=40000"), &["sessions.subscribe_timeout_ms"]);
    faulty(
        Case::keyed().set("registry.settle_ms=49").set("queue.retention_ms=59999"),
        &["queue.retention_ms", "registry.settle_ms"],
    );
    faulty(Case::keyed().set("queue.sasl_mechanism=PLAIN"), &["queue.sasl_password", "queue.sasl_user"]);
    faulty(Case::keyed().set("registry.auth_user=u"), &["registry.auth_password"]);
    faulty(Case::keyed().set("queue.tls.key_file=k"), &["queue.tls.certificate_file", "queue.tls.enabled"]);
    faulty(Case::keyed().set("queue.firehose=mailpush.all"), &["queue.firehose"]);
    faulty(Case::keyed().set("queue.properties.acks=0"), &["queue.properties.acks"]);
    faulty(Case::keyed().set("log.filter=mailpush=loud"), &["log.filter"]);
    faulty(Case::keyed().set("http.advertise=gw-1:8080"), &["http.advertise"]);
    for bad in ["mailpush", "/mailpush/", "/", "", "//a", "/a/../b", "/zookeeper/a"] {
        let sources =
            Sources { overrides: vec![format!("registry.chroot={bad}"), format!("auth.secret={SECRET}")], ..Default::default() };
        let faults = load(&sources).expect_err(bad);
        assert_eq!(faults[0].setting, "registry.chroot", "{bad}");
    }
}

#[test]
fn the_imap_door_is_shut_unless_it_is_whole() {
    let faulty = |case: Case, expected: &[&str]| {
        let found = case.faulty();
        assert_eq!(found, expected.iter().map(|name| (*name).to_owned()).collect(), "{found:?}");
    };
    assert!(!Case::keyed().load().unwrap().imap.is_on());
    let open = || Case::keyed().set("imap.listen=[::]:143").set("imap.upstream.addresses=mail-1:143,[::1]:143");
    assert!(open().load().unwrap().imap.is_on());
    faulty(Case::keyed().set("imap.listen=[::]:143"), &["imap.upstream.addresses"]);
    faulty(open().set("imap.listen_tls=[::]:993"), &["imap.certificate_file"]);
    faulty(open().set("imap.certificate_file=c.pem"), &["imap.key_file"]);
    let whole = || open().set("imap.certificate_file=c.pem").set("imap.key_file=k.pem");
    assert!(whole().set("imap.listen_tls=[::]:993").load().is_ok());
    faulty(whole().set("imap.listen_tls=[::]:143"), &["imap.listen_tls"]);
    faulty(
        open().set("imap.proxy_protocol_from=10.0.0.0/8,10.0.0.0/33,lb"),
        &["imap.proxy_protocol_from[1]", "imap.proxy_protocol_from[2]"],
    );
    faulty(open().set("imap.upstream.addresses=mail-1"), &["imap.upstream.addresses[0]"]);
    faulty(
        open().set("imap.upstream.ca_file=ca.pem").set("imap.upstream.tls_name=mail"),
        &["imap.upstream.ca_file", "imap.upstream.tls_name"],
    );
    faulty(open().set("imap.upstream.tls=starttls").set("imap.upstream.tls_name=a b"), &["imap.upstream.tls_name"]);
    faulty(open().set("imap.park=master-user"), &["imap.master.user"]);
    faulty(open().set("imap.park=master-user").set("imap.master.user=gw"), &["imap.master.password"]);
    faulty(open().set("imap.master.strip_domain=true"), &["imap.master.strip_domain"]);
    faulty(
        open().set("imap.idle_timeout_ms=1799999").set("imap.line_limit_bytes=1"),
        &["imap.idle_timeout_ms", "imap.line_limit_bytes"],
    );
    let dev =
        Sources { overrides: vec!["imap.idle_timeout_ms=500".into(), "imap.listen=127.0.0.1:0".into()], ..Default::default() };
    assert!(load_for(&dev, Purpose::Dev).is_ok(), "who tries things out need not wait");
}

/// One that does not fit hides neither the others nor what is wrong with those that do; each is
/// told by its own place.
#[test]
fn each_element_of_a_list_is_told_by_its_place() {
    let file = "[access]\nby_namespace = ['#a b=owners', '#x=owners', 'y=owners', '#x=registry']\n[queue]\nbrokers = ['a', 'b:0']\nsasl_mechanism = 'GSSAPI'";
    assert_eq!(
        Case::keyed().file(file).faults(),
        [
            "access.by_namespace[0] names no namespace and source",
            "access.by_namespace[2] names no namespace and source",
            "access.by_namespace[3] names a namespace that has a source already",
            "queue.brokers[0] is \"a\", not host:port",
            "queue.brokers[1] is \"b:0\", not host:port",
            "queue.sasl_mechanism is \"GSSAPI\", which is unknown",
        ]
    );
}

#[test]
fn allowed_origins_are_exact() {
    let good =
        Case::keyed().set("http.allowed_origins=https://mail.example.org,http://localhost:3000,http://[::1]:80000").faulty();
    assert_eq!(good.into_iter().collect::<Vec<_>>(), ["http.allowed_origins[2]"]);
    let bad = "http.allowed_origins=*,null,https://*.example.org,https://a/,https://a/b,https://A,https://a:443,a.example.org,https://u@a";
    assert_eq!(Case::keyed().set(bad).faulty().len(), 9);
}

#[test]
fn each_purpose_asks_for_what_it_needs() {
    assert!(load_for(&Sources::default(), Purpose::Publish).is_ok());
    assert!(load_for(&Sources::default(), Purpose::Dev).is_ok());
    assert!(load_for(&Sources { overrides: vec!["queue.retention_ms=1".into()], ..Default::default() }, Purpose::Token).is_ok());
    assert_eq!(Settings::default().check().len(), 1);
}

#[test]
fn an_agent_is_open_to_its_own_machine_only() {
    let faulty = |overrides: &[&str]| {
        let sources = Sources { overrides: overrides.iter().map(|s| (*s).to_owned()).collect(), ..Default::default() };
        let faults = load_for(&sources, Purpose::Agent).err().unwrap_or_default();
        faults.into_iter().map(|fault| fault.setting).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(faulty(&[]), none);
    assert_eq!(faulty(&["agent.listen=0.0.0.0:8081"]), ["agent.listen"]);
    assert_eq!(faulty(&["agent.listen=0.0.0.0:8081", "agent.token=thirty-two-or-more-bytes-of-a-token"]), none);
    assert_eq!(faulty(&["agent.token=short"]), ["agent.token"]);
    assert_eq!(faulty(&["agent.socket_mode=rw"]), ["agent.socket_mode"]);
    assert_eq!(faulty(&["agent.spool_bytes=1048576"]), ["agent.body_limit_bytes"]);
    assert_eq!(faulty(&["agent.imap.master_user=gw"]), ["agent.imap.master_password"]);
    let remote = ["agent.imap.address=mx1:143", "agent.imap.master_user=gw", "agent.imap.master_password=p"];
    assert_eq!(faulty(&remote), ["agent.imap.tls"]);
    assert_eq!(faulty(&[remote[0], remote[1], remote[2], "agent.imap.tls=tls"]), none);
    assert_eq!(faulty(&["agent.imap.address=mx1"]), ["agent.imap.address"]);
    assert_eq!(faulty(&["agent.dovecot.separator=."]), ["agent.dovecot.shared_prefix"]);
    assert_eq!(faulty(&["agent.dovecot.separator=.", "agent.dovecot.shared_prefix=user."]), none);
    assert_eq!(faulty(&["agent.dovecot.separator=\u{e9}", "agent.dovecot.shared_prefix="]), ["agent.dovecot.separator"]);
    assert_eq!(faulty(&["agent.dovecot.personal_prefixes="]), ["agent.dovecot.personal_prefixes"]);
    assert_eq!(faulty(&["agent.dovecot.personal_prefixes=INBOX."]), ["agent.dovecot.personal_prefixes"]);
    assert_eq!(faulty(&["agent.dovecot.public_prefixes=Public/,shared/"]), ["agent.dovecot.public_prefixes"]);
    assert_eq!(faulty(&["agent.dovecot.alias_prefixes=[\"\"]"]), ["agent.dovecot.alias_prefixes"]);
    let courier = [
        "agent.dovecot.personal_prefixes=INBOX.",
        "agent.dovecot.shared_prefix=shared.",
        "agent.dovecot.public_prefixes=Public.",
        "agent.dovecot.alias_prefixes=[\"\"]",
        "agent.dovecot.separator=.",
    ];
    assert_eq!(faulty(&courier), none);
}

/// Whoever publishes must have the gateways' source of rights, and an agent has no mail servers in
/// `imap.upstream`.
#[test]
fn an_agent_beside_a_mail_server_takes_the_rights_to_be_there() {
    let source = |overrides: &[&str]| {
        let sources = Sources { overrides: overrides.iter().map(|s| (*s).to_owned()).collect(), ..Default::default() };
        let settings = load_for(&sources, Purpose::Agent).unwrap();
        settings.access.source.resolved_for_agent(&settings)
    };
    let master = ["agent.imap.master_user=gw", "agent.imap.master_password=p"];
    assert_eq!(source(&[]), RightsKind::Registry);
    assert_eq!(source(&master), RightsKind::Imap);
    assert_eq!(source(&["access.source=imap"]), RightsKind::Imap);
    assert_eq!(source(&[master[0], master[1], "access.source=registry"]), RightsKind::Registry);
    for kind in [RightsKind::Auto, RightsKind::Registry, RightsKind::Imap, RightsKind::Owners] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
}

/// `default.toml` with its settings uncommented.
fn uncommented() -> String {
    let bare = |line: &'static str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        Some(_) => "",
        None => line,
    };
    DEFAULT_TOML.lines().map(bare).collect::<Vec<_>>().join("\n")
}

#[test]
fn default_toml_is_the_defaults() {
    let layer = file::parse(Path::new("default.toml"), &uncommented());
    assert!(layer.faults.is_empty(), "{:?}", layer.faults);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("default.toml");
    std::fs::write(&path, uncommented()).unwrap();
    let settings = load_for(&Sources { file: Some(path), ..Default::default() }, Purpose::Publish).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn default_toml_names_every_setting_and_explains_each() {
    let layer = file::parse(Path::new("default.toml"), &uncommented());
    let named: BTreeSet<_> = layer.given.into_iter().map(|given| given.path).collect();
    let leaf = |kind: &Kind| !matches!(kind, Kind::Section | Kind::FreeTable);
    let known: BTreeSet<_> = schema::known().iter().filter(|(_, kind)| leaf(kind)).map(|(path, _)| path.clone()).collect();
    assert_eq!(named, known);
    assert!(DEFAULT_TOML.contains("\n#properties = {}"));
    // A block of settings follows a block of prose.
    for block in DEFAULT_TOML.split("\n\n").filter(|block| block.contains("\n#") || block.starts_with('#')) {
        assert!(block.trim_start_matches('\n').starts_with("# "), "unexplained:\n{block}");
    }
    assert!(DEFAULT_TOML.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn each_namespace_has_one_source_of_rights() {
    let file =
        "[access]\nby_namespace = [\"#shared=owners\", \"#shared=registry\", \"#a b=owners\", \"shared=owners\", \"#public=us\"]";
    let faults = Case::keyed().file(file).faults();
    let about: Vec<&str> = faults.iter().filter_map(|fault| fault.strip_prefix("access.by_namespace")).collect();
    assert_eq!(
        about,
        [
            "[1] names a namespace that has a source already",
            "[2] names no namespace and source",
            "[3] names no namespace and source",
            "[4] names no namespace and source",
        ]
    );
}
