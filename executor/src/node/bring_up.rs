//! Starts the node's parts, as much at once as does not depend on each other:
//!
//! ```text
//! files, mounts, balancer
//!   +- containerd -> old reservations away -> pause image ---+
//!   +- network, CNI configuration --------------------------+--> kubelet -> Ready
//!   |                          +--> kube-proxy (certificate) ------------^
//!   +- the payload's other images (after containerd) --------------------^
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::life::kubernetes_time;
use super::prepare::{self, Prepared};
use super::running::Commands;
use super::{NodeError, kube_proxy};
use crate::balancer::Balancer;
use crate::component::{Component, Liveness, Readiness, Sign};
use crate::containerd::images::Ctr;
use crate::containerd::outside;
use crate::credentials::api::{ApiAccess, Backoff, Identity};
use crate::credentials::proxy::{ProxyCertificate, ProxyCertificateError};
use crate::credentials::store::Validity;
use crate::kubelet::config as kubelet_config;
use crate::network::command::TOOL_PATH;
use crate::network::{self, Network};
use crate::pods;
use crate::report::{NodeContext, NodeEvent};

/// From start to a socket that answers: loading many images' metadata takes a while, and slow
/// machines need a multiple of it. Who ends with an error is started again at once.
const CONTAINERD_DEADLINE: Duration = Duration::from_secs(180);
/// From start to a health check that answers. It waits for the addresses that kubelet writes into
/// the Node, so it has more time than kubelet, whose reasons tell more.
const KUBE_PROXY_DEADLINE: Duration = Duration::from_secs(500);
/// kubelet is watched through the Node it writes; this only covers the start of its process.
const KUBELET_DEADLINE: Duration = Duration::from_secs(10);
/// From here to kubelet's certificate and a Node that is Ready. Approval waits for the framework,
/// which may be starting itself. Within the framework's own time for a node's start (600 s).
pub const READY_DEADLINE: Duration = Duration::from_secs(480);
/// The same for another revision under running pods. Certificates and images are there, and as long
/// as kubelet does not come nobody looks after the pods: then rather back to what worked.
pub const REVISED_DEADLINE: Duration = Duration::from_secs(120);
/// How long components may take to end.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How often a component is asked whether it still works.
const LIVENESS_EVERY: Duration = Duration::from_secs(10);
/// A component without a sign of life for so long hangs. Machines under load are slow to answer
/// (a minute was seen), and a restart there makes it worse, so this is long.
const LIVENESS_PATIENCE: Duration = Duration::from_secs(180);
/// kubelet's watchdog (`WATCHDOG_USEC`): it looks at itself twice in that time, its own criterion
/// being a sync loop that has not gone round for five minutes.
const KUBELET_WATCHDOG: Duration = Duration::from_secs(30);
/// How often a file that kubelet will write is looked for.
const FILE_POLL: Duration = Duration::from_millis(100);

/// A node that is Ready.
pub struct RunningNode {
    /// The pod network.
    pub network: Network,
    /// The balancer.
    pub balancer: Balancer,
    /// How to reach containerd.
    pub ctr: Ctr,
    /// kube-proxy's certificate.
    pub proxy_certificate: ProxyCertificate,
    /// kubelet's way to the API servers.
    pub kubelet_access: ApiAccess,
    /// What kubelet says of its Node.
    pub readiness: watch::Receiver<pods::node::Readiness>,
    /// Ends the task behind `readiness`, and the pods' watch.
    pub watches: CancellationToken,
}

/// Sends progress to the core and measures it.
struct Progress<'a> {
    context: &'a NodeContext,
    started: Instant,
}

impl Progress<'_> {
    async fn done(&self, step: &str) {
        let step = format!("{step} after {:.1} s", self.started.elapsed().as_secs_f64());
        // No receiver: the executor ends.
        let _ = self.context.events.send(NodeEvent::Progress { step }).await;
    }
}

/// Brings the node up. Returns when it is Ready and everything else is up too.
pub async fn bring_up(
    context: &NodeContext,
    commands: &mut Commands,
) -> Result<RunningNode, NodeError> {
    let progress = Progress {
        context,
        started: Instant::now(),
    };
    let prepared = {
        let context = context.clone();
        tokio::task::spawn_blocking(move || prepare::prepare(&context))
            .await
            .map_err(|e| NodeError::of("node", e))??
    };
    let kubelet = kubelet(context, &prepared);
    let since = if context.supervisor.runs(&kubelet) {
        // It goes on, and writes its Node only every few minutes while nothing changes.
        SystemTime::UNIX_EPOCH
    } else {
        context.since
    };
    let since = kubernetes_time(since);
    for message in &prepared.warnings {
        warn(context, "node", "Degraded", message).await;
    }
    let node = &context.config;
    let balancer = crate::balancer::start(
        node.ports.balancer,
        &node.cluster.api_servers,
        prepared.files.api_servers.clone(),
        context.stop.clone(),
    )
    .await
    .map_err(|e| NodeError::of("balancer", e))?;

    let access = |identity| ApiAccess::new(balancer.port(), node.cluster.ca.clone(), identity);
    let kubelet_access = access(Identity::CertificateFile(
        prepared.files.kubelet_certificate.clone(),
    ));
    let proxy_certificate = ProxyCertificate {
        node: node.node_name.clone(),
        file: prepared.files.kube_proxy_certificate.clone(),
        bootstrap: access(Identity::Token(node.bootstrap_token.clone())),
    };
    let ctr = Ctr {
        program: context.payload.bin("ctr"),
        socket: context.paths.containerd_socket(),
    };

    // A foreign node on this machine must stop everything before anything runs.
    let network = Network::set_up(prepared.network.clone(), &context.cleanup)
        .await
        .map_err(|e| NodeError::of("network", e))?;
    prepare::write_network(context, &prepared, network.mtu(), network.backend())?;
    progress.done("network is up").await;

    let runtime = async {
        start(context, containerd(context, &prepared)).await?;
        progress.done("containerd is up").await;
        forget_reservations(&ctr, &prepared, &network).await?;
        import(context, &ctr, prepared.images.images.iter().take(1)).await?;
        start(context, kubelet).await?;
        progress.done("kubelet runs").await;
        import(context, &ctr, prepared.images.images.iter().skip(1)).await?;
        progress.done("images are there").await;
        Ok::<(), NodeError>(())
    };
    let proxy = async {
        obtain_certificate(context, &proxy_certificate).await?;
        progress.done("kube-proxy has a certificate").await;
        start(context, kube_proxy_component(context, &prepared)).await?;
        progress.done("kube-proxy is up").await;
        Ok(())
    };

    let watches = context.stop.child_token();
    let (ready_tx, mut readiness) = watch::channel(pods::node::Readiness::Unknown);
    let watching = tokio::spawn({
        let (access, watches) = (kubelet_access.clone(), watches.clone());
        let file = prepared.files.kubelet_certificate.clone();
        let (events, name) = (context.events.clone(), node.node_name.clone());
        let loopback = network.loopback_ports();
        async move {
            wait_for_certificate(&file, &watches).await;
            tokio::join!(
                pods::node::watch_node(&access, &name, &since, &ready_tx, &watches),
                pods::watch::watch(&access, &name, &events, &loopback, &watches),
            );
        }
    });
    let ready = async {
        let is_ready = |state: &pods::node::Readiness| *state == pods::node::Readiness::Ready;
        let waited = tokio::time::timeout(context.ready_within, readiness.wait_for(is_ready))
            .await
            .map(|r| r.is_ok());
        match waited {
            Ok(true) => {
                progress.done("kubelet's Node is Ready").await;
                Ok(())
            }
            _ => Err(not_ready(context, &prepared)),
        }
    };
    let all = async { tokio::try_join!(runtime, proxy, ready) };
    // API servers may move meanwhile.
    let obey = async {
        commands
            .obey(&balancer, &kubelet_access, &context.stop)
            .await;
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = all => outcome.map(drop),
        never = obey => never,
    };
    if let Err(error) = outcome {
        watches.cancel();
        let _ = watching.await;
        let state = readiness.borrow().clone();
        return Err(explain(error, &state));
    }
    Ok(RunningNode {
        network,
        balancer,
        ctr,
        proxy_certificate,
        kubelet_access,
        readiness,
        watches,
    })
}

async fn warn(context: &NodeContext, component: &str, reason: &str, message: &str) {
    tracing::warn!(component, message);
    let event = NodeEvent::Component {
        component: component.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        warning: true,
    };
    let _ = context.events.send(event).await;
}

async fn start(context: &NodeContext, component: Component) -> Result<(), NodeError> {
    let name: &'static str = match component.name.as_str() {
        "containerd" => "containerd",
        "kubelet" => "kubelet",
        _ => "kube-proxy",
    };
    context
        .supervisor
        .start(component)
        .await
        .map_err(|e| NodeError::of(name, e))
}

/// While no pod runs, addresses and host ports that are still taken belong to pods of a life that
/// ended without giving them back.
async fn forget_reservations(
    ctr: &Ctr,
    prepared: &Prepared,
    network: &Network,
) -> Result<(), NodeError> {
    if ctr
        .any_running()
        .await
        .map_err(|e| NodeError::of("containerd", e))?
    {
        return Ok(());
    }
    let dir = prepared.files.ipam.join(&prepared.network.names.gateway);
    match fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("removing {}: {e}", dir.display());
            return Err(NodeError::of("network", message));
        }
        _ => {}
    }
    network::sweep::host_ports(network.spec())
        .await
        .map_err(|e| NodeError::of("network", e))
}

async fn import(
    context: &NodeContext,
    ctr: &Ctr,
    archives: impl Iterator<Item = &PathBuf>,
) -> Result<(), NodeError> {
    for archive in archives {
        ctr.import(&context.payload.0.join(archive))
            .await
            .map_err(|e| NodeError::of("containerd", e))?;
    }
    Ok(())
}

/// Asks until there is one, for as long as it may be a matter of time.
async fn obtain_certificate(
    context: &NodeContext,
    certificate: &ProxyCertificate,
) -> Result<(), NodeError> {
    let deadline = Instant::now() + READY_DEADLINE;
    let mut backoff = Backoff::up_to(Duration::from_secs(5));
    loop {
        let error = match certificate.ensure().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let final_answer = matches!(error, ProxyCertificateError::Refused { .. });
        if final_answer || Instant::now() >= deadline {
            return Err(NodeError::of("credentials", error));
        }
        tracing::info!(%error, "kube-proxy's certificate");
        let pause = backoff.pause();
        tokio::select! {
            () = context.stop.cancelled() => return Err(NodeError::of("credentials", "stopped")),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// kubelet writes its certificate once it is approved; until then there is nobody to watch as.
async fn wait_for_certificate(file: &Path, stop: &CancellationToken) {
    while Validity::of_file(file).is_none() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FILE_POLL) => {}
        }
    }
}

fn not_ready(context: &NodeContext, prepared: &Prepared) -> NodeError {
    let log = context.supervisor.log_of("kubelet");
    let seconds = context.ready_within.as_secs();
    let message = if Validity::of_file(&prepared.files.kubelet_certificate).is_none() {
        format!(
            "got no certificate within {seconds} s: is the framework running, and does it approve \
             this node's requests? Its log is {}",
            log.display()
        )
    } else {
        format!(
            "its Node was not Ready within {seconds} s; its log is {}",
            log.display()
        )
    };
    NodeError::of("kubelet", message)
}

fn explain(mut error: NodeError, state: &pods::node::Readiness) -> NodeError {
    if let (true, pods::node::Readiness::NotReady { reason }) =
        (error.component == "kubelet", state)
    {
        error.message = format!("{} ({reason})", error.message);
    }
    error
}

/// The environment of a component that reads that configuration. The configuration's digest is in
/// it, so that a component that still runs with an older one is started anew. Programs are found by
/// a path that stays when the payload changes: shims of pods that live on look for runc in it.
fn environment(context: &NodeContext, config: &Path) -> Vec<(String, String)> {
    let bin = context.paths.programs().join("bin");
    // It was written a moment ago; if it is gone now, the component says so itself.
    let digest = Sha256::digest(fs::read(config).unwrap_or_default());
    vec![
        ("K8SM_CONFIG_SHA256".to_owned(), hex(&digest)),
        ("PATH".to_owned(), format!("{}:{TOOL_PATH}", bin.display())),
        ("HOME".to_owned(), context.paths.root.display().to_string()),
    ]
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn containerd(context: &NodeContext, prepared: &Prepared) -> Component {
    let mut env = environment(context, &prepared.files.containerd);
    let options = &context.config.options;
    env.extend(outside::proxy(
        &options.http_proxy,
        &context.config.cluster,
        |name| std::env::var(name).ok(),
    ));
    if !options.registry_cas.is_empty() {
        let digest = hex(&Sha256::digest(options.registry_cas.join("\n")));
        env.extend(outside::trust(&context.paths.registry_cas(), &digest));
    }
    let config = prepared.files.containerd.display();
    Component {
        name: "containerd".to_owned(),
        program: context.payload.bin("containerd"),
        args: vec![format!("--config={config}")],
        env,
        cwd: context.paths.root.clone(),
        readiness: Readiness::UnixSocket(context.paths.containerd_socket()),
        start_deadline: CONTAINERD_DEADLINE,
        liveness: Some(Liveness {
            sign: Sign::ContainerRuntime(context.paths.containerd_socket()),
            every: LIVENESS_EVERY,
            patience: LIVENESS_PATIENCE,
        }),
        stop_grace: STOP_GRACE,
    }
}

fn kubelet(context: &NodeContext, prepared: &Prepared) -> Component {
    let files = &prepared.files;
    let socket = context.paths.kubelet_notify_socket();
    let mut env = environment(context, &files.kubelet);
    env.extend([
        ("NOTIFY_SOCKET".to_owned(), socket.display().to_string()),
        (
            "WATCHDOG_USEC".to_owned(),
            KUBELET_WATCHDOG.as_micros().to_string(),
        ),
    ]);
    Component {
        name: "kubelet".to_owned(),
        program: context.payload.bin("kubelet"),
        args: kubelet_config::arguments(
            &context.config,
            &files.kubelet,
            &files.kubelet_kubeconfig,
            &files.bootstrap_kubeconfig,
            &context.paths.pki(),
        ),
        env,
        cwd: context.paths.root.clone(),
        readiness: Readiness::Running,
        start_deadline: KUBELET_DEADLINE,
        liveness: Some(Liveness {
            sign: Sign::Notify {
                socket,
                first: READY_DEADLINE * 2,
            },
            every: KUBELET_WATCHDOG / 2,
            patience: LIVENESS_PATIENCE,
        }),
        stop_grace: STOP_GRACE,
    }
}

fn kube_proxy_component(context: &NodeContext, prepared: &Prepared) -> Component {
    Component {
        name: "kube-proxy".to_owned(),
        program: context.payload.bin("kube-proxy"),
        args: kube_proxy::arguments(&context.config, &prepared.files.kube_proxy),
        env: environment(context, &prepared.files.kube_proxy),
        cwd: context.paths.root.clone(),
        readiness: Readiness::Http {
            port: context.config.ports.proxy_metrics,
            path: "/healthz".to_owned(),
        },
        start_deadline: KUBE_PROXY_DEADLINE,
        // Unlike `/healthz`, which also tells load balancers to go elsewhere, it fails only when
        // the rules have not been brought up to date for long.
        liveness: Some(Liveness {
            sign: Sign::Http {
                address: (context.config.node_ip, context.config.ports.proxy_health).into(),
                path: "/livez".to_owned(),
            },
            every: LIVENESS_EVERY,
            patience: LIVENESS_PATIENCE,
        }),
        stop_grace: STOP_GRACE,
    }
}
