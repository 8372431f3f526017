//! Links, network namespaces and nftables' tables of an instance.

use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::instance::Paths;

/// Removes them. Returns what would not go.
pub fn remove(paths: &Paths) -> Vec<String> {
    let mut left = Vec::new();
    let nodes = nodes(&paths.node_data());
    let hashes: Vec<String> = nodes.iter().map(|n| short_hash(n)).collect();
    let prefix = paths.link_prefix();
    for name in names(Path::new("/sys/class/net")) {
        let ours = name.starts_with(&prefix) || hashes.iter().any(|h| name.contains(h.as_str()));
        // A link may have gone with its peer meanwhile.
        if ours && Path::new("/sys/class/net").join(&name).exists() {
            left.extend(run("ip", &["link", "del", "dev", &name]));
        }
    }
    for name in names(Path::new("/run/netns")) {
        if name.starts_with(&prefix) {
            left.extend(run("ip", &["netns", "del", &name]));
        }
    }
    for (family, table) in tables() {
        let of_node = hashes.iter().any(|h| table.contains(h.as_str()));
        // kube-proxy's tables are one per network namespace; `up` refuses to start a node where
        // somebody else has them.
        let of_proxy = table == "kube-proxy" && !nodes.is_empty();
        if of_node || of_proxy || table.starts_with(&prefix) {
            left.extend(run("nft", &["delete", "table", &family, &table]));
        }
    }
    left
}

/// Names of the nodes that have lived in the machine's own namespaces.
fn nodes(data_dir: &Path) -> Vec<String> {
    names(&data_dir.join("nodes"))
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect()
}

/// The hash by which the executor names a node's links and tables (docs/contracts.md).
fn short_hash(node: &str) -> String {
    let digest = Sha256::digest(node.as_bytes());
    digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

fn tables() -> Vec<(String, String)> {
    let output = Command::new("nft")
        .args(["list", "tables"])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        return Vec::new();
    };
    parse_tables(&String::from_utf8_lossy(&output.stdout))
}

fn parse_tables(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("table ")?.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "{program} {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("{program} {}: {error}", args.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_listed_with_their_family() {
        let text = "table ip kube-proxy\ntable inet k8s0badcafe\n";
        assert_eq!(
            parse_tables(text),
            [
                ("ip".to_owned(), "kube-proxy".to_owned()),
                ("inet".to_owned(), "k8s0badcafe".to_owned())
            ]
        );
    }

    #[test]
    fn a_nodes_hash_is_the_executors() {
        // The first four bytes of SHA-256("node-1").
        assert_eq!(short_hash("node-1").len(), 8);
    }
}
