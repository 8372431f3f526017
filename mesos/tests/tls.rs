//! TLS with an authority of one's own, as operators of Mesos have it.

mod support;

use std::sync::Arc;

use mesos::Error;
use mesos::http::{ClientConfig, ConfigError, Identity, PemSource};
use mesos::master::MasterUrl;
use mesos::operator::OperatorClient;
use mesos::pb;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::server::{Server, soon};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn pem(&self) -> PemSource {
        PemSource::Pem(self.0.pem().into_bytes())
    }

    /// A certificate and its key, in PEM form.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A server with a certificate of this authority; with `clients`, it asks for theirs.
    async fn serve(&self, name: &str, clients: bool) -> Server {
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if clients {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.0.der().clone()).expect("a root");
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            );
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let config = builder
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
            )
            .expect("a configuration");
        Server::start_with(Some(Arc::new(config).into())).await
    }
}

async fn get_agents(url: &str, config: &ClientConfig) -> Result<(), Error> {
    let url = MasterUrl::parse(url).expect("an address");
    let client = OperatorClient::new(&url, config)?;
    let call = pb::master::Call {
        r#type: Some(pb::master::call::Type::GetAgents.into()),
        ..Default::default()
    };
    soon("the answer", client.call(&call)).await.map(drop)
}

/// Answers one call.
async fn answer(mut server: Server) {
    server
        .request()
        .await
        .answer("202 Accepted", &[], b"")
        .await;
}

#[tokio::test]
async fn a_master_with_a_certificate_of_the_given_authority_is_trusted() {
    let authority = Authority::new("ours");
    let server = authority.serve("127.0.0.1", false).await;
    // Without a scheme: the given authority makes it https.
    let address = server.address.to_string();
    let config = ClientConfig {
        ca: Some(authority.pem()),
        ..ClientConfig::default()
    };
    let (result, ()) = tokio::join!(get_agents(&address, &config), answer(server));
    result.expect("trusted");
}

#[tokio::test]
async fn an_authority_can_be_a_file_and_a_missing_one_is_named() {
    let authority = Authority::new("ours");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ca.pem");
    let config = ClientConfig {
        ca: Some(PemSource::File(file.clone())),
        ..ClientConfig::default()
    };
    let error = get_agents("localhost:1", &config)
        .await
        .expect_err("missing");
    assert!(error.to_string().contains("ca.pem"), "{error}");
    std::fs::write(&file, "no certificate").expect("written");
    let error = get_agents("localhost:1", &config).await.expect_err("empty");
    assert!(
        matches!(error, Error::Config(ConfigError::Pem { .. })),
        "{error}"
    );
    std::fs::write(&file, authority.0.pem()).expect("written");
    let server = authority.serve("127.0.0.1", false).await;
    let address = server.address.to_string();
    let (result, ()) = tokio::join!(get_agents(&address, &config), answer(server));
    result.expect("trusted");
}

#[tokio::test]
async fn a_master_of_another_authority_or_name_is_refused_with_a_reason() {
    let authority = Authority::new("ours");
    let config = ClientConfig {
        ca: Some(authority.pem()),
        ..ClientConfig::default()
    };
    for (server, reason) in [
        (
            Authority::new("another").serve("127.0.0.1", false).await,
            "UnknownIssuer",
        ),
        (
            authority.serve("other.example", false).await,
            "not valid for",
        ),
    ] {
        let error = get_agents(&server.address.to_string(), &config)
            .await
            .expect_err("not trusted");
        assert!(matches!(error, Error::Transport { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    // Without a given authority, the machine's own count, and ours is none of them.
    let server = authority.serve("127.0.0.1", false).await;
    let url = format!("https://{}", server.address);
    let error = get_agents(&url, &ClientConfig::default())
        .await
        .expect_err("not trusted");
    assert!(matches!(error, Error::Transport { .. }), "{error}");
}

#[tokio::test]
async fn a_master_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new("ours");
    let (certificate, key) = authority.issue("framework.example");
    let mut config = ClientConfig {
        ca: Some(authority.pem()),
        ..ClientConfig::default()
    };
    let server = authority.serve("127.0.0.1", true).await;
    let address = server.address.to_string();
    let error = get_agents(&address, &config)
        .await
        .expect_err("no certificate");
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    config.identity = Some(Identity {
        certificates: PemSource::Pem(certificate.into_bytes()),
        key: PemSource::Pem(key.clone().into_bytes()),
    });
    assert!(!format!("{config:?}").contains(&key[30..60]));
    let (result, ()) = tokio::join!(get_agents(&address, &config), answer(server));
    result.expect("accepted");
}

/// Runs by itself, and once more as a child of the next test.
#[tokio::test]
async fn a_client_without_a_given_authority_trusts_the_machines() {
    let server = Authority::new("ours").serve("127.0.0.1", false).await;
    let url = format!("https://{}", server.address);
    let error = get_agents(&url, &ClientConfig::default())
        .await
        .expect_err("not trusted");
    println!("refused: {error}");
    let plain = Server::start().await;
    let address = plain.address.to_string();
    let config = ClientConfig::default();
    let (result, ()) = tokio::join!(get_agents(&address, &config), answer(plain));
    result.expect("no TLS");
}

#[test]
fn a_machine_without_authorities_can_do_without_tls() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("none.pem");
    std::fs::write(&file, "").expect("written");
    let output = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--nocapture"])
        .arg("a_client_without_a_given_authority_trusts_the_machines")
        // Where the certificates of the operating system are looked for.
        .env("SSL_CERT_FILE", &file)
        .env("SSL_CERT_DIR", directory.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("No CA certificates were loaded from the system"),
        "{text}"
    );
}
