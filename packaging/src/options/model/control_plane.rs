//! Options of the control plane's programs.

use crate::options::format::Format;
use crate::options::group::group;

group! {
    /// etcd, the store of the Kubernetes API.
    Etcd {
        /// Members, each on an agent of its own. Three live through the loss of one, five of two.
        count: u32 = 3, [one_of(&[1, 3, 5]), fixed()];
        /// CPUs of a member.
        cpus: f64 = 0.5, [fractions(0.1, 64.0), unit("CPUs")];
        /// Memory of a member.
        mem: u32 = 1024, [range(128, 1_048_576), unit("MiB")];
        /// Disk of a member: its volume, or what its sandbox may use.
        disk: u32 = 3072, [range(256, 1_048_576), unit("MiB")];
        /// Where members keep their data. `persistent`: a reserved Mesos volume; `host_path`: a
        /// directory of the agent; `external`: there is an etcd already; `auto`: `persistent` where
        /// Marathon has a role and a principal, else `host_path`.
        storage: String = "auto".to_owned(),
            [one_of(&["auto", "persistent", "host_path", "external"]), fixed()];
        /// Kind of the disk for `persistent`: the agent's own, or one mounted for it alone.
        disk_type: String = "root".to_owned(), [one_of(&["root", "mount"]), advanced(), fixed()];
        /// Directory on the agents for `host_path`; members have directories of their own below it.
        host_path: String = "/var/lib/k8sm-etcd".to_owned(), [format(Format::Path), fixed()];
        /// Port for clients.
        client_port: u16 = 2379, [port(), fixed()];
        /// Port for members.
        peer_port: u16 = 2380, [port(), fixed()];
        /// Port for health and metrics, on loopback.
        metrics_port: u16 = 2381, [port(), advanced()];
        /// Host names of the agents that members run on, as many as `etcd.count`; empty: chosen at
        /// the installation.
        agents: Vec<String> = Vec::new(), [format(Format::Domain), longest(5), fixed()];
        /// Addresses of an etcd that exists, `https://host:2379`, for `external`.
        external_endpoints: Vec<String> = Vec::new(), [format(Format::HttpsUrl), longest(9)];
        /// Largest size of the store; etcd refuses writes beyond it. 0: two thirds of `etcd.disk`,
        /// at most 8192, the largest that etcd suggests.
        quota: u32 = 0, [range(0, 8192), unit("MiB"), advanced()];
        /// Further arguments of etcd.
        extra_args: Vec<String> = Vec::new(), [format(Format::Flag), advanced()];
    }
}

group! {
    /// The API servers, each with its konnectivity server.
    ApiServer {
        /// How many, each on an agent of its own. With two the API goes on during an upgrade.
        instances: u32 = 2, [range(1, 3)];
        /// CPUs of one.
        cpus: f64 = 1.0, [fractions(0.1, 64.0), unit("CPUs")];
        /// Memory of one.
        mem: u32 = 1024, [range(512, 1_048_576), unit("MiB")];
        /// Disk of one's sandbox: logs.
        disk: u32 = 512, [range(64, 1_048_576), unit("MiB")];
        /// Its port.
        port: u16 = 6444, [port()];
        /// Port of konnectivity for its agents.
        konnectivity_port: u16 = 8132, [port()];
        /// Port of konnectivity's metrics, on loopback.
        konnectivity_admin_port: u16 = 8133, [port(), advanced()];
        /// Port of konnectivity's health, on loopback.
        konnectivity_health_port: u16 = 8134, [port(), advanced()];
        /// Marathon constraints besides one instance per agent.
        constraints: Vec<Vec<String>> = Vec::new(), [longest(16)];
        /// Names and addresses, besides its own, under which clients reach the API; they go into
        /// its certificate.
        names: Vec<String> = Vec::new(), [format(Format::Domain)];
        /// How long it goes on serving after it was asked to stop, so that clients and front doors
        /// notice.
        shutdown_delay: u32 = 10, [range(0, 120), unit("seconds"), advanced()];
        /// Admission plugins besides the default ones.
        admission_plugins: Vec<String> = Vec::new(), [advanced()];
        /// Further arguments of kube-apiserver.
        extra_args: Vec<String> = Vec::new(), [format(Format::Flag), advanced()];
        /// Further arguments of konnectivity's server.
        konnectivity_extra_args: Vec<String> = Vec::new(), [format(Format::Flag), advanced()];
    }
}

group! {
    /// The controller manager.
    ControllerManager {
        /// How many, each on an agent of its own; one works, the others wait.
        instances: u32 = 1, [range(1, 3)];
        /// CPUs of one.
        cpus: f64 = 0.5, [fractions(0.1, 64.0), unit("CPUs")];
        /// Memory of one.
        mem: u32 = 512, [range(128, 1_048_576), unit("MiB")];
        /// Disk of one's sandbox: logs.
        disk: u32 = 256, [range(64, 1_048_576), unit("MiB")];
        /// Its port for health and metrics, on loopback.
        port: u16 = 10257, [port()];
        /// Marathon constraints besides one instance per agent.
        constraints: Vec<Vec<String>> = Vec::new(), [longest(16)];
        /// Further arguments of kube-controller-manager.
        extra_args: Vec<String> = Vec::new(), [format(Format::Flag), advanced()];
    }
}

group! {
    /// The front door: one address for all API servers.
    Proxy {
        /// Whether there is one.
        enabled: bool = true, [];
        /// How many, each on an agent of its own.
        instances: u32 = 1, [range(1, 9)];
        /// CPUs of one.
        cpus: f64 = 0.25, [fractions(0.1, 64.0), unit("CPUs")];
        /// Memory of one.
        mem: u32 = 128, [range(32, 1_048_576), unit("MiB")];
        /// Disk of one's sandbox: logs.
        disk: u32 = 128, [range(32, 1_048_576), unit("MiB")];
        /// Whether it runs on public agents (those of the role `slave_public`).
        public: bool = false, [];
        /// Its port; TLS passes through to the API servers.
        port: u16 = 6443, [port()];
        /// Port of its HTTP side for DC/OS' admin router, which lets bearer tokens pass only.
        http_port: u16 = 6480, [port()];
        /// Port of its health and metrics.
        metrics_port: u16 = 6481, [port(), advanced()];
        /// Port on loopback for the API of 2014 (`v1beta1`) and for requests without credentials,
        /// limited to the namespace `default`; 0: none.
        legacy_port: u16 = 0, [optional_port()];
        /// Most connections at a time on each port; further ones are refused.
        max_connections: u32 = 8192, [range(16, 1_000_000), unit("connections"), advanced()];
        /// Virtual address under DC/OS, `name:port`; empty: none.
        vip: String = String::new(), [optional(), format(Format::HostPort), advanced()];
        /// Group of marathon-lb (`HAPROXY_GROUP`) that forwards to it; empty: none.
        haproxy_group: String = String::new(), [optional(), longest(63), advanced()];
        /// Port of marathon-lb.
        haproxy_port: u16 = 6443, [port(), advanced()];
        /// Marathon constraints besides one instance per agent.
        constraints: Vec<Vec<String>> = Vec::new(), [longest(16)];
        /// Further arguments of `k8sm-proxy`.
        extra_args: Vec<String> = Vec::new(), [format(Format::Flag), advanced()];
    }
}
