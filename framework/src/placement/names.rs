//! Node names: valid, unique and stable, made of what Mesos says about an agent.
//!
//! An agent's host name is any text, may be missing, and several agents of one machine share
//! it. The name of an existing node never changes; who it belongs to is an annotation of the
//! Node object. So the first agent of a host gets the host's name, and others get it with a
//! suffix made of their agent id.

use std::fmt;

use sha2::{Digest, Sha256};

use super::syntax::{LABEL_MAX, is_dns_subdomain};

/// Digits of a name's suffix. Six make a collision among a thousand agents of one host name
/// improbable (3 %), and [`NodeName::choose`] goes on to longer suffixes.
const SUFFIX: usize = 6;

/// A valid node name, which is also a valid label value (`kubernetes.io/hostname`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// Takes a name that exists. `None` when it is not a name that we could have given.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() <= LABEL_MAX && is_dns_subdomain(text)).then(|| Self(text.to_owned()))
    }

    /// Names the node of an agent. `taken` says whether another agent's node has the name.
    pub fn choose(hostname: &str, agent_id: &str, taken: impl Fn(&str) -> bool) -> Self {
        let stem = stem_of(hostname);
        if let Some(name) = stem.as_deref().filter(|name| !taken(name)) {
            return Self(name.to_owned());
        }
        let digest = hex(&Sha256::digest(agent_id.as_bytes()));
        let stem = stem.unwrap_or_else(|| "agent".to_owned());
        let mut name = suffixed(&stem, &digest[..SUFFIX]);
        for length in SUFFIX + 1..=32 {
            if !taken(&name) {
                break;
            }
            name = suffixed(&stem, &digest[..length]);
        }
        Self(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

/// The host name made valid; `None` if nothing is left of it. A host name that had to be changed
/// gets a digest of its own, so that two of them do not become one.
fn stem_of(hostname: &str) -> Option<String> {
    let lower = hostname.trim().trim_end_matches('.').to_lowercase();
    if lower.len() <= LABEL_MAX && is_dns_subdomain(&lower) {
        return Some(lower);
    }
    let clean: String = lower
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let parts: Vec<&str> = clean
        .split('.')
        .map(|part| part.trim_matches('-'))
        .filter(|part| !part.is_empty())
        .collect();
    let joined = parts.join(".");
    let digest = hex(&Sha256::digest(hostname.as_bytes()));
    (!joined.is_empty()).then(|| suffixed(&joined, &digest[..SUFFIX]))
}

fn suffixed(stem: &str, suffix: &str) -> String {
    let room = LABEL_MAX - suffix.len() - 1;
    let cut = stem
        .get(..room)
        .unwrap_or(stem)
        .trim_end_matches(['-', '.']);
    format!("{cut}-{suffix}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(hostname: &str, agent: &str, taken: &[&str]) -> String {
        NodeName::choose(hostname, agent, |n| taken.contains(&n)).into()
    }

    #[test]
    fn a_good_host_name_is_the_node_name() {
        assert_eq!(
            name("Agent-1.Example.org", "S1", &[]),
            "agent-1.example.org"
        );
        assert_eq!(name("10.0.0.7", "S1", &[]), "10.0.0.7");
    }

    #[test]
    fn agents_that_share_or_lack_a_host_name_get_names_of_their_own() {
        assert_eq!(name("host", "S1", &["host"]), "host-3696ad");
        assert_ne!(name("host", "S2", &["host"]), "host-3696ad");
        assert_eq!(
            name("host", "S1", &["host", "host-3696ad"]).len(),
            "host-3696ad".len() + 1
        );
        assert_eq!(name("", "S1", &[]), "agent-3696ad");
        assert_eq!(name("...", "S1", &[]), "agent-3696ad");
    }

    #[test]
    fn host_names_that_had_to_be_changed_stay_apart() {
        assert_ne!(name("a_b", "S1", &[]), name("a-b", "S1", &[]));
        assert_ne!(name("a_b", "S1", &[]), name("a+b", "S1", &[]));
    }

    proptest! {
        #[test]
        fn every_name_is_valid_and_all_are_different(hosts in proptest::collection::vec(".{0,80}", 1..20)) {
            let mut taken = BTreeSet::new();
            for (number, host) in hosts.iter().enumerate() {
                let chosen = NodeName::choose(host, &format!("S{number}"), |n| taken.contains(n));
                prop_assert!(NodeName::parse(chosen.as_str()).is_some(), "{}", chosen);
                prop_assert!(taken.insert(chosen.to_string()));
            }
        }
    }
}
