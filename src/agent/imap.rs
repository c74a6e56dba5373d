//! One connection to the mail server's IMAP, as a mailbox's owner by way of a master user: asks for flags, changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use tokio::net::TcpStream;

use super::complete::Known;
use super::tls::{Stream, Tls};
use crate::imap::client::{Client, ImapError, Refusal};
use crate::mail::uid::{Uid, UidValidity};
use crate::wire::imap::credentials::Credentials;
use crate::wire::imap::name::encode_utf7;
use crate::wire::imap::response::{Code, Untagged, words};
use crate::wire::imap::{set, write};

/// A connection, logged in.
pub struct Connection {
    client: Client<Box<dyn Stream>>,
    condstore: bool,
    delimiter: u8,
}

impl Connection {
    /// Connects and logs in as `owner`. Bounded by the caller's time-out.
    pub async fn open(address: &str, tls: &Tls, credentials: &Credentials, owner: &str) -> Result<Self, ImapError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Client::over(tls.at_once(Box::new(stream)).await?);
        client.greeting().await?;
        if tls.is_starttls() {
            client.command(b"STARTTLS", |_| {}).await?;
            client = Client::over(tls.after_starttls(client.into_stream()).await?);
        }
        client.login(credentials, owner).await?;
        let mut condstore = false;
        client
            .command(b"CAPABILITY", |untagged| {
                if let Untagged::Capability(list) = untagged {
                    condstore = words(list).any(|word| word.eq_ignore_ascii_case(b"CONDSTORE"));
                }
            })
            .await?;
        let mut delimiter = None;
        client
            .command(b"LIST \"\" \"\"", |untagged| {
                if let Untagged::List(list) = untagged {
                    delimiter = list.delimiter;
                }
            })
            .await?;
        Ok(Self { client, condstore, delimiter: delimiter.unwrap_or(b'/') })
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
        write::astring(&mut examine, &encode_utf7(&delimited), false)
            .map_err(|error| ImapError::Refused(Refusal::new(error.to_string())))?;
        let mut told = None;
        self.client
            .command(&examine, |untagged| {
                if let Untagged::Status { code: Some(Code::UidValidity(number)), .. } = untagged {
                    told = Some(*number);
                }
            })
            .await?;
        if uidvalidity.is_some() && told != uidvalidity {
            return Err(ImapError::Refused(Refusal::new("its UIDVALIDITY is another")));
        }
        let mut fetch = b"UID FETCH ".to_vec();
        set::write(&mut fetch, &uids.iter().map(|uid| uid.get()).collect::<RoaringBitmap>());
        fetch.extend_from_slice(if self.condstore { b" (FLAGS MODSEQ)" } else { b" (FLAGS)" });
        let mut known = BTreeMap::new();
        self.client
            .command(&fetch, |untagged| {
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
}

#[cfg(test)]
#[path = "imap_tests.rs"]
mod tests;
