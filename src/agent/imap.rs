//! One connection to the mail server's IMAP, as a mailbox's owner by way of a master user: asks for flags, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use roaring::RoaringBitmap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::complete::Known;
use super::tls::{Stream, Tls};
use crate::mail::uid::{Uid, UidValidity};
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::framing::{Framer, Kind, Limits};
use crate::wire::imap::name::encode_utf7;
use crate::wire::imap::response::{Code, Response, Status, Untagged, parse, words};
use crate::wire::imap::{set, write};

/// The longest line that is read; flags of one message are far shorter.
const LINE: usize = 64 * 1024;
/// Responses to one command, at most: beyond it the server is broken.
const RESPONSES: usize = 200_000;

/// Why the mail server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// It does not let us in as this owner.
    #[error("login refused: {0}")]
    Login(String),
    /// The command was refused; the connection is good.
    #[error("{0}")]
    Refused(String),
    #[error("the server does not speak IMAP as expected: {0}")]
    Protocol(&'static str),
}

/// A connection, logged in.
pub struct Connection {
    stream: Box<dyn Stream>,
    framer: Framer,
    tags: u32,
    condstore: bool,
    delimiter: u8,
}

impl Connection {
    /// Connects and logs in as `owner`. Bounded by the caller's time-out.
    pub async fn open(address: &str, tls: &Tls, credentials: &Credentials, owner: &str) -> Result<Self, ImapError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self::over(tls.at_once(Box::new(stream)).await?);
        connection.greeting().await?;
        if tls.is_starttls() {
            connection.command(b"STARTTLS", |_| {}).await?;
            connection = Self::over(tls.after_starttls(connection.stream).await?);
        }
        connection.login(credentials, owner).await?;
        Ok(connection)
    }

    fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream, framer: Framer::new(Limits::server(LINE)), tags: 0, condstore: false, delimiter: b'/' }
    }

    async fn greeting(&mut self) -> Result<(), ImapError> {
        let mut ok = false;
        self.read(|response| {
            ok = matches!(response, Response::Untagged(Untagged::Status { status: Status::Ok, .. }));
            true
        })
        .await?;
        if ok { Ok(()) } else { Err(ImapError::Protocol("no greeting")) }
    }

    async fn login(&mut self, credentials: &Credentials, owner: &str) -> Result<(), ImapError> {
        let tag = self.next_tag();
        self.stream.write_all(format!("{tag} AUTHENTICATE PLAIN\r\n").as_bytes()).await?;
        let mut asked = false;
        self.read(|response| {
            asked = matches!(response, Response::Continuation { .. });
            asked || matches!(response, Response::Tagged { .. })
        })
        .await?;
        if !asked {
            return Err(ImapError::Login("AUTHENTICATE PLAIN is not allowed".to_owned()));
        }
        let answer = write::sasl_plain(owner, credentials);
        self.stream.write_all(answer.as_bytes()).await?;
        self.stream.write_all(b"\r\n").await?;
        self.stream.flush().await?;
        self.end_of(&tag, |_| {}).await.map_err(|error| match error {
            ImapError::Refused(reason) => ImapError::Login(reason),
            error => error,
        })?;
        let mut condstore = false;
        self.command(b"CAPABILITY", |untagged| {
            if let Untagged::Capability(list) = untagged {
                condstore = words(list).any(|word| word.eq_ignore_ascii_case(b"CONDSTORE"));
            }
        })
        .await?;
        let mut delimiter = None;
        self.command(b"LIST \"\" \"\"", |untagged| {
            if let Untagged::List(list) = untagged {
                delimiter = list.delimiter;
            }
        })
        .await?;
        self.condstore = condstore;
        self.delimiter = delimiter.unwrap_or(b'/');
        Ok(())
    }

    /// The flags of those of these messages that are there. `name` has the separator `/`.
    pub async fn flags(
        &mut self,
        name: &str,
        uidvalidity: Option<UidValidity>,
        uids: &BTreeSet<Uid>,
    ) -> Result<BTreeMap<Uid, Known>, ImapError> {
        let mut examine = b"EXAMINE ".to_vec();
        let delimited = name.replace('/', std::str::from_utf8(&[self.delimiter]).unwrap_or("/"));
        write::astring(&mut examine, &encode_utf7(&delimited), false).map_err(|error| ImapError::Refused(error.to_string()))?;
        let mut told = None;
        self.command(&examine, |untagged| {
            if let Untagged::Status { code: Some(Code::UidValidity(number)), .. } = untagged {
                told = Some(*number);
            }
        })
        .await?;
        if uidvalidity.is_some() && told != uidvalidity {
            return Err(ImapError::Refused("its UIDVALIDITY is another".to_owned()));
        }
        let mut fetch = b"UID FETCH ".to_vec();
        set::write(&mut fetch, &uids.iter().map(|uid| uid.get()).collect::<RoaringBitmap>());
        fetch.extend_from_slice(if self.condstore { b" (FLAGS MODSEQ)" } else { b" (FLAGS)" });
        let mut known = BTreeMap::new();
        self.command(&fetch, |untagged| {
            if let Untagged::Fetch(fetch) = untagged
                && let (Some(uid), Some(flags)) = (fetch.uid, &fetch.flags)
                && uids.contains(&uid)
            {
                known.insert(uid, Known { flags: flags.clone(), modseq: fetch.modseq });
            }
        })
        .await?;
        Ok(known)
    }

    fn next_tag(&mut self) -> String {
        self.tags += 1;
        format!("a{}", self.tags)
    }

    /// Sends a command and hands on its untagged responses until its end.
    async fn command(&mut self, command: &[u8], take: impl FnMut(&Untagged<'_>)) -> Result<(), ImapError> {
        let tag = self.next_tag();
        let line = [tag.as_bytes(), b" ", command, b"\r\n"].concat();
        self.stream.write_all(&line).await?;
        self.stream.flush().await?;
        self.end_of(&tag, take).await
    }

    async fn end_of(&mut self, awaited: &str, mut take: impl FnMut(&Untagged<'_>)) -> Result<(), ImapError> {
        let mut outcome = Ok(());
        self.read(|response| match response {
            Response::Tagged { tag, status, text, .. } if *tag == awaited.as_bytes() => {
                if *status != Status::Ok {
                    outcome = Err(ImapError::Refused(String::from_utf8_lossy(text).chars().take(200).collect()));
                }
                true
            }
            Response::Untagged(untagged) => {
                take(untagged);
                false
            }
            _ => false,
        })
        .await?;
        outcome
    }

    /// Reads responses until `take` says that it was the last. Whatever follows it at once breaks the connection: nothing
    /// is asked for that the server could answer so.
    async fn read(&mut self, mut take: impl FnMut(&Response<'_>) -> bool) -> Result<(), ImapError> {
        let mut buffer = vec![0; 16 * 1024];
        let mut responses = 0;
        loop {
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let mut input = &buffer[..count];
            let mut last = false;
            while let Some(piece) =
                self.framer.next(&mut input).map_err(|_| ImapError::Protocol("a line or literal is too long"))?
            {
                // Of a response with literals the first line is enough: what is asked for here has none.
                if !piece.first || !matches!(piece.kind, Kind::Line { .. }) {
                    continue;
                }
                if last {
                    return Err(ImapError::Protocol("it sent more than was asked for"));
                }
                responses += 1;
                last = take(&parse(piece.bytes));
                if responses > RESPONSES {
                    return Err(ImapError::Protocol("it does not come to an end"));
                }
            }
            if last {
                return match self.framer.is_between() {
                    true => Ok(()),
                    false => Err(ImapError::Protocol("it sent more than was asked for")),
                };
            }
        }
    }
}
