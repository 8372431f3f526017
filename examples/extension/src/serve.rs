//! HTTPS: a certificate from a directory, and connections with bounds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// A client must have shaken hands within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A request's head must be there within this time, also on a connection that is kept.
const HEAD: Duration = Duration::from_secs(60);
/// Connections at a time; an API server keeps a few.
const CONNECTIONS: usize = 64;

/// Why there is no certificate to serve with. Worth a retry once the files are there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not what it should be.
    #[error("read {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not belong together, for instance.
    #[error("use the certificate in {dir}: {source}")]
    Certificate {
        /// Where it is.
        dir: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// TLS with `tls.crt` and `tls.key` of a directory.
pub fn acceptor(dir: &Path) -> Result<TlsAcceptor, Error> {
    let file = |path: PathBuf| {
        move |error: rustls::pki_types::pem::Error| Error::File {
            path,
            reason: error.to_string(),
        }
    };
    let path = dir.join("tls.crt");
    let chain = CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect)
        .map_err(file(path))?;
    let path = dir.join("tls.key");
    let key = PrivateKeyDer::from_pem_file(&path).map_err(file(path))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|source| Error::Certificate {
            dir: dir.to_owned(),
            source,
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return; // Never: the semaphore is not closed.
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("accept: {error}");
                // Out of descriptors, most likely: some must be closed first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let _place = place;
            // Who breaks off, or never speaks, is no concern of the others.
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await
            else {
                return;
            };
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                .await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_foreign_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = acceptor(dir.path()).err().unwrap().to_string();
        assert!(error.contains("tls.crt"), "{error}");
        let one = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
        std::fs::write(dir.path().join("tls.crt"), one.cert.pem()).unwrap();
        std::fs::write(
            dir.path().join("tls.key"),
            other.signing_key.serialize_pem(),
        )
        .unwrap();
        let error = acceptor(dir.path()).err().unwrap();
        assert!(matches!(error, Error::Certificate { .. }), "{error}");
        std::fs::write(dir.path().join("tls.key"), one.signing_key.serialize_pem()).unwrap();
        assert!(acceptor(dir.path()).is_ok());
    }
}
