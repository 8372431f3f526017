//! The HTTP client of this program: short calls to processes on this machine and to Mesos.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file with certificates or a key.
    #[error("read {path}: {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS or the client itself.
    #[error("set up an HTTP client: {0}")]
    SetUp(String),
}

/// A client that trusts exactly `authority`, for calls that take at most `deadline`. Proxies of the
/// environment are not for calls to this machine.
pub fn client(authority: Option<&Path>, deadline: Duration) -> Result<reqwest::Client, Error> {
    let tls = trusting(roots(authority)?)?.with_no_client_auth();
    build(tls, deadline)
}

/// A client that trusts exactly `authority` and shows a certificate of its own.
pub fn client_with_identity(
    authority: &Path,
    certificate: &Path,
    key: &Path,
    deadline: Duration,
) -> Result<reqwest::Client, Error> {
    let chain = pems(certificate)?
        .into_iter()
        .map(|pem| pem.into_contents().into());
    let key_pem = pems(key)?
        .into_iter()
        .next()
        .ok_or_else(|| Error::Authority {
            path: key.to_owned(),
            reason: "there is no key in it".to_owned(),
        })?;
    let key_der = rustls::pki_types::PrivatePkcs8KeyDer::from(key_pem.into_contents());
    let tls = trusting(roots(Some(authority))?)?
        .with_client_auth_cert(chain.collect(), key_der.into())
        .map_err(|e| Error::SetUp(e.to_string()))?;
    build(tls, deadline)
}

fn pems(path: &Path) -> Result<Vec<pem::Pem>, Error> {
    let bad = |reason: String| Error::Authority {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    pem::parse_many(&text).map_err(|e| bad(e.to_string()))
}

fn roots(authority: Option<&Path>) -> Result<rustls::RootCertStore, Error> {
    let mut roots = rustls::RootCertStore::empty();
    for pem in authority.map(pems).transpose()?.unwrap_or_default() {
        roots
            .add(pem.into_contents().into())
            .map_err(|e| Error::Authority {
                path: authority.map(Path::to_owned).unwrap_or_default(),
                reason: e.to_string(),
            })?;
    }
    Ok(roots)
}

fn trusting(
    roots: rustls::RootCertStore,
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::SetUp(e.to_string()))?
        .with_root_certificates(roots))
}

fn build(tls: rustls::ClientConfig, deadline: Duration) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(deadline)
        .connect_timeout(deadline)
        .build()
        .map_err(|e| Error::SetUp(e.to_string()))
}

/// A client for servers elsewhere: trusts `authority`, else whom the operating system trusts.
/// `https` says whether any of its addresses needs that: a machine without certificates is fine
/// for plain HTTP. Proxies of the environment are not used: credentials go to the server alone.
pub fn public_client(
    authority: Option<&Path>,
    https: bool,
    deadline: Duration,
) -> Result<reqwest::Client, Error> {
    if authority.is_some() || !https {
        return client(authority, deadline);
    }
    reqwest::Client::builder()
        .no_proxy()
        .timeout(deadline)
        .connect_timeout(deadline.min(Duration::from_secs(5)))
        .build()
        .map_err(|e| Error::SetUp(e.to_string()))
}
