//! Removes what dead nodes left in this network namespace, and refuses to touch what is not ours.
//!
//! Called only while the namespace is claimed ([`super::occupancy`]), so a link or table with a
//! node's name belongs to nobody alive.

use super::cni::{self, FilterBackend};
use super::command::{self, CommandError};
use super::occupancy;
use super::rules::NftListing;
use super::spec::{Names, NetworkSpec};
use super::{NetworkError, legacy_table, observe};

/// Refuses a namespace in which a kube-proxy runs that is not ours.
pub(super) async fn refuse_foreign(backend: FilterBackend) -> Result<(), NetworkError> {
    let mut tables = Vec::new();
    let mut nat = String::new();
    if backend == FilterBackend::Nftables || command::exists("nft") {
        let listing: NftListing = command::json("nft", &["-j", "list", "tables"]).await?;
        tables = listing.tables();
        if tables.iter().any(|(f, t)| f == "ip" && t == "nat") {
            // iptables-nft.
            let out = command::run("nft", &["list", "table", "ip", "nat"], None).await?;
            nat.push_str(&String::from_utf8_lossy(&out));
        }
    }
    if legacy_table("nat") && command::exists("iptables-legacy") {
        let args = ["-w", "5", "-t", "nat", "-S"];
        let out = command::run("iptables-legacy", &args, None).await?;
        nat.push_str(&String::from_utf8_lossy(&out));
    }
    let links = observe::link_names().await?;
    occupancy::foreign_kube_proxy(&tables, &links, &nat).map_err(NetworkError::from)
}

/// Removes links and tables of other nodes, all of them dead.
pub(super) async fn dead_nodes(spec: &NetworkSpec) -> Result<(), CommandError> {
    let own = Names::hash_of(&spec.names.gateway);
    let dead = |name: &str| Names::hash_of(name).is_some_and(|hash| Some(hash) != own);
    for link in observe::link_names().await?.iter().filter(|l| dead(l)) {
        tracing::info!(link, "removing the link of a dead node");
        command::run("ip", &["link", "del", "dev", link], None).await?;
    }
    if !command::exists("nft") {
        return Ok(());
    }
    let listing: NftListing = command::json("nft", &["-j", "list", "tables"]).await?;
    let mut any = false;
    for (family, table) in listing.tables().iter().filter(|(_, t)| dead(t)) {
        tracing::info!(table, "removing the rules of a dead node");
        remove_accepts(table).await?;
        command::run("nft", &["delete", "table", family, table], None).await?;
        any = true;
    }
    if any {
        for family in ["ip", "ip6"] {
            if has_table(family, "kube-proxy").await? {
                command::run("nft", &["delete", "table", family, "kube-proxy"], None).await?;
            }
        }
    }
    Ok(())
}

/// Removes host ports of pods that are gone although nobody took their ports back: all that lead
/// into this node's pod range. Only while no pod of this node runs.
pub async fn host_ports(spec: &NetworkSpec) -> Result<(), CommandError> {
    let table = cni::PORTMAP_TABLE;
    if !command::exists("nft") || !has_table("ip", table).await? {
        return Ok(());
    }
    let listing: NftListing = command::json("nft", &["-j", "list", "table", "ip", table]).await?;
    let stale = listing.rules_towards(spec.pods);
    if stale.is_empty() {
        return Ok(());
    }
    tracing::info!(
        rules = stale.len(),
        "removing host ports of pods that are gone"
    );
    let script: String = stale
        .iter()
        .map(|(chain, handle)| format!("delete rule ip {table} {chain} handle {handle}\n"))
        .collect();
    command::run("nft", &["-f", "-"], Some(&script)).await?;
    Ok(())
}

/// Removes everything of this node. For a node that is given up.
pub async fn node(spec: &NetworkSpec) -> Result<(), CommandError> {
    if command::exists("nft") {
        host_ports(spec).await?;
        remove_accepts(&spec.names.table).await?;
        for (family, table) in [
            ("ip", "kube-proxy"),
            ("ip6", "kube-proxy"),
            ("ip", spec.names.table.as_str()),
        ] {
            if has_table(family, table).await? {
                command::run("nft", &["delete", "table", family, table], None).await?;
            }
        }
    }
    for program in ["iptables-legacy", "iptables"] {
        if !command::exists(program) || (program == "iptables-legacy" && !legacy_table("filter")) {
            continue;
        }
        let mut all = super::rules::iptables_accepts(spec);
        all.extend(super::rules::iptables_masquerade(spec));
        for rule in all {
            let words = rule.arguments();
            let mut args = vec!["-w", "5", "-t", rule.table, "-D"];
            args.extend(words.iter().map(String::as_str));
            // A rule that is not there is what is wanted.
            let _ = command::run(program, &args, None).await;
        }
    }
    let links = observe::link_names().await?;
    for link in [&spec.names.gateway, &spec.names.vxlan] {
        if links.contains(link) {
            command::run("ip", &["link", "del", "dev", link], None).await?;
        }
    }
    Ok(())
}

/// Removes the accepts with that comment from other people's chains.
async fn remove_accepts(comment: &str) -> Result<(), CommandError> {
    let chains: NftListing = command::json("nft", &["-j", "list", "chains"]).await?;
    for chain in chains.dropping_chains() {
        let (family, table, name) = (&chain.family, &chain.table, &chain.chain);
        let args = ["-j", "list", "chain", family, table, name];
        let listing: NftListing = command::json("nft", &args).await?;
        for handle in listing.with_comment(comment) {
            let handle = handle.to_string();
            let args = ["delete", "rule", family, table, name, "handle", &handle];
            command::run("nft", &args, None).await?;
        }
    }
    Ok(())
}

/// Whether there is such a table.
pub(super) async fn has_table(family: &str, table: &str) -> Result<bool, CommandError> {
    let listing: NftListing = command::json("nft", &["-j", "list", "tables", family]).await?;
    Ok(listing
        .tables()
        .iter()
        .any(|(f, t)| f == family && t == table))
}
