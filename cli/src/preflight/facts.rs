//! Gathers what [`super::judge`] judges.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::offered::Machine;
use super::{Cgroups, TakenPort};
use crate::instance::{Paths, is_free};
use crate::procfs;

/// Programs of the system that we call, and Debian's packages of them.
const TOOLS: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nft", "nftables"),
    ("umount", "mount"),
];
/// Controllers that kubelet needs on v1.
const CONTROLLERS_V1: [&str; 6] = ["cpu", "cpuacct", "cpuset", "devices", "memory", "pids"];
/// Controllers that kubelet needs on v2; devices are programs there, freezing is built in.
const CONTROLLERS_V2: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// What there is on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where the instance will be.
    pub state_dir: PathBuf,
    /// Major and minor version, if it could be read.
    pub kernel: Option<(u32, u32)>,
    /// How cgroups are mounted.
    pub cgroups: Cgroups,
    /// Whether overlayfs is there.
    pub overlayfs: bool,
    /// Whether nftables work.
    pub nftables: bool,
    /// Programs that are missing, with the packages that have them.
    pub missing_tools: Vec<(&'static str, &'static str)>,
    /// Free bytes where the instance will be.
    pub space_free: u64,
    /// Bytes of memory that are available.
    pub memory_available: u64,
    /// Ports that somebody else has.
    pub taken_ports: Vec<TakenPort>,
    /// Another instance in the machine's own network.
    pub other_instance: Option<PathBuf>,
    /// Somebody else's kube-proxy in the machine's own network.
    pub foreign_kube_proxy: bool,
    /// The address that nodes will use.
    pub address: Option<IpAddr>,
    /// What each agent is told to offer.
    pub resources: Option<String>,
    /// What the machine has.
    pub machine: Machine,
}

/// What an instance asks of its machine.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The instance.
    pub paths: &'a Paths,
    /// Ports with what they are for and the flag that changes them.
    pub ports: Vec<(u16, &'static str, &'static str)>,
    /// Whether a node will live in the machine's own network.
    pub host_network: bool,
    /// The address that nodes will use.
    pub address: Option<IpAddr>,
    /// What each agent is told to offer.
    pub resources: Option<String>,
    /// Whether the instance has run before: its own tables are no surprise then.
    pub exists: bool,
}

impl Facts {
    /// Looks at this machine.
    pub fn gather(wanted: &Wanted<'_>) -> Self {
        let tables = tables();
        Self {
            state_dir: wanted.paths.state().to_owned(),
            kernel: kernel(),
            cgroups: cgroups(),
            overlayfs: overlayfs(),
            nftables: tables.is_some() || find_program("nft").is_none(),
            missing_tools: missing_tools().collect(),
            space_free: space_free(wanted.paths.state()),
            memory_available: memory_available(),
            taken_ports: wanted
                .ports
                .iter()
                .filter(|(port, ..)| is_taken(*port))
                .map(|(port, what, flag)| TakenPort {
                    port: *port,
                    what,
                    flag,
                    holder: holder(*port),
                })
                .collect(),
            other_instance: wanted
                .host_network
                .then(|| other_instance(wanted.paths))
                .flatten(),
            foreign_kube_proxy: wanted.host_network
                && !wanted.exists
                && tables.is_some_and(|t| t.contains(" kube-proxy")),
            address: wanted.address,
            resources: wanted.resources.clone(),
            machine: Machine::read(wanted.paths.state()),
        }
    }
}

/// The address with which this machine reaches others: that of the default route, else the first
/// that is not loopback.
pub fn own_address() -> Option<IpAddr> {
    // Connecting a UDP socket sends nothing; it only asks the routing table. 192.0.2.1 is reserved
    // for documentation and so never on a local network.
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
            socket.local_addr()
        })
        .ok()
        .map(|a| a.ip())
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    routed.or_else(|| {
        nix::ifaddrs::getifaddrs().ok()?.find_map(|interface| {
            let address = interface.address?;
            let ip = IpAddr::V4(address.as_sockaddr_in()?.ip());
            (!ip.is_loopback()).then_some(ip)
        })
    })
}

/// Programs that are missing, with the packages that have them.
pub fn missing_tools() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOOLS
        .into_iter()
        .filter(|(tool, _)| find_program(tool).is_none())
}

/// The kernel's version as it says it; empty when it cannot be read.
pub fn kernel_release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

fn kernel() -> Option<(u32, u32)> {
    parse_kernel(&kernel_release())
}

fn parse_kernel(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Where v1 hierarchies and the v2 root are mounted.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// How cgroups are mounted.
pub fn cgroups() -> Cgroups {
    let root = Path::new(CGROUP_ROOT);
    if let Ok(available) = fs::read_to_string(root.join("cgroup.controllers")) {
        let available: Vec<&str> = available.split_whitespace().collect();
        return Cgroups::V2 {
            missing: CONTROLLERS_V2
                .into_iter()
                .filter(|c| !available.contains(c))
                .map(str::to_owned)
                .collect(),
        };
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (kind, options) = (fields.nth(2)?, fields.next()?);
            (kind == "cgroup").then_some(options)
        })
        .flat_map(|options| options.split(','))
        .collect();
    if mounted.is_empty() {
        return Cgroups::None;
    }
    Cgroups::V1 {
        missing: CONTROLLERS_V1
            .into_iter()
            .filter(|c| !mounted.contains(c))
            .map(str::to_owned)
            .collect(),
    }
}

/// Whether overlayfs is there, loaded if need be.
pub fn overlayfs() -> bool {
    let known = || {
        fs::read_to_string("/proc/filesystems")
            .is_ok_and(|text| text.lines().any(|l| l.trim_end().ends_with("overlay")))
    };
    known()
        || (Command::new("modprobe")
            .arg("overlay")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
            && known())
}

/// nftables' tables, one per line; `None` when they cannot be listed.
fn tables() -> Option<String> {
    let output = Command::new("nft")
        .args(["list", "tables"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program in PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Free bytes where a directory is, or will be.
pub fn space_free(dir: &Path) -> u64 {
    let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(dir);
    nix::sys::statvfs::statvfs(existing)
        .map(|s| s.blocks_available().saturating_mul(s.fragment_size()))
        .unwrap_or(0)
}

fn memory_available() -> u64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}

/// Whether somebody has a port for more than a moment: a large process that was just killed keeps
/// its sockets while its memory is freed, and nobody can be named any more who has them.
fn is_taken(port: u16) -> bool {
    const CLOSING: Duration = Duration::from_secs(3);
    let begun = Instant::now();
    while !is_free(port) {
        if holder(port).is_some() || begun.elapsed() >= CLOSING {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Who listens on a TCP port: the socket's inode, looked for among all processes' descriptors.
fn holder(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|text| listening_inode(&text, port))?;
    let wanted = format!("socket:[{inode}]");
    procfs::pids().into_iter().find_map(|pid| {
        let found = fs::read_dir(format!("/proc/{pid}/fd"))
            .ok()?
            .filter_map(|e| fs::read_link(e.ok()?.path()).ok())
            .any(|link| link.as_os_str() == wanted.as_str());
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        found.then(|| format!("{} (pid {pid})", name.trim()))
    })
}

fn listening_inode(table: &str, port: u16) -> Option<u64> {
    /// TCP_LISTEN in the kernel's numbering.
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

/// Another instance whose supervisor runs and whose node lives in the machine's own network.
fn other_instance(own: &Paths) -> Option<PathBuf> {
    fs::read_dir(own.run_root())
        .ok()?
        .filter_map(|e| e.ok())
        .filter(|e| e.file_name().to_string_lossy().starts_with("k8sm-"))
        .filter(|e| e.path() != own.run())
        .find_map(|e| {
            let marker = fs::read_to_string(e.path().join(HOST_NETWORK)).ok()?;
            let other = Paths::with_run_root(Path::new(marker.trim()), own.run_root()).ok()?;
            let runs = other.supervisor().is_some_and(|p| p.is_alive());
            runs.then(|| other.state().to_owned())
        })
}

/// File in an instance's run directory that says its node lives in the machine's own network;
/// holds the path of the state directory.
pub const HOST_NETWORK: &str = "host-network";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(parse_kernel("6.1.0-18-amd64\n"), Some((6, 1)));
        assert_eq!(parse_kernel("5.10"), Some((5, 10)));
        assert_eq!(parse_kernel("unknown"), None);
    }

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = holder(port).unwrap();
        assert!(
            found.ends_with(&format!("(pid {})", std::process::id())),
            "{found}"
        );
    }
}
