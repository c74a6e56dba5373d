use std::sync::atomic::AtomicUsize;

use data_encoding::BASE64;
use futures::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::config::{Millis, Secret};

/// What the server says to a command of `user`; `TAG` is its tag. "HANG": never anything again.
type Script = fn(user: &str, command: &str) -> String;

#[derive(Default)]
struct Seen {
    /// `bob MYRIGHTS Team`, one for each command after a login, and `bob LOGIN`.
    lines: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// A scripted mail server.
struct Server {
    rights: Arc<ImapRights>,
    seen: Arc<Seen>,
    /// While it is false, nobody is greeted.
    greets: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(script: Script) -> Self {
        Self::with(script, 10_000, UserNames::default()).await
    }

    async fn with(script: Script, timeout_ms: u64, names: UserNames) -> Self {
        Self::before(script, timeout_ms, names, |_| ()).await
    }

    async fn before(script: Script, timeout_ms: u64, names: UserNames, change: impl FnOnce(&mut ImapSettings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut imap = ImapSettings::default();
        imap.upstream.addresses = vec![listener.local_addr().unwrap().into()];
        imap.master.user = "gw".to_owned();
        imap.master.password = Secret::new("gwpw");
        change(&mut imap);
        let access = AccessSettings { timeout_ms: Millis(timeout_ms), ..AccessSettings::default() };
        let metrics = Arc::new(Metrics::default());
        let upstreams = Arc::new(Upstreams::new(&imap.upstream, metrics.clone()).unwrap());
        let rights = Arc::new(ImapRights::new(&imap, &access, names, upstreams, metrics).unwrap());
        let (greets, greeted) = watch::channel(true);
        let seen = Arc::new(Seen::default());
        let all = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, mut greeted) = (all.clone(), greeted.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most_open.fetch_max(open, Ordering::SeqCst);
                tokio::spawn(async move {
                    if greeted.wait_for(|greets| *greets).await.is_ok() {
                        let _ = talk(stream, script, &seen).await;
                    }
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { rights, seen, greets, _task: AbortOnDropHandle::new(task) }
    }

    async fn ask(&self, user: &str, mailbox: &str) -> Result<String, String> {
        let answer = self.rights.rights(&subject(user), &mailbox.parse().unwrap()).await;
        answer.map(|rights| rights.to_string()).map_err(|error| error.to_string())
    }

    /// Bob's question about alice's Team.
    async fn team(&self) -> Result<String, String> {
        self.ask("bob", "#private:alice:Team").await
    }

    async fn shared(&self, user: &str) -> Result<Vec<String>, String> {
        let answer = self.rights.shared_with(&subject(user)).await;
        answer.map(|paths| paths.iter().map(MailboxPath::to_string).collect()).map_err(|error| error.to_string())
    }

    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lines.lock())
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Asks in the background; returns once the question waits.
    async fn begin(&self, user: &str, mailbox: &'static str) -> AbortOnDropHandle<Result<Rights, NoAnswer>> {
        let (rights, subject) = (self.rights.clone(), subject(user));
        let asking = tokio::spawn(async move { rights.rights(&subject, &mailbox.parse().unwrap()).await });
        tokio::task::yield_now().await;
        AbortOnDropHandle::new(asking)
    }

    async fn until(&self, what: &str, met: impl Fn(&Seen) -> bool) {
        let waited = timeout(Duration::from_secs(20), async {
            while !met(&self.seen) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}");
    }
}

#[tokio::test]
async fn a_server_that_knows_its_users_without_their_domain_is_asked_so() {
    let script: Script = |user, command| {
        let answer = match (user, command) {
            (_, "GREETING") => "* OK Ready\r\n",
            ("bob" | "carol@other.org", "LOGIN") => "TAG OK In\r\n",
            (_, "NAMESPACE") => "* NAMESPACE ((\"\" \"/\")) ((\"shared/\" \"/\")) NIL\r\nTAG OK\r\n",
            (_, "MYRIGHTS INBOX") => "* MYRIGHTS INBOX lrswipkxtea\r\nTAG OK\r\n",
            ("bob", "MYRIGHTS shared/alice/Team") => "* MYRIGHTS shared/alice/Team lr\r\nTAG OK\r\n",
            _ => "TAG NO [NONEXISTENT] Nothing\r\n",
        };
        answer.to_owned()
    };
    let names = UserNames { lowercase: true, default_domain: Some("example.org".to_owned()) };
    let server = Server::before(script, 10_000, names, |imap| imap.master.strip_domain = true).await;
    let team = "#private:alice@example.org:Team";
    assert_eq!(server.ask("bob@example.org", team).await.as_deref(), Ok("lr"));
    assert_eq!(server.lines()[0], "bob LOGIN");
    // One of another domain has it on.
    assert_eq!(server.ask("carol@other.org", team).await.as_deref(), Ok(""));
    assert_eq!(server.lines()[0], "carol@other.org LOGIN");
}

fn subject(user: &str) -> Subject {
    Subject::alone(UserName::new(user).unwrap())
}

async fn talk(stream: TcpStream, script: Script, seen: &Seen) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(script("", "GREETING").as_bytes()).await?;
    let (mut user, mut tag) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let answer = match line.split_once(' ') {
            Some((new, "AUTHENTICATE PLAIN")) => {
                tag = new.to_owned();
                "+ \r\n".to_owned()
            }
            Some((new, command)) => {
                tag = new.to_owned();
                seen.lines.lock().push(format!("{user} {command}"));
                script(&user, command)
            }
            None => {
                let plain = String::from_utf8(BASE64.decode(line.as_bytes()).unwrap()).unwrap();
                let (authzid, rest) = plain.split_once('\0').unwrap();
                assert_eq!(rest, "gw\0gwpw");
                user = authzid.to_owned();
                seen.lines.lock().push(format!("{user} LOGIN"));
                script(&user, "LOGIN")
            }
        };
        if answer == "HANG" {
            std::future::pending::<()>().await;
        }
        stream.write_all(answer.replace("TAG", &tag).as_bytes()).await?;
    }
}

/// How it is found out whose rights the server goes by: asked once.
const INBOX: &str = "MYRIGHTS INBOX";

/// What an honest server says, on which alice has shared nothing.
fn honest(command: &str) -> String {
    match command {
        "GREETING" => "* OK hello\r\n",
        "LOGIN" => "TAG OK [CAPABILITY IMAP4rev1 ACL] in\r\n",
        "CAPABILITY" => "* CAPABILITY IMAP4rev1 ACL NAMESPACE\r\nTAG OK done\r\n",
        "NAMESPACE" => "* NAMESPACE ((\"\" \"/\")) ((\"shared/\" \"/\")) ((\"public/\" \"/\"))\r\nTAG OK done\r\n",
        INBOX => "* MYRIGHTS INBOX lrswipkxtea\r\nTAG OK done\r\n",
        command if command.starts_with("MYRIGHTS ") => "TAG NO [NONEXISTENT] There is none\r\n",
        command if command.starts_with("LIST ") => "TAG OK done\r\n",
        _ => "TAG BAD what?\r\n",
    }
    .to_owned()
}

/// The same with other answers to commands that begin so.
macro_rules! script {
    ($($begin:literal => $answer:expr),* $(,)?) => {
        |_, command| {
            $(if command.starts_with($begin) && (command != INBOX || $begin == INBOX) { return $answer.to_string(); })*
            honest(command)
        }
    };
}

#[tokio::test]
async fn rights_are_asked_for_under_the_name_that_the_user_knows() {
    let server = Server::start(script!(
        "MYRIGHTS shared/alice/Team" => "* MYRIGHTS shared/alice/Team rlx\r\nTAG OK done\r\n",
        "MYRIGHTS \"shared/alice/Entw&APw-rfe 1\"" => "* MYRIGHTS {3}\r\nany lr\r\nTAG OK done\r\n",
        "MYRIGHTS public/News" => "* MYRIGHTS public/News l\r\nTAG OK done\r\n",
        "MYRIGHTS shared/alice/Written" => "* MYRIGHTS shared/alice/Written sw\r\nTAG OK done\r\n",
        "MYRIGHTS shared/alice/INBOX" => "* MYRIGHTS shared/alice/INBOX lr\r\nTAG OK done\r\n",
    ))
    .await;
    for (mailbox, rights) in [
        ("#private:alice:Team", "lrx"),
        ("#private:alice:Entwürfe 1", "lr"),
        ("#shared::News", "l"),
        ("#private:alice:Written", ""),
        ("#private:alice:None", ""),
        ("#private:alice:INBOX", "lr"),
        ("#other:alice:Team", ""),
    ] {
        assert_eq!(server.ask("bob", mailbox).await.unwrap(), rights, "{mailbox}");
    }
    let asked: Vec<_> = server.lines().into_iter().filter(|line| line.contains("MYRIGHTS")).collect();
    assert_eq!(asked[6..], ["bob MYRIGHTS shared/alice", "bob MYRIGHTS shared/alice/INBOX"], "{asked:?}");
}

#[tokio::test]
async fn a_server_may_know_its_users_without_their_domain() {
    let names = UserNames { lowercase: true, default_domain: Some("x.org".to_owned()) };
    let script: Script = script!("MYRIGHTS shared/alice/Team" => "* MYRIGHTS shared/alice/Team lr\r\nTAG OK done\r\n");
    let server = Server::with(script, 10_000, names).await;
    assert_eq!(server.ask("bob@x.org", "#private:alice@x.org:Team").await.unwrap(), "lr");
    // To a user of another domain the bare name may be an owner of that domain.
    assert_eq!(server.ask("bob@y.org", "#private:alice@x.org:Team").await.unwrap(), "");
    assert_eq!(server.ask("bob@x.org", "#private:alice@y.org:Team").await.unwrap(), "");
}

#[tokio::test]
async fn delimiters_are_the_servers() {
    let server = Server::start(script!(
        "NAMESPACE" => "* NAMESPACE ((\"INBOX.\" \".\")) ((\"user.\" \".\")) NIL\r\nTAG OK done\r\n",
        "MYRIGHTS user.alice^b.Team.2026" => "* MYRIGHTS user.alice^b.Team.2026 lr\r\nTAG OK done\r\n",
        "LIST \"\" \"user.*\"" => "* LIST () \".\" user.alice^b.Team.2026\r\nTAG OK done\r\n",
    ))
    .await;
    assert_eq!(server.ask("bob", "#private:alice.b:Team/2026").await.unwrap(), "lr");
    assert_eq!(server.shared("bob").await.unwrap(), ["#private:alice.b:Team/2026"]);
}

#[tokio::test]
async fn a_refusal_is_an_answer_unless_it_may_pass() {
    let none: [Script; 4] = [
        script!("MYRIGHTS" => "TAG NO [NOPERM] no\r\n"),
        script!("MYRIGHTS" => "TAG NO there is none\r\n"),
        // Dovecot of an owner whom there is not.
        script!("MYRIGHTS" => "TAG NO [SERVERBUG] Internal error occurred\r\n"),
        script!("MYRIGHTS" => "TAG NO [serverbug] oops\r\n", "LIST" => "TAG NO [SERVERBUG] oops\r\n"),
    ];
    for (at, script) in none.into_iter().enumerate() {
        assert_eq!(Server::start(script).await.team().await.as_deref(), Ok(""), "{at}");
    }
    let no_answer: [Script; 10] = [
        script!("MYRIGHTS" => "TAG NO [UNAVAILABLE] later\r\n"),
        script!("MYRIGHTS" => "TAG NO [INUSE] later\r\n"),
        script!("MYRIGHTS" => "TAG BAD what?\r\n"),
        script!("MYRIGHTS" => "TAG OK done\r\n"),
        script!("MYRIGHTS" => "* BYE\r\n"),
        // Who may look it up is not told that it is gone because something is wrong.
        script!(
            "MYRIGHTS" => "TAG NO [SERVERBUG] oops\r\n",
            "LIST" => "* LIST (\\HasNoChildren) \"/\" shared/alice/Team\r\nTAG OK done\r\n",
        ),
        script!("NAMESPACE" => "TAG NO [UNAVAILABLE] later\r\n"),
        script!("NAMESPACE" => "TAG OK done\r\n"),
        script!("GREETING" => "* PREAUTH hello\r\n"),
        script!("GREETING" => "* BYE full\r\n"),
    ];
    for (at, script) in no_answer.into_iter().enumerate() {
        let server = Server::with(script, 300, UserNames::default()).await;
        let error = server.team().await.unwrap_err();
        assert!(!error.contains("oops") && !error.contains("Team"), "{at}: {error}");
        assert!(server.shared("bob").await.is_err() || at < 6, "{at}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_say_has_nothing_shared() {
    let scripts: [(Script, &str); 2] = [
        (
            script!("MYRIGHTS INBOX" => "TAG BAD what?\r\n", "MYRIGHTS" => "TAG BAD what?\r\n", "CAPABILITY" => "* CAPABILITY IMAP4rev1 ACL2\r\nTAG OK done\r\n"),
            "ACL",
        ),
        (script!("NAMESPACE" => "TAG BAD what?\r\n"), "NAMESPACE"),
    ];
    for (script, missing) in scripts {
        let server = Server::start(script).await;
        assert!(!server.rights.inner.told_unable.load(Ordering::SeqCst));
        assert_eq!(server.team().await.as_deref(), Ok(""), "{missing}");
        assert!(server.rights.inner.told_unable.load(Ordering::SeqCst), "{missing}: it was told");
        assert_eq!(server.shared("bob").await, Ok(Vec::new()), "{missing}");
    }
}

#[tokio::test]
async fn what_is_shared_is_sorted_and_each_once_and_nothing_of_ones_own() {
    let server = Server::start(script!(
        "LIST \"\" \"shared/*\"" => "* LIST (\\Noselect) \"/\" shared/alice\r\n* LIST (\\HasNoChildren) \"/\" shared/alice/b\r\n\
            * LIST () \"/\" \"shared/Alice/a\"\r\n* LIST (\\noNexistent) \"/\" shared/alice/c\r\n* LIST () \"/\" {14}\r\nshared/alice/b\r\n\
            * LIST () \"/\" shared/bob/own\r\n* LIST () \"/\" INBOX\r\n* LIST () \"/\" shared/carol/&AOk-\r\n* LIST () \"/\" shared/x/&\r\n\
            TAG OK done\r\n",
        "LIST \"\" \"public/*\"" => "* LIST () \"/\" public/News\r\nTAG OK done\r\n",
    ))
    .await;
    let shared = ["#private:alice:a", "#private:alice:b", "#private:carol:é", "#shared::News"];
    assert_eq!(server.shared("bob").await.unwrap(), shared);
    let server = Server::start(script!("LIST" => "TAG NO not now\r\n")).await;
    assert!(server.shared("bob").await.is_err());
    let server = Server::start(script!("LIST \"\" \"shared/*\"" => {
        let lines = (0..=65_536).map(|number| format!("* LIST () \"/\" shared/alice/{number}\r\n"));
        lines.collect::<String>() + "TAG OK done\r\n"
    }))
    .await;
    assert!(server.shared("bob").await.unwrap_err().contains("too many"));
}

#[tokio::test]
async fn a_user_who_is_refused_has_no_rights_only_if_others_are_let_in() {
    let server = Server::start(|user, command| match (user, command) {
        ("eve", "LOGIN") => "TAG NO [AUTHENTICATIONFAILED] no\r\n".to_owned(),
        ("ill", "LOGIN") => "TAG NO [UNAVAILABLE] later\r\n".to_owned(),
        (_, command) => honest(command),
    })
    .await;
    let team = "#private:alice:Team";
    let error = server.ask("eve", team).await.unwrap_err();
    assert!(error.contains("imap.master"), "nobody was let in yet: {error}");
    assert!(server.ask("eve", team).await.is_err());
    assert_eq!(server.connections(), 1, "eve is left alone for a while");
    assert_eq!(server.team().await.as_deref(), Ok(""));
    assert!(server.ask("ill", team).await.is_err(), "this may pass");
    server.lines();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    assert_eq!(server.ask("eve", team).await.as_deref(), Ok(""));
    assert_eq!(server.shared("eve").await, Ok(Vec::new()));
    assert_eq!(server.lines(), ["eve LOGIN", "bob LOGIN", "bob NAMESPACE"]);
}

#[tokio::test]
async fn nobody_loses_rights_because_the_master_user_is_refused() {
    static CHANGED: AtomicBool = AtomicBool::new(false);
    let server = Server::start(|_, command| match command {
        "LOGIN" if CHANGED.load(Ordering::SeqCst) => "TAG NO [AUTHENTICATIONFAILED] no\r\n".to_owned(),
        command => honest(command),
    })
    .await;
    for user in ["bob", "carol"] {
        assert_eq!(server.ask(user, "#private:alice:Team").await.as_deref(), Ok(""));
    }
    CHANGED.store(true, Ordering::SeqCst);
    for user in ["bob", "carol", "dave", "bob"] {
        assert!(server.ask(user, "#private:alice:Team").await.unwrap_err().contains("imap.master"), "{user}");
    }
}

#[tokio::test]
async fn nobody_loses_rights_because_the_server_goes_by_the_master_users() {
    static RIGHT: AtomicBool = AtomicBool::new(false);
    let server = Server::start(|_, command| match command {
        INBOX if !RIGHT.load(Ordering::SeqCst) => "TAG NO [NONEXISTENT] There is none\r\n".to_owned(),
        command => honest(command),
    })
    .await;
    for _ in 0..2 {
        assert!(server.team().await.unwrap_err().contains("acl_user"));
    }
    assert!(server.shared("bob").await.is_err());
    RIGHT.store(true, Ordering::SeqCst);
    assert_eq!(server.team().await.as_deref(), Ok(""));
    RIGHT.store(false, Ordering::SeqCst);
    assert_eq!(server.team().await.as_deref(), Ok(""), "it was asked once");
}

#[tokio::test]
async fn questions_share_a_connection_that_was_opened_after_them() {
    let server = Server::start(script!("MYRIGHTS shared/alice/b" => "* MYRIGHTS shared/alice/b lr\r\nTAG OK done\r\n")).await;
    server.greets.send_replace(false);
    let first = server.begin("bob", "#private:alice:a").await;
    server.until("a connection is opened", |seen| seen.connections.load(Ordering::SeqCst) == 1).await;
    // From here on the server's answer may be older than the question.
    let mut later = Vec::new();
    for mailbox in ["#private:alice:b", "#private:alice:c", "#private:alice:b"] {
        later.push(server.begin("bob", mailbox).await);
    }
    let rights = server.rights.clone();
    let shared = tokio::spawn(async move { rights.shared_with(&subject("bob")).await });
    tokio::task::yield_now().await;
    assert_eq!(server.connections(), 1);
    server.greets.send_replace(true);
    assert_eq!(first.await.unwrap(), Ok(Rights::NONE));
    let answers = join_all(later).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
    assert_eq!(answers, [Rights::READ, Rights::NONE, Rights::READ]);
    assert_eq!(shared.await.unwrap(), Ok(Vec::new()));
    let expected = [
        "bob LOGIN",
        "bob NAMESPACE",
        "bob MYRIGHTS INBOX",
        "bob MYRIGHTS shared/alice/a",
        "bob LOGIN",
        "bob NAMESPACE",
        "bob MYRIGHTS shared/alice/b",
        "bob MYRIGHTS shared/alice/c",
        "bob LIST \"\" \"shared/*\"",
        "bob LIST \"\" \"public/*\"",
    ];
    assert_eq!(server.lines(), expected);
    assert_eq!(server.connections(), 2);
    server.until("none is kept", |seen| seen.open.load(Ordering::SeqCst) == 0).await;
    assert!(server.rights.inner.waiting().is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn connections_are_few_and_one_for_each_user() {
    let server = Server::start(script!()).await;
    server.greets.send_replace(false);
    let users: Vec<String> = (0..40).map(|number| format!("u{number}")).collect();
    let asked = users.iter().flat_map(|user| ["#private:alice:a", "#private:alice:b"].map(|mailbox| server.ask(user, mailbox)));
    let answers = join_all(asked);
    let release = async {
        server.until("all places are taken", |seen| seen.open.load(Ordering::SeqCst) == CONNECTIONS).await;
        server.greets.send_replace(true);
    };
    let (answers, ()) = tokio::join!(answers, release);
    assert!(answers.iter().all(|answer| answer.as_deref() == Ok("")));
    assert_eq!(server.seen.most_open.load(Ordering::SeqCst), CONNECTIONS);
    assert_eq!(server.connections(), 40);
}

#[tokio::test]
async fn a_server_that_hangs_gives_no_answer_in_time_and_the_next_question_is_put() {
    let server = Server::with(script!("MYRIGHTS shared/alice/Team" => "HANG"), 200, UserNames::default()).await;
    assert_eq!(server.team().await, Err("the mail server did not answer in time".to_owned()));
    assert_eq!(server.ask("bob", "#private:alice:Other").await.as_deref(), Ok(""));
    server.greets.send_replace(false);
    assert!(server.ask("bob", "#private:alice:Other").await.is_err());
    server.greets.send_replace(true);
    assert_eq!(server.ask("bob", "#private:alice:Other").await.as_deref(), Ok(""));
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_asked() {
    let server = Server::start(script!()).await;
    server.greets.send_replace(false);
    let first = server.begin("bob", "#private:alice:a").await;
    server.until("a connection is opened", |seen| seen.connections.load(Ordering::SeqCst) == 1).await;
    drop(server.begin("bob", "#private:alice:b").await);
    tokio::task::yield_now().await;
    server.greets.send_replace(true);
    assert_eq!(first.await.unwrap(), Ok(Rights::NONE));
    server.until("nobody is asked about any more", |_| server.rights.inner.waiting().is_empty()).await;
    assert_eq!(server.lines(), ["bob LOGIN", "bob NAMESPACE", "bob MYRIGHTS INBOX", "bob MYRIGHTS shared/alice/a"]);
}

#[tokio::test]
async fn without_a_master_user_nobody_can_be_asked_about_and_nothing_is_told_unasked() {
    let metrics = Arc::new(Metrics::default());
    let imap = ImapSettings::default();
    let upstreams = Arc::new(Upstreams::new(&imap.upstream, metrics.clone()).unwrap());
    let made = ImapRights::new(&imap, &AccessSettings::default(), UserNames::default(), upstreams, metrics);
    assert!(made.is_none());
    let server = Server::start(script!()).await;
    assert_eq!(server.rights.news().recv().await, None);
    server.team().await.unwrap();
    let text = server.rights.inner.metrics.render();
    assert!(text.contains("mailpush_rights_questions_total{source=\"imap\",outcome=\"none\"} 1"), "{text}");
    assert!(text.contains("mailpush_rights_latency_seconds_count{source=\"imap\"} 1"), "{text}");
}

#[tokio::test]
async fn what_the_server_says_of_rights_in_parts_or_twice_is_one_answer() {
    let script: Script = |user, command| {
        let answer = match (user, command) {
            (_, "GREETING") => "* OK Ready\r\n",
            ("bob", "LOGIN") => "TAG OK In\r\n",
            (_, "NAMESPACE") => "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n* NAMESPACE NIL ((\"shared/\" \"/\")) NIL\r\nTAG OK\r\n",
            (_, "MYRIGHTS INBOX") => "* MYRIGHTS INBOX lrswipkxtea\r\nTAG OK\r\n",
            ("bob", "MYRIGHTS shared/alice/Team") => {
                "* MYRIGHTS shared/alice/Team lrs\r\n* MYRIGHTS shared/alice/Team lr\r\n\
                 * MYRIGHTS shared/alice/Other lrswi\r\nTAG OK\r\n"
            }
            _ => "TAG NO [NONEXISTENT] Nothing\r\n",
        };
        answer.to_owned()
    };
    let server = Server::start(script).await;
    assert_eq!(server.team().await.as_deref(), Ok("lr"));
}
