//! Options of the Kubernetes cluster, its nodes and its pods.

use crate::options::format::Format;
use crate::options::group::group;

group! {
    /// The Kubernetes cluster.
    Kubernetes {
        /// Range of services' addresses.
        service_cidr: String = "10.96.0.0/16".to_owned(), [format(Format::Cidr), fixed()];
        /// Range of pods' addresses; each node gets a /24 of it.
        pod_cidr: String = "10.244.0.0/16".to_owned(), [format(Format::Cidr), fixed()];
        /// Ports of services of type NodePort. Kubernetes' own default overlaps the ports that
        /// Mesos agents offer by default (31000-32000).
        node_port_range: String = "30000-30999".to_owned(), [format(Format::PortRange)];
        /// Network identifier of the pod network (VXLAN); clusters that share a network need
        /// different ones. 0: made of `service.name`.
        vxlan_id: u32 = 0, [range(0, 16_777_215), advanced(), fixed()];
        /// UDP port of the pod network.
        vxlan_port: u16 = 8472, [port(), advanced(), fixed()];
        /// Feature gates of all programs of Kubernetes, `Name=true`.
        feature_gates: Vec<String> = Vec::new(), [format(Format::Pair), advanced()];
    } + {
        /// The cluster's DNS.
        dns: Dns,
    }
}

group! {
    /// The cluster's DNS.
    Dns {
        /// Whether the cluster has one.
        enabled: bool = true, [];
        /// Domain of the cluster.
        domain: String = "cluster.local".to_owned(), [format(Format::Domain), longest(253), fixed()];
        /// Address of the DNS service; empty: the tenth of `kubernetes.service_cidr`.
        service_ip: String = String::new(), [optional(), format(Format::Address), fixed()];
        /// Name servers for names outside the cluster, `192.0.2.53` or `192.0.2.53:5353`; empty:
        /// those of the node.
        nameservers: Vec<String> = Vec::new(), [format(Format::AddressPort), longest(15)];
    }
}

group! {
    /// Nodes: one per Mesos agent that runs pods.
    Nodes {
        /// Nodes that are kept even without pods.
        min: u32 = 0, [range(0, 5000)];
        /// A node without pods is given back to Mesos after this.
        idle_timeout: u32 = 600, [range(10, 31_536_000), unit("seconds")];
        /// A node must be ready after this; else its start is given up and tried again.
        start_timeout: u32 = 600, [range(30, 86_400), unit("seconds"), advanced()];
        /// CPUs of a node's own processes.
        cpus: f64 = 0.3, [fractions(0.05, 64.0), unit("CPUs")];
        /// Memory of a node's own processes.
        mem: u32 = 512, [range(256, 1_048_576), unit("MiB")];
        /// Disk for a node's images, logs and directories.
        disk: u32 = 2048, [range(256, 16_777_216), unit("MiB")];
        /// Most pods on one node.
        max_pods: u32 = 110, [range(1, 250)];
        /// How long a node gets to stop its pods when it is given up.
        stop_timeout: u32 = 90, [range(10, 3600), unit("seconds"), advanced()];
        /// Verbosity of kubelet and kube-proxy.
        verbosity: u32 = 0, [range(0, 10), advanced()];
        /// Directory on the agents for the nodes' data; empty: `/var/lib/k8sm`.
        data_dir: String = String::new(), [optional(), format(Format::Path), advanced()];
        /// Directory on the agents for the nodes' sockets; empty: `/run/k8sm`.
        run_dir: String = String::new(), [optional(), format(Format::Path), longest(48), advanced()];
        /// Further arguments of every kubelet.
        kubelet_args: Vec<String> = Vec::new(), [format(Format::Flag), advanced()];
        /// Further arguments of every kube-proxy.
        kube_proxy_args: Vec<String> = Vec::new(), [format(Format::Flag), advanced()];
    }
}

group! {
    /// What pods are given that say nothing themselves.
    Pods {
        /// CPUs of a pod that requests none.
        default_cpus: f64 = 0.01, [fractions(0.001, 64.0), unit("CPUs")];
        /// Memory of a pod that requests none.
        default_mem: u32 = 32, [range(4, 1_048_576), unit("MiB")];
        /// Memory added to each pod's task for what runs beside its containers.
        overhead_mem: u32 = 6, [range(0, 1024), unit("MiB"), advanced()];
        /// Whether a pod without limits may use more than it requests, as elsewhere in Kubernetes.
        overcommit: bool = true, [];
    }
}
