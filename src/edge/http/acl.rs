//! `/v1/mailboxes/{path}/acl`: the ACLs that the registry keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::caller::{Caller, Segment};
use super::problem::Problem;
use super::query::Query;
use crate::cluster::acls::Acls;
use crate::cluster::registry::RegistryError;
use crate::config::RightsKind;
use crate::edge::auth::Scopes;
use crate::edge::gateway::Gateway;
use crate::mail::path::MailboxPath;
use crate::mail::rights::{Acl, AclEdit, Entry, Identifier, Rights, RightsChange};
use crate::push::acl_keeper::{AclKeeper, Changes, KeepError};
use crate::push::clock::unix_ms;

/// Entries of one ACL, at most: each is an event to every node that watches the mailbox.
const ENTRIES: usize = 1_000;

/// Who has which rights on a mailbox.
#[derive(Debug, Serialize)]
pub struct MailboxAcl {
    mailbox: MailboxPath,
    acl: Acl,
}

/// What a change came to.
#[derive(Debug, Serialize)]
pub struct AclChanged {
    mailbox: MailboxPath,
    /// The entries that are other ones now, with the rights that they have now; those that are gone
    /// have none.
    changed: BTreeMap<String, Rights>,
}

/// A whole ACL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeAcl {
    acl: Acl,
}

/// One entry's rights, as SETACL takes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneEntry {
    rights: String,
}

type Path = Result<Segment, Problem>;

/// `GET /v1/mailboxes/{path}/acl`. Whether there is such a mailbox nobody here knows: one that is
/// not shared has no entries.
pub async fn get(State(gateway): State<Arc<Gateway>>, caller: Caller, path: Path) -> Result<Json<MailboxAcl>, Problem> {
    caller.must(Scopes::ACL_READ, "acl:read")?;
    let (mailbox, acls) = kept(&gateway, path)?;
    let acl = acls.get(&mailbox).await.map_err(|error| registry(&error))?;
    Ok(Json(MailboxAcl { mailbox, acl }))
}

/// `PUT /v1/mailboxes/{path}/acl`: the whole ACL, or with `identifier` one entry.
pub async fn put(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    path: Path,
    query: Query,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AclChanged>, Problem> {
    caller.must(Scopes::ACL_WRITE, "acl:write")?;
    let (mailbox, acls) = kept(&gateway, path)?;
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let what = match entry(&gateway, &query)? {
        Some(entry) => {
            let form = r#"send the rights, such as {"rights":"lrs"}, or {"rights":"+s"} to add to them"#;
            let wanted: OneEntry = read(&body, form)?;
            What::Edit(AclEdit { entry, change: wanted.rights.parse().map_err(|error| bad("rights", error))? })
        }
        None => {
            let form = r#"send the whole ACL, such as {"acl":{"bob@example.org":"lrs","-group:temps":"r"}}"#;
            What::Whole(normalised(&gateway, read::<WholeAcl>(&body, form)?.acl)?)
        }
    };
    change(&gateway, &caller, acls, mailbox, what).await
}

/// `DELETE /v1/mailboxes/{path}/acl`: the whole ACL, or with `identifier` one entry.
pub async fn delete(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    path: Path,
    query: Query,
) -> Result<Json<AclChanged>, Problem> {
    caller.must(Scopes::ACL_WRITE, "acl:write")?;
    let (mailbox, acls) = kept(&gateway, path)?;
    let what = match entry(&gateway, &query)? {
        Some(entry) => What::Edit(AclEdit { entry, change: RightsChange::Set(Rights::NONE) }),
        None => What::Whole(Acl::default()),
    };
    change(&gateway, &caller, acls, mailbox, what).await
}

enum What {
    Whole(Acl),
    Edit(AclEdit),
}

async fn change(
    gateway: &Gateway,
    caller: &Caller,
    acls: Arc<dyn Acls>,
    mailbox: MailboxPath,
    what: What,
) -> Result<Json<AclChanged>, Problem> {
    let keeper = AclKeeper {
        acls,
        publisher: gateway.publisher.clone(),
        origin: gateway.settings.node.origin.clone(),
        actor: caller.identity.user.to_string(),
        clock: unix_ms,
    };
    let path = mailbox.clone();
    // In a task of its own: what is written is told too if the client does not wait for the answer.
    let changing = gateway.tasks.spawn(async move {
        match what {
            What::Whole(acl) => keeper.replace(&path, &acl).await,
            What::Edit(edit) => keeper.edit(&path, edit).await,
        }
    });
    let lost = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the node failed at this request; its log says more");
    let changed: Changes = changing.await.map_err(lost)?.map_err(|error| match error {
        KeepError::Registry(error) => registry(&error),
        KeepError::NotTold(_) => Problem::unavailable(format!("{error}; send the same request again")),
    })?;
    let changed = changed.into_iter().map(|(entry, rights)| (entry.to_string(), rights)).collect();
    Ok(Json(AclChanged { mailbox, changed }))
}

/// The mailbox, if the registry is where rights on it come from.
fn kept(gateway: &Gateway, path: Path) -> Result<(MailboxPath, Arc<dyn Acls>), Problem> {
    let path: MailboxPath = path?.0.parse().map_err(|error| bad("the path", error))?;
    let mailbox = path.normalised(&gateway.names).map_err(|error| bad("the path", error))?;
    let Some(acls) = &gateway.acls else {
        let detail =
            "this cluster keeps no ACLs: change rights at the mail store, or take them from the registry (access.source)";
        return Err(Problem::acl_elsewhere(detail));
    };
    let access = &gateway.settings.access;
    let own = access.by_namespace.iter().find(|entry| entry.namespace == mailbox.namespace()).map(|entry| entry.source);
    let whose = match own.unwrap_or(access.source).resolved(&gateway.settings) {
        RightsKind::Imap => "are the mail server's: change them there, by SETACL",
        RightsKind::Owners => "are their owners' alone",
        RightsKind::Registry | RightsKind::Auto => return Ok((mailbox, acls.clone())),
    };
    let namespace = mailbox.namespace();
    Err(Problem::acl_elsewhere(format!("rights on mailboxes of {namespace} {whose} (access.source, access.by_namespace)")))
}

/// The entry that `identifier` names.
fn entry(gateway: &Gateway, query: &Query) -> Result<Option<Entry>, Problem> {
    let read = |text| Entry::read(text, &gateway.names).map_err(|error| bad("identifier", error));
    query.once("identifier")?.map(read).transpose()
}

/// With every user's name in the normal form.
fn normalised(gateway: &Gateway, acl: Acl) -> Result<Acl, Problem> {
    if acl.len() > ENTRIES {
        return Err(Problem::bad_request(format!("acl: at most {ENTRIES} entries")));
    }
    let mut all = Acl::default();
    for (entry, rights) in acl.iter() {
        let mut entry = entry.clone();
        if let Identifier::User(user) = &entry.identifier {
            entry.identifier = Identifier::User(gateway.names.normalise(user.as_str()).map_err(|error| bad("acl", error))?);
        }
        if !all.get(&entry).is_empty() {
            return Err(Problem::bad_request(format!("acl: {:?} is there twice", entry.to_string())));
        }
        all.set(entry, rights);
    }
    Ok(all)
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8], form: &str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("{form}: {error}")))
}

fn bad(what: &str, error: impl std::fmt::Display) -> Problem {
    Problem::bad_request(format!("{what}: {error}"))
}

fn registry(error: &RegistryError) -> Problem {
    match error {
        RegistryError::Unreachable(_) | RegistryError::Denied(_) | RegistryError::Closed => {
            Problem::unavailable(error.to_string())
        }
        RegistryError::Refused(_) | RegistryError::NodeIdInUse(_) => Problem::bad_gateway(error.to_string()),
    }
}
