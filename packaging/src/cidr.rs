//! IPv4 ranges in CIDR notation. The cluster is IPv4 only so far (docs/issues.md).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range such as `10.96.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: Ipv4Addr,
    prefix: u8,
}

/// What is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no IPv4 range: expected for instance 10.96.0.0/16, with no bit set after the prefix"
)]
pub struct BadCidr(pub String);

impl Cidr {
    /// The range of `prefix` bits that begins at `base`.
    pub fn new(base: Ipv4Addr, prefix: u8) -> Result<Self, BadCidr> {
        let cidr = Self { base, prefix };
        if prefix > 32 || u32::from(base) & !cidr.mask() != 0 {
            return Err(BadCidr(format!("{base}/{prefix}")));
        }
        Ok(cidr)
    }

    /// Bits of the network.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The `n`-th address; `None` when it is outside.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        let address = u32::from(self.base).checked_add(n).map(Ipv4Addr::from)?;
        self.contains(address).then_some(address)
    }

    /// Whether an address is inside.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.base)
    }

    /// Whether two ranges have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0)
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;
    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(bad)?;
        let base = base.parse().map_err(|_| bad())?;
        let prefix = prefix.parse().map_err(|_| bad())?;
        Self::new(base, prefix).map_err(|_| bad())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_knows_its_addresses() {
        let range: Cidr = "10.96.0.0/16".parse().unwrap();
        assert_eq!(range.nth(10), Some(Ipv4Addr::new(10, 96, 0, 10)));
        assert_eq!(range.nth(65536), None);
        assert!(range.overlaps("10.0.0.0/8".parse().unwrap()));
        assert!(!range.overlaps("10.97.0.0/16".parse().unwrap()));
        assert!(
            "0.0.0.0/0"
                .parse::<Cidr>()
                .unwrap()
                .contains(Ipv4Addr::BROADCAST)
        );
    }

    proptest::proptest! {
        #[test]
        fn a_range_survives_being_written(base: u32, prefix in 0_u8..=32) {
            let masked = u64::from(base) >> (32 - prefix) << (32 - prefix);
            let base = Ipv4Addr::from(u32::try_from(masked).unwrap());
            let range = Cidr::new(base, prefix).unwrap();
            proptest::prop_assert_eq!(range.to_string().parse(), Ok(range));
            proptest::prop_assert!(range.contains(base) && range.overlaps(range));
        }

        #[test]
        fn no_text_is_a_panic(text: String) {
            let _ = text.parse::<Cidr>();
        }
    }

    #[test]
    fn what_is_no_range_is_refused_by_name() {
        for text in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "::/0", "a/b"] {
            assert_eq!(text.parse::<Cidr>(), Err(BadCidr(text.to_owned())));
        }
    }
}
