//! What the README says to type, typed: the blocks of "Try it" against a `mailpush dev`, with their output as it is printed there.

use std::collections::VecDeque;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::dev::DevCluster;
use crate::support::imap::ImapClient;
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(20);
/// The beginning of the id that the README's sample event has.
const SAMPLE_ID: &str = "01a20a63";

/// A fenced block.
#[derive(Debug)]
struct Block {
    language: String,
    lines: Vec<String>,
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README")
}

/// The fenced blocks of a text, in order.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some(Block { language: language.to_owned(), lines: Vec::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block has no end: {open:?}");
    blocks
}

/// A command that goes on while others are typed.
struct Running {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// So many lines were compared with the README.
    seen: usize,
}

impl Running {
    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nobody panics with them").clone()
    }

    /// Waits for a line from the `from`th on; returns its number.
    async fn line(&self, from: usize, wanted: &str) -> usize {
        let found = async || self.lines().iter().skip(from).position(|line| is_as(wanted, line)).map(|at| from + at);
        let told = async || self.lines().join("\n");
        let waiting = tokio::time::timeout(PATIENCE, eventually(wanted, 2 * PATIENCE, found)).await;
        match waiting {
            Ok(at) => at,
            Err(_) => panic!("the README promises {wanted:?}, and this was said:\n{}", told().await),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.process.id() {
            // SAFETY: a plain system call; the group is that of our child, which is not reaped yet.
            unsafe { libc::kill(-(group as libc::pid_t), libc::SIGKILL) };
        }
    }
}

/// Whether a line is as the README has it: ids and places in queues are other ones each time, and `…` stands for anything.
fn is_as(wanted: &str, line: &str) -> bool {
    let mut pattern = wanted.to_owned();
    if let Some(at) = pattern.find(SAMPLE_ID) {
        let length = pattern[at..].find(|c: char| !c.is_ascii_hexdigit() && c != '-' && c != '…').unwrap_or(pattern.len() - at);
        pattern.replace_range(at..at + length, "…");
    }
    for place in ["dev-1@0", "dev-2@0"] {
        pattern = pattern.replace(place, &place.replace('0', "…"));
    }
    let parts: Vec<&str> = pattern.split('…').collect();
    let [first, between @ .., last] = &parts[..] else { return pattern == line };
    let Some(mut rest) = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    between.iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Somebody who types what the README says.
struct Reader {
    cluster: DevCluster,
    folder: TempDir,
    exports: Vec<String>,
    running: Vec<Running>,
}

impl Reader {
    /// The command as it is to be typed at this cluster.
    fn adapted(&self, command: &str) -> String {
        let address = |url: String| url.rsplit('/').next().expect("an address").to_owned();
        let mut command = command.to_owned();
        for (printed, real) in [
            ("127.0.0.1:1143", address(self.cluster.imap(0))),
            ("127.0.0.1:1144", address(self.cluster.imap(1))),
            ("127.0.0.1:8080", address(self.cluster.http(0))),
            ("127.0.0.1:8081", address(self.cluster.http(1))),
        ] {
            let as_path = |text: &str| text.replace(':', "/");
            command = command.replace(printed, &real).replace(&as_path(printed), &as_path(&real));
        }
        let token = match &command {
            _ if command.contains("MAILPUSH_TOKEN=") => self.cluster.admin_token(),
            _ if command.contains("bob@example.org") => self.cluster.token(1),
            _ => self.cluster.token(0),
        };
        command.replace("eyJ0…", &token).replace("target/debug/mailpush", env!("CARGO_BIN_EXE_mailpush"))
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = std::process::Command::new("bash");
        // A group of its own, to be killed as one.
        shell.arg("-c").arg(format!("{}\n{command}", self.exports.join("\n"))).current_dir(self.folder.path()).process_group(0);
        shell.stdin(Stdio::null());
        Command::from(shell)
    }

    /// Types a command; those that do not end by themselves run on. Output that the README shows with it is compared.
    async fn types(&mut self, command: &str, shown: &[String]) {
        assert!(!command.contains("mailpush dev"), "the cluster runs already");
        let typed = self.adapted(command);
        if typed.starts_with("export ") {
            assert!(shown.is_empty());
            return self.exports.push(typed);
        }
        if typed.contains("curl -N") || typed.contains("cat <&3") {
            let mut process =
                self.shell(&typed).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("bash");
            let lines = Arc::new(Mutex::new(Vec::new()));
            let mut stdout = BufReader::new(process.stdout.take().expect("its output")).lines();
            let read = lines.clone();
            tokio::spawn(async move {
                while let Ok(Some(line)) = stdout.next_line().await {
                    read.lock().expect("nobody panics with them").push(line.trim_end_matches('\r').to_owned());
                }
            });
            self.running.push(Running { process, lines, seen: 0 });
            // Whoever reads on has seen this.
            let begun = if typed.contains("curl -N") { "event: subscribe" } else { "+ idling" };
            self.running.last().expect("the last one").line(0, begun).await;
            return self.shows(shown).await;
        }
        let ended = tokio::time::timeout(PATIENCE, self.shell(&typed).kill_on_drop(true).output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{command} does not end")).expect("bash");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).expect("text");
        let mut said: VecDeque<&str> = said.lines().collect();
        for wanted in shown {
            let line = said.pop_front().unwrap_or_else(|| panic!("{command} does not say {wanted:?}"));
            assert!(is_as(wanted, line), "{command} says {line:?} and not {wanted:?}");
        }
    }

    /// The command that runs on shows these lines, in this order.
    async fn shows(&mut self, shown: &[String]) {
        if shown.is_empty() {
            return;
        }
        let running = self.running.last_mut().expect("a command that runs on");
        for wanted in shown.iter().filter(|wanted| *wanted != "…") {
            running.seen = running.line(running.seen, wanted).await + 1;
        }
    }
}

/// What stands between backticks and begins like this.
fn quoted<'a>(text: &'a str, begin: &str) -> &'a str {
    let found = text.split('`').skip(1).step_by(2).find(|quoted| quoted.starts_with(begin));
    found.unwrap_or_else(|| panic!("the README quotes no `{begin}…`"))
}

#[tokio::test]
async fn what_the_readme_says_to_try_does_what_it_says() {
    let readme = readme();
    let (_, part) = readme.split_once("\n## Try it").expect("a part to try");
    let (part, others) = part.split_once("\n## ").expect("a part behind it");
    assert!(blocks(others).iter().all(|block| block.language != "console"), "a console block that this test does not know");

    let cluster = DevCluster::start(2).await;
    let folder = TempDir::new().expect("a folder");
    let mut reader = Reader { cluster, folder, exports: Vec::new(), running: Vec::new() };
    let mut mail_app: Option<ImapClient> = None;
    for block in blocks(part) {
        if block.language == "sh" {
            assert_eq!(block.lines, ["cargo run -- dev --nodes 2"], "how this test has begun");
            continue;
        }
        assert_eq!(block.language, "console", "a block that this test does not know: {block:?}");
        let first = block.lines.iter().position(|line| line.starts_with("$ ")).unwrap_or(block.lines.len());
        reader.shows(&block.lines[..first]).await;
        for typed in block.lines[first..].chunk_by(|_, next| !next.starts_with("$ ")) {
            let command = typed[0].strip_prefix("$ ").expect("a command");
            if command.contains("DELETEACL") {
                // "The first message comes as an `event`".
                let stream = reader.running.last().expect("bob's stream");
                stream.line(0, "event: event").await;
                let port = reader.cluster.imap(1).rsplit(':').next().and_then(|port| port.parse().ok());
                let mut bob = ImapClient::login(port.expect("a port"), "bob", "bob").await;
                bob.ok(&format!("SELECT {}", quoted(part, "shared/"))).await;
                bob.begin("IDLE").await;
                bob.expect("+ idling").await;
                mail_app = Some(bob);
            }
            reader.types(command, &typed[1..]).await;
        }
    }

    // "and of the second he hears nothing": something behind it he does hear.
    let bobs = "#private:bob@example.org:INBOX";
    let fence = json!({ "type": "MessageNew", "mailbox": bobs, "messages": [{ "uid": 777 }] });
    reader.cluster.publish(0, fence).await;
    let stream = reader.running.last().expect("bob's stream");
    stream.line(0, "data: …\"uid\":777…").await;
    let team = quoted(part, "Team");
    let told: Vec<String> =
        stream.lines().into_iter().filter(|line| is_as(&format!("data: …:{team}\"…\"uid\":…"), line)).collect();
    assert_eq!(told.len(), 1, "{told:?}");

    let mut bob = mail_app.expect("a mail app that idles");
    let mut heard = Vec::new();
    while let Some(line) = bob.line().await {
        heard.push(line);
    }
    assert_eq!(heard, [quoted(part, "* BYE")], "the mail app hears this and nothing else");

    let again = quoted(part, "SETACL");
    let given = format!("curl imap://127.0.0.1:1143/ -u alice:alice -X '{again}'");
    let seen = stream.lines().len();
    reader.types(&given, &[]).await;
    reader.running.last().expect("bob's stream").line(seen, &format!("event: {}", quoted(part, "resync"))).await;
}
