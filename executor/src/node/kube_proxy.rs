//! Renders kube-proxy's configuration and command line. Pure.

use std::path::Path;

use seam::node::NodeConfig;
use serde_json::json;

use crate::network::cni::FilterBackend;

/// kube-proxy's configuration file (JSON, which is YAML too).
///
/// The machine belongs to other frameworks too, so connection tracking's limits stay what they
/// are, node ports answer on the node's own address only, and loopback is left alone.
pub fn render(
    node: &NodeConfig,
    kubeconfig: &Path,
    backend: FilterBackend,
    oom_score_adj: i32,
) -> String {
    let (mode, local) = match backend {
        FilterBackend::Nftables => ("nftables", json!(null)),
        FilterBackend::Iptables => ("iptables", json!({ "localhostNodePorts": false })),
    };
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": node.node_name,
        "clientConnection": { "kubeconfig": kubeconfig },
        "bindAddress": node.node_ip,
        "healthzBindAddress": format!("{}:{}", node.node_ip, node.ports.proxy_health),
        "metricsBindAddress": format!("127.0.0.1:{}", node.ports.proxy_metrics),
        "bindAddressHardFail": true,
        "clusterCIDR": node.cluster.pod_cidr,
        "detectLocalMode": "ClusterCIDR",
        "nodePortAddresses": ["primary"],
        "oomScoreAdj": oom_score_adj,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
            "udpTimeout": "0s",
            "udpStreamTimeout": "0s",
        },
    });
    if !local.is_null() {
        config["iptables"] = local;
    }
    format!("{config:#}\n")
}

/// kube-proxy's arguments. None of them is secret.
pub fn arguments(node: &NodeConfig, config_file: &Path) -> Vec<String> {
    let mut args = vec![format!("--config={}", config_file.display())];
    if let Some(v) = node.options.verbosity {
        args.push(format!("--v={v}"));
    }
    args.extend(node.options.kube_proxy_args.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use seam::testing::node_config;

    #[test]
    fn kube_proxy_leaves_the_machines_own_settings_alone() {
        let file = Path::new("/n/config/kube-proxy.kubeconfig");
        insta::assert_snapshot!(render(&node_config(), file, FilterBackend::Nftables, 0));
    }

    #[test]
    fn on_an_old_kernel_kube_proxy_uses_iptables_without_node_ports_on_loopback() {
        let text = render(&node_config(), Path::new("/k"), FilterBackend::Iptables, 0);
        assert!(text.contains(r#""mode": "iptables""#), "{text}");
        assert!(text.contains(r#""localhostNodePorts": false"#), "{text}");
    }
}
