//! Our own TLS towards API servers: probes, and requests of the HTTP sides. The files are read
//! again when they change, so certificates are renewed without a restart.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("read {what} {path}: {source}", path = path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// A file without anything in it.
    #[error("{path} holds no certificate", path = path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// A certificate or key that cannot be used.
    #[error("use {path}: {source}", path = path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Not a name.
    #[error("{name:?} is no DNS name: {source}")]
    Name {
        /// What was given.
        name: String,
        /// Why not.
        source: InvalidDnsNameError,
    },
}

/// What identifies one state of a file.
type Stamp = Option<(u64, i64, i64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let m = std::fs::metadata(path).ok()?;
    Some((m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
}

/// A client's configuration from files.
pub struct ClientTls {
    ca_file: PathBuf,
    /// Certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
    server_name: ServerName<'static>,
    current: Mutex<(Vec<Stamp>, Arc<ClientConfig>)>,
}

impl ClientTls {
    /// Reads the files for the first time; from then on a file that cannot be used is a warning
    /// and what was read before stays.
    pub fn new(
        ca_file: &Path,
        server_name: &str,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, TlsError> {
        let name = server_name.to_owned();
        let server_name =
            ServerName::try_from(name.clone()).map_err(|source| TlsError::Name { name, source })?;
        let identity = identity.map(|(c, k)| (c.to_owned(), k.to_owned()));
        let config = read(ca_file, identity.as_ref())?;
        let tls = Self {
            ca_file: ca_file.to_owned(),
            identity,
            server_name,
            current: Mutex::new((Vec::new(), config)),
        };
        let stamps = tls.stamps();
        tls.lock().0 = stamps;
        Ok(tls)
    }

    /// The name that servers' certificates must carry.
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// The configuration as the files are now.
    pub fn config(&self) -> Arc<ClientConfig> {
        let stamps = self.stamps();
        let mut current = self.lock();
        if current.0 != stamps {
            match read(&self.ca_file, self.identity.as_ref()) {
                Ok(config) => {
                    tracing::info!(ca_file = %self.ca_file.display(), "certificates were read again");
                    current.1 = config;
                }
                // Between two writes, or a mistake: what is known to work stays.
                Err(error) => tracing::warn!(%error, "certificates stay as they were"),
            }
            current.0 = stamps;
        }
        Arc::clone(&current.1)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<Stamp>, Arc<ClientConfig>)> {
        // Nothing panics while holding it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamps(&self) -> Vec<Stamp> {
        let mut stamps = vec![stamp(&self.ca_file)];
        if let Some((certificate, key)) = &self.identity {
            stamps.extend([stamp(certificate), stamp(key)]);
        }
        stamps
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)?;
    if all.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(all)
}

fn read(
    ca_file: &Path,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the API servers' authority", ca_file)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Unusable {
                path: ca_file.to_owned(),
                source,
            })?;
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("the identity's certificate", certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Read {
                what: "the identity's key",
                path: key.clone(),
                source,
            })?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|source| TlsError::Unusable {
                    path: certificate.clone(),
                    source,
                })?
        }
    };
    // Requests are forwarded as they come, and upgrades exist in HTTP/1.1 only.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A secret of one line in a file.
pub fn read_token(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds no bearer token: one line of printable ASCII",
        ));
    }
    Ok(token.to_owned())
}

/// Whether an error of a TLS handshake says that the server is not one of ours.
pub fn is_untrusted(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)))
}
