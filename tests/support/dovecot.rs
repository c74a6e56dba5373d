//! A real Dovecot from the distribution's packages (dovecot-imapd, dovecot-lmtpd), with our push script. Needs root, as
//! Dovecot itself does.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::fixtures::free_port;
use super::imap::ImapClient;
use super::process::{die_with_parent, signal};
use super::wait::eventually;

/// The master user and its password: one who may log in as anybody, with their rights.
pub const MASTER: (&str, &str) = ("gw", "gwpw");

const PATIENCE: Duration = Duration::from_secs(30);
/// Whom mail belongs to; need not be in the system's list.
const MAIL_UID: u32 = 5000;

/// What may differ between Dovecots of tests.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the script posts to, such as `http://127.0.0.1:8081`; nobody needs to be there.
    pub agent: String,
    /// Further lines of configuration.
    pub extra: String,
}

/// A Dovecot on free ports, with users `alice`, `bob`, `carol` and `dave`, each with the [`password`].
pub struct TestDovecot {
    folder: TempDir,
    process: Option<Child>,
    pub imap_port: u16,
    pub lmtp_port: u16,
}

/// A user's password.
pub fn password(user: &str) -> String {
    format!("{user}-password")
}

impl TestDovecot {
    /// Starts it and waits until it greets.
    pub async fn start(options: Options) -> Self {
        assert!(
            Path::new("/usr/sbin/dovecot").exists(),
            "the tests need Dovecot: install dovecot-imapd and dovecot-lmtpd (scripts/test does, as root)"
        );
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = TempDir::with_prefix("mailpush-dovecot-").expect("make a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("let Dovecot's users in");
        for name in ["run", "state", "mail", "log"] {
            fs::create_dir(folder.path().join(name)).expect("make a folder");
        }
        let owner = Some(MAIL_UID);
        chown(folder.path().join("mail"), owner, owner).expect("give the mail away: the tests of Dovecot need root");
        let users: String =
            ["alice", "bob", "carol", "dave"].map(|user| format!("{user}:{{PLAIN}}{}::::::\n", password(user))).concat();
        fs::write(folder.path().join("users"), users).expect("write the users");
        fs::write(folder.path().join("masters"), format!("{}:{{PLAIN}}{}::::::\n", MASTER.0, MASTER.1))
            .expect("write the master");
        // The checkout may be where Dovecot's users cannot read.
        let script = folder.path().join("mailpush.lua");
        fs::copy(root.join("integrations/dovecot/mailpush.lua"), &script).expect("copy the script");
        let mut dovecot = Self { folder, process: None, imap_port: free_port(), lmtp_port: free_port() };
        let template = fs::read_to_string(root.join("tests/fixtures/servers/dovecot/dovecot.conf")).expect("the configuration");
        let filled = template
            .replace("@DIR@", dovecot.folder.path().to_str().expect("a plain path"))
            .replace("@SCRIPT@", script.to_str().expect("a plain path"))
            .replace("@IMAP@", &dovecot.imap_port.to_string())
            .replace("@LMTP@", &dovecot.lmtp_port.to_string())
            .replace("@AGENT@", &options.agent);
        fs::write(dovecot.configuration(), format!("{filled}\n{}\n", options.extra)).expect("write the configuration");
        dovecot.launch().await;
        dovecot
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("dovecot.conf")
    }

    /// Starts its process (again), with the mail that is there.
    pub async fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log/stderr")).expect("the log");
        let mut command = Command::new("/usr/sbin/dovecot");
        command.arg("-F").arg("-c").arg(self.configuration());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log, again")).stderr(log);
        // A group of its own, to be killed as one.
        command.process_group(0);
        die_with_parent(&mut command);
        self.process = Some(command.spawn().expect("start dovecot"));
        let port = self.imap_port;
        eventually("Dovecot greets", PATIENCE, async || {
            if let Some(status) = self.process.as_mut()?.try_wait().expect("its status") {
                panic!("Dovecot has ended ({status}):\n{}", self.log());
            }
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).await.ok()?;
            (&greeting == b"* OK").then_some(())
        })
        .await;
    }

    /// SIGTERM, and waits for the end of all its processes' master.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), libc::SIGTERM);
            eventually("Dovecot stops", PATIENCE, async || process.try_wait().expect("its status")).await;
        }
    }

    /// `kill -9` of every process.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SAFETY: a plain system call; the group is that of our child, which is not reaped yet.
            unsafe { libc::kill(-(process.id() as libc::pid_t), libc::SIGKILL) };
            let _ = process.wait();
            let _ = fs::remove_file(self.folder.path().join("run/master.pid"));
        }
    }

    /// A client, logged in.
    pub async fn client(&self, user: &str) -> ImapClient {
        ImapClient::login(self.imap_port, user, &password(user)).await
    }

    /// Delivers a message by LMTP (RFC 2033) and waits until it is taken.
    pub async fn deliver(&self, user: &str, message: &str) {
        let stream = TcpStream::connect(("127.0.0.1", self.lmtp_port)).await.expect("connect to LMTP");
        let mut stream = BufReader::new(stream);
        let body = format!("{}\r\n.\r\n", message.trim_end_matches("\r\n").replace("\r\n.", "\r\n.."));
        let lines = ["", "LHLO test\r\n", "MAIL FROM:<x@example.org>\r\n", &format!("RCPT TO:<{user}>\r\n"), "DATA\r\n", &body];
        for line in lines {
            stream.write_all(line.as_bytes()).await.expect("send");
            loop {
                let mut answer = String::new();
                stream.read_line(&mut answer).await.expect("an answer");
                assert!(answer.starts_with(['2', '3']), "{line:?}: {answer}");
                if answer.as_bytes().get(3) != Some(&b'-') {
                    break;
                }
            }
        }
    }

    /// Runs `doveadm`, which must succeed.
    pub fn doveadm(&self, arguments: &[&str]) {
        let output = Command::new("/usr/bin/doveadm").arg("-c").arg(self.configuration()).args(arguments).output();
        let output = output.expect("run doveadm");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("log/stderr") + &read("log/dovecot.log")
    }
}

impl Drop for TestDovecot {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of Dovecot ---\n{}", self.log());
        }
    }
}
