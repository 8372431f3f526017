//! The TLS side of a client, with a cryptography provider of its own: nothing process-wide is
//! installed or read, so a program can use this crate beside any other TLS user.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig as TlsConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::config::{ClientConfig, ConfigError, PemSource};

/// The configuration for reqwest.
pub(super) fn client_config(config: &ClientConfig) -> Result<TlsConfig, ConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = TlsConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| build(&error))?;
    let builder = match &config.ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots
                    .add(certificate)
                    .map_err(|error| pem(ca, &error.to_string()))?;
            }
            builder.with_root_certificates(roots)
        }
        None => {
            let verifier = SystemAuthorities {
                provider,
                verifier: OnceLock::new(),
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut tls = match &config.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(&identity.key.read()?)
                .map_err(|error| pem(&identity.key, &error.to_string()))?;
            builder
                .with_client_auth_cert(certificates(&identity.certificates)?, key)
                .map_err(|error| pem(&identity.certificates, &error.to_string()))?
        }
    };
    // libprocess speaks HTTP/1.1 only.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// Trusts whom the operating system trusts. Its certificates are loaded when the first peer
/// shows one: most clients speak plain HTTP to Mesos, and many machines and images have none.
#[derive(Debug)]
struct SystemAuthorities {
    provider: Arc<CryptoProvider>,
    verifier: OnceLock<Result<Verifier, rustls::Error>>,
}

impl ServerCertVerifier for SystemAuthorities {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier
            .get_or_init(|| Verifier::new(Arc::clone(&self.provider)))
            .as_ref()
            .map_err(Clone::clone)?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

fn certificates(source: &PemSource) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let bytes = source.read()?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem(source, &error.to_string()))?;
    if certificates.is_empty() {
        return Err(pem(source, "no certificate in it"));
    }
    Ok(certificates)
}

fn pem(source: &PemSource, reason: &str) -> ConfigError {
    ConfigError::Pem {
        origin: source.name(),
        reason: reason.to_owned(),
    }
}

fn build(error: &dyn std::error::Error) -> ConfigError {
    ConfigError::Build {
        reason: super::chain(error),
    }
}
