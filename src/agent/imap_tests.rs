use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::agent::complete::FlagSource;
use crate::agent::naming::{Naming, Prefixes};
use crate::agent::pool::{Pool, Target};
use crate::config::ImapTls;

/// A server that says, for each line it reads, what the script says of the line's second word on.
async fn server(script: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            talk(stream, true, script).await;
        }
    });
    address
}

async fn talk(mut stream: impl Stream, greet: bool, script: &[(&str, &str)]) {
    if greet {
        stream.write_all(b"* OK [CAPABILITY IMAP4rev1] hello\r\n").await.unwrap();
    }
    let mut text = String::new();
    let mut buffer = [0; 4096];
    let mut tag = String::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        while let Some((line, rest)) = text.split_once("\r\n") {
            // A SASL answer has no tag: it ends AUTHENTICATE.
            let command = match line.split_once(' ') {
                Some((new, command)) => {
                    tag = new.to_owned();
                    command
                }
                None => line,
            };
            let known = script.iter().find(|(begin, _)| command.starts_with(begin));
            let answer = known.map_or_else(|| format!("{tag} BAD {command}\r\n"), |(_, answer)| answer.replace("TAG", &tag));
            if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            text = rest.to_owned();
        }
    }
}

/// The same script behind TLS: from the first byte, or after STARTTLS. Returns the address and the authority's file.
async fn encrypted(starttls: bool, script: &'static [(&'static str, &'static str)]) -> (String, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if starttls {
                stream.write_all(b"* OK hello\r\n").await.unwrap();
                let mut command = [0; 13];
                stream.read_exact(&mut command).await.unwrap();
                assert_eq!(&command, b"a1 STARTTLS\r\n");
                stream.write_all(b"a1 OK go on\r\n").await.unwrap();
            }
            // A client that does not trust us breaks off here.
            if let Ok(stream) = acceptor.accept(stream).await {
                talk(stream, !starttls, script).await;
            }
        }
    });
    (address, authority)
}

/// base64 of `alice`, NUL, `gw`, NUL, `secret`.
const PLAIN: &str = "YWxpY2UAZ3cAc2VjcmV0";
const LOGIN: [(&str, &str); 5] = [
    ("AUTHENTICATE PLAIN", "+ \r\n"),
    (PLAIN, "TAG OK logged in\r\n"),
    ("CAPABILITY", "* CAPABILITY IMAP4rev1 CONDSTORE\r\nTAG OK done\r\n"),
    ("NAMESPACE", "* NAMESPACE ((\"INBOX.\" \".\")) NIL NIL\r\nTAG OK done\r\n"),
    ("LIST", "* LIST (\\Noselect) \".\" \"\"\r\nTAG OK done\r\n"),
];

async fn open(address: &str) -> Result<Connection, ImapError> {
    let tls = Tls::new(ImapTls::None, None, "127.0.0.1").unwrap();
    Connection::open(address, &tls, &Credentials::new("gw", "secret"), "alice").await
}

fn path(name: &str) -> MailboxPath {
    format!("#private:alice:{name}").parse().unwrap()
}

fn uids(numbers: &[u32]) -> BTreeSet<Uid> {
    numbers.iter().map(|n| Uid::new(*n).unwrap()).collect()
}

macro_rules! script {
    ($($more:expr),* $(,)?) => {{
        const SCRIPT: &[(&str, &str)] = &[LOGIN[0], LOGIN[1], LOGIN[2], LOGIN[3], LOGIN[4], $($more),*];
        SCRIPT
    }};
}

#[tokio::test]
async fn flags_as_the_owner_sees_them() {
    let address = server(script![
        ("EXAMINE INBOX.Entw&APw-rfe.Neu", "* 2 EXISTS\r\n* OK [UIDVALIDITY 9] ok\r\nTAG OK [READ-ONLY] done\r\n"),
        (
            "UID FETCH 1:2,404 (FLAGS MODSEQ)",
            "* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent $Work) MODSEQ (12))\r\n* 2 FETCH (FLAGS () MODSEQ (13) UID 2)\r\n\
             * 3 FETCH (UID 3 FLAGS (\\Seen))\r\n* 4 EXISTS\r\nTAG OK done\r\n"
        ),
    ])
    .await;
    let mut connection = open(&address).await.unwrap();
    let (neu, names) = (path("Entwürfe/Neu"), UserNames::default());
    let known = connection.flags(&neu, &names, UidValidity::new(9), &uids(&[1, 2, 404])).await.unwrap();
    let shown: Vec<_> =
        known.iter().map(|(uid, k)| (uid.get(), k.flags.len(), k.flags.contains("$Work"), k.modseq.unwrap().0)).collect();
    assert_eq!(shown, [(1, 2, true, 12), (2, 0, false, 13)]);
    let error = connection.flags(&neu, &names, UidValidity::new(8), &uids(&[1])).await.unwrap_err();
    assert_eq!(error.to_string(), "its UIDVALIDITY is another");
    let error = connection.flags(&path("Gone"), &names, None, &uids(&[1])).await.unwrap_err();
    assert!(matches!(error, ImapError::Refused(_)), "{error}");
    let public = "#shared::News".parse().unwrap();
    let error = connection.flags(&public, &names, None, &uids(&[1])).await.unwrap_err();
    assert_eq!(error.to_string(), "its owner has no name for it");
    assert!(connection.flags(&neu, &names, None, &uids(&[1, 2, 404])).await.is_ok(), "the connection is still good");
}

#[tokio::test]
async fn without_namespace_all_is_the_owners() {
    const OLD: &[(&str, &str)] = &[
        LOGIN[0],
        LOGIN[1],
        LOGIN[2],
        LOGIN[4],
        ("EXAMINE Entw&APw-rfe.Neu", "TAG OK [READ-ONLY] done\r\n"),
        ("UID FETCH 1", "TAG OK done\r\n"),
    ];
    let mut connection = open(&server(OLD).await).await.unwrap();
    assert_eq!(connection.namespaces(), None);
    assert!(connection.flags(&path("Entwürfe/Neu"), &UserNames::default(), None, &uids(&[1])).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_login_is_told_as_one() {
    const NO: &[(&str, &str)] = &[LOGIN[0], (PLAIN, "TAG NO [AUTHENTICATIONFAILED] no such user\r\n")];
    assert!(matches!(open(&server(NO).await).await, Err(ImapError::Login(_))));
    const NONE: &[(&str, &str)] = &[("AUTHENTICATE", "TAG NO [PRIVACYREQUIRED] not in the clear\r\n")];
    assert!(matches!(open(&server(NONE).await).await, Err(ImapError::Login(_))));
}

#[tokio::test]
async fn a_server_that_breaks_off_is_an_error() {
    const BYE: &[(&str, &str)] = &[LOGIN[0], (PLAIN, "TAG OK yes\r\n* 1 EX")];
    let opened = tokio::time::timeout(std::time::Duration::from_secs(5), open(&server(BYE).await)).await;
    assert!(matches!(opened, Ok(Err(ImapError::Protocol(_)))), "half a line behind the end");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    assert!(matches!(open(&nobody).await, Err(ImapError::Io(_))));
}

#[tokio::test]
async fn over_tls_whichever_way_it_begins_and_only_to_whom_is_trusted() {
    for mode in [ImapTls::Tls, ImapTls::Starttls] {
        let (address, authority) = encrypted(mode == ImapTls::Starttls, &LOGIN).await;
        let credentials = Credentials::new("gw", "secret");
        let tls = Tls::new(mode, Some(authority.path()), "localhost").unwrap();
        assert!(Connection::open(&address, &tls, &credentials, "alice").await.is_ok(), "{mode:?}");
        let (_, stranger) = encrypted(false, &[]).await;
        let tls = Tls::new(mode, Some(stranger.path()), "localhost").unwrap();
        assert!(matches!(Connection::open(&address, &tls, &credentials, "alice").await, Err(ImapError::Io(_))), "{mode:?}");
    }
}

#[tokio::test]
async fn what_a_server_says_in_parts_is_one_answer() {
    const SCRIPT: &[(&str, &str)] = &[
        LOGIN[0],
        LOGIN[1],
        ("CAPABILITY", "* CAPABILITY IMAP4rev1 CONDSTORE\r\n* CAPABILITY IDLE\r\nTAG OK done\r\n"),
        ("NAMESPACE", "* NAMESPACE ((\"INBOX.\" \".\")) NIL NIL\r\n* NAMESPACE NIL ((\"u.\" \".\")) NIL\r\nTAG OK done\r\n"),
        ("EXAMINE INBOX.Work", "* OK [UIDVALIDITY 9] ok\r\nTAG OK [READ-ONLY] done\r\n"),
        (
            "UID FETCH 1:2 (FLAGS MODSEQ)",
            "* 1 FETCH (UID 1 MODSEQ (12))\r\n* 2 FETCH (UID 2 FLAGS ())\r\n* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n\
             * 2 FETCH (UID 2 MODSEQ (13))\r\nTAG OK done\r\n",
        ),
    ];
    let address = server(SCRIPT).await;
    let mut connection = open(&address).await.unwrap();
    let known = connection.flags(&path("Work"), &UserNames::default(), None, &uids(&[1, 2])).await.unwrap();
    let told: Vec<_> = known.iter().map(|(uid, known)| (uid.get(), known.flags.len(), known.modseq)).collect();
    assert_eq!(told, [(1, 1, Some(ModSeq(12))), (2, 0, Some(ModSeq(13)))]);
}

/// The server has been asked in vain by a connection of its own, which it would be at every change.
#[tokio::test]
async fn a_server_that_refuses_what_is_asked_first_is_left_alone_for_a_while() {
    const SCRIPT: &[(&str, &str)] = &[
        LOGIN[0],
        LOGIN[1],
        ("CAPABILITY", "TAG NO [SERVERBUG] oops\r\n"),
        ("NAMESPACE", "TAG NO [SERVERBUG] oops\r\n"),
        ("LIST", "TAG NO [SERVERBUG] oops\r\n"),
    ];
    let pool = Pool::new(Target {
        address: server(SCRIPT).await,
        tls: Tls::new(ImapTls::None, None, "127.0.0.1").unwrap(),
        master: Credentials::new("gw", "secret"),
        strip_domain: None,
        naming: Naming::new(UserNames::default(), &Prefixes::default()).unwrap(),
        connections: 1,
        connections_per_owner: 1,
        idle_timeout: std::time::Duration::from_secs(60),
        timeout: std::time::Duration::from_secs(5),
    });
    let refused = pool.flags(&path("INBOX"), None, &uids(&[1])).await.unwrap_err();
    assert!(refused.contains("SERVERBUG"), "{refused}");
    let paused = pool.flags(&path("INBOX"), None, &uids(&[2])).await.unwrap_err();
    assert!(paused.contains("a moment ago"), "{paused}");
}
