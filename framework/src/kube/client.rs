//! The client of the API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long connecting may take. API servers are near; a dead one must not block for long,
/// the front door then leads elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no client. Only another kubeconfig helps.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read.
    #[error("read kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: kube::config::KubeconfigError,
    },
    /// The kubeconfig's certificates or addresses are of no use.
    #[error("use kubeconfig {}: {source}", path.display())]
    Client {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

/// A client after a kubeconfig. Does not connect yet.
pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Client, ConnectError> {
    let unreadable = |source| ConnectError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unreadable)?;
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(unreadable)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Callers decide about repeating: a 429 of an eviction is an answer, not an overload.
    config.default_retry = false;
    config.headers.push((
        http::header::USER_AGENT,
        HeaderValue::from_static(concat!("k8sm-framework/", env!("CARGO_PKG_VERSION"))),
    ));
    Client::try_from(config).map_err(|source| ConnectError::Client {
        path: path.to_owned(),
        source: Box::new(source),
    })
}
