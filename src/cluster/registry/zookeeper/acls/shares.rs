//! Lists of mailboxes: those that are shared with an identifier, and those whose ACLs lie together.

use futures::StreamExt;
use futures::stream;
use zookeeper_client::{Client, Error, OneshotWatcher};

use super::super::tree;
use super::record;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Identifier;

/// Names that are resolved at once.
const RESOLVED: usize = 16;

/// The mailboxes that are shared with an identifier, and a watch for the next change.
pub async fn list_and_watch(client: &Client, identifier: &Identifier) -> Result<(Vec<MailboxPath>, OneshotWatcher), Error> {
    let path = tree::shares(identifier);
    // It may come and go between the two questions, but not for ever.
    for _ in 0..4 {
        match client.list_and_watch_children(&path).await {
            Ok((names, watcher)) => return Ok((resolve(client, &path, names).await?, watcher)),
            Err(Error::NoNode) => {
                if let (None, watcher) = client.check_and_watch_stat(&path).await? {
                    return Ok((Vec::new(), watcher));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::NoNode)
}

/// The mailboxes that are shared with an identifier.
pub async fn list(client: &Client, identifier: &Identifier) -> Result<Vec<MailboxPath>, Error> {
    let path = tree::shares(identifier);
    let names = children(client, &path).await?;
    resolve(client, &path, names).await
}

/// The mailboxes that have an ACL in the bucket of `home`: those of one owner, and of others.
pub async fn list_home(client: &Client, home: u64) -> Result<Vec<MailboxPath>, Error> {
    let bucket = tree::acl_bucket(home);
    let names = children(client, &bucket).await?;
    resolve(client, &bucket, names).await
}

/// As they are now, and not as they were on a server that lags behind.
async fn children(client: &Client, path: &str) -> Result<Vec<String>, Error> {
    let (sync, names) = (client.sync("/"), client.list_children(path));
    match futures::join!(sync, names) {
        (Err(error), _) => Err(error),
        (Ok(()), Err(Error::NoNode)) => Ok(Vec::new()),
        (Ok(()), names) => names,
    }
}

/// The mailboxes of these names below `parent`; an over-long one is asked for. What has gone meanwhile, and what no mailbox
/// is called, is left out.
async fn resolve(client: &Client, parent: &str, names: Vec<String>) -> Result<Vec<MailboxPath>, Error> {
    let (digests, names): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| name.starts_with('~'));
    let mut mailboxes: Vec<MailboxPath> = names.iter().filter_map(|name| tree::mailbox_of(name)).collect();
    let mut asked = stream::iter(digests).map(|name| resolve_digest(client, parent, name)).buffer_unordered(RESOLVED);
    while let Some(resolved) = asked.next().await {
        mailboxes.extend(resolved?);
    }
    Ok(mailboxes)
}

async fn resolve_digest(client: &Client, parent: &str, name: String) -> Result<Option<MailboxPath>, Error> {
    let Some(mut held) = data(client, &format!("{parent}/{name}")).await? else { return Ok(None) };
    // A share tells where its ACL is, and that whose it is.
    if let Some(bucket) = std::str::from_utf8(&held).ok().filter(|text| tree::is_acl_bucket(text)) {
        match data(client, &format!("{bucket}/{name}")).await? {
            Some(acl) => held = acl,
            None => return Ok(None),
        }
    }
    let mailbox = record::mailbox(&held);
    if mailbox.is_none() {
        tracing::warn!(parent, name, "it cannot be told which mailbox this is about, and it is ignored");
    }
    Ok(mailbox)
}

async fn data(client: &Client, path: &str) -> Result<Option<Vec<u8>>, Error> {
    match client.get_data(path).await {
        Ok((data, _)) => Ok(Some(data)),
        Err(Error::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}
