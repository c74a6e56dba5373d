//! TLS to the mail server.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::ImapTls;

/// Any connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate authorities cannot be read: {0}")]
    Authorities(String),
    #[error("{0:?} is no host's name")]
    Name(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Whether, when and how a connection is encrypted.
pub struct Tls {
    mode: ImapTls,
    /// None only without TLS.
    connector: Option<(TlsConnector, ServerName<'static>)>,
}

impl Tls {
    /// `host` is whom the certificate must name. Reads the certificate authorities: `ca_file`, or the system's.
    pub fn new(mode: ImapTls, ca_file: Option<&Path>, host: &str) -> Result<Self, TlsError> {
        if mode == ImapTls::None {
            return Ok(Self { mode, connector: None });
        }
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let bad = |error: rustls_pki_types::pem::Error| TlsError::Authorities(format!("{}: {error}", path.display()));
                for certificate in CertificateDer::pem_file_iter(path).map_err(bad)? {
                    let certificate = certificate.map_err(bad)?;
                    roots.add(certificate).map_err(|error| TlsError::Authorities(error.to_string()))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err(TlsError::Authorities("there are none".to_owned()));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Setup(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsError::Name(host.to_owned()))?;
        Ok(Self { mode, connector: Some((TlsConnector::from(Arc::new(config)), name)) })
    }

    pub fn is_starttls(&self) -> bool {
        self.mode == ImapTls::Starttls
    }

    /// A fresh connection, encrypted if it is to be so from its first byte.
    pub async fn at_once(&self, stream: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        if self.mode == ImapTls::Tls { self.encrypt(stream).await } else { Ok(stream) }
    }

    /// A connection whose STARTTLS was answered.
    pub async fn after_starttls(&self, stream: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        self.encrypt(stream).await
    }

    async fn encrypt(&self, stream: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        match &self.connector {
            Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), stream).await?)),
            None => Err(io::Error::other("TLS was not set up")),
        }
    }
}
