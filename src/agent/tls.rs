//! TLS to the mail server.

use std::io;
use std::path::Path;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::config::ImapTls;
use crate::tls::{TlsError, client_config};

/// Any connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

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
        let config = client_config(ca_file)?;
        let name = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsError::Setup(format!("{host:?} is no host's name")))?;
        Ok(Self { mode, connector: Some((TlsConnector::from(config), name)) })
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
