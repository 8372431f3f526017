//! Renders kubelet's configuration and command line. Pure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use seam::node::NodeConfig;
use serde_json::{Map, Value, json};

use super::capacity::Reserved;
use crate::cgroup::CgroupVersion;

/// kubelet's root as kubelet and everything else on the node sees it: CSI charts hard-code it,
/// and `device-plugins` below it ignores `--root-dir`. The executor binds the node's own
/// directory there, inside its mount namespace.
pub const ROOT: &str = "/var/lib/kubelet";
/// Logs of the pods' containers, bound like [`ROOT`] because log collectors read them there.
pub const POD_LOGS: &str = "/var/log/pods";

/// Upstream's own default of `maxOpenFiles`.
pub const UPSTREAM_OPEN_FILES: u64 = 1_000_000;

/// What kubelet's configuration depends on beside the node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletEnvironment {
    /// The machine's kind of cgroups.
    pub cgroup_version: CgroupVersion,
    /// The pods' cgroup.
    pub cgroup_root: String,
    /// containerd's socket.
    pub containerd_socket: PathBuf,
    /// The cluster's CA certificates.
    pub ca_file: PathBuf,
    /// The pods' resolver file.
    pub resolv_conf: PathBuf,
    /// See [`Reserved`].
    pub reserved: Reserved,
    /// kubelet's `oom_score_adj`.
    pub oom_score_adj: i32,
    /// How many files kubelet may open.
    pub max_open_files: u64,
}

/// kubelet's configuration file (JSON, which is YAML too).
pub fn render(node: &NodeConfig, environment: &KubeletEnvironment) -> String {
    let KubeletEnvironment {
        cgroup_version,
        cgroup_root,
        containerd_socket,
        ca_file,
        resolv_conf,
        reserved,
        oom_score_adj,
        max_open_files,
    } = environment;
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.node_ip,
        "port": node.ports.kubelet,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": ca_file },
        },
        "authorization": { "mode": "Webhook" },
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
        "containerRuntimeEndpoint": format!("unix://{}", containerd_socket.display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_root,
        "oomScoreAdj": oom_score_adj,
        "maxOpenFiles": max_open_files,
        "clusterDNS": [node.cluster.dns_ip],
        "clusterDomain": node.cluster.dns_domain,
        "resolvConf": resolv_conf,
        "maxPods": node.allocatable.pods,
        "systemReserved": {
            "cpu": format!("{}m", reserved.cpu_millis),
            "memory": reserved.memory_bytes.to_string(),
            "ephemeral-storage": reserved.disk_bytes.to_string(),
        },
        "evictionHard": eviction(reserved),
        // The disk is shared with other frameworks' tasks, which fill and free it: kubelet's five
        // minutes keep a node closed long after there is room again.
        "evictionPressureTransitionPeriod": "1m0s",
        // Percentages of the whole disk say nothing about a node that has a share of it: off.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "imageMaximumGCAge": "72h0m0s",
        "failSwapOn": false,
        "serializeImagePulls": false,
        "podLogsDir": POD_LOGS,
        "volumePluginDir": format!("{ROOT}/volume-plugins"),
        "hairpinMode": "none",
        // The machine's own tables are not ours to fill.
        "makeIPTablesUtilChains": false,
        // Mesos ends nodes, not systemd.
        "shutdownGracePeriod": "0s",
        "shutdownGracePeriodCriticalPods": "0s",
    });
    if *cgroup_version == CgroupVersion::V1 {
        config["failCgroupV1"] = json!(false);
    }
    format!("{config:#}\n")
}

/// Memory pressure is judged by the machine's root cgroup, which is all frameworks' together;
/// here the pods' cgroups have limits instead. Naming one signal turns the others off.
fn eviction(reserved: &Reserved) -> Value {
    let mut signals = Map::new();
    signals.insert("memory.available".to_owned(), json!("0%"));
    if reserved.disk_threshold > 0 {
        signals.insert(
            "nodefs.available".to_owned(),
            json!(reserved.disk_threshold.to_string()),
        );
    }
    Value::Object(signals)
}

/// kubelet's arguments. None of them is secret.
pub fn arguments(
    node: &NodeConfig,
    config_file: &Path,
    kubeconfig: &Path,
    bootstrap_kubeconfig: &Path,
    certificates: &Path,
) -> Vec<String> {
    let node_ip: IpAddr = node.node_ip;
    let mut args = vec![
        format!("--config={}", config_file.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--bootstrap-kubeconfig={}", bootstrap_kubeconfig.display()),
        format!("--cert-dir={}", certificates.display()),
        format!("--root-dir={ROOT}"),
        format!("--hostname-override={}", node.node_name),
        format!("--node-ip={node_ip}"),
    ];
    if let Some(v) = node.options.verbosity {
        args.push(format!("--v={v}"));
    }
    args.extend(node.options.kubelet_args.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use seam::testing::node_config;

    fn environment(cgroup_version: CgroupVersion) -> KubeletEnvironment {
        KubeletEnvironment {
            cgroup_version,
            cgroup_root: "/mesos/c1/k8s".to_owned(),
            containerd_socket: "/run/k8sm/0badcafe/containerd.sock".into(),
            ca_file: "/n/pki/ca.crt".into(),
            resolv_conf: "/n/config/resolv.conf".into(),
            reserved: Reserved {
                cpu_millis: 500,
                memory_bytes: 4 << 30,
                disk_bytes: 99 << 30,
                disk_threshold: 1 << 30,
            },
            oom_score_adj: -999,
            max_open_files: UPSTREAM_OPEN_FILES,
        }
    }

    #[test]
    fn kubelet_on_cgroup_v1_shows_what_mesos_granted() {
        insta::assert_snapshot!(render(&node_config(), &environment(CgroupVersion::V1)));
    }

    #[test]
    fn kubelet_is_told_of_cgroup_v1_only_where_there_is_one() {
        let v2 = render(&node_config(), &environment(CgroupVersion::V2));
        assert!(!v2.contains("failCgroupV1"), "{v2}");
    }

    #[test]
    fn kubelets_arguments_hold_no_secret() {
        let mut node = node_config();
        node.options.verbosity = Some(4);
        node.options.kubelet_args = vec!["--allowed-unsafe-sysctls=net.*".to_owned()];
        let config = Path::new("/n/config");
        let args = arguments(
            &node,
            &config.join("kubelet.json"),
            &config.join("kubelet.kubeconfig"),
            &config.join("bootstrap.kubeconfig"),
            Path::new("/n/pki"),
        );
        assert!(args.iter().all(|a| !a.contains(&node.bootstrap_token)));
        insta::assert_snapshot!(args.join("\n"));
    }
}
