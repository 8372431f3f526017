//! From the command line to a leading instance.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::config::Kubeconfig;
use mesos::http::{ClientConfig, Credentials, PemSource, SecretSource};
use mesos::master::MasterUrl;
use seam::node::{Artifact, ClusterConfig, HttpProxy, NodeOptions, Payload};
use tokio_util::sync::CancellationToken;

use super::status::Board;
use super::{Leader, LeaderError, lead};
use crate::config::{BadOption, Options};
use crate::core::CoreConfig;
use crate::http::artifacts::{ArtifactError, Artifacts};
use crate::http::status::Role;
use crate::http::{self, server};
use crate::kube::lease::{self, Leadership, Timing};
use crate::kube::{ApiError, client, events, framework_id};
use crate::metrics::Metrics;
use crate::wire::{ExecutorDescription, FrameworkDescription, NodeSettings, executor_template};

/// Why the program ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An option is of no use.
    #[error(transparent)]
    Option(#[from] BadOption),
    /// The masters' address cannot be read.
    #[error("--mesos-master: {0}")]
    Master(#[from] mesos::master::MasterUrlError),
    /// The API server's client cannot be made.
    #[error(transparent)]
    Kubeconfig(#[from] client::ConnectError),
    /// The kubeconfig lacks something.
    #[error("kubeconfig {}: {why}", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// Nobody can listen there.
    #[error(transparent)]
    Listen(#[from] server::ListenError),
    /// A file that is to be served.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The election was lost: another instance goes on, this one starts again from nothing.
    #[error("leadership is lost; the next instance goes on where this one was")]
    LostLeadership,
    /// While leading.
    #[error(transparent)]
    Leader(#[from] LeaderError),
}

/// How long to wait before the API server is asked again, at start.
const AGAIN: Duration = Duration::from_secs(2);

/// Runs the program until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), RunError> {
    let stop = stop.child_token();
    let _guard = stop.clone().drop_guard();
    let master = MasterUrl::load(&options.mesos_master)?;
    let dns_ip = options.dns_ip()?;
    let kubeconfig = KubeconfigFacts::read(&options.kubeconfig)?;
    let api_servers = if options.api_servers.is_empty() {
        vec![kubeconfig.server.clone()]
    } else {
        options.api_servers.clone()
    };
    let client = client::from_kubeconfig(&options.kubeconfig, None).await?;

    let metrics = Arc::new(Metrics::new());
    let (board, status) = Board::new();
    let artifacts = Artifacts::default();
    let listener = server::bind(options.listen).await?;
    let port = listener
        .local_addr()
        .map_or(options.listen.port(), |a| a.port());
    let advertise = advertised(&options, port);
    let app = http::App {
        metrics: metrics.clone(),
        status,
        artifacts: artifacts.clone(),
    };
    tokio::spawn(server::run(
        listener,
        http::router(app),
        server::Limits::default(),
        stop.clone(),
    ));
    tracing::info!(listen = %options.listen, port, advertise, "HTTP server");

    let base = format!("http://{advertise}");
    let ca = artifacts_ca(&options)?;
    if let Some(dir) = &options.artifacts_dir {
        artifacts.add_directory(dir);
    }
    let payload = payload(&options, &artifacts, &base, &ca).await?;
    let (executor_uri, executor_program) = executor(&options, &artifacts, &base, &ca).await?;

    let identity = identity(SocketAddr::new(options.listen.ip(), port));
    let lease_name = framework_id::object_name(&options.framework_name);
    let (mut leadership, election) = lease::campaign(
        client.clone(),
        lease_name,
        identity,
        Timing::default(),
        stop.clone(),
    );
    loop {
        let now = leadership.borrow_and_update().clone();
        match now {
            Leadership::Leading => break,
            Leadership::Lost => {
                return if stop.is_cancelled() {
                    Ok(())
                } else {
                    Err(RunError::LostLeadership)
                };
            }
            Leadership::Standby { leader } => {
                tracing::info!(leader, "standing by");
                board.role(Role::Standby, leader);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = leadership.changed() => {
                if changed.is_err() {
                    return Err(RunError::LostLeadership);
                }
            }
        }
    }
    tracing::info!("leading");
    board.role(Role::Leader, None);

    let Some(framework_id) = framework_id(&client, &options.framework_name, &board, &stop).await
    else {
        return Ok(());
    };
    board.framework_id(&framework_id);
    let (recorder, _writer) = events::spawn(client.clone(), &options.scheduler_name, &hostname());
    let overhead = options.node_overhead();
    let executor_info = ExecutorDescription {
        uri: executor_uri,
        image: options.executor_image.clone(),
        arguments: options.executor_args.clone(),
        shutdown_grace: options.executor_grace.as_secs().max(1),
    };
    let settings = NodeSettings {
        cluster: ClusterConfig {
            name: options.framework_name.clone(),
            api_servers,
            ca: kubeconfig.ca,
            pod_cidr: options.cluster_cidr.clone(),
            service_cidr: options.service_cidr.clone(),
            dns_ip,
            dns_domain: options.dns_domain.clone(),
            vxlan_id: options.vxlan_id(),
            vxlan_port: options.vxlan_port,
        },
        payload,
        executor: executor_program,
        options: NodeOptions {
            verbosity: options.node_verbosity,
            kubelet_args: options.kubelet_args.clone(),
            kube_proxy_args: options.kube_proxy_args.clone(),
            registry_mirrors: options.registry_mirrors.clone(),
            registry_cas: options.registry_cas.clone(),
            http_proxy: HttpProxy {
                http: options.node_http_proxy.clone(),
                https: options.node_https_proxy.clone(),
                no_proxy: options.node_no_proxy.clone(),
            },
        },
        overhead,
        pod_overhead_bytes: options.pod_overhead,
        pods_per_node: options.pods_per_node,
        framework_id: framework_id.clone(),
    };
    let core = CoreConfig {
        node_overhead: overhead,
        pods_per_node: options.pods_per_node,
        nodes_min: options.nodes_min,
        idle_timeout: options.nodes_idle_timeout,
        overcommit: options.overcommit,
        refuse_seconds: options.refuse_seconds.max(0.0),
        start_timeout: options.nodes_start_timeout,
        maintenance_lead: options.maintenance_lead,
        node_avoid_ports: options.node_avoid_ports.iter().copied().collect(),
        revision: Some(settings.revision().digest()),
        executor_info: executor_template(&executor_info, &framework_id),
        ..CoreConfig::default()
    };
    let leader = Leader {
        client,
        master,
        mesos_client: mesos_client(&options),
        framework: FrameworkDescription {
            name: options.framework_name.clone(),
            roles: options.roles.clone(),
            principal: options.principal.clone(),
            failover_timeout: options.failover_timeout.as_secs_f64(),
            web_ui: options.web_uri.clone(),
            hostname: Some(hostname()),
        },
        framework_id,
        settings,
        core,
        scheduler_name: options.scheduler_name.clone(),
        accounting: options.accounting(),
        recorder,
        metrics,
        board: board.clone(),
    };
    let lost = async {
        while leadership.changed().await.is_ok() {
            if *leadership.borrow_and_update() == Leadership::Lost {
                return;
            }
        }
    };
    let result = tokio::select! {
        result = lead(leader, stop.clone()) => result.map_err(RunError::from),
        () = lost => if stop.is_cancelled() { Ok(()) } else { Err(RunError::LostLeadership) },
    };
    if let Err(RunError::Leader(error @ LeaderError::Removed { .. })) = &result {
        // Ending would only make Marathon start it again, to the same end.
        tracing::error!(%error, "the framework has ended");
        board.ended(error.to_string());
        stop.cancelled().await;
    }
    // Gives the lease back, so that the next instance need not wait for its end.
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(3), election).await;
    match result {
        Err(RunError::Leader(LeaderError::Removed { .. })) => Ok(()),
        other => other,
    }
}

/// The stored id, or a new one, stored. `None` when told to stop.
async fn framework_id(
    client: &Client,
    name: &str,
    board: &Board,
    stop: &CancellationToken,
) -> Option<String> {
    loop {
        let generate = || format!("k8sm-{}", uuid::Uuid::new_v4());
        match framework_id::load_or_store(client, name, generate).await {
            Ok(stored) => {
                tracing::info!(id = stored.id, new = stored.new, "framework id");
                board.problem(None);
                return Some(stored.id);
            }
            Err(error) => report(board, &error),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(AGAIN.mul_f64(rand::random_range(0.8..1.2))) => {}
        }
    }
}

fn report(board: &Board, error: &ApiError) {
    tracing::warn!(%error, "trying again");
    board.problem(Some(error.to_string()));
}

fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// A file that this framework serves, as executors are told of it.
fn described(artifact: &crate::http::artifacts::Artifact, url: String) -> Artifact {
    Artifact {
        urls: vec![url],
        sha256: artifact.sha256.clone(),
        size: artifact.size,
        ca: String::new(),
    }
}

async fn payload(
    options: &Options,
    artifacts: &Artifacts,
    base: &str,
    ca: &str,
) -> Result<Payload, RunError> {
    if !is_url(&options.payload) {
        let artifact = artifacts.add(Path::new(&options.payload)).await?;
        return Ok(described(&artifact, artifact.url(base)));
    }
    remote(
        &options.payload,
        options.payload_sha256.as_deref(),
        options.payload_size,
        ca,
    )
    .ok_or_else(|| {
        BadOption {
            option: "--payload",
            why: format!(
                "`{}` is a URL, so --payload-sha256 (64 hexadecimal digits) and --payload-size must say what is there",
                options.payload
            ),
        }
        .into()
    })
}

/// A file that somebody else serves; `None` where it is not said which.
fn remote(url: &str, sha256: Option<&str>, size: Option<u64>, ca: &str) -> Option<Artifact> {
    let digest = sha256
        .filter(|digest| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(Artifact {
        urls: vec![url.to_owned()],
        sha256: digest.to_ascii_lowercase(),
        size: size?,
        ca: ca.to_owned(),
    })
}

/// The executor's URL, and its program where it is known by its digest.
async fn executor(
    options: &Options,
    artifacts: &Artifacts,
    base: &str,
    ca: &str,
) -> Result<(String, Option<Artifact>), RunError> {
    let uri = &options.executor_uri;
    if !is_url(uri) {
        let artifact = artifacts.add(Path::new(uri)).await?;
        let url = artifact.url(base);
        return Ok((url.clone(), Some(described(&artifact, url))));
    }
    let digest = options.executor_sha256.as_deref();
    let program = remote(uri, digest, options.executor_size, ca);
    if digest.is_some() && program.is_none() {
        return Err(BadOption {
            option: "--executor-sha256",
            why: "it must be 64 hexadecimal digits".to_owned(),
        }
        .into());
    }
    Ok((uri.clone(), program))
}

/// The certificates of `--artifacts-ca`, or nothing.
fn artifacts_ca(options: &Options) -> Result<String, RunError> {
    let Some(file) = &options.artifacts_ca else {
        return Ok(String::new());
    };
    std::fs::read_to_string(file).map_err(|error| {
        BadOption {
            option: "--artifacts-ca",
            why: format!("{}: {error}", file.display()),
        }
        .into()
    })
}

fn mesos_client(options: &Options) -> ClientConfig {
    let credentials = match (
        &options.principal,
        &options.secret_file,
        &options.token_file,
    ) {
        (Some(principal), Some(file), _) => Credentials::Basic {
            principal: principal.clone(),
            secret: SecretSource::File(file.clone()),
        },
        (_, _, Some(file)) => Credentials::Token {
            token: SecretSource::File(file.clone()),
        },
        _ => Credentials::None,
    };
    ClientConfig {
        ca: options.mesos_ca.clone().map(PemSource::File),
        credentials,
        ..ClientConfig::default()
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}

/// Who we are in the election: whoever listens on this address of this machine's network
/// namespace, which only one process can. So a process that was killed is followed at once by the
/// one that is started in its place, and not only when its lease has run out.
fn identity(listen: SocketAddr) -> String {
    use sha2::Digest;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/net");
    let place = match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{}{}", boot.trim(), namespace.display()),
        // Where that cannot be known, nobody else is taken for us.
        _ => uuid::Uuid::new_v4().to_string(),
    };
    let digest = sha2::Sha256::digest(format!("{place}{listen}").as_bytes());
    let short: String = digest[..6].iter().map(|b| format!("{b:02x}")).collect();
    format!("{}_{}_{short}", hostname(), listen.port())
}

fn advertised(options: &Options, port: u16) -> String {
    if let Some(advertise) = &options.advertise {
        return if advertise.contains(':') {
            advertise.clone()
        } else {
            format!("{advertise}:{port}")
        };
    }
    match options.listen.ip() {
        ip if ip.is_unspecified() => format!("{}:{port}", hostname()),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        IpAddr::V4(ip) => format!("{ip}:{port}"),
    }
}

/// What nodes must know of the API server, from the framework's own kubeconfig.
struct KubeconfigFacts {
    server: String,
    ca: String,
}

impl KubeconfigFacts {
    fn read(path: &Path) -> Result<Self, RunError> {
        let incomplete = |why: String| RunError::Incomplete {
            path: path.to_owned(),
            why,
        };
        let config = Kubeconfig::read_from(path).map_err(|e| incomplete(e.to_string()))?;
        let context = config.current_context.as_deref();
        let context = config
            .contexts
            .iter()
            .find(|c| context.is_none_or(|name| c.name == name))
            .and_then(|c| c.context.as_ref())
            .ok_or_else(|| incomplete("it has no current context".to_owned()))?;
        let cluster = config
            .clusters
            .iter()
            .find(|c| c.name == context.cluster)
            .and_then(|c| c.cluster.as_ref())
            .ok_or_else(|| incomplete(format!("it has no cluster `{}`", context.cluster)))?;
        let server = cluster.server.as_deref().unwrap_or_default();
        let address = host_and_port(server)
            .ok_or_else(|| incomplete(format!("`{server}` is no https URL of an API server")))?;
        let ca = match (
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        ) {
            (Some(data), _) => {
                use base64::Engine;
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(data.trim())
                    .map_err(|e| incomplete(format!("certificate-authority-data: {e}")))?;
                String::from_utf8(bytes)
                    .map_err(|e| incomplete(format!("certificate-authority-data: {e}")))?
            }
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|e| incomplete(format!("certificate-authority {file}: {e}")))?,
            (None, None) => {
                return Err(incomplete(
                    "it has no certificate authority; nodes need it to know the API servers by"
                        .to_owned(),
                ));
            }
        };
        Ok(Self {
            server: address,
            ca,
        })
    }
}

fn host_and_port(url: &str) -> Option<String> {
    let uri: ::http::Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("https") {
        return None;
    }
    Some(format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(443)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_reach_the_api_server_of_the_kubeconfig() {
        assert_eq!(
            host_and_port("https://10.0.0.1:6443"),
            Some("10.0.0.1:6443".to_owned())
        );
        assert_eq!(
            host_and_port("https://api.example.org/"),
            Some("api.example.org:443".to_owned())
        );
        assert_eq!(host_and_port("http://10.0.0.1:8080"), None);
    }
}
