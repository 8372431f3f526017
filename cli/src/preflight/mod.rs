//! Is this machine fit for a cluster? Facts are gathered in [`facts`], judged here, and every
//! objection says how to mend it. Nothing is changed on the machine meanwhile.

pub mod facts;
pub mod offered;

use std::fmt;
use std::net::IpAddr;

pub use facts::Facts;

/// Free space that a first `up` needs: images, payload, one node's copy of both, etcd. Seen: 2.1
/// GiB with one agent.
pub const SPACE_NEEDED: u64 = 4 << 30;
/// Memory that control plane, Mesos and one node take: apiserver 274 MB, controller manager 114,
/// kubelet 86, kube-proxy 60, containerd 51, etcd 40, seen on the development machine, and as much
/// again for pods.
pub const MEMORY_NEEDED: u64 = 1536 << 20;
/// kube-proxy's nftables mode refuses older kernels.
const KERNEL_NFTABLES: (u32, u32) = (5, 13);

/// How cgroups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 1; controllers that are needed and not mounted.
    V1 {
        /// For instance `memory`.
        missing: Vec<String>,
    },
    /// Version 2; controllers that are needed and not available.
    V2 {
        /// For instance `memory`.
        missing: Vec<String>,
    },
    /// Not at all.
    None,
}

/// A port that somebody else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenPort {
    /// The port.
    pub port: u16,
    /// What it is needed for.
    pub what: &'static str,
    /// The flag that chooses another.
    pub flag: &'static str,
    /// Who has it, if that could be found.
    pub holder: Option<String>,
}

/// An objection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stops the command.
    pub fatal: bool,
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.fatal { "✘" } else { "!" };
        write!(f, "{sign} {}\n    {}", self.problem, self.remedy)
    }
}

/// The machine is not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unfit(pub Vec<Finding>);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this machine is not ready for a cluster:")?;
        for finding in &self.0 {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}

/// Whether the caller is root: everything else is only worth a look then.
pub fn check_root(uid: u32, program: &str) -> Result<(), Unfit> {
    if uid == 0 {
        return Ok(());
    }
    Err(Unfit(vec![fatal(
        "root is needed: for cgroups, network namespaces, mounts and nftables".to_owned(),
        format!("run `sudo {program}`; the kubeconfig will belong to you all the same"),
    )]))
}

fn fatal(problem: String, remedy: impl Into<String>) -> Finding {
    Finding {
        fatal: true,
        problem,
        remedy: remedy.into(),
    }
}

fn warning(problem: String, remedy: impl Into<String>) -> Finding {
    Finding {
        fatal: false,
        problem,
        remedy: remedy.into(),
    }
}

/// Judges the facts.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    judge_kernel(facts, &mut findings);
    for (tool, package) in &facts.missing_tools {
        findings.push(fatal(
            format!("the program `{tool}` is missing"),
            format!("install it: apt-get install {package}"),
        ));
    }
    if facts.space_free < SPACE_NEEDED {
        findings.push(fatal(
            format!(
                "{} has {} free, {} are needed",
                facts.state_dir.display(),
                gib(facts.space_free),
                gib(SPACE_NEEDED)
            ),
            "free some space, or choose a directory on another disk with --state-dir",
        ));
    }
    if facts.memory_available < MEMORY_NEEDED {
        findings.push(warning(
            format!(
                "only {} of memory are available, {} are comfortable",
                gib(facts.memory_available),
                gib(MEMORY_NEEDED)
            ),
            "end something else, or expect processes to be killed",
        ));
    }
    for taken in &facts.taken_ports {
        let holder = taken
            .holder
            .as_ref()
            .map(|h| format!(" by {h}"))
            .unwrap_or_default();
        findings.push(fatal(
            format!("port {} ({}) is taken{holder}", taken.port, taken.what),
            format!(
                "end that process, or choose another port with {}",
                taken.flag
            ),
        ));
    }
    if let Some(other) = &facts.other_instance {
        findings.push(fatal(
            format!("another instance uses this machine's network: {}", other.display()),
            format!(
                "stop it (`k8sm down --state-dir {}`), or give this one several agents, which have namespaces of their own (--agents 2)",
                other.display()
            ),
        ));
    }
    if facts.foreign_kube_proxy {
        findings.push(fatal(
            "another Kubernetes node's kube-proxy has its tables in this machine's network".to_owned(),
            "stop that node; tables that were left behind go away with `nft delete table ip kube-proxy; nft delete table ip6 kube-proxy`; or use --agents 2",
        ));
    }
    if let Some(resources) = &facts.resources {
        findings.extend(offered::judge(resources, &facts.machine));
    }
    match facts.address {
        None => findings.push(fatal(
            "this machine has no IPv4 address besides loopback, and pods need one to reach the API server".to_owned(),
            "connect to a network, or add an address: ip link add k8sm0 type dummy && ip addr add 192.168.255.1/32 dev k8sm0 && ip link set k8sm0 up",
        )),
        Some(IpAddr::V6(address)) => findings.push(fatal(
            format!("{address} is an IPv6 address; clusters here are IPv4 only so far"),
            "name an IPv4 address with --address",
        )),
        Some(IpAddr::V4(_)) => {}
    }
    findings
}

fn judge_kernel(facts: &Facts, findings: &mut Vec<Finding>) {
    match &facts.cgroups {
        Cgroups::None => findings.push(fatal(
            "cgroups are not mounted".to_owned(),
            "mount them: mount -t cgroup2 none /sys/fs/cgroup",
        )),
        Cgroups::V1 { missing } if !missing.is_empty() => findings.push(fatal(
            format!("cgroup v1 lacks controllers: {}", missing.join(", ")),
            "mount them below /sys/fs/cgroup (package cgroupfs-mount), or boot with systemd.unified_cgroup_hierarchy=1",
        )),
        Cgroups::V2 { missing } if !missing.is_empty() => findings.push(fatal(
            format!("cgroup v2 lacks controllers: {}", missing.join(", ")),
            "boot with cgroup_enable=memory (and whatever else is missing), or leave the container that limits them",
        )),
        _ => {}
    }
    if !facts.overlayfs {
        findings.push(fatal(
            "the kernel has no overlayfs, which containerd keeps images on".to_owned(),
            "load it: modprobe overlay",
        ));
    }
    if !facts.nftables {
        findings.push(fatal(
            "nftables do not work here (`nft list tables` failed)".to_owned(),
            "load the module: modprobe nf_tables; in a container, CAP_NET_ADMIN is needed",
        ));
    }
    if let Some(kernel) = facts.kernel
        && kernel < KERNEL_NFTABLES
    {
        findings.push(warning(
            format!(
                "kernel {}.{} is older than 5.13, the oldest that kube-proxy supports with nftables",
                kernel.0, kernel.1
            ),
            "services fall back to iptables; a newer kernel is better",
        ));
    }
}

fn gib(bytes: u64) -> String {
    // Exact enough for a message.
    #[allow(clippy::cast_precision_loss)]
    let value = bytes as f64 / f64::from(1 << 30);
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Facts {
        Facts {
            state_dir: "/var/lib/k8sm-dev".into(),
            kernel: Some((6, 1)),
            cgroups: Cgroups::V2 { missing: vec![] },
            overlayfs: true,
            nftables: true,
            missing_tools: vec![],
            space_free: 100 << 30,
            memory_available: 8 << 30,
            taken_ports: vec![],
            other_instance: None,
            foreign_kube_proxy: false,
            address: Some("192.0.2.7".parse().unwrap()),
            resources: None,
            machine: offered::Machine::default(),
        }
    }

    #[test]
    fn a_fit_machine_has_no_findings() {
        assert_eq!(judge(&fit()), []);
    }

    #[test]
    fn every_objection_says_how_to_mend_it() {
        let facts = Facts {
            kernel: Some((5, 10)),
            cgroups: Cgroups::V1 {
                missing: vec!["memory".to_owned(), "pids".to_owned()],
            },
            overlayfs: false,
            nftables: false,
            missing_tools: vec![("ip", "iproute2")],
            space_free: 1 << 30,
            memory_available: 1 << 29,
            taken_ports: vec![TakenPort {
                port: 6443,
                what: "the API server",
                flag: "--api-port",
                holder: Some("kube-apiserver (pid 12)".to_owned()),
            }],
            other_instance: Some("/var/lib/other".into()),
            foreign_kube_proxy: true,
            address: None,
            ..fit()
        };
        insta::assert_snapshot!(Unfit(judge(&facts)));
    }

    #[test]
    fn without_root_the_remedy_is_sudo() {
        assert_eq!(check_root(0, "k8sm up"), Ok(()));
        insta::assert_snapshot!(check_root(1000, "k8sm up").unwrap_err());
    }
}
