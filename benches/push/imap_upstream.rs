//! A mail server that does as little as one can, so that what stands before it is measured: a process of its own.
//!
//! Its words are Dovecot's. Every mailbox of everybody holds the same; nothing is ever different.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::support::process::die_with_parent;

/// The argument that makes this program the server.
pub const MODE: &str = "--imap-upstream";
/// Messages of every mailbox.
pub const MESSAGES: u32 = 1_000;
/// Bytes of the body of every message.
pub const BODY: usize = 64 << 20;
/// Lines of the answer to a FETCH of envelopes.
pub const ENVELOPES: u32 = 10_000;

const BEFORE: &str = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN";
const AFTER: &str = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY THREAD=REFERENCES THREAD=REFS \
                     THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED \
                     I18NLEVEL=1 CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE \
                     SNIPPET=FUZZY PREVIEW=FUZZY PREVIEW STATUS=SIZE SAVEDATE LITERAL+ NOTIFY SPECIAL-USE ACL RIGHTS=texk";
const FLAGS: &str = "\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded $Junk NonJunk";

/// Killed when dropped.
pub struct Upstream {
    process: Child,
    /// `host:port`.
    pub address: String,
}

impl Upstream {
    pub async fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--bench", MODE]).stdin(Stdio::null()).stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut process = command.spawn().expect("start the mail server");
        let stdout = tokio::process::ChildStdout::from_std(process.stdout.take().expect("its output")).expect("read it");
        let line = BufReader::new(stdout).lines().next_line().await.expect("a line");
        Self { process, address: line.expect("the server's address") }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server itself; prints its address.
pub fn main() {
    super::setup::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("its address"));
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
}

/// The UIDs of every mailbox, as a sequence set: every fiftieth or so is gone, in no rhythm.
fn uids() -> &'static str {
    static UIDS: OnceLock<String> = OnceLock::new();
    UIDS.get_or_init(|| {
        let is_held = |uid: &u32| uid.wrapping_mul(0x9e37_79b1) >> 16 >= 65_536 / 50;
        let mut set = String::new();
        let mut held = (1..).filter(is_held).take(MESSAGES as usize).peekable();
        while let Some(first) = held.next() {
            let mut last = first;
            while let Some(next) = held.next_if_eq(&(last + 1)) {
                last = next;
            }
            let comma = if set.is_empty() { "" } else { "," };
            let _ = if first == last { write!(set, "{comma}{first}") } else { write!(set, "{comma}{first}:{last}") };
        }
        set
    })
}

/// The lowest UID that no message has.
pub fn uidnext() -> u32 {
    let last = uids().rsplit([',', ':']).next().expect("a UID");
    last.parse::<u32>().expect("a number") + 1
}

fn body() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let line = b"The quick brown fox jumps over the lazy dog, and then it does so again and again\r\n";
    BYTES.get_or_init(|| line.iter().copied().cycle().take(BODY).collect())
}

fn envelopes() -> &'static [u8] {
    static LINES: OnceLock<Vec<u8>> = OnceLock::new();
    LINES.get_or_init(|| {
        let person = |name: &str| format!("((\"{name}\" NIL \"{name}\" \"example.org\"))");
        let line = |seq| {
            let (joe, alice) = (person("joe"), person("alice"));
            format!(
                "* {seq} FETCH (ENVELOPE (\"Mon, 23 Nov 2026 10:00:00 +0000\" \"Hello number {seq}\" {joe} {joe} {joe} {alice} NIL \
                 NIL NIL \"<{seq}.mail@example.org>\"))\r\n"
            )
        };
        (1..=ENVELOPES).map(line).collect::<String>().into_bytes()
    })
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(8 * 1024, stream);
    stream.write_all(format!("* OK [CAPABILITY {BEFORE}] Dovecot ready.\r\n").as_bytes()).await?;
    let (mut line, mut answer) = (Vec::new(), String::new());
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (tag, command) = text.split_once(' ').unwrap_or((&text, ""));
        let name = command.split(' ').next().unwrap_or_default();
        if matches!(name, "FETCH" | "IDLE") {
            stream.write_all(answer.as_bytes()).await?;
            answer.clear();
        }
        match name {
            "FETCH" if command.ends_with("BODY[]") => {
                stream.write_all(format!("* 1 FETCH (BODY[] {{{BODY}}}\r\n").as_bytes()).await?;
                stream.write_all(body()).await?;
                answer.push_str(")\r\n");
            }
            "FETCH" => stream.write_all(envelopes()).await?,
            "APPEND" => {
                let length = command.rsplit_once('{').map(|(_, length)| length.trim_end_matches(['}', '+']).parse());
                let mut left: usize = length.expect("a literal").expect("its length");
                while left > 0 {
                    let taken = stream.fill_buf().await?.len().min(left);
                    if taken == 0 {
                        return Ok(());
                    }
                    stream.consume(taken);
                    left -= taken;
                    if left > 64 * 1024 {
                        left -= swallow(&mut stream, left).await?;
                    }
                }
                stream.read_until(b'\n', &mut line).await?;
            }
            "IDLE" => {
                stream.write_all(b"+ idling\r\n").await?;
                line.clear();
                stream.read_until(b'\n', &mut line).await?;
            }
            "LOGOUT" => answer.push_str("* BYE Logging out\r\n"),
            "CAPABILITY" => answer.push_str(&format!("* CAPABILITY {AFTER}\r\n")),
            "NAMESPACE" => {
                answer.push_str("* NAMESPACE ((\"\" \"/\")) ((\"shared/\" \"/\")) NIL\r\n");
            }
            "UID" if command.starts_with("UID SEARCH") => {
                write!(answer, "* ESEARCH (TAG \"{tag}\") UID ALL {}\r\n", uids()).expect("write");
            }
            "SELECT" | "EXAMINE" => {
                let uidnext = uidnext();
                write!(
                    answer,
                    "* FLAGS ({FLAGS})\r\n* OK [PERMANENTFLAGS ({FLAGS} \\*)] Flags permitted.\r\n* {MESSAGES} EXISTS\r\n\
                     * 0 RECENT\r\n* OK [UIDVALIDITY 1700000000] UIDs valid\r\n* OK [UIDNEXT {uidnext}] Predicted next UID\r\n\
                     * OK [HIGHESTMODSEQ 1] Highest\r\n"
                )
                .expect("write");
            }
            _ => {}
        }
        match name {
            "LOGIN" | "AUTHENTICATE" => write!(answer, "{tag} OK [CAPABILITY {AFTER}] Logged in\r\n").expect("write"),
            _ => write!(answer, "{tag} OK completed.\r\n").expect("write"),
        }
        // What comes in one go is answered in one go.
        if !stream.buffer().contains(&b'\n') {
            stream.write_all(answer.as_bytes()).await?;
            answer.clear();
        }
        if command == "LOGOUT" {
            return Ok(());
        }
    }
}

/// Reads some of a literal in large pieces.
async fn swallow(stream: &mut BufReader<TcpStream>, left: usize) -> std::io::Result<usize> {
    let mut taken = stream.buffer().len().min(left);
    stream.consume(taken);
    let mut bytes = vec![0; 256 * 1024];
    while left - taken > bytes.len() {
        match stream.get_mut().read(&mut bytes).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => taken += read,
        }
    }
    Ok(taken)
}
