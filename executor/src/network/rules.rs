//! The packet filter: source NAT for what leaves the pod range, and accepts where somebody else's
//! rules drop what they do not know (Docker sets the policy of FORWARD to DROP, and a drop in one
//! table beats an accept in another). Pure.

use serde::Deserialize;

use super::spec::NetworkSpec;

/// Script for `nft -f -` that makes the node's table, replacing an earlier one in one transaction.
pub fn table(spec: &NetworkSpec) -> String {
    let (name, pods, cluster) = (&spec.names.table, spec.pods, spec.cluster_pods);
    format!(
        "add table ip {name}\n\
         delete table ip {name}\n\
         table ip {name} {{\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority 100; policy accept;\n\
         \x20   ip saddr {pods} ip daddr {cluster} return\n\
         \x20   ip saddr {pods} ip daddr 224.0.0.0/4 return\n\
         \x20   ip saddr {pods} masquerade fully-random\n\
         \x20 }}\n\
         }}\n"
    )
}

/// A rule of an iptables table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IptablesRule {
    /// `filter` or `nat`.
    pub table: &'static str,
    /// Chain.
    pub chain: &'static str,
    /// The rest, word by word.
    pub words: Vec<String>,
}

impl IptablesRule {
    /// Chain and words, as `-C`, `-I` and `-D` want them.
    pub fn arguments(&self) -> Vec<String> {
        let mut all = vec![self.chain.to_owned()];
        all.extend(self.words.iter().cloned());
        all
    }
}

/// Accepts for the chain FORWARD of iptables.
pub fn iptables_accepts(spec: &NetworkSpec) -> Vec<IptablesRule> {
    ["-s", "-d"]
        .map(|side| IptablesRule {
            table: "filter",
            chain: "FORWARD",
            words: words(&[
                side,
                &spec.cluster_pods.to_string(),
                "-m",
                "comment",
                "--comment",
                &spec.names.table,
                "-j",
                "ACCEPT",
            ]),
        })
        .into()
}

/// Source NAT where there is no nftables.
pub fn iptables_masquerade(spec: &NetworkSpec) -> Vec<IptablesRule> {
    vec![IptablesRule {
        table: "nat",
        chain: "POSTROUTING",
        words: words(&[
            "-s",
            &spec.pods.to_string(),
            "!",
            "-d",
            &spec.cluster_pods.to_string(),
            "-m",
            "comment",
            "--comment",
            &spec.names.table,
            "-j",
            "MASQUERADE",
        ]),
    }]
}

/// The rules with which kube-proxy's iptables mode reaches its own chains: without them the chains
/// do nothing, and the next kube-proxy uses them again.
pub fn kube_proxy_jumps() -> Vec<IptablesRule> {
    const NEW: &[&str] = &["-m", "conntrack", "--ctstate", "NEW"];
    const EXTERNAL: &str = "kubernetes externally-visible service portals";
    const SERVICES: &str = "kubernetes service portals";
    const FIREWALL: &str = "kubernetes load balancer firewall";
    const HEALTH: &str = "kubernetes health check service ports";
    const FORWARD: &str = "kubernetes forwarding rules";
    const POST: &str = "kubernetes postrouting rules";
    [
        ("filter", "INPUT", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        ("filter", "FORWARD", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        ("filter", "INPUT", &[], HEALTH, "KUBE-NODEPORTS"),
        ("filter", "FORWARD", NEW, SERVICES, "KUBE-SERVICES"),
        ("filter", "OUTPUT", NEW, SERVICES, "KUBE-SERVICES"),
        ("filter", "FORWARD", &[], FORWARD, "KUBE-FORWARD"),
        ("filter", "INPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("filter", "OUTPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("filter", "FORWARD", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("nat", "OUTPUT", &[], SERVICES, "KUBE-SERVICES"),
        ("nat", "PREROUTING", &[], SERVICES, "KUBE-SERVICES"),
        ("nat", "POSTROUTING", &[], POST, "KUBE-POSTROUTING"),
    ]
    .into_iter()
    .map(|(table, chain, when, comment, target)| {
        let mut rule = words(when);
        rule.extend(words(&[
            "-m",
            "comment",
            "--comment",
            comment,
            "-j",
            target,
        ]));
        IptablesRule {
            table,
            chain,
            words: rule,
        }
    })
    .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// `nft -j list ...`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NftListing {
    nftables: Vec<NftItem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NftItem {
    chain: Option<NftChain>,
    table: Option<NftTable>,
    rule: Option<NftRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NftTable {
    family: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NftChain {
    family: String,
    table: String,
    name: String,
    hook: String,
    policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NftRule {
    chain: String,
    handle: u64,
    comment: String,
    expr: serde_json::Value,
}

/// A chain of somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignChain {
    /// `ip` or `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl NftListing {
    /// Family and name of all tables.
    pub fn tables(&self) -> Vec<(String, String)> {
        self.nftables
            .iter()
            .filter_map(|i| i.table.as_ref())
            .map(|t| (t.family.clone(), t.name.clone()))
            .collect()
    }

    /// Chains that may drop what is forwarded to pods: iptables' own FORWARD, firewalld's, and
    /// any other whose policy is to drop.
    pub fn dropping_chains(&self) -> Vec<ForeignChain> {
        let mut chains: Vec<ForeignChain> = self
            .nftables
            .iter()
            .filter_map(|i| i.chain.as_ref())
            .filter(|c| c.hook == "forward" && matches!(c.family.as_str(), "ip" | "inet"))
            .filter(|c| {
                c.policy == "drop"
                    || (c.table == "filter" && c.name == "FORWARD")
                    || c.table == "firewalld"
            })
            .map(|c| ForeignChain {
                family: c.family.clone(),
                table: c.table.clone(),
                chain: c.name.clone(),
            })
            .collect();
        chains.sort();
        chains
    }

    /// How many rules carry that comment.
    pub fn with_comment(&self, comment: &str) -> Vec<u64> {
        self.nftables
            .iter()
            .filter_map(|i| i.rule.as_ref())
            .filter(|r| r.comment == comment)
            .map(|r| r.handle)
            .collect()
    }

    /// Chain and handle of rules that send packets to an address in that range or masquerade on
    /// the way to it.
    pub fn rules_towards(&self, pods: super::address::Ipv4Range) -> Vec<(String, u64)> {
        self.nftables
            .iter()
            .filter_map(|i| i.rule.as_ref())
            .filter(|r| mentions(&r.expr, pods))
            .map(|r| (r.chain.clone(), r.handle))
            .collect()
    }

    /// Whether there is a rule besides jumps in that chain.
    pub fn has_rules(&self, chain: &str) -> bool {
        self.nftables
            .iter()
            .filter_map(|i| i.rule.as_ref())
            .any(|r| r.chain == chain)
    }
}

/// Whether an expression names an address of the range anywhere.
fn mentions(expr: &serde_json::Value, pods: super::address::Ipv4Range) -> bool {
    match expr {
        serde_json::Value::String(text) => text.parse().is_ok_and(|a| pods.contains(a)),
        serde_json::Value::Array(all) => all.iter().any(|e| mentions(e, pods)),
        serde_json::Value::Object(all) => all.values().any(|e| mentions(e, pods)),
        _ => false,
    }
}

/// Script for `nft -f -` that puts the accepts in front of a chain's rules.
pub fn nft_accepts(spec: &NetworkSpec, chain: &ForeignChain) -> String {
    let ForeignChain {
        family,
        table,
        chain,
    } = chain;
    let mut script = String::new();
    for side in ["saddr", "daddr"] {
        script.push_str(&format!(
            "insert rule {family} {table} {chain} ip {side} {} counter accept comment \"{}\"\n",
            spec.cluster_pods, spec.names.table
        ));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use seam::testing::node_config;

    fn spec() -> NetworkSpec {
        NetworkSpec::new(&node_config(), "0badcafe").unwrap()
    }

    #[test]
    fn only_what_leaves_the_pod_range_gets_another_source() {
        insta::assert_snapshot!(table(&spec()));
        insta::assert_debug_snapshot!(iptables_masquerade(&spec())[0].arguments().join(" "), @r#""POSTROUTING -s 10.244.3.0/24 ! -d 10.244.0.0/16 -m comment --comment k8s0badcafe -j MASQUERADE""#);
    }

    #[test]
    fn accepts_go_where_docker_drops() {
        // As nft 1.0.6 shows iptables-nft with Docker's policy, firewalld and kube-proxy.
        let listing: NftListing = serde_json::from_str(
            r#"{"nftables":[{"metainfo":{"version":"1.0.6"}},
            {"chain":{"family":"ip","table":"filter","name":"FORWARD","handle":1,"type":"filter","hook":"forward","prio":0,"policy":"drop"}},
            {"chain":{"family":"ip","table":"filter","name":"DOCKER","handle":2}},
            {"chain":{"family":"inet","table":"firewalld","name":"filter_FORWARD","handle":2,"type":"filter","hook":"forward","prio":10,"policy":"accept"}},
            {"chain":{"family":"ip","table":"kube-proxy","name":"filter-forward","handle":2,"type":"filter","hook":"forward","prio":-110,"policy":"accept"}},
            {"chain":{"family":"ip6","table":"filter","name":"FORWARD","handle":2,"type":"filter","hook":"forward","prio":0,"policy":"drop"}}]}"#,
        )
        .unwrap();
        let chains = listing.dropping_chains();
        let text: Vec<String> = chains.iter().map(|c| nft_accepts(&spec(), c)).collect();
        insta::assert_snapshot!(text.join("---\n"));
        let rules: Vec<String> = iptables_accepts(&spec())
            .iter()
            .map(|r| r.arguments().join(" "))
            .collect();
        insta::assert_snapshot!(rules.join("\n"));
    }

    #[test]
    fn host_ports_of_dead_pods_are_found_by_their_address() {
        let listing: NftListing = serde_json::from_str(
            r#"{"nftables":[
            {"rule":{"family":"ip","table":"cni_hostport","chain":"hostports","handle":9,"comment":"c1",
              "expr":[{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":8080}},{"dnat":{"addr":"10.244.3.7","port":80}}]}},
            {"rule":{"family":"ip","table":"cni_hostport","chain":"hostports","handle":10,"comment":"c2",
              "expr":[{"dnat":{"addr":"10.88.0.7","port":80}}]}}]}"#,
        )
        .unwrap();
        let pods = "10.244.3.0/24".parse().unwrap();
        assert_eq!(listing.rules_towards(pods), [("hostports".to_owned(), 9)]);
        assert!(listing.has_rules("hostports") && !listing.has_rules("masquerading"));
        assert_eq!(listing.with_comment("c2"), [10]);
    }
}
