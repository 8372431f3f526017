//! The pod network of this node: a link with the gateway's address, a VXLAN to the other nodes,
//! source NAT for what leaves the pod range, and accepts where Docker's rules drop. Pods get
//! point-to-point links from a CNI plugin; everything between them is routed.
//!
//! | part | what |
//! |---|---|
//! | [`spec`], [`address`] | what is wanted, checked |
//! | [`plan`], [`rules`], [`cni`], [`loopback`] | what follows, pure |
//! | [`observe`], [`command`], [`sysctl`] | the machine |
//! | [`occupancy`] | one node per network namespace |
//! | [`peers`] | the other nodes, from the Kubernetes API |
//! | [`sweep`] | removes what dead nodes left |
//!
//! Everything here may be done again at any time; what is right already is not touched.

pub mod address;
pub mod cni;
pub mod command;
pub mod loopback;
pub mod observe;
pub mod occupancy;
pub mod peers;
pub mod plan;
pub mod rules;
pub mod spec;
pub mod sweep;
pub mod sysctl;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::credentials::api::Backoff;
use crate::guard::manifest::{Leftover, Manifest, ManifestError};
use cni::FilterBackend;
use command::CommandError;
use loopback::LoopbackPort;
use occupancy::{Claim, Holder, Occupied};
use plan::{Changes, Impossible, Peer};
use rules::{ForeignChain, IptablesRule, NftListing};
use spec::{BadNetwork, NetworkSpec};

/// How often everything is looked at again although nothing changed: Docker sets its policy anew
/// when it starts, a firewall reloads, somebody deletes a route.
const RESYNC: Duration = Duration::from_secs(60);
/// How long changes of other nodes are gathered.
const GATHER: Duration = Duration::from_millis(100);
/// First Linux whose nftables kube-proxy takes.
const NFTABLES_KERNEL: [u32; 3] = [5, 13, 0];
/// First `nft` that kube-proxy takes.
const NFTABLES_TOOL: [u32; 3] = [1, 0, 1];

/// Why there is no pod network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Spec(#[from] BadNetwork),
    /// Somebody else's node is here.
    #[error(transparent)]
    Occupied(#[from] Occupied),
    /// The machine cannot have it.
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A kernel setting could not be made.
    #[error(transparent)]
    Sysctl(#[from] sysctl::SysctlError),
    /// The list of what to clean up could not be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There is no way to make packet filter rules.
    #[error(
        "kube-proxy needs nftables (Linux 5.13 or later and `nft` 1.0.1 or later) or `iptables`; this \
         machine has Linux {kernel}, {nft}, and no `iptables`"
    )]
    NoFilter {
        /// Linux' release.
        kernel: String,
        /// What `nft --version` said, or that there is none.
        nft: String,
    },
    /// The task that claims the namespace ended.
    #[error("claiming the network namespace: {0}")]
    Claiming(String),
}

impl NetworkError {
    /// Whether trying again later may help without anybody doing something.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Spec(_) | Self::Impossible(_) | Self::Claiming(_) | Self::NoFilter { .. } => {
                false
            }
            Self::Occupied(e) => e.retryable(),
            Self::Command(e) => e.retryable(),
            Self::Sysctl(_) | Self::Manifest(_) => true,
        }
    }
}

/// The node's network, set up.
pub struct Network {
    spec: NetworkSpec,
    backend: FilterBackend,
    mtu: u32,
    loopback: watch::Sender<Option<BTreeSet<LoopbackPort>>>,
    _claim: Claim,
}

impl Network {
    /// Claims the network namespace, removes what dead nodes left, and makes links, rules and
    /// settings. What outlives this process is noted in `cleanup` before it is made.
    pub async fn set_up(spec: NetworkSpec, cleanup: &Manifest) -> Result<Self, NetworkError> {
        let backend = choose_backend().await?;
        Self::set_up_with(spec, backend, cleanup).await
    }

    /// The same with packet filter rules of that kind.
    pub async fn set_up_with(
        spec: NetworkSpec,
        backend: FilterBackend,
        cleanup: &Manifest,
    ) -> Result<Self, NetworkError> {
        let holder = Holder {
            cluster: spec.cluster.clone(),
            node: spec.node.clone(),
            pid: std::process::id(),
        };
        let claim = tokio::task::spawn_blocking(move || Claim::acquire(&holder))
            .await
            .map_err(|e| NetworkError::Claiming(e.to_string()))??;
        sweep::refuse_foreign(backend).await?;
        sweep::dead_nodes(&spec).await?;

        let (table, links) = (&spec.names.table, [&spec.names.gateway, &spec.names.vxlan]);
        if backend == FilterBackend::Nftables {
            let ip = |table: &str| Leftover::NftTable {
                family: "ip".to_owned(),
                table: table.to_owned(),
            };
            // The node's own table comes first: while it is there, kube-proxy's are known as ours.
            cleanup.add(&ip(table))?;
            cleanup.add(&ip("kube-proxy"))?;
            cleanup.add(&Leftover::NftTable {
                family: "ip6".to_owned(),
                table: "kube-proxy".to_owned(),
            })?;
            if !sweep::has_table("ip", cni::PORTMAP_TABLE).await? {
                cleanup.add(&ip(cni::PORTMAP_TABLE))?;
            }
        }
        if backend == FilterBackend::Iptables {
            for rule in rules::kube_proxy_jumps() {
                cleanup.add(&Leftover::IptablesRule {
                    program: "iptables".to_owned(),
                    table: rule.table.to_owned(),
                    rule: rule.arguments(),
                })?;
            }
        }
        for link in links {
            cleanup.add(&Leftover::Link(link.clone()))?;
        }

        let observed = observe::observe(&spec).await?;
        let changes = plan::links(&spec, &observed)?;
        // `links` has refused a node without an underlay.
        let underlay = observed.underlay.unwrap_or_default();
        let mtu = plan::pod_mtu(&underlay)?;
        apply(&changes).await?;
        sysctl::apply(&spec.names)?;
        let network = Self {
            spec,
            backend,
            mtu,
            loopback: watch::channel(None).0,
            _claim: claim,
        };
        network.masquerade(cleanup).await?;
        if let Err(error) = network.accept(cleanup).await {
            // A firewall that cannot be spoken to need not be in the way; `maintain` goes on trying
            // and tells the operator.
            tracing::warn!(%error, "accepts in other people's rules");
        }
        Ok(network)
    }

    /// What it is.
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// What makes packet filter rules on this machine.
    pub fn backend(&self) -> FilterBackend {
        self.backend
    }

    /// MTU of pods.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Where to say which ports of loopback addresses belong to pods; [`Self::maintain`] maps them.
    /// Until the pods are known (`None`), what an earlier process mapped stays.
    pub fn loopback_ports(&self) -> watch::Sender<Option<BTreeSet<LoopbackPort>>> {
        self.loopback.clone()
    }

    /// Keeps everything as it should be until `stop`: routes to the other nodes as they come and
    /// go, rules and links when somebody removes them. `troubles` hears of each change between
    /// well (`None`) and not. Until the first list of nodes has come, existing routes stay.
    pub async fn maintain(
        &self,
        mut nodes: watch::Receiver<Option<BTreeMap<String, Peer>>>,
        cleanup: &Manifest,
        stop: &CancellationToken,
        mut troubles: impl FnMut(Option<String>),
    ) {
        let mut last: Option<String> = None;
        let mut loopback = self.loopback.subscribe();
        // Whether no port is known to be mapped.
        let mut unmapped = false;
        let mut backoff = Backoff::up_to(RESYNC);
        loop {
            let wanted = nodes.borrow_and_update().clone();
            let mut period = RESYNC.mul_f64(rand::rng().random_range(0.8..1.2));
            let ports = loopback.borrow_and_update().clone();
            let done = async {
                let mut refused = self.resync(wanted.as_ref(), cleanup).await?;
                if let Some(ports) = &ports
                    && !(ports.is_empty() && unmapped)
                {
                    refused.extend(self.map_loopback(ports).await?);
                }
                Ok::<_, NetworkError>(refused)
            };
            let trouble = match done.await {
                Ok(refused) => {
                    unmapped = ports.is_some_and(|ports| ports.is_empty());
                    backoff.reset();
                    Some(refused.join("; ")).filter(|all| !all.is_empty())
                }
                Err(error) => {
                    period = backoff.pause();
                    Some(error.to_string())
                }
            };
            if trouble != last {
                troubles(trouble.clone());
                last = trouble;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(period) => {}
                Ok(()) = loopback.changed() => {}
                changed = nodes.changed() => {
                    let wait = if changed.is_ok() { GATHER } else { period };
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Makes everything right once; gives reasons why some nodes were left out.
    async fn resync(
        &self,
        nodes: Option<&BTreeMap<String, Peer>>,
        cleanup: &Manifest,
    ) -> Result<Vec<String>, NetworkError> {
        let mut observed = observe::observe(&self.spec).await?;
        let links = plan::links(&self.spec, &observed)?;
        if !links.is_empty() {
            tracing::warn!(changes = ?links.ip, "links of the pod network had changed");
            apply(&links).await?;
            sysctl::apply(&self.spec.names)?;
            observed = observe::observe(&self.spec).await?;
        }
        let mut refused = Vec::new();
        if let Some(nodes) = nodes {
            let usable;
            (usable, refused) = plan::usable_peers(&self.spec, nodes);
            apply(&plan::peers(&self.spec, &observed, &usable)).await?;
        }
        self.masquerade(cleanup).await?;
        self.accept(cleanup).await?;
        Ok(refused)
    }

    /// Ports of loopback addresses; gives the reason why there are none.
    async fn map_loopback(
        &self,
        ports: &BTreeSet<LoopbackPort>,
    ) -> Result<Option<String>, NetworkError> {
        match self.backend {
            FilterBackend::Nftables => {
                let script = loopback::script(&self.spec.names, ports);
                command::run("nft", &["-f", "-"], Some(&script)).await?;
                Ok(None)
            }
            FilterBackend::Iptables => Ok((!ports.is_empty()).then(|| {
                "host ports on loopback addresses need nftables: Linux 5.13 and `nft` 1.0.1, or later"
                    .to_owned()
            })),
        }
    }

    /// Source NAT.
    async fn masquerade(&self, cleanup: &Manifest) -> Result<(), NetworkError> {
        match self.backend {
            FilterBackend::Nftables => {
                if !sweep::has_table("ip", &self.spec.names.table).await? {
                    let script = rules::table(&self.spec);
                    command::run("nft", &["-f", "-"], Some(&script)).await?;
                }
            }
            FilterBackend::Iptables => {
                for rule in rules::iptables_masquerade(&self.spec) {
                    ensure_iptables("iptables", &rule, cleanup).await?;
                }
            }
        }
        Ok(())
    }

    /// Accepts where somebody else drops.
    async fn accept(&self, cleanup: &Manifest) -> Result<(), NetworkError> {
        let mut programs = Vec::new();
        match self.backend {
            FilterBackend::Nftables => {
                let chains: NftListing = command::json("nft", &["-j", "list", "chains"]).await?;
                for chain in chains.dropping_chains() {
                    self.accept_in(&chain, cleanup).await?;
                }
            }
            FilterBackend::Iptables => programs.push("iptables"),
        }
        // Docker may still speak to the older half of the kernel.
        if legacy_table("filter") && command::exists("iptables-legacy") {
            programs.push("iptables-legacy");
        }
        for program in programs {
            for rule in rules::iptables_accepts(&self.spec) {
                ensure_iptables(program, &rule, cleanup).await?;
            }
        }
        Ok(())
    }

    async fn accept_in(
        &self,
        chain: &ForeignChain,
        cleanup: &Manifest,
    ) -> Result<(), NetworkError> {
        let (family, table, name) = (&chain.family, &chain.table, &chain.chain);
        let args = ["-j", "list", "chain", family, table, name];
        let listing: NftListing = command::json("nft", &args).await?;
        if listing.with_comment(&self.spec.names.table).len() < 2 {
            cleanup.add(&Leftover::NftRules {
                family: family.clone(),
                table: table.clone(),
                chain: name.clone(),
                comment: self.spec.names.table.clone(),
            })?;
            let script = rules::nft_accepts(&self.spec, chain);
            command::run("nft", &["-f", "-"], Some(&script)).await?;
        }
        Ok(())
    }
}

/// Puts a rule in front of its chain unless it is there.
async fn ensure_iptables(
    program: &str,
    rule: &IptablesRule,
    cleanup: &Manifest,
) -> Result<(), NetworkError> {
    let words = rule.arguments();
    let with = |verb: &'static str| {
        let mut args = vec!["-w", "5", "-t", rule.table, verb];
        args.extend(words.iter().map(String::as_str));
        args
    };
    match command::run(program, &with("-C"), None).await {
        Ok(_) => return Ok(()),
        Err(CommandError::Failed { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    cleanup.add(&Leftover::IptablesRule {
        program: program.to_owned(),
        table: rule.table.to_owned(),
        rule: words.clone(),
    })?;
    command::run(program, &with("-I"), None).await?;
    Ok(())
}

/// Carries a plan out.
async fn apply(changes: &Changes) -> Result<(), CommandError> {
    if !changes.ip.is_empty() || !changes.bridge.is_empty() {
        tracing::debug!(ip = ?changes.ip, bridge = ?changes.bridge, "network changes");
    }
    for (program, lines) in [("bridge", &changes.bridge), ("ip", &changes.ip)] {
        if !lines.is_empty() {
            let script = lines.join("\n") + "\n";
            command::run(program, &["-batch", "-"], Some(&script)).await?;
        }
    }
    Ok(())
}

/// Whether the older iptables has that table in this namespace.
fn legacy_table(table: &str) -> bool {
    std::fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|n| n == table))
}

fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// What can make packet filter rules here, nftables if there is a choice.
async fn choose_backend() -> Result<FilterBackend, NetworkError> {
    let kernel = kernel_release();
    let nft = if command::exists("nft") {
        let out = command::run("nft", &["--version"], None).await?;
        String::from_utf8_lossy(&out).trim().to_owned()
    } else {
        "no `nft`".to_owned()
    };
    if numbers(&kernel) >= NFTABLES_KERNEL && numbers(&nft) >= NFTABLES_TOOL {
        Ok(FilterBackend::Nftables)
    } else if command::exists("iptables") {
        Ok(FilterBackend::Iptables)
    } else {
        Err(NetworkError::NoFilter { kernel, nft })
    }
}

/// The first three numbers of a version, missing ones as 0.
fn numbers(text: &str) -> [u32; 3] {
    let mut all = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().unwrap_or(0));
    std::array::from_fn(|_| all.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_out_of_what_programs_say() {
        assert_eq!(numbers("6.18.44-fc-v445"), [6, 18, 44]);
        assert_eq!(numbers("5.4.0-150-generic"), [5, 4, 0]);
        assert_eq!(numbers("nftables v1.0.6 (Lester Gooch #5)"), [1, 0, 6]);
        assert!(numbers("nftables v0.9.3 (Topsy)") < NFTABLES_TOOL);
        assert!(numbers("5.13.0-generic") >= NFTABLES_KERNEL);
        assert!(numbers("no `nft`") < NFTABLES_TOOL);
    }
}
