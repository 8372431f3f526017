//! Links, network namespaces, rules and nftables' tables of an instance.

use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::leftovers::{self, Leftover};
use crate::instance::Paths;

/// Removes them. Returns what would not go.
pub fn remove(paths: &Paths) -> Vec<String> {
    let mut left = Vec::new();
    let prefix = paths.link_prefix();
    // The agents' namespaces, links and rules.
    if let Err(error) = devcluster::netns::sweep(&prefix) {
        left.push(crate::error::chain(&error));
    }
    left.extend(remove_noted(&leftovers::noted(&paths.node_data())));
    let nodes = nodes(&paths.node_data());
    let hashes: Vec<String> = nodes.iter().map(|n| short_hash(n)).collect();
    for name in devcluster::netns::links() {
        let ours = hashes.iter().any(|h| name.contains(h.as_str()));
        // A link may have gone with its peer meanwhile.
        if ours && is_link(&name) {
            left.extend(run("ip", &["link", "del", "dev", &name]));
        }
    }
    for (family, table) in tables() {
        let of_node = hashes.iter().any(|h| table.contains(h.as_str()));
        // kube-proxy's tables are one per network namespace; `up` refuses to start a node where
        // somebody else has them.
        let of_proxy = table == "kube-proxy" && !nodes.is_empty();
        if of_node || of_proxy {
            left.extend(run("nft", &["delete", "table", &family, &table]));
        }
    }
    left
}

fn is_link(name: &str) -> bool {
    devcluster::netns::links().iter().any(|link| link == name)
}

/// What executors have noted, as far as it is still there.
fn remove_noted(noted: &[Leftover]) -> Vec<String> {
    let tables = tables();
    noted
        .iter()
        .filter_map(|leftover| match leftover {
            Leftover::Link(name) => is_link(name)
                .then(|| run("ip", &["link", "del", "dev", name]))
                .flatten(),
            Leftover::Table { family, name } => tables
                .contains(&(family.clone(), name.clone()))
                .then(|| run("nft", &["delete", "table", family, name]))
                .flatten(),
            Leftover::Rule {
                program,
                table,
                words,
            } => {
                let mut args = vec!["-t", table, "-D"];
                args.extend(words.iter().map(String::as_str));
                // It is gone when this fails, as a rule of that text does not exist.
                while run(program, &args).is_none() {}
                None
            }
            Leftover::NetNs(path) => path
                .exists()
                .then(|| {
                    let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
                    std::fs::remove_file(path)
                        .err()
                        .map(|e| format!("{}: {e}", path.display()))
                })
                .flatten(),
            Leftover::Cgroup(_) => None,
        })
        .collect()
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
