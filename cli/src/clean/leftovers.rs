//! What executors have noted before they made it (`cleanup/<node>`, written by the executor; its
//! guard and its next start read it too): cgroups, links, tables, rules, mounted directories. Here
//! for the case that neither guard nor executor lives any more.
//!
//! One line per entry, fields separated by tabs, the kind first. Unknown kinds are passed over.

use std::path::{Path, PathBuf};

/// Something noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A cgroup, as its directory in one hierarchy.
    Cgroup(PathBuf),
    /// A network link.
    Link(String),
    /// An nftables table.
    Table {
        /// `ip`, `ip6`, `inet`.
        family: String,
        /// Its name.
        name: String,
    },
    /// An iptables rule.
    Rule {
        /// `iptables`, `ip6tables`, or a variant of them.
        program: String,
        /// `filter`.
        table: String,
        /// Chain first.
        words: Vec<String>,
    },
    /// A named network namespace.
    NetNs(PathBuf),
}

/// What the nodes below a data directory have noted.
pub fn noted(data_dir: &Path) -> Vec<Leftover> {
    std::fs::read_dir(data_dir.join("cleanup"))
        .into_iter()
        .flatten()
        .flatten()
        // The guards' logs and the like lie beside, with a leading dot.
        .filter(|e| !e.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|e| std::fs::read_to_string(e.path()).ok())
        .flat_map(|text| text.lines().filter_map(parse).collect::<Vec<_>>())
        .collect()
}

fn parse(line: &str) -> Option<Leftover> {
    let mut fields = line.split('\t').map(str::to_owned);
    Some(match fields.next()?.as_str() {
        "cgroup" => Leftover::Cgroup(fields.next()?.into()),
        "link" => Leftover::Link(fields.next()?),
        "nft-table" => Leftover::Table {
            family: fields.next()?,
            name: fields.next()?,
        },
        "iptables" => Leftover::Rule {
            program: fields.next().filter(|p| is_iptables(p))?,
            table: fields.next()?,
            words: fields.collect(),
        },
        "netns" => Leftover::NetNs(fields.next()?.into()),
        // Directories are below the instance's own, and go with it.
        _ => return None,
    })
}

/// The file is ours, but what is run from it is still checked.
fn is_iptables(program: &str) -> bool {
    const KNOWN: [&str; 6] = [
        "iptables",
        "iptables-nft",
        "iptables-legacy",
        "ip6tables",
        "ip6tables-nft",
        "ip6tables-legacy",
    ];
    KNOWN.contains(&program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_and_unknown_ones_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let notes = dir.path().join("cleanup");
        std::fs::create_dir_all(&notes).unwrap();
        std::fs::write(notes.join(".node-1.log"), "link\tnone\n").unwrap();
        std::fs::write(
            notes.join("node-1"),
            "owner\t12\t34\tboot\nlink\tk8s0badcafe\nnft-table\tinet\tk8s0badcafe\n\
             iptables\tiptables\tfilter\tFORWARD\t-i\tk8s0badcafe\t-j\tACCEPT\n\
             iptables\trm\tfilter\t-rf\ncgroup\t/sys/fs/cgroup/pids/x\nfuture\tthing\n",
        )
        .unwrap();
        let words = ["FORWARD", "-i", "k8s0badcafe", "-j", "ACCEPT"];
        assert_eq!(
            noted(dir.path()),
            [
                Leftover::Link("k8s0badcafe".to_owned()),
                Leftover::Table {
                    family: "inet".to_owned(),
                    name: "k8s0badcafe".to_owned()
                },
                Leftover::Rule {
                    program: "iptables".to_owned(),
                    table: "filter".to_owned(),
                    words: words.map(str::to_owned).into(),
                },
                Leftover::Cgroup("/sys/fs/cgroup/pids/x".into()),
            ]
        );
    }
}
