//! A connection on which only we ask: commands one after the other, and the responses to each.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::framing::{Framer, Kind, Limits, Piece};
use crate::wire::imap::response::{Code, Response, Status, Untagged, parse};
use crate::wire::imap::write;

/// The longest response that is read, literals included; longer ones are passed over. What is asked
/// for here is far shorter.
const RESPONSE: usize = 64 * 1024;
/// Responses to one command, at most: beyond it the server is broken.
const RESPONSES: usize = 200_000;

/// Why the mail server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// It does not let us in as this user.
    #[error("login refused: {0}")]
    Login(Refusal),
    /// The command was refused; the connection is good.
    #[error("{0}")]
    Refused(Refusal),
    #[error("the server does not speak IMAP as expected: {0}")]
    Protocol(&'static str),
}

/// How a command ended that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// BAD, not NO: the server does not know such a command, or takes it for broken.
    pub bad: bool,
    /// The name of the response code, in capitals (RFC 5530).
    pub code: Option<String>,
    /// The server's words, cut short.
    pub text: String,
}

impl Refusal {
    /// For a reason of our own.
    pub fn new(text: impl Into<String>) -> Self {
        Self { bad: false, code: None, text: text.into() }
    }

    fn told(status: Status, code: Option<&Code<'_>>, text: &[u8]) -> Self {
        let code = match code {
            Some(Code::Other(inner)) => inner.split(|b| *b == b' ').find(|word| !word.is_empty()),
            _ => None,
        };
        let short = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(200).collect::<String>();
        Self { bad: status == Status::Bad, code: code.map(|code| short(code).to_ascii_uppercase()), text: short(text) }
    }

    /// Whether the response code is one of these.
    pub fn is(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "[{code}] {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A logged-in or fresh connection to a mail server. Nothing here has a time limit: that is the
/// caller's to set.
pub struct Client<S> {
    stream: S,
    framer: Framer,
    tags: u32,
    /// The response that is being read, if it came in pieces.
    whole: Vec<u8>,
    /// It is too long to be read.
    cut: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A connection on which the greeting has been read, or on which none comes (after STARTTLS).
    pub fn over(stream: S) -> Self {
        Self { stream, framer: Framer::new(Limits::server(RESPONSE)), tags: 0, whole: Vec::new(), cut: false }
    }

    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Reads the greeting. PREAUTH is none: we would be somebody whom we did not name.
    pub async fn greeting(&mut self) -> Result<(), ImapError> {
        let mut ok = false;
        self.read(|response| {
            ok = is_greeting(response);
            true
        })
        .await?;
        if ok { Ok(()) } else { Err(ImapError::Protocol("no greeting")) }
    }

    /// The same where somebody else has read it: `said` is all that the server has said so far.
    pub fn greeted(stream: S, said: &[u8]) -> Result<Self, ImapError> {
        let mut client = Self::over(stream);
        let mut ok = false;
        let whole = client.handle(said, &mut 0, |response| {
            ok = is_greeting(response);
            true
        })?;
        if whole && ok { Ok(client) } else { Err(ImapError::Protocol("no greeting")) }
    }

    /// Logs in as `user` with the credentials of one who may (SASL PLAIN with an authorization
    /// identity, RFC 4616).
    pub async fn login(&mut self, credentials: &Credentials, user: &str) -> Result<(), ImapError> {
        let tag = self.next_tag();
        self.send(&[tag.as_bytes(), b" AUTHENTICATE PLAIN\r\n"].concat()).await?;
        let mut refusal = None;
        self.read(|response| match response {
            Response::Continuation { .. } => true,
            Response::Tagged { status, code, text, .. } => {
                refusal = Some(Refusal::told(*status, code.as_ref(), text));
                true
            }
            _ => false,
        })
        .await?;
        if let Some(refusal) = refusal {
            return Err(ImapError::Login(refusal));
        }
        let answer = write::sasl_plain(user, credentials);
        self.stream.write_all(answer.as_bytes()).await?;
        self.send(b"\r\n").await?;
        self.end_of(&tag, |_| {}).await.map_err(|error| match error {
            ImapError::Refused(refusal) => ImapError::Login(refusal),
            error => error,
        })
    }

    /// Sends a command, which is one line without its end, and hands on its untagged responses
    /// until it is done.
    pub async fn command(&mut self, command: &[u8], take: impl FnMut(&Untagged<'_>)) -> Result<(), ImapError> {
        let tag = self.next_tag();
        self.send(&[tag.as_bytes(), b" ", command, b"\r\n"].concat()).await?;
        self.end_of(&tag, take).await
    }

    fn next_tag(&mut self) -> String {
        self.tags += 1;
        format!("a{}", self.tags)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ImapError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn end_of(&mut self, awaited: &str, mut take: impl FnMut(&Untagged<'_>)) -> Result<(), ImapError> {
        let mut outcome = Ok(());
        self.read(|response| match response {
            Response::Tagged { tag, status, code, text } if *tag == awaited.as_bytes() => {
                if *status != Status::Ok {
                    outcome = Err(ImapError::Refused(Refusal::told(*status, code.as_ref(), text)));
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

    /// Reads responses until `take` says that it was the last. Whatever follows it at once breaks
    /// the connection: nothing is asked for that the server could answer so.
    async fn read(&mut self, mut take: impl FnMut(&Response<'_>) -> bool) -> Result<(), ImapError> {
        let mut buffer = vec![0; 16 * 1024];
        let mut responses = 0;
        loop {
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if self.handle(&buffer[..count], &mut responses, &mut take)? {
                return Ok(());
            }
        }
    }

    /// Takes in what was read; says whether the last response was among it.
    fn handle(
        &mut self,
        mut input: &[u8],
        responses: &mut usize,
        mut take: impl FnMut(&Response<'_>) -> bool,
    ) -> Result<bool, ImapError> {
        let mut last = false;
        while let Some(piece) = self.framer.next(&mut input).map_err(|_| ImapError::Protocol("a line or literal is too long"))? {
            if last {
                return Err(ImapError::Protocol("it sent more than was asked for"));
            }
            if !gather(&mut self.whole, &mut self.cut, &piece) {
                continue;
            }
            *responses += 1;
            if *responses > RESPONSES {
                return Err(ImapError::Protocol("it does not come to an end"));
            }
            if !std::mem::take(&mut self.cut) {
                last = take(&parse(if self.whole.is_empty() { piece.bytes } else { &self.whole }));
            }
            self.whole.clear();
        }
        if last && !self.framer.is_between() {
            return Err(ImapError::Protocol("it sent more than was asked for"));
        }
        Ok(last)
    }
}

fn is_greeting(response: &Response<'_>) -> bool {
    matches!(response, Response::Untagged(Untagged::Status { status: Status::Ok, .. }))
}

/// Puts a response together, unless it is the piece itself. Says whether it is complete.
fn gather(whole: &mut Vec<u8>, cut: &mut bool, piece: &Piece<'_>) -> bool {
    *cut |= piece.kind == Kind::Part || whole.len() + piece.bytes.len() > RESPONSE;
    let alone = piece.first && piece.last;
    if !alone && !*cut {
        whole.extend_from_slice(piece.bytes);
    }
    piece.last
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
