//! Directories, mounts and rendered files of a node. Nothing runs yet; doing it again changes
//! nothing that is right.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::resource::{Resource, getrlimit};

use super::mounts::{self, Bind};
use super::{NodeError, kube_proxy};
use crate::containerd::config::{ContainerdConfig, registry_hosts};
use crate::containerd::images::PayloadImages;
use crate::containerd::outside;
use crate::credentials::store::{self, Validity};
use crate::kubelet::capacity::Capacity;
use crate::kubelet::config::{self as kubelet_config, KubeletEnvironment};
use crate::kubelet::kubeconfig::{self, Identity};
use crate::kubelet::resolv;
use crate::network::cni::{self, FilterBackend};
use crate::network::spec::NetworkSpec;
use crate::report::NodeContext;

/// Where the node's files are.
#[derive(Debug, Clone)]
pub struct Files {
    /// containerd's configuration.
    pub containerd: PathBuf,
    /// Directory of the CNI configuration.
    pub cni: PathBuf,
    /// kubelet's configuration.
    pub kubelet: PathBuf,
    /// kubelet's kubeconfig; kubelet makes it while it has no certificate.
    pub kubelet_kubeconfig: PathBuf,
    /// kubelet's first kubeconfig, with the token.
    pub bootstrap_kubeconfig: PathBuf,
    /// kubelet's certificate and key.
    pub kubelet_certificate: PathBuf,
    /// kube-proxy's configuration.
    pub kube_proxy: PathBuf,
    /// kube-proxy's kubeconfig.
    pub kube_proxy_kubeconfig: PathBuf,
    /// kube-proxy's certificate and key.
    pub kube_proxy_certificate: PathBuf,
    /// The cluster's CA certificates.
    pub ca: PathBuf,
    /// The list of API servers that the balancer keeps.
    pub api_servers: PathBuf,
    /// `host-local`'s reservations.
    pub ipam: PathBuf,
}

impl Files {
    /// In the node's directories.
    pub fn new(context: &NodeContext) -> Self {
        let (config, pki) = (context.paths.config(), context.paths.pki());
        Self {
            containerd: config.join("containerd.toml"),
            cni: config.join("cni"),
            kubelet: config.join("kubelet.json"),
            kubelet_kubeconfig: pki.join("kubelet.kubeconfig"),
            bootstrap_kubeconfig: pki.join("bootstrap.kubeconfig"),
            kubelet_certificate: pki.join("kubelet-client-current.pem"),
            kube_proxy: config.join("kube-proxy.json"),
            kube_proxy_kubeconfig: pki.join("kube-proxy.kubeconfig"),
            kube_proxy_certificate: pki.join(crate::credentials::proxy::FILE_NAME),
            ca: pki.join("ca.crt"),
            api_servers: config.join("api-servers.json"),
            ipam: context.paths.cni_state().join("networks"),
        }
    }
}

/// What is known once everything is in place.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Where the files are.
    pub files: Files,
    /// The pod network that is wanted.
    pub network: NetworkSpec,
    /// What the payload brings.
    pub images: PayloadImages,
    /// kube-proxy's and kubelet's.
    pub oom_score_adj: i32,
    /// Something that people should know.
    pub warnings: Vec<String>,
}

/// Checks the configuration, makes the directories, mounts what must be at fixed paths, and writes
/// all files that do not depend on the network.
pub fn prepare(context: &NodeContext) -> Result<Prepared, NodeError> {
    let node = &context.config;
    let paths = &context.paths;
    let network = NetworkSpec::new(node, &paths.hash).map_err(|e| NodeError::of("network", e))?;
    let of_node = |e: &dyn std::fmt::Display| NodeError::of("node", e);
    let images = PayloadImages::read(&context.payload.0).map_err(|e| of_node(&e))?;
    let files = Files::new(context);

    for dir in [paths.config(), paths.pki()] {
        store::private_dir(&dir).map_err(|e| of_node(&e))?;
    }
    let container_runtime = paths.run.join("containerd-compat");
    let binds = [
        (paths.kubelet_root(), kubelet_config::ROOT),
        (paths.pod_logs(), kubelet_config::POD_LOGS),
        (paths.root.join("container-logs"), "/var/log/containers"),
        (paths.cni_state(), "/var/lib/cni"),
        (container_runtime.clone(), "/run/containerd"),
    ];
    let more = [
        paths.containerd_root(),
        paths.containerd_state(),
        paths.logs(),
        files.cni.clone(),
        files.ipam.clone(),
    ];
    for dir in &more {
        fs::create_dir_all(dir).map_err(|e| of_node(&format!("making {}: {e}", dir.display())))?;
    }
    let binds: Vec<Bind> = binds
        .into_iter()
        .map(|(source, target)| Bind {
            source,
            target: target.into(),
        })
        .collect();
    mounts::bind(&binds).map_err(|e| of_node(&e))?;
    // Charts that talk to the runtime expect its socket at the usual place.
    let socket = container_runtime.join("containerd.sock");
    let _ = fs::remove_file(&socket);
    std::os::unix::fs::symlink(paths.containerd_socket(), &socket)
        .map_err(|e| of_node(&format!("linking {}: {e}", socket.display())))?;

    point_to(&paths.programs(), &context.payload.0)
        .map_err(|e| of_node(&format!("linking {}: {e}", paths.programs().display())))?;

    let mut warnings = Vec::new();
    write_containerd(context, &files, &images)?;
    let oom_score_adj = if has_sys_resource() { -999 } else { 0 };
    write_kubelet(context, &files, oom_score_adj, &mut warnings)?;
    write_identities(context, &files)?;
    if node.allocatable.gpus > 0 {
        warnings.push(format!(
            "{} GPUs were granted, but this version has no device plugin for them",
            node.allocatable.gpus
        ));
    }
    Ok(Prepared {
        files,
        network,
        images,
        oom_score_adj,
        warnings,
    })
}

/// Makes a symbolic link, or lets it point elsewhere, at one instant.
fn point_to(link: &Path, target: &Path) -> std::io::Result<()> {
    if fs::read_link(link).is_ok_and(|now| now == target) {
        return Ok(());
    }
    let new = link.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &new)?;
    fs::rename(&new, link)
}

fn write_containerd(
    context: &NodeContext,
    files: &Files,
    images: &PayloadImages,
) -> Result<(), NodeError> {
    let of = |e: &dyn std::fmt::Display| NodeError::of("containerd", e);
    let paths = &context.paths;
    let registries = paths.config().join("certs.d");
    let hosts = registry_hosts(&context.config.options.registry_mirrors).map_err(|e| of(&e))?;
    // Mirrors that were taken away must go.
    for entry in fs::read_dir(&registries).into_iter().flatten().flatten() {
        if !hosts
            .iter()
            .any(|(host, _)| entry.file_name() == host.as_str())
        {
            let dir = entry.path();
            fs::remove_dir_all(&dir)
                .map_err(|e| of(&format!("removing {}: {e}", dir.display())))?;
        }
    }
    for (host, text) in hosts {
        let dir = registries.join(host);
        fs::create_dir_all(&dir).map_err(|e| of(&format!("making {}: {e}", dir.display())))?;
        store::write_public(&dir.join("hosts.toml"), text.as_bytes()).map_err(|e| of(&e))?;
    }
    write_authorities(&paths.registry_cas(), &context.config.options.registry_cas)
        .map_err(|e| of(&e))?;
    let config = ContainerdConfig {
        root: paths.containerd_root(),
        state: paths.containerd_state(),
        socket: paths.containerd_socket(),
        shim_cgroup: context.cgroups.shims.clone(),
        cni_bin: context.payload.0.join("cni"),
        cni_conf: files.cni.clone(),
        registries,
        sandbox_image: images.sandbox().to_owned(),
        restrict_oom_score_adj: !has_sys_resource(),
    };
    store::write_public(&files.containerd, config.render().as_bytes()).map_err(|e| of(&e))
}

/// Writes the authorities of registries; those that were taken away go.
fn write_authorities(dir: &Path, cas: &[String]) -> Result<(), String> {
    let said = |e: &dyn std::fmt::Display| format!("registries' authorities: {e}");
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(said(&e)),
        _ => {}
    }
    if cas.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|e| said(&e))?;
    for (name, pem) in outside::authorities(cas) {
        store::write_public(&dir.join(name), pem.as_bytes()).map_err(|e| said(&e))?;
    }
    Ok(())
}

fn write_kubelet(
    context: &NodeContext,
    files: &Files,
    oom_score_adj: i32,
    warnings: &mut Vec<String>,
) -> Result<(), NodeError> {
    let of = |e: &dyn std::fmt::Display| NodeError::of("kubelet", e);
    let node = &context.config;
    let paths = &context.paths;
    let capacity = Capacity::read(&paths.kubelet_root()).map_err(|e| of(&e))?;
    let reserved = capacity.reserve(&node.allocatable).map_err(|e| of(&e))?;

    let sources: Vec<String> = resolv::SOURCES
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let resolver = resolv::for_pods(sources.iter().map(String::as_str));
    if !resolver.usable {
        warnings.push(
            "the machine's resolver has no name server beyond loopback: pods resolve names of the \
             cluster only"
                .to_owned(),
        );
    }
    let resolv_conf = paths.config().join("resolv.conf");
    store::write_public(&resolv_conf, resolver.text.as_bytes()).map_err(|e| of(&e))?;

    let environment = KubeletEnvironment {
        cgroup_version: context.cgroups.version,
        cgroup_root: context.cgroups.pods.clone(),
        containerd_socket: paths.containerd_socket(),
        ca_file: files.ca.clone(),
        resolv_conf,
        reserved,
        oom_score_adj,
        max_open_files: max_open_files(),
    };
    let text = kubelet_config::render(node, &environment);
    store::write_public(&files.kubelet, text.as_bytes()).map_err(|e| of(&e))
}

/// CA and kubeconfigs. What another cluster of the same name left is forgotten first.
fn write_identities(context: &NodeContext, files: &Files) -> Result<(), NodeError> {
    let of = |e: &dyn std::fmt::Display| NodeError::of("credentials", e);
    let node = &context.config;
    let port = node.ports.balancer;
    store::forget_foreign(&context.paths.pki(), &node.node_name, &node.cluster.ca)
        .map_err(|e| of(&e))?;
    store::write_public(&files.ca, node.cluster.ca.as_bytes()).map_err(|e| of(&e))?;

    let token = kubeconfig::render(port, &files.ca, &Identity::Token(&node.bootstrap_token));
    store::write_secret(&files.bootstrap_kubeconfig, token.as_bytes()).map_err(|e| of(&e))?;
    // With a certificate that still holds kubelet needs no token; the balancer's port may have
    // moved since it wrote its kubeconfig. Without one it must not find a kubeconfig at all.
    let current = Validity::of_file(&files.kubelet_certificate)
        .is_some_and(|v| v.is_current(SystemTime::now()));
    if current {
        let identity = Identity::CertificateFile(&files.kubelet_certificate);
        let text = kubeconfig::render(port, &files.ca, &identity);
        store::write_secret(&files.kubelet_kubeconfig, text.as_bytes()).map_err(|e| of(&e))?;
    } else {
        for stale in [&files.kubelet_kubeconfig, &files.kubelet_certificate] {
            match fs::remove_file(stale) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(of(&format!("removing {}: {e}", stale.display())));
                }
                _ => {}
            }
        }
    }
    let identity = Identity::CertificateFile(&files.kube_proxy_certificate);
    let text = kubeconfig::render(port, &files.ca, &identity);
    store::write_secret(&files.kube_proxy_kubeconfig, text.as_bytes()).map_err(|e| of(&e))
}

/// Files that depend on what the network turned out to be.
pub fn write_network(
    context: &NodeContext,
    prepared: &Prepared,
    mtu: u32,
    backend: FilterBackend,
) -> Result<(), NodeError> {
    let Files {
        cni: dir,
        kube_proxy: proxy_file,
        kube_proxy_kubeconfig,
        ipam,
        ..
    } = &prepared.files;
    let spec = &prepared.network;
    let proxy = kube_proxy::render(
        &context.config,
        kube_proxy_kubeconfig,
        backend,
        prepared.oom_score_adj,
    );
    store::write_public(proxy_file, proxy.as_bytes())
        .map_err(|e| NodeError::of("kube-proxy", e))?;
    let conflist = cni::render(&spec.names, spec.pods, mtu, ipam, backend);
    store::write_public(&dir.join(cni::FILE_NAME), conflist.as_bytes())
        .map_err(|e| NodeError::of("network", e))
}

/// Upstream's default, or what the executor may have where it cannot raise its limit.
fn max_open_files() -> u64 {
    if has_sys_resource() {
        return kubelet_config::UPSTREAM_OPEN_FILES;
    }
    getrlimit(Resource::RLIMIT_NOFILE).map_or(kubelet_config::UPSTREAM_OPEN_FILES, |(_, hard)| {
        hard.min(kubelet_config::UPSTREAM_OPEN_FILES)
    })
}

/// Whether the executor may lower a process' `oom_score_adj`.
fn has_sys_resource() -> bool {
    /// Number of CAP_SYS_RESOURCE in capability sets.
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let set = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
            u64::from_str_radix(set.trim(), 16).ok()
        })
        .is_some_and(|set| set & CAP_SYS_RESOURCE != 0)
}
