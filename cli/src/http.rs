//! The HTTP client of this program: short calls to processes on this machine and to Mesos.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authority's file.
    #[error("read the authority {path}: {reason}")]
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
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = authority {
        let bad = |reason: String| Error::Authority {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        let pems = pem::parse_many(&text).map_err(|e| bad(e.to_string()))?;
        for pem in pems {
            roots
                .add(pem.into_contents().into())
                .map_err(|e| bad(e.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::SetUp(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(deadline)
        .connect_timeout(deadline)
        .build()
        .map_err(|e| Error::SetUp(e.to_string()))
}
