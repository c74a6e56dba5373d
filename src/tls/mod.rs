//! TLS to clients and to mail servers, of the gateway and of the agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tracing::{info, warn};

use crate::config::TlsVersion;
use crate::lock::Mutex;

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("there is no certificate in {0}")]
    Empty(PathBuf),
    #[error("the certificate in {certificate} and the key in {key} cannot be used: {reason}")]
    Unusable { certificate: PathBuf, key: PathBuf, reason: String },
    #[error("this machine has no certificate authorities to check mail servers with: set its ca_file")]
    NoRoots,
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificate shown to clients, read again when its files change.
#[derive(Debug)]
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    oldest: TlsVersion,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    stamps: [Option<Stamp>; 2],
    looked: Instant,
}

/// A digest of what is in a file. Its time of modification says too little: a copy may keep it.
type Stamp = [u8; 32];

/// `None`: the file cannot be read.
fn stamp(path: &Path) -> Option<Stamp> {
    fs::read(path).ok().map(|bytes| Sha256::digest(bytes).into())
}

impl ServerTls {
    /// Reads a certificate chain and its key, both in PEM. `oldest` is the oldest version of TLS
    /// that clients may speak.
    ///
    /// # Errors
    /// A file cannot be read, or certificate and key do not fit together.
    pub fn load(certificate: &Path, key: &Path, oldest: TlsVersion) -> Result<Self, TlsError> {
        let stamps = [stamp(certificate), stamp(key)];
        let config = server_config(certificate, key, oldest)?;
        let loaded = Mutex::new(Loaded { config, stamps, looked: Instant::now() });
        Ok(Self { certificate: certificate.into(), key: key.into(), oldest, loaded })
    }

    /// What a handshake that begins now is done with. A renewal that cannot be read leaves what was
    /// there before.
    pub fn config(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock();
        if loaded.looked.elapsed() >= LOOK {
            loaded.looked = Instant::now();
            let stamps = [stamp(&self.certificate), stamp(&self.key)];
            if stamps != loaded.stamps {
                loaded.stamps = stamps;
                match server_config(&self.certificate, &self.key, self.oldest) {
                    Ok(config) => {
                        loaded.config = config;
                        info!(certificate = %self.certificate.display(), "the IMAP certificate has been read again");
                    }
                    Err(error) => warn!(%error, "the IMAP certificate has changed and the new one is no good: the old one stays"),
                }
            }
        }
        loaded.config.clone()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error: rustls_pki_types::pem::Error| TlsError::Unreadable { path: path.into(), reason: error.to_string() };
    let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if found.is_empty() { Err(TlsError::Empty(path.into())) } else { Ok(found) }
}

fn server_config(certificate: &Path, key: &Path, oldest: TlsVersion) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key);
    let private = private.map_err(|error| TlsError::Unreadable { path: key.into(), reason: error.to_string() })?;
    let versions: &[&SupportedProtocolVersion] = match oldest {
        TlsVersion::V1_2 => &[&TLS12, &TLS13],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions);
    let builder = builder.map_err(|error| TlsError::Setup(error.to_string()))?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, private).map_err(|error| TlsError::Unusable {
        certificate: certificate.into(),
        key: key.into(),
        reason: error.to_string(),
    })?;
    // A client that asks for another protocol is at the wrong door (RFC 7301 3.2, RFC 9325 3.7).
    config.alpn_protocols = vec![b"imap".to_vec()];
    Ok(Arc::new(config))
}

/// How mail servers are checked: with the authorities in a file, or the system's.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                let added = roots.add(certificate);
                added.map_err(|error| TlsError::Unreadable { path: path.into(), reason: error.to_string() })?;
            }
        }
        None => {
            // Some of a system's authorities may be odd; the others will do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS12, &TLS13]);
    let builder = builder.map_err(|error| TlsError::Setup(error.to_string()))?;
    // No ALPN: a server that knows other names than `imap` would refuse, and it is us who chose the
    // port.
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    #[test]
    fn a_renewed_certificate_is_read_again_and_a_broken_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = write(folder.path(), "one.example");
        let tls = ServerTls::load(&certificate, &key, TlsVersion::V1_2).unwrap();
        let look_again = || tls.loaded.lock().looked = Instant::now().checked_sub(LOOK).unwrap();
        let first = tls.config();
        look_again();
        assert!(Arc::ptr_eq(&first, &tls.config()), "nothing has changed");
        write(folder.path(), "a-much-longer-name.example");
        look_again();
        let second = tls.config();
        assert!(!Arc::ptr_eq(&first, &second));
        // Of the same length, in the same file, with the same time.
        let (length, modified) =
            (|path: &Path| fs::metadata(path).unwrap().len(), fs::metadata(&certificate).unwrap().modified());
        let (was, modified) = ([length(&certificate), length(&key)], modified.unwrap());
        while {
            write(folder.path(), "a-much-longer-name.example");
            [length(&certificate), length(&key)] != was
        } {}
        for path in [&certificate, &key] {
            fs::File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
        }
        look_again();
        let third = tls.config();
        assert!(!Arc::ptr_eq(&second, &third));
        fs::write(&certificate, "nonsense").unwrap();
        look_again();
        assert!(Arc::ptr_eq(&third, &tls.config()));
    }

    #[test]
    fn what_cannot_be_used_is_told_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = write(folder.path(), "one.example");
        let load = |certificate: &Path, key: &Path| ServerTls::load(certificate, key, TlsVersion::V1_3).unwrap_err().to_string();
        assert!(load(Path::new("/nowhere.pem"), &key).starts_with("cannot read /nowhere.pem: "));
        assert!(load(&key, &key).starts_with("there is no certificate in "));
        assert!(load(&certificate, &certificate).starts_with("cannot read "));
        let other = tempfile::tempdir().unwrap();
        let (_, other_key) = write(other.path(), "two.example");
        assert!(load(&certificate, &other_key).contains("cannot be used"));
        assert!(client_config(Some(&certificate)).is_ok());
        assert!(client_config(Some(Path::new("/nowhere.pem"))).is_err());
    }
}
