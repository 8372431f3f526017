//! Several agents on one machine: a network namespace with an address for each, on one bridge,
//! and a mount namespace in which the directories of a node are its own.
//!
//! Everything has a name that starts with the same prefix, so that [`sweep`] finds and removes
//! it whatever has become of the processes that made it:
//!
//! | what | name |
//! |---|---|
//! | bridge | `<prefix>br` |
//! | namespace of agent N | `<prefix>n<N>` |
//! | the machine's end of its link | `<prefix>h<N>`, the other end is `eth0` |
//! | nftables table (address translation) | `ip <prefix>` |
//!
//! The work is done with `ip` and `nft`, which every machine has that can run a node.

mod mounts;
mod sweep;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

pub use sweep::sweep;

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// Links have names of at most 15 bytes: the prefix, one letter, and a number must fit.
const MAX_PREFIX: usize = 8;

/// Why a namespace could not be made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// A prefix, number or subnet that cannot work. Never worth a retry.
    #[error("{0}")]
    Invalid(String),
    /// A program is missing.
    #[error("`{program}` cannot be started ({source}); install the package {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// Where Debian has it.
        package: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program refused.
    #[error("`{line}` failed: {output}")]
    Command {
        /// The command line.
        line: String,
        /// What it wrote.
        output: String,
    },
    /// The system refused.
    #[error("{attempt} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetnsError {
    let path = path.to_owned();
    move |source| NetnsError::Io {
        attempt,
        path,
        source,
    }
}

/// An IPv4 subnet, `10.64.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    length: u8,
}

impl Subnet {
    /// The address that is `offset` above the subnet's own.
    pub fn address(self, offset: u32) -> Option<Ipv4Addr> {
        let size = 1u32.checked_shl(32 - u32::from(self.length))?;
        // The last address is the broadcast one.
        (offset < size - 1).then(|| Ipv4Addr::from(self.base + offset))
    }

    /// Length of its prefix.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether both have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let shortest = u32::from(self.length.min(other.length));
        let shift = 32 - shortest;
        shift == 32 || self.base >> shift == other.base >> shift
    }
}

impl FromStr for Subnet {
    type Err = NetnsError;
    fn from_str(text: &str) -> Result<Self, NetnsError> {
        let bad = |why: &str| NetnsError::Invalid(format!("subnet `{text}`: {why}"));
        let (base, length) = text
            .split_once('/')
            .ok_or_else(|| bad("expected an address and a length, as in 10.64.0.0/24"))?;
        let base: Ipv4Addr = base.parse().map_err(|_| bad("no IPv4 address"))?;
        let length: u8 = length.parse().map_err(|_| bad("no length"))?;
        if !(8..=29).contains(&length) {
            return Err(bad("the length must be from 8 to 29"));
        }
        let base = u32::from(base);
        if base & (u32::MAX >> length) != 0 {
            return Err(bad("the address has bits beyond the length"));
        }
        Ok(Self { base, length })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.length)
    }
}

/// The namespaces of one agent.
#[derive(Debug, Clone)]
pub struct Netns {
    prefix: String,
    number: u16,
    subnet: Subnet,
    gateway: Ipv4Addr,
    address: Ipv4Addr,
}

impl Netns {
    /// Those of agent `number`, the first being 0. Nothing is made yet.
    pub fn new(prefix: &str, number: u16, subnet: Subnet) -> Result<Self, NetnsError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if prefix.is_empty()
            || prefix.len() > MAX_PREFIX
            || !prefix.starts_with(|c: char| c.is_ascii_alphabetic())
            || !prefix.chars().all(plain)
        {
            return Err(NetnsError::Invalid(format!(
                "prefix `{prefix}`: a letter and then letters and digits, at most {MAX_PREFIX} in all"
            )));
        }
        let full = || NetnsError::Invalid(format!("{subnet} has no address for agent {number}"));
        Ok(Self {
            prefix: prefix.to_owned(),
            number,
            subnet,
            gateway: subnet.address(1).ok_or_else(full)?,
            address: subnet.address(u32::from(number) + 2).ok_or_else(full)?,
        })
    }

    /// The agent's address.
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The machine's address on the bridge.
    pub const fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Name of the network namespace.
    pub fn name(&self) -> String {
        format!("{}n{}", self.prefix, self.number)
    }

    fn bridge(&self) -> String {
        format!("{}br", self.prefix)
    }

    fn host_link(&self) -> String {
        format!("{}h{}", self.prefix, self.number)
    }

    /// Makes the bridge, address translation, namespace and link, as far as they are not there
    /// yet. Safe to repeat, and while other agents do the same.
    pub fn make(&self) -> Result<(), NetnsError> {
        make_bridge(&self.prefix, self.subnet)?;
        let (name, link) = (self.name(), self.host_link());
        if !Path::new(NAMES).join(&name).exists() {
            ip(&["netns", "add", &name])?;
        }
        if !link_exists(&link) {
            let peer = ["type", "veth", "peer", "name", "eth0", "netns", &name];
            ip(&[&["link", "add", &link], &peer[..]].concat())?;
        }
        ip(&["link", "set", &link, "master", &self.bridge(), "up"])?;
        let address = format!("{}/{}", self.address, self.subnet.length);
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        ip(&["-n", &name, "address", "replace", &address, "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        let gateway = self.gateway.to_string();
        ip(&["-n", &name, "route", "replace", "default", "via", &gateway])
    }

    /// Moves this process into the network namespace and a mount namespace of its own, where a
    /// node's directories are below `work_dir`. Must be called before any thread is started.
    pub fn enter(&self, work_dir: &Path) -> Result<(), NetnsError> {
        let path = Path::new(NAMES).join(self.name());
        let file = File::open(&path).map_err(io_error("open", &path))?;
        nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|e| io_error("enter", &path)(e.into()))?;
        mounts::enter(work_dir)
    }
}

/// Makes the bridge of a prefix with the machine's address on it, forwarding, and address
/// translation for what leaves the subnet.
pub fn make_bridge(prefix: &str, subnet: Subnet) -> Result<(), NetnsError> {
    let netns = Netns::new(prefix, 0, subnet)?;
    let bridge = netns.bridge();
    if !link_exists(&bridge)
        && let Err(error) = ip(&["link", "add", &bridge, "type", "bridge"])
        // Another agent was faster.
        && !link_exists(&bridge)
    {
        return Err(error);
    }
    let address = format!("{}/{}", netns.gateway, subnet.length);
    ip(&["address", "replace", &address, "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])?;
    let forwarding = Path::new("/proc/sys/net/ipv4/ip_forward");
    std::fs::write(forwarding, "1").map_err(io_error("write", forwarding))?;
    // `add` and `flush` first make the whole idempotent; nft applies it as one transaction.
    let rules = format!(
        "add table ip {prefix}\n\
         flush table ip {prefix}\n\
         table ip {prefix} {{\n\
           chain postrouting {{\n\
             type nat hook postrouting priority srcnat; policy accept;\n\
             ip saddr {subnet} ip daddr != {subnet} masquerade\n\
           }}\n\
           chain forward {{\n\
             type filter hook forward priority filter; policy accept;\n\
             iifname \"{bridge}\" accept\n\
             oifname \"{bridge}\" accept\n\
           }}\n\
         }}\n"
    );
    feed("nft", "nftables", &["-f", "-"], &rules)?;
    accept_where_others_drop(&bridge)
}

/// Docker drops what is forwarded, in a table of its own where our accept does not count: the
/// bridge is accepted there too.
fn accept_where_others_drop(bridge: &str) -> Result<(), NetnsError> {
    let Ok(policy) = run("iptables", "iptables", &["-S", "FORWARD"]) else {
        // Without iptables nobody can have dropped anything with it.
        return Ok(());
    };
    if !policy.lines().any(|l| l == "-P FORWARD DROP") {
        return Ok(());
    }
    for side in ["-i", "-o"] {
        let rule = ["FORWARD", side, bridge, "-j", "ACCEPT"];
        if run("iptables", "iptables", &[&["-C"], &rule[..]].concat()).is_err() {
            run("iptables", "iptables", &[&["-I"], &rule[..]].concat())?;
        }
    }
    Ok(())
}

/// A subnet of /24 that no route of this machine touches, the same for the same seed while
/// that holds.
pub fn free_subnet(seed: u32) -> Result<Subnet, NetnsError> {
    let path = Path::new("/proc/net/route");
    let table = std::fs::read_to_string(path).map_err(io_error("read", path))?;
    let used = routes(&table);
    (0..=u8::MAX)
        .map(|i| Subnet {
            // 10.128.0.0/9: away from what clusters take for pods and services by default.
            base: u32::from(Ipv4Addr::new(
                10,
                128 + u8::try_from(seed % 64).unwrap_or(0),
                u8::try_from(seed / 64 % 256).unwrap_or(0).wrapping_add(i),
                0,
            )),
            length: 24,
        })
        .find(|candidate| !used.iter().any(|route| route.overlaps(*candidate)))
        .ok_or_else(|| NetnsError::Invalid("no free subnet in 10.128.0.0/9".to_owned()))
}

/// The routed subnets of `/proc/net/route`, default routes left out.
fn routes(table: &str) -> Vec<Subnet> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let hex = |i: usize| u32::from_str_radix(fields.get(i)?, 16).ok();
            // Addresses stand there in the byte order of the network.
            let base = u32::from_be(hex(1)?);
            let mask = u32::from_be(hex(7)?);
            let length = u8::try_from(mask.leading_ones()).ok()?;
            (length > 0).then_some(Subnet { base, length })
        })
        .collect()
}

/// The links of this process' network namespace. Not from `/sys/class/net`, which shows the
/// namespace that mounted it.
pub fn links() -> Vec<String> {
    // Two lines of headings, then `  name: counters`.
    std::fs::read_to_string("/proc/self/net/dev")
        .unwrap_or_default()
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

fn link_exists(name: &str) -> bool {
    links().iter().any(|link| link == name)
}

fn ip(arguments: &[&str]) -> Result<(), NetnsError> {
    run("ip", "iproute2", arguments).map(drop)
}

fn run(
    program: &'static str,
    package: &'static str,
    arguments: &[&str],
) -> Result<String, NetnsError> {
    feed(program, package, arguments, "")
}

fn feed(
    program: &'static str,
    package: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<String, NetnsError> {
    use std::io::Write as _;
    let missing = |source| NetnsError::Missing {
        program,
        package,
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may not want to read.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NetnsError::Command {
        line: format!("{program} {}", arguments.join(" ")),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_have_addresses_above_the_machine_s_own() {
        let subnet: Subnet = "10.64.3.0/24".parse().unwrap();
        let netns = Netns::new("km1a2b", 7, subnet).unwrap();
        assert_eq!(netns.gateway(), Ipv4Addr::new(10, 64, 3, 1));
        assert_eq!(netns.address(), Ipv4Addr::new(10, 64, 3, 9));
        assert_eq!(netns.name(), "km1a2bn7");
        let small: Subnet = "10.64.3.8/29".parse().unwrap();
        assert!(Netns::new("km", 4, small).is_ok());
        assert!(Netns::new("km", 5, small).is_err());
    }

    #[test]
    fn names_and_subnets_that_cannot_work_are_refused_with_a_reason() {
        let subnet: Subnet = "10.64.3.0/24".parse().unwrap();
        for prefix in ["", "9a", "toolongprefix", "a b", "a;b", "../x"] {
            assert!(Netns::new(prefix, 0, subnet).is_err(), "{prefix}");
        }
        for (text, part) in [
            ("10.64.3.0", "a length"),
            ("10.64.3.1/24", "bits beyond"),
            ("10.64.3.0/31", "from 8 to 29"),
            ("x/24", "no IPv4 address"),
        ] {
            let error = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_subnet_that_a_route_touches_is_not_free() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n\
                     br0\t0000800A\t00000000\t0001\t0\t0\t0\t0000FFFF\n";
        let used = routes(table);
        assert_eq!(used.len(), 1);
        assert_eq!(used[0].to_string(), "10.128.0.0/16");
        let inside: Subnet = "10.128.7.0/24".parse().unwrap();
        let outside: Subnet = "10.129.7.0/24".parse().unwrap();
        assert!(used[0].overlaps(inside));
        assert!(!used[0].overlaps(outside));
    }
}
