//! IPv4 ranges, and the hardware addresses that follow from them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 range, host bits cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Range {
    network: Ipv4Addr,
    prefix: u8,
}

/// A range that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no IPv4 range such as 10.244.3.0/24")]
pub struct BadRange(pub String);

impl Ipv4Range {
    /// First address of the range.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The address after the first: the gateway of a node's pods.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network).wrapping_add(1))
    }

    /// Length of the prefix, 0 to 32.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether an address is in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.network)
    }

    /// Whether all of another range is in this one.
    pub fn covers(self, other: Self) -> bool {
        other.prefix >= self.prefix && self.contains(other.network)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Ipv4Range {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > 32 {
            return Err(bad());
        }
        Ok(Self {
            network: Ipv4Addr::from(u32::from(address) & mask(prefix)),
            prefix,
        })
    }
}

impl fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl TryFrom<String> for Ipv4Range {
    type Error = BadRange;
    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<Ipv4Range> for String {
    fn from(range: Ipv4Range) -> Self {
        range.to_string()
    }
}

/// A locally administered hardware address that every node can compute for every other one:
/// the two leading bytes say whose it is, the rest is the IPv4 address that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HardwareAddress([u8; 6]);

impl HardwareAddress {
    /// Of a node's end of the VXLAN.
    pub fn tunnel(address: Ipv4Addr) -> Self {
        Self::with_prefix([0x0a, 0x6b], address)
    }

    /// Of a node's bridge.
    pub fn bridge(address: Ipv4Addr) -> Self {
        Self::with_prefix([0x0e, 0x6b], address)
    }

    fn with_prefix([a, b]: [u8; 2], address: Ipv4Addr) -> Self {
        let [c, d, e, f] = address.octets();
        Self([a, b, c, d, e, f])
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_compared() {
        let cluster: Ipv4Range = "10.244.0.0/16".parse().unwrap();
        let node: Ipv4Range = "10.244.3.7/24".parse().unwrap();
        assert_eq!(node.to_string(), "10.244.3.0/24");
        assert_eq!(node.gateway(), Ipv4Addr::new(10, 244, 3, 1));
        assert!(cluster.covers(node) && !node.covers(cluster) && node.overlaps(cluster));
        assert!(!node.overlaps("10.96.0.0/16".parse().unwrap()));
        let all: Ipv4Range = "1.2.3.4/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/64", "10.0.0/8"] {
            assert_eq!(bad.parse::<Ipv4Range>(), Err(BadRange(bad.to_owned())));
        }
    }

    #[test]
    fn hardware_addresses_follow_from_addresses() {
        let address = Ipv4Addr::new(10, 244, 3, 0);
        assert_eq!(
            HardwareAddress::tunnel(address).to_string(),
            "0a:6b:0a:f4:03:00"
        );
    }
}
