//! Command line of `k8sm-framework`. Every option has an environment variable as well.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::core::pool::{Amounts, UNIT};
use crate::resources::{Accounting, MIB, PortRange, Quantity};

/// Schedules Kubernetes pods onto Mesos offers: every pod is a Mesos task, every node a Mesos
/// executor.
///
/// It keeps no state of its own but its framework id (ConfigMap kube-system/k8sm-<name>), so it may be
/// killed and started anywhere at any time; tasks go on. SIGTERM ends it without tearing the
/// framework down.
#[derive(Debug, Clone, Parser)]
// Who adds an option to a command line that has it already means the new value.
#[command(
    name = "k8sm-framework",
    version,
    max_term_width = 100,
    args_override_self = true
)]
pub struct Options {
    /// Mesos master: `http://host:5050`, `host:5050`, several of them with commas, or
    /// `zk://[user:password@]host1:2181,host2:2181/mesos`. A path is read as a file that holds it.
    #[arg(long, env = "K8SM_MESOS_MASTER", value_name = "URL")]
    pub mesos_master: String,
    /// How to reach the API server and as whom (`system:k8sm:framework`).
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// The executor program (`k8sm-executor`): a URL that every Mesos agent can fetch, or a path, which this
    /// process then serves below --advertise.
    #[arg(long, env = "K8SM_EXECUTOR_URI", value_name = "URL|PATH")]
    pub executor_uri: String,
    /// An image with the executor as its entry point: new nodes are started from it, by Mesos'
    /// containerizer, instead of the fetched program. Agents need --image_providers=docker. The
    /// executor goes back to the agent's own file system; running nodes are revised with
    /// --executor-uri all the same.
    #[arg(long, env = "K8SM_EXECUTOR_IMAGE", value_name = "IMAGE")]
    pub executor_image: Option<String>,
    /// The payload archive with kubelet, containerd and the rest: a URL (with --payload-sha256
    /// and --payload-size) or a path, which this process then serves.
    #[arg(long, env = "K8SM_PAYLOAD", value_name = "URL|PATH")]
    pub payload: String,
    /// SHA-256 of the payload when it is given as a URL.
    #[arg(long, env = "K8SM_PAYLOAD_SHA256", value_name = "HEX")]
    pub payload_sha256: Option<String>,
    /// Size of the payload in bytes when it is given as a URL.
    #[arg(long, env = "K8SM_PAYLOAD_SIZE", value_name = "BYTES")]
    pub payload_size: Option<u64>,
    /// SHA-256 of the executor program when it is given as a URL. With it and --executor-size nodes
    /// that live are brought to that program under their pods; without, they keep theirs.
    #[arg(
        long,
        env = "K8SM_EXECUTOR_SHA256",
        value_name = "HEX",
        requires = "executor_size"
    )]
    pub executor_sha256: Option<String>,
    /// Size of the executor program in bytes when it is given as a URL.
    #[arg(
        long,
        env = "K8SM_EXECUTOR_SIZE",
        value_name = "BYTES",
        requires = "executor_sha256"
    )]
    pub executor_size: Option<u64>,
    /// CA certificates (PEM) for payload and executor at `https` URLs. Default: those that the
    /// agents' machines trust.
    #[arg(long, env = "K8SM_ARTIFACTS_CA", value_name = "FILE")]
    pub artifacts_ca: Option<PathBuf>,
    /// A directory with artifacts, as `k8sm artifacts build` writes it and as agents keep it: this
    /// process serves all of them below `/artifacts`, for agents that are to keep them too.
    #[arg(long, env = "K8SM_ARTIFACTS_DIR", value_name = "DIR")]
    pub artifacts_dir: Option<PathBuf>,
    /// Address of the HTTP server: health, metrics, artifacts.
    #[arg(
        long,
        env = "K8SM_LISTEN",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:10251"
    )]
    pub listen: SocketAddr,
    /// `host:port` under which Mesos agents reach --listen. Default: the machine's host name
    /// (or --listen's address, if it is one) and the port that is listened on.
    #[arg(long, env = "K8SM_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Name of the framework and of the cluster.
    #[arg(long, env = "K8SM_FRAMEWORK_NAME", value_name = "NAME", default_value = seam::names::DEFAULT_FRAMEWORK)]
    pub framework_name: String,
    /// Mesos role to be offered resources in. Repeatable, or with commas.
    #[arg(
        long = "role",
        visible_alias = "roles",
        env = "K8SM_ROLES",
        value_name = "ROLE",
        value_delimiter = ',',
        default_value = "*"
    )]
    pub roles: Vec<String>,
    /// Mesos principal.
    #[arg(long, env = "K8SM_PRINCIPAL", value_name = "NAME")]
    pub principal: Option<String>,
    /// File with the principal's secret. Read for every connection, so it may be replaced.
    #[arg(
        long,
        env = "K8SM_SECRET_FILE",
        value_name = "FILE",
        requires = "principal"
    )]
    pub secret_file: Option<PathBuf>,
    /// File with a token of DC/OS' access control (strict mode), sent as `Authorization: token=`. Read for every
    /// call, so it may be replaced. Its user has to be the principal.
    #[arg(
        long,
        env = "K8SM_TOKEN_FILE",
        value_name = "FILE",
        requires = "principal",
        conflicts_with = "secret_file"
    )]
    pub token_file: Option<PathBuf>,
    /// CA certificates (PEM) of the Mesos masters. Without it those of the operating system count.
    #[arg(long, env = "K8SM_MESOS_CA", value_name = "FILE")]
    pub mesos_ca: Option<PathBuf>,
    /// For how long Mesos keeps the tasks of a framework that is away: seconds, or with a unit (7d, 12h).
    #[arg(long, env = "K8SM_FAILOVER_TIMEOUT", value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub failover_timeout: Duration,
    /// URL of a web page about this framework, shown by Mesos.
    #[arg(long, env = "K8SM_WEB_URI", value_name = "URL")]
    pub web_uri: Option<String>,

    /// Range of all pods, as the controller manager has it (--cluster-cidr).
    #[arg(
        long,
        env = "K8SM_CLUSTER_CIDR",
        value_name = "CIDR",
        default_value = "10.244.0.0/16"
    )]
    pub cluster_cidr: String,
    /// Range of services, as the API servers have it.
    #[arg(
        long,
        env = "K8SM_SERVICE_CIDR",
        value_name = "CIDR",
        default_value = "10.96.0.0/16"
    )]
    pub service_cidr: String,
    /// Address of the cluster's DNS service. Default: the tenth of --service-cidr.
    #[arg(long, env = "K8SM_DNS_IP", value_name = "IP")]
    pub dns_ip: Option<IpAddr>,
    /// Domain of the cluster's DNS.
    #[arg(
        long,
        env = "K8SM_DNS_DOMAIN",
        value_name = "DOMAIN",
        default_value = "cluster.local"
    )]
    pub dns_domain: String,
    /// API server, `host:port`, as nodes reach it. Repeatable, or with commas. Default: the kubeconfig's.
    #[arg(
        long = "api-server",
        env = "K8SM_API_SERVERS",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub api_servers: Vec<String>,
    /// VXLAN network identifier of the pod network; clusters that share an underlay need different ones.
    /// Default: made of the framework's name.
    #[arg(long, env = "K8SM_VXLAN_ID", value_name = "VNI", value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    pub vxlan_id: Option<u32>,
    /// UDP port of the pod network's VXLAN.
    #[arg(
        long,
        env = "K8SM_VXLAN_PORT",
        value_name = "PORT",
        default_value_t = 8472
    )]
    pub vxlan_port: u16,

    /// Nodes that are kept even without pods.
    #[arg(long, env = "K8SM_NODES_MIN", value_name = "N", default_value_t = 0)]
    pub nodes_min: usize,
    /// A node without pods (those of DaemonSets aside) is given back to Mesos after this: seconds, or with a unit.
    #[arg(long, env = "K8SM_NODES_IDLE_TIMEOUT", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub nodes_idle_timeout: Duration,
    /// A node must be Ready after this; else its start is given up and tried again later.
    #[arg(long, env = "K8SM_NODES_START_TIMEOUT", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub nodes_start_timeout: Duration,
    /// How long before maintenance of a Mesos agent its node is emptied, as disruption budgets allow.
    #[arg(long, env = "K8SM_MAINTENANCE_LEAD", value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub maintenance_lead: Duration,
    /// CPUs that each node's own processes are granted, as a Kubernetes quantity.
    #[arg(long, env = "K8SM_NODE_CPU", value_name = "QUANTITY", default_value = "300m", value_parser = millis)]
    pub node_cpu: u64,
    /// Memory that each node's own processes are granted.
    #[arg(long, env = "K8SM_NODE_MEM", value_name = "QUANTITY", default_value = "512Mi", value_parser = quantity_bytes)]
    pub node_mem: u64,
    /// Disk for each node's images, logs and kubelet's directories.
    #[arg(long, env = "K8SM_NODE_DISK", value_name = "QUANTITY", default_value = "2Gi", value_parser = quantity_bytes)]
    pub node_disk: u64,
    /// Port, or range of ports, that a node's own processes never take. Repeatable, or with commas.
    #[arg(
        long = "node-avoid-ports",
        env = "K8SM_NODE_AVOID_PORTS",
        value_name = "PORT[-PORT]",
        value_delimiter = ',',
        value_parser = port_range
    )]
    pub node_avoid_ports: Vec<PortRange>,
    /// Most pods on one node.
    #[arg(
        long,
        env = "K8SM_PODS_PER_NODE",
        value_name = "N",
        default_value_t = 110
    )]
    pub pods_per_node: u32,

    /// Pods whose spec.schedulerName is this are scheduled.
    #[arg(long, env = "K8SM_SCHEDULER_NAME", value_name = "NAME", default_value = seam::names::DEFAULT_SCHEDULER)]
    pub scheduler_name: String,
    /// CPUs of a pod that requests none.
    #[arg(long, env = "K8SM_DEFAULT_CPU", value_name = "QUANTITY", default_value = "10m", value_parser = millis)]
    pub default_cpu: u64,
    /// Memory of a pod that requests none.
    #[arg(long, env = "K8SM_DEFAULT_MEM", value_name = "QUANTITY", default_value = "32Mi", value_parser = quantity_bytes)]
    pub default_mem: u64,
    /// Memory added to each pod's task for its shim and sandbox.
    #[arg(long, env = "K8SM_POD_OVERHEAD", value_name = "QUANTITY", default_value = "6Mi", value_parser = quantity_bytes)]
    pub pod_overhead: u64,
    /// Whether a pod without limits may use more than it requests, as elsewhere in Kubernetes.
    #[arg(long, env = "K8SM_OVERCOMMIT", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub overcommit: bool,
    /// For how many seconds Mesos keeps an offer that no waiting pod could use.
    #[arg(
        long,
        env = "K8SM_REFUSE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 10.0
    )]
    pub refuse_seconds: f64,

    /// Argument for the executor. Repeatable.
    #[arg(long = "executor-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub executor_args: Vec<String>,
    /// How long an executor gets to stop its pods at SHUTDOWN.
    #[arg(long, env = "K8SM_EXECUTOR_GRACE", value_name = "TIME", default_value = "90s", value_parser = duration)]
    pub executor_grace: Duration,
    /// Verbosity (-v) of kubelet and kube-proxy.
    #[arg(long, env = "K8SM_NODE_VERBOSITY", value_name = "N")]
    pub node_verbosity: Option<u8>,
    /// Argument for every kubelet. Repeatable.
    #[arg(long = "kubelet-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub kubelet_args: Vec<String>,
    /// Argument for every kube-proxy. Repeatable.
    #[arg(
        long = "kube-proxy-arg",
        value_name = "ARG",
        allow_hyphen_values = true
    )]
    pub kube_proxy_args: Vec<String>,
    /// Mirror of a registry for the nodes: `registry=URL`, where `_default` stands for all others. Repeatable.
    #[arg(long = "registry-mirror", value_name = "HOST=URL", value_parser = mirror)]
    pub registry_mirrors: Vec<(String, String)>,
    /// PEM certificates of authorities that the nodes trust for registries, besides those of the machine. Repeatable.
    #[arg(long = "registry-ca", value_name = "PEM")]
    pub registry_cas: Vec<String>,
    /// Proxy through which the nodes pull images over http.
    #[arg(long, value_name = "URL")]
    pub node_http_proxy: Option<String>,
    /// Proxy through which the nodes pull images over https.
    #[arg(long, value_name = "URL")]
    pub node_https_proxy: Option<String>,
    /// Name, domain or range that nodes reach without the proxy; the cluster's own are known. Repeatable.
    #[arg(long = "node-no-proxy", value_name = "HOST")]
    pub node_no_proxy: Vec<String>,
}

impl Options {
    /// What a node task takes.
    pub fn node_overhead(&self) -> Amounts {
        let mib = |bytes: u64| bytes.div_ceil(MIB).saturating_mul(UNIT);
        Amounts {
            cpus: self.node_cpu,
            mem: mib(self.node_mem),
            disk: mib(self.node_disk),
            gpus: 0,
        }
    }

    /// How pods are counted.
    pub fn accounting(&self) -> Accounting {
        Accounting {
            default_cpu_millis: self.default_cpu,
            default_memory_bytes: self.default_mem,
            pod_overhead_bytes: self.pod_overhead,
        }
    }

    /// The DNS service's address.
    pub fn dns_ip(&self) -> Result<IpAddr, BadOption> {
        match self.dns_ip {
            Some(ip) => Ok(ip),
            None => tenth(&self.service_cidr).ok_or_else(|| BadOption {
                option: "--service-cidr",
                why: format!("`{}` is no range like 10.96.0.0/16", self.service_cidr),
            }),
        }
    }

    /// The VXLAN network identifier: given, or made of the name so that two clusters differ.
    pub fn vxlan_id(&self) -> u32 {
        self.vxlan_id.unwrap_or_else(|| {
            use sha2::Digest;
            let digest = sha2::Sha256::digest(self.framework_name.as_bytes());
            let number = u32::from_be_bytes([0, digest[0], digest[1], digest[2]]);
            number.max(1)
        })
    }
}

/// An option's value that is of no use. Only another value helps.
#[derive(Debug, thiserror::Error)]
#[error("{option}: {why}")]
pub struct BadOption {
    /// The option.
    pub option: &'static str,
    /// What is wrong with its value.
    pub why: String,
}

fn tenth(cidr: &str) -> Option<IpAddr> {
    let (base, bits) = cidr.split(',').next()?.split_once('/')?;
    let _: u8 = bits.parse().ok()?;
    Some(match base.parse().ok()? {
        IpAddr::V4(ip) => IpAddr::V4(u32::from(ip).checked_add(10)?.into()),
        IpAddr::V6(ip) => IpAddr::V6(u128::from(ip).checked_add(10)?.into()),
    })
}

/// Reads `8080` or `54321-54323`.
fn port_range(text: &str) -> Result<PortRange, String> {
    let bad = |_| format!("`{text}` is no port like 8080 and no range like 54321-54323");
    let (begin, end) = text.split_once('-').unwrap_or((text, text));
    let begin = begin.trim().parse().map_err(bad)?;
    let end = end.trim().parse().map_err(bad)?;
    if begin > end {
        return Err(format!("`{text}` ends before it begins"));
    }
    Ok(PortRange { begin, end })
}

/// Reads `90`, `90s`, `10m`, `12h` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no time like 90, 90s, 10m, 12h or 7d"))?;
    let seconds = match unit.trim() {
        "" | "s" | "sec" | "secs" => 1.0,
        "ms" => 0.001,
        "m" | "min" | "mins" => 60.0,
        "h" | "hrs" => 3600.0,
        "d" | "days" => 86400.0,
        "w" | "weeks" => 604_800.0,
        other => return Err(format!("`{other}` is no unit of time: ms, s, m, h, d or w")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("`{text}` is too long"))
}

fn quantity(text: &str) -> Result<Quantity, String> {
    Quantity::parse(text).map_err(|e| e.to_string())
}

fn millis(text: &str) -> Result<u64, String> {
    Ok(quantity(text)?.millis())
}

fn quantity_bytes(text: &str) -> Result<u64, String> {
    Ok(quantity(text)?.units())
}

fn mirror(text: &str) -> Result<(String, String), String> {
    let (host, url) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not HOST=URL"))?;
    Ok((host.to_owned(), url.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn every_option_is_documented() {
        let undocumented: Vec<String> = Options::command()
            .get_arguments()
            .filter(|arg| arg.get_help().is_none())
            .map(|arg| arg.get_id().to_string())
            .filter(|id| id != "help" && id != "version")
            .collect();
        assert_eq!(undocumented, Vec::<String>::new());
    }

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("7d"), Ok(604_800));
        assert_eq!(seconds("1.5h"), Ok(5400));
        assert!(duration("soon").is_err());
        assert!(duration("3 fortnights").is_err());
    }

    #[test]
    fn the_dns_service_is_the_tenth_address_unless_told() {
        assert_eq!(tenth("10.96.0.0/16"), "10.96.0.10".parse().ok());
        assert_eq!(tenth("fd00::/112"), "fd00::a".parse().ok());
        assert_eq!(tenth("10.96.0.0"), None);
    }
}

#[cfg(test)]
mod page {
    //! The options' page in the documentation is made of the options themselves.

    use clap::CommandFactory;

    use super::Options;

    fn render() -> String {
        let mut page = String::from(
            "# Options of k8sm-framework\n\n\
             Made by `K8SM_UPDATE_DOCS=1 cargo test -p framework --lib page`; do not edit.\n\n\
             | option | environment | default | what |\n|---|---|---|---|\n",
        );
        let command = Options::command();
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long().filter(|l| *l != "help" && *l != "version") else {
                continue;
            };
            let value = arg.get_value_names().unwrap_or_default();
            let value = value.first().map_or("", |name| name.as_str());
            let code = |text: &str| {
                if text.is_empty() {
                    String::new()
                } else {
                    format!("`{}`", text.replace('|', "\\|"))
                }
            };
            let env = arg.get_env().and_then(|e| e.to_str()).unwrap_or_default();
            let default: Vec<&str> = arg
                .get_default_values()
                .iter()
                .filter_map(|v| v.to_str())
                .collect();
            let default = if arg.is_required_set() {
                "required".to_owned()
            } else {
                code(&default.join(","))
            };
            let help = arg.get_long_help().or(arg.get_help());
            let help = help.map(ToString::to_string).unwrap_or_default();
            page.push_str(&format!(
                "| `--{long} {}` | {} | {default} | {} |\n",
                value.replace('|', "\\|"),
                code(env),
                help.split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .replace('|', "\\|"),
            ));
        }
        page
    }

    #[test]
    fn the_options_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/framework-options.md");
        let page = render();
        if std::env::var_os("K8SM_UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, page, "see the page's head for how to make it anew");
    }
}
