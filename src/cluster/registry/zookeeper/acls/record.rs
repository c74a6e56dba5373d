//! What the znode of an ACL holds: `{"v":1,"acl":{"bob@example.org":"lrs"}}`, and the mailbox where the name does not tell.

use serde::{Deserialize, Serialize};

use super::super::tree;
use crate::cluster::registry::RegistryError;
use crate::mail::key::ZnodeName;
use crate::mail::path::MailboxPath;
use crate::mail::rights::Acl;

/// The version that is written. A later one may mean anything: it is not read.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox: Option<&'a MailboxPath>,
    acl: &'a Acl,
}

/// Unknown fields are ignored.
#[derive(Deserialize)]
struct Read {
    v: u32,
    #[serde(default)]
    mailbox: Option<MailboxPath>,
    acl: Acl,
}

#[derive(Deserialize)]
struct Named {
    mailbox: MailboxPath,
}

pub fn write(mailbox: &MailboxPath, acl: &Acl) -> Result<Vec<u8>, RegistryError> {
    let is_digest = matches!(tree::mailbox_name(mailbox), ZnodeName::Digest(_));
    let record = Written { v: VERSION, mailbox: is_digest.then_some(mailbox), acl };
    serde_json::to_vec(&record).map_err(|error| RegistryError::Refused(error.to_string()))
}

/// The ACL of `mailbox`, whose znode holds `data`. What cannot be read may forbid what would be allowed without it, so it
/// is an error, in words.
pub fn read(mailbox: &MailboxPath, data: &[u8]) -> Result<Acl, String> {
    let unreadable = |why: String| format!("the ACL of {mailbox} cannot be read: {why}");
    let record: Read = serde_json::from_slice(data).map_err(|error| unreadable(error.to_string()))?;
    if record.v != VERSION {
        return Err(unreadable(format!("it has version {}, and this program knows {VERSION}", record.v)));
    }
    match (tree::mailbox_name(mailbox), record.mailbox) {
        (ZnodeName::Escaped(_), None) => Ok(record.acl),
        (_, Some(named)) if named == *mailbox => Ok(record.acl),
        _ => Err(unreadable("it is another mailbox's, or nobody's".to_owned())),
    }
}

/// Whose ACL this is, where the data tells.
pub fn mailbox(data: &[u8]) -> Option<MailboxPath> {
    serde_json::from_slice::<Named>(data).ok().map(|named| named.mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> MailboxPath {
        format!("#private:bob:{name}").parse().unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let acl: Acl = serde_json::from_str(r#"{"eve":"lr","-group:temps":"r"}"#).unwrap();
        let data = write(&path("A"), &acl).unwrap();
        assert_eq!(String::from_utf8_lossy(&data), r#"{"v":1,"acl":{"eve":"lr","-group:temps":"r"}}"#);
        assert_eq!(read(&path("A"), &data).unwrap(), acl);
        assert_eq!(mailbox(&data), None);
        let long = path(&"x".repeat(1_000));
        let data = write(&long, &acl).unwrap();
        assert_eq!(read(&long, &data).unwrap(), acl);
        assert_eq!(mailbox(&data), Some(long));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let known = r#"{"v":1,"more":[],"acl":{"eve":"lr"}}"#;
        assert_eq!(read(&path("A"), known.as_bytes()).unwrap().len(), 1);
        for bad in [
            "",
            "{}",
            r#"{"v":1}"#,
            r#"{"v":2,"acl":{}}"#,
            r#"{"v":1,"acl":{"eve":"lq"}}"#,
            r#"{"v":1,"acl":{"":"l"}}"#,
            r##"{"v":1,"mailbox":"#private:bob:B","acl":{}}"##,
        ] {
            let error = read(&path("A"), bad.as_bytes()).unwrap_err();
            assert!(error.contains("#private:bob:A"), "{bad}: {error}");
        }
        assert!(read(&path(&"x".repeat(1_000)), known.as_bytes()).is_err());
    }
}
