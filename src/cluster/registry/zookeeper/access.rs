//! How to reach one ensemble: connect string, chroot, credentials, TLS; and the tree's upper levels.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use futures::future::try_join_all;
use zookeeper_client::{Acls, Client, Connector, CreateMode, CreateOptions, Error, TlsOptions};

use super::tree;
use crate::cluster::registry::RegistryError;
use crate::config::{Chroot, Ensemble, RegistrySettings, TlsSettings};

/// Where the system keeps its certificate authorities, for the client library has none of its own.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// One ensemble and how it is entered. Holds secrets: not `Debug`.
pub struct Access {
    hosts: String,
    chroot: Chroot,
    connector: Connector,
    secure: bool,
    authenticated: bool,
    timeout: Duration,
}

impl Access {
    /// Fails on settings that can never work; asks no server.
    pub fn new(settings: &RegistrySettings, ensemble: &Ensemble) -> Result<Self, RegistryError> {
        let (hosts, chroot) = (ensemble.to_string(), settings.chroot.clone());
        let timeout = settings.session_timeout_ms.duration();
        // One pass over the servers per attempt: the pauses between attempts are ours, short and jittered.
        let mut connector = Client::connector().with_session_timeout(timeout).with_fail_eagerly();
        let authenticated = !settings.auth_user.is_empty();
        if authenticated {
            let pair = format!("{}:{}", settings.auth_user, settings.auth_password.expose());
            connector = connector.with_auth("digest", pair.as_bytes());
        }
        if settings.tls.enabled {
            connector = connector.with_tls(tls_options(&settings.tls)?);
        }
        let access = Self { hosts, chroot, connector, secure: settings.tls.enabled, authenticated, timeout };
        // The library reads connect strings only when it connects: the first poll fails on a bad one.
        match access.open().boxed().now_or_never() {
            Some(Err(error @ (Error::BadArguments(_) | Error::UnexpectedError(_)))) => {
                Err(refused(format!("{ensemble}: {error}")))
            }
            _ => Ok(access),
        }
    }

    pub fn hosts(&self) -> &str {
        &self.hosts
    }

    pub fn chroot(&self) -> &str {
        self.chroot.as_str()
    }

    /// The session timeout that is asked for; the server may grant another.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A new session within the chroot, after at most one session timeout.
    pub async fn connect(&self) -> Result<Client, Error> {
        let client = tokio::time::timeout(self.timeout, self.open()).await.map_err(|_| Error::Timeout)??;
        client.chroot(self.chroot.as_str()).map_err(|_| Error::BadArguments(&"chroot"))
    }

    async fn open(&self) -> Result<Client, Error> {
        let connector = self.connector.clone();
        match self.secure {
            true => connector.secure_connect(&self.hosts).await,
            false => connector.connect(&self.hosts).await,
        }
    }

    pub fn options(&self, mode: CreateMode) -> CreateOptions<'static> {
        // Readable by nobody else either: the names of mailboxes are personal data.
        mode.with_acls(if self.authenticated { Acls::creator_all() } else { Acls::anyone_all() })
    }

    /// Makes what is missing of the chroot, `/mailboxes` with its buckets, and `/nodes`.
    pub async fn prepare(&self, client: &Client) -> Result<(), Error> {
        let persistent = self.options(CreateMode::Persistent);
        if client.check_stat("/").await?.is_none() {
            let root = client.clone().chroot("/").map_err(|_| Error::BadArguments(&"chroot"))?;
            let whole = self.chroot.as_str();
            let ends = whole.match_indices('/').skip(1).map(|(at, _)| at).chain([whole.len()]);
            for end in ends {
                let path = &whole[..end];
                // Asked first: where it exists, its parent need not allow us to create.
                if root.check_stat(path).await?.is_none() {
                    made(root.create(path, &[], &persistent).await)?;
                }
            }
        }
        let (mailboxes, nodes) = (client.list_children(tree::MAILBOXES), client.check_stat(tree::NODES));
        let (mailboxes, nodes) = (mailboxes.await, nodes.await?);
        if nodes.is_none() {
            made(client.create(tree::NODES, &[], &persistent).await)?;
        }
        let present = match mailboxes {
            Err(Error::NoNode) => {
                made(client.create(tree::MAILBOXES, &[], &persistent).await)?;
                client.list_children(tree::MAILBOXES).await?
            }
            present => present?,
        };
        let missing =
            (0..tree::BUCKETS).map(tree::bucket).filter(|path| !present.iter().any(|name| path.rsplit('/').next() == Some(name)));
        // At most 256 requests: the library sends them as they are called.
        let creates = missing.map(|path| {
            let persistent = &persistent;
            async move { made(client.create(&path, &[], persistent).await) }
        });
        try_join_all(creates).await.map(drop)
    }
}

fn made<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) | Err(Error::NodeExists) => Ok(()),
        Err(error) => Err(error),
    }
}

fn refused(reason: String) -> RegistryError {
    RegistryError::Refused(reason)
}

fn tls_options(settings: &TlsSettings) -> Result<TlsOptions, RegistryError> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| refused(format!("{}: {error}", path.display())));
    let bad = |path: &Path, error: Error| refused(format!("{}: {error}", path.display()));
    let ca = match &settings.ca_file {
        Some(path) => path.clone(),
        None => {
            let from_environment = std::env::var_os("SSL_CERT_FILE").map(Into::into);
            let known = SYSTEM_AUTHORITIES.iter().map(|path| Path::new(path).to_owned());
            let found = from_environment.into_iter().chain(known).find(|path| path.exists());
            found.ok_or_else(|| refused("no certificate authorities found: set registry.tls.ca_file".to_owned()))?
        }
    };
    let options = TlsOptions::new().with_pem_ca(&read(&ca)?).map_err(|error| bad(&ca, error))?;
    match (&settings.certificate_file, &settings.key_file) {
        (None, None) => Ok(options),
        (Some(certificate), Some(key)) => {
            options.with_pem_identity(&read(certificate)?, &read(key)?).map_err(|error| bad(certificate, error))
        }
        _ => Err(refused("registry.tls needs both certificate_file and key_file, or neither".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(change: impl FnOnce(&mut RegistrySettings)) -> String {
        let mut settings = RegistrySettings::default();
        change(&mut settings);
        match Access::new(&settings, &settings.ensembles[0]) {
            Err(RegistryError::Refused(reason)) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("was accepted"),
        }
    }

    #[tokio::test]
    async fn settings_that_can_never_work_are_refused_at_once() {
        let missing = |settings: &mut RegistrySettings| {
            settings.tls.enabled = true;
            settings.tls.ca_file = Some("/nowhere/ca.pem".into());
        };
        assert!(fails(missing).contains("/nowhere/ca.pem"));
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_no_fault_of_the_settings() {
        assert!(Access::new(&RegistrySettings::default(), &"127.0.0.1:1,[::1]:2".parse().unwrap()).is_ok());
    }
}
