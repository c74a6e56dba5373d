//! Which mailbox a name on the wire means (RFC 2342, RFC 9051 6.3.10).

use super::scan::Scan;

/// The namespaces that a server told of (RFC 9051 7.3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub personal: Vec<Namespace>,
    pub other_users: Vec<Namespace>,
    pub shared: Vec<Namespace>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// As it is on the wire, delimiter at its end included.
    pub prefix: Vec<u8>,
    /// `None`: names have no hierarchy.
    pub delimiter: Option<u8>,
}

impl Namespaces {
    /// Reads the three parts of a NAMESPACE response.
    pub(super) fn scan(scan: &mut Scan<'_>) -> Option<Self> {
        let personal = class(scan)?;
        scan.spaces();
        let other_users = class(scan)?;
        scan.spaces();
        let shared = class(scan)?;
        Some(Self { personal, other_users, shared })
    }
}

fn class(scan: &mut Scan<'_>) -> Option<Vec<Namespace>> {
    if scan.eat_word("NIL") {
        return Some(Vec::new());
    }
    scan.list(namespace)
}

/// `("#mh/" "/" "X-PARAM" ("FLAG1" "FLAG2"))`.
fn namespace(scan: &mut Scan<'_>) -> Option<Namespace> {
    if !scan.eat(b'(') {
        return None;
    }
    let prefix = scan.string()?.into_owned();
    scan.spaces();
    let delimiter = match scan.nstring()? {
        Some(text) if text.len() == 1 => Some(text[0]),
        Some(_) => return None,
        None => None,
    };
    // Extensions.
    loop {
        scan.spaces();
        if scan.eat(b')') {
            return Some(Namespace { prefix, delimiter });
        }
        scan.skip_value()?;
    }
}
