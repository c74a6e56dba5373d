//! Real mail clients, directly at a mail server and through a gateway before one that was prepared the same: what they
//! see must be the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::agent::TestAgent;
use crate::support::cluster::TestCluster;
use crate::support::dev::DevCluster;
use crate::support::dovecot::{MASTER, Options, TestDovecot, password};
use crate::support::fixtures::free_port;
use crate::support::process::{die_with_parent, keep};

/// How long a whole script may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clients")
}

/// Where Python's packages are that Debian does not have, fetched on first use.
fn packages() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fixtures");
    fs::create_dir_all(&folder).expect("make the folder for fixtures");
    let lock = File::create(folder.join("lock")).expect("make the lock file");
    lock.lock().expect("lock the fixtures");
    let packages = folder.join("python");
    if !packages.join("complete").exists() {
        let mut pip = Command::new("/usr/bin/python3");
        pip.args(["-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--upgrade", "--root-user-action=ignore"]);
        pip.arg("--target").arg(&packages).arg("-r").arg(scripts().join("requirements.txt"));
        let status = pip.status().expect("the tests need Python: install python3 and python3-pip");
        assert!(status.success(), "pip could not fetch imapclient ({status}): is python3-pip there, and an index reachable?");
        File::create(packages.join("complete")).expect("mark the packages as complete");
    }
    packages
}

/// Where a script finds its server.
#[derive(Default)]
struct Place {
    name: &'static str,
    imap: u16,
    /// With implicit TLS, and the certificate.
    tls: Option<(u16, PathBuf)>,
    lmtp: Option<u16>,
    user: String,
    password: String,
}

/// Runs a script to its end; what it says.
async fn run(script: &str, place: &Place) -> String {
    for program in ["mbsync", "mutt", "tmux"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|at| at.join(program).exists());
        assert!(found, "the tests need {program}: install isync, mutt and tmux (scripts/test does, as root)");
    }
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-B").arg(scripts().join(script)).env("PYTHONPATH", packages()).env("PYTHONUTF8", "1");
    command.env("IMAP_PORT", place.imap.to_string()).env("MAIL_USER", &place.user).env("MAIL_PASSWORD", &place.password);
    if let Some((port, certificate)) = &place.tls {
        command.env("IMAPS_PORT", port.to_string()).env("CERTIFICATE", certificate);
    }
    if let Some(port) = place.lmtp {
        command.env("LMTP_PORT", port.to_string()).env("LMTP_USER", &place.user);
    }
    die_with_parent(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("start Python");
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{script} at {} does not end", place.name)).expect("its output");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} at {} failed:\n{said}\n{errors}", place.name);
    said
}

/// What both said must be the same, but for lines that `apart` maps to the same.
fn compare(script: &str, direct: &str, through: &str, apart: impl Fn(&str) -> String) {
    assert!(direct.lines().count() > 10, "{script} said too little:\n{direct}");
    let (direct, through): (Vec<_>, Vec<_>) = (direct.lines().map(&apart).collect(), through.lines().map(&apart).collect());
    if let Some(at) = (0..direct.len().max(through.len())).find(|at| direct.get(*at) != through.get(*at)) {
        let context = |lines: &[String]| lines[at.saturating_sub(5).min(lines.len())..lines.len().min(at + 4)].join("\n");
        panic!(
            "{script} goes on differently at line {}\n--- directly:\n{}\n--- through the gateway:\n{}",
            at + 1,
            context(&direct),
            context(&through)
        );
    }
}

/// A certificate for this machine, which everybody may read.
fn certificate() -> TempDir {
    let folder = TempDir::with_prefix("mailpush-certificate-").expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("write");
    fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("write");
    folder
}

/// Lines of configuration with which Dovecot encrypts.
fn encrypting(certificate: &Path, port: u16) -> String {
    let folder = certificate.display();
    format!(
        "ssl = yes\nssl_cert = <{folder}/cert.pem\nssl_key = <{folder}/key.pem\n\
         service imap-login {{\n  inet_listener imaps {{\n    address = 127.0.0.1\n    port = {port}\n    ssl = yes\n  }}\n}}\n"
    )
}

/// A Dovecot that nobody stands before.
struct Direct {
    dovecot: TestDovecot,
    certificate: TempDir,
    tls: u16,
}

impl Direct {
    async fn start() -> Self {
        let (certificate, tls) = (certificate(), free_port());
        // Nobody listens there: its changes are told to nobody.
        let agent = format!("http://127.0.0.1:{}", free_port());
        let dovecot = TestDovecot::start(Options { agent, extra: encrypting(certificate.path(), tls) }).await;
        Self { dovecot, certificate, tls }
    }

    fn place(&self, user: &str) -> Place {
        Place {
            name: "Dovecot",
            imap: self.dovecot.imap_port,
            tls: Some((self.tls, self.certificate.path().join("cert.pem"))),
            lmtp: Some(self.dovecot.lmtp_port),
            user: user.to_owned(),
            password: password(user),
        }
    }
}

/// A gateway of a real cluster before a Dovecot, with the agent beside it.
struct Gateway {
    cluster: TestCluster,
    _agent: TestAgent,
    dovecot: TestDovecot,
    certificate: TempDir,
    tls: u16,
}

impl Gateway {
    async fn start() -> Self {
        let (certificate, tls) = (certificate(), free_port());
        let mut agent = TestAgent::new();
        let dovecot = TestDovecot::start(Options { agent: agent.url(), extra: String::new() }).await;
        let upstream = format!("127.0.0.1:{}", dovecot.imap_port);
        let file = |name: &str| certificate.path().join(name).display().to_string();
        let settings = [
            format!("imap.listen_tls=127.0.0.1:{tls}"),
            format!("imap.certificate_file={}", file("cert.pem")),
            format!("imap.key_file={}", file("key.pem")),
            format!("imap.upstream.addresses={upstream}"),
            "log.filter=mailpush=debug,info".to_owned(),
        ];
        let cluster = TestCluster::start_with(1, &settings.each_ref().map(String::as_str)).await;
        let completing = [
            format!("agent.imap.address={upstream}"),
            format!("agent.imap.master_user={}", MASTER.0),
            format!("agent.imap.master_password={}", MASTER.1),
            "agent.imap.timeout_ms=10000".to_owned(),
        ];
        agent.launch(cluster.command(&["agent"]), &completing.each_ref().map(String::as_str)).await;
        Self { cluster, _agent: agent, dovecot, certificate, tls }
    }

    fn place(&self, user: &str) -> Place {
        Place {
            name: "the gateway",
            imap: self.cluster.imap(0),
            tls: Some((self.tls, self.certificate.path().join("cert.pem"))),
            lmtp: Some(self.dovecot.lmtp_port),
            user: user.to_owned(),
            password: password(user),
        }
    }

    fn assert_well(&self, user: &str) {
        let log = self.cluster.log(0);
        assert!(!log.contains("panicked") && !log.contains(&password(user)), "{log}");
    }
}

/// Both, which these tests share, each as a user of its own.
fn sites() -> &'static (Direct, Gateway) {
    static SITES: OnceLock<&'static (Direct, Gateway)> = OnceLock::new();
    SITES.get_or_init(|| keep(async || tokio::join!(Direct::start(), Gateway::start())))
}

/// Runs a script at both, side by side.
async fn same(script: &str, user: &str, apart: impl Fn(&str) -> String) {
    let (direct, gateway) = sites();
    let (there, here) = (direct.place(user), gateway.place(user));
    let (directly, through) = tokio::join!(run(script, &there), run(script, &here));
    gateway.assert_well(user);
    compare(script, &directly, &through, apart);
}

/// Capabilities have no order, and the gateway puts its own last.
fn apart(line: &str) -> String {
    let Some((before, list)) = line.split_once("CAPABILITY ") else { return line.to_owned() };
    let end = list.find([']', '\\']).unwrap_or(list.len());
    let (list, after) = list.split_at(end);
    let mut words: Vec<_> = list.split(' ').collect();
    words.sort_unstable();
    format!("{before}CAPABILITY {}{after}", words.join(" "))
}

#[tokio::test]
async fn imaplib_hears_the_same() {
    same("with_imaplib.py", "alice", apart).await;
}

#[tokio::test]
async fn imapclient_hears_the_same() {
    same("with_imapclient.py", "bob", apart).await;
}

#[tokio::test]
async fn mbsync_does_the_same() {
    same("with_mbsync.py", "carol", str::to_owned).await;
}

#[tokio::test]
async fn mutt_shows_the_same() {
    same("with_mutt.py", "dave", str::to_owned).await;
}

/// The store of `mailpush dev`, and a gateway before it.
async fn same_at_dev(script: &str) {
    let (one, other) = tokio::join!(DevCluster::start(1), DevCluster::start(1));
    let place = |name, address: String| Place {
        name,
        imap: address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port"),
        user: "alice".to_owned(),
        password: "alice".to_owned(),
        ..Place::default()
    };
    let (there, here) = (place("the store", one.store_imap()), place("dev's gateway", other.imap(0)));
    let (directly, through) = tokio::join!(run(script, &there), run(script, &here));
    assert!(!other.log().contains("panicked"));
    compare(script, &directly, &through, apart);
}

#[tokio::test]
async fn the_store_of_dev_is_good_enough_for_imaplib() {
    same_at_dev("with_imaplib.py").await;
}

#[tokio::test]
async fn the_store_of_dev_is_good_enough_for_imapclient() {
    same_at_dev("with_imapclient.py").await;
}

#[tokio::test]
async fn the_store_of_dev_is_good_enough_for_mbsync() {
    same_at_dev("with_mbsync.py").await;
}
