//! The client of the API server. It follows its files: certificates are renewed on disk long
//! before they expire, and a framework that runs for years picks the new ones up by itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Request};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long connecting may take. API servers are near; a dead one must not block for long,
/// the front door then leads elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often is looked whether files have changed. Certificates are renewed days before they
/// expire, so a minute is soon.
const LOOK: Duration = Duration::from_secs(60);

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
    following(path, context, LOOK).await
}

/// The same, looking for changed files as often as it is told.
pub async fn following(
    path: &Path,
    context: Option<&str>,
    look: Duration,
) -> Result<Client, ConnectError> {
    let source = Source {
        path: path.to_owned(),
        context: context.map(str::to_owned),
    };
    let loaded = source.load().await?;
    let namespace = loaded.client.default_namespace().to_owned();
    let follower = Arc::new(Follower {
        source,
        look,
        state: Mutex::new(State {
            client: loaded.client,
            stamps: loaded.stamps,
            looked: Instant::now(),
        }),
    });
    let service = tower::service_fn(move |request: Request<Body>| {
        let follower = follower.clone();
        async move { follower.current().await.send(request).await }
    });
    Ok(Client::new(service, namespace))
}

/// A file, when it was written and how long it is; `None` while it is not there.
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

struct Source {
    path: PathBuf,
    context: Option<String>,
}

struct Loaded {
    client: Client,
    stamps: Vec<Stamp>,
}

struct Follower {
    source: Source,
    look: Duration,
    state: Mutex<State>,
}

struct State {
    client: Client,
    stamps: Vec<Stamp>,
    looked: Instant,
}

impl Source {
    async fn load(&self) -> Result<Loaded, ConnectError> {
        let unreadable = |source| ConnectError::Kubeconfig {
            path: self.path.clone(),
            source,
        };
        let kubeconfig = Kubeconfig::read_from(&self.path).map_err(unreadable)?;
        // Before the files are read: one that changes meanwhile is seen as changed next time.
        let stamps = stamps(files_of(&self.path, &kubeconfig));
        let options = KubeConfigOptions {
            context: self.context.clone(),
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
        let client = Client::try_from(config).map_err(|source| ConnectError::Client {
            path: self.path.clone(),
            source: Box::new(source),
        })?;
        Ok(Loaded { client, stamps })
    }
}

impl Follower {
    /// The client to use now. Requests that are under way go on with the one they began with;
    /// its connections end with them.
    async fn current(&self) -> Client {
        {
            let mut state = self.lock();
            if state.looked.elapsed() < self.look {
                return state.client.clone();
            }
            // Others go on with the old one while this request looks.
            state.looked = Instant::now();
            let files = state.stamps.iter().map(|(path, _)| path.clone());
            if stamps(files.collect()) == state.stamps {
                return state.client.clone();
            }
        }
        match self.source.load().await {
            Ok(loaded) => {
                tracing::info!(kubeconfig = %self.source.path.display(), "credentials have changed and are in use");
                let mut state = self.lock();
                state.client = loaded.client.clone();
                state.stamps = loaded.stamps;
                loaded.client
            }
            Err(error) => {
                // Perhaps between the writing of a certificate and of its key.
                tracing::warn!(%error, "changed credentials are of no use yet, going on with the old ones");
                self.lock().client.clone()
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change is one assignment each: also after a panic the state is usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(files: Vec<PathBuf>) -> Vec<Stamp> {
    let stamp = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let stamp = metadata.and_then(|m| Some((m.modified().ok()?, m.len())));
        (path, stamp)
    };
    files.into_iter().map(stamp).collect()
}

/// The kubeconfig and all files that it names. Relative names have been made absolute.
fn files_of(path: &Path, kubeconfig: &Kubeconfig) -> Vec<PathBuf> {
    let users = kubeconfig
        .auth_infos
        .iter()
        .filter_map(|named| named.auth_info.as_ref());
    let clusters = kubeconfig
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref());
    let of_users =
        users.flat_map(|user| [user.client_certificate.clone(), user.client_key.clone()]);
    let of_clusters = clusters.map(|cluster| cluster.certificate_authority.clone());
    let named = of_users.chain(of_clusters).flatten().map(PathBuf::from);
    std::iter::once(path.to_owned()).chain(named).collect()
}
