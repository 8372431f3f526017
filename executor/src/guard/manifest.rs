//! The list of what outlives the executor's processes: cgroups, links, tables, rules,
//! directories. Each entry is on disk before the thing is made, so whoever finds the list (the
//! guard, or the next executor) can remove everything, at whatever instant its owner died.
//!
//! One line per entry, fields separated by tabs. The first line names the owning process.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::clean;

/// Something that stays when all processes have gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A cgroup tree to kill and remove, as its directory in one hierarchy.
    Cgroup(PathBuf),
    /// A cgroup above one of ours, in a hierarchy that Mesos does not use: removed when empty.
    CgroupParent(PathBuf),
    /// A named network namespace (a file to unmount and remove).
    NetNs(PathBuf),
    /// A directory to remove, with everything mounted below it unmounted first.
    Dir(PathBuf),
    /// An iptables rule.
    IptablesRule {
        /// `iptables` or `ip6tables`, or the variants with `-nft`, `-legacy`.
        program: String,
        /// `filter`.
        table: String,
        /// `FORWARD -i k8s0badcafe -j ACCEPT`, word by word, chain first.
        rule: Vec<String>,
    },
    /// Rules with a comment of ours in an nftables chain that is somebody else's.
    NftRules {
        /// `ip`, `ip6`, `inet`.
        family: String,
        /// The chain's table.
        table: String,
        /// The chain.
        chain: String,
        /// The rules' comment.
        comment: String,
    },
    /// An nftables table.
    NftTable {
        /// `ip`, `ip6`, `inet`.
        family: String,
        /// Its name.
        table: String,
    },
    /// A network link of the machine's namespace, by name.
    Link(String),
}

impl Leftover {
    fn fields(&self) -> Vec<String> {
        let path = |p: &Path| p.to_string_lossy().into_owned();
        match self {
            Self::Cgroup(p) => vec!["cgroup".into(), path(p)],
            Self::CgroupParent(p) => vec!["cgroup-parent".into(), path(p)],
            Self::NetNs(p) => vec!["netns".into(), path(p)],
            Self::Dir(p) => vec!["dir".into(), path(p)],
            Self::IptablesRule {
                program,
                table,
                rule,
            } => {
                let mut fields = vec!["iptables".into(), program.clone(), table.clone()];
                fields.extend(rule.iter().cloned());
                fields
            }
            Self::NftRules {
                family,
                table,
                chain,
                comment,
            } => [&"nft-rules".to_owned(), family, table, chain, comment]
                .map(String::clone)
                .into(),
            Self::NftTable { family, table } => {
                vec!["nft-table".into(), family.clone(), table.clone()]
            }
            Self::Link(name) => vec!["link".into(), name.clone()],
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let kind = fields.next()?;
        let mut next = || fields.next().map(str::to_owned);
        Some(match kind {
            "cgroup" => Self::Cgroup(next()?.into()),
            "cgroup-parent" => Self::CgroupParent(next()?.into()),
            "netns" => Self::NetNs(next()?.into()),
            "dir" => Self::Dir(next()?.into()),
            "iptables" => Self::IptablesRule {
                program: next()?,
                table: next()?,
                rule: fields.map(str::to_owned).collect(),
            },
            "nft-rules" => Self::NftRules {
                family: next()?,
                table: next()?,
                chain: next()?,
                comment: next()?,
            },
            "nft-table" => Self::NftTable {
                family: next()?,
                table: next()?,
            },
            "link" => Self::Link(next()?),
            _ => return None,
        })
    }
}

/// The process that a manifest belongs to: pid and start time, so a used-again pid is no match,
/// and the boot, so one of before a reboot is none either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its pid.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl Owner {
    /// The calling process.
    pub fn current() -> io::Result<Self> {
        let pid = std::process::id().cast_signed();
        Ok(Self {
            pid,
            start_time: start_time(pid)
                .ok_or_else(|| io::Error::other("no start time in /proc/self/stat"))?,
            boot_id: boot_id()?,
        })
    }

    /// Whether that very process lives (a zombie does not).
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
            && boot_id().is_ok_and(|id| id == self.boot_id)
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// When a process started, in clock ticks since boot. `None` when it is gone or a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, which may hold anything, a ")" too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Why the manifest could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{action} the clean-up list {path}: {source}")]
pub struct ManifestError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ManifestError {
    let path = path.to_owned();
    move |source| ManifestError {
        action,
        path,
        source,
    }
}

/// The manifest of one node, on disk.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    lines: Mutex<BTreeSet<String>>,
}

impl Manifest {
    /// Makes the manifest, or takes over the one that is there with its entries.
    pub fn create(path: PathBuf, owner: &Owner) -> Result<Self, ManifestError> {
        let err = |e| error("writing", &path)(e);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(err)?;
        }
        let old = match read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(error("reading", &path)(e)),
        };
        let entries: Vec<Leftover> = old.lines().filter_map(Leftover::parse).collect();
        let mut text = format!(
            "owner\t{}\t{}\t{}\n",
            owner.pid, owner.start_time, owner.boot_id
        );
        let mut lines = BTreeSet::new();
        for entry in &entries {
            let line = entry.fields().join("\t");
            if lines.insert(line.clone()) {
                let _ = writeln!(text, "{line}");
            }
        }
        let new = beside(&path, "new");
        let mut file = File::create(&new).map_err(err)?;
        file.write_all(text.as_bytes()).map_err(err)?;
        file.sync_all().map_err(err)?;
        fs::rename(&new, &path).map_err(err)?;
        Ok(Self {
            path,
            lines: Mutex::new(lines),
        })
    }

    /// Notes a leftover, durably. Doing so again is no error and adds nothing.
    pub fn add(&self, leftover: &Leftover) -> Result<(), ManifestError> {
        let err = |e| error("writing", &self.path)(e);
        let fields = leftover.fields();
        if fields.iter().any(|f| f.contains(['\t', '\n'])) {
            return Err(err(io::Error::other("a name with a tab or a newline")));
        }
        let line = fields.join("\t");
        let mut lines = self
            .lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if lines.contains(&line) {
            return Ok(());
        }
        let mut file = File::options().append(true).open(&self.path).map_err(err)?;
        // One write, so a reader never sees half a line.
        file.write_all(format!("{line}\n").as_bytes())
            .map_err(err)?;
        file.sync_data().map_err(err)?;
        lines.insert(line);
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes everything that the manifest lists and then the manifest. Nothing is done when it
    /// has got another owner than the expected one, or is gone: somebody else was faster.
    /// Returns what could not be removed; the manifest then stays for the next attempt.
    pub fn clean(path: &Path, expected: Option<&Owner>) -> Result<Vec<String>, ManifestError> {
        let Some(lock) = lock(path)? else {
            return Ok(Vec::new());
        };
        if read_owner(path)?.as_ref() != expected {
            return Ok(Vec::new());
        }
        let text = read(path).map_err(error("reading", path))?;
        let entries: Vec<Leftover> = text.lines().filter_map(Leftover::parse).collect();
        let remaining = clean::all(&entries);
        if remaining.is_empty() {
            for what in ["guard", "log", "new"] {
                let _ = fs::remove_file(beside(path, what));
            }
            fs::remove_file(path).map_err(error("removing", path))?;
        }
        drop(lock);
        Ok(remaining)
    }
}

/// A damaged list is used as far as it can be read.
fn read(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// `.<name>.<what>` in the same directory; hidden names are never taken for a manifest.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

/// Two cleaners must not meet. Waits for the other for at most half a minute.
fn lock(path: &Path) -> Result<Option<File>, ManifestError> {
    let start = Instant::now();
    loop {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error("opening", path)(e)),
        };
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) if start.elapsed() < Duration::from_secs(30) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(error("locking", path)(io::ErrorKind::TimedOut.into()));
            }
            Err(fs::TryLockError::Error(e)) => return Err(error("locking", path)(e)),
        }
    }
}

/// The first line. `None` when there is no manifest or it has no owner.
pub fn read_owner(path: &Path) -> Result<Option<Owner>, ManifestError> {
    let text = match read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error("reading", path)(e)),
    };
    let mut fields = text.lines().next().unwrap_or_default().split('\t');
    let owner = (|| {
        if fields.next()? != "owner" {
            return None;
        }
        Some(Owner {
            pid: fields.next()?.parse().ok()?,
            start_time: fields.next()?.parse().ok()?,
            boot_id: fields.next()?.to_owned(),
        })
    })();
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind(dir: &Path) -> Vec<Leftover> {
        vec![
            Leftover::Cgroup("/sys/fs/cgroup/none/k8s".into()),
            Leftover::CgroupParent("/sys/fs/cgroup/none".into()),
            Leftover::NetNs(dir.join("netns")),
            Leftover::Dir(dir.join("a directory")),
            Leftover::IptablesRule {
                program: "iptables".into(),
                table: "filter".into(),
                rule: vec!["FORWARD".into(), "-i".into(), "k8s0".into()],
            },
            Leftover::NftRules {
                family: "ip".into(),
                table: "filter".into(),
                chain: "FORWARD".into(),
                comment: "k8s0".into(),
            },
            Leftover::NftTable {
                family: "inet".into(),
                table: "k8s0".into(),
            },
            Leftover::Link("k8s0".into()),
        ]
    }

    #[test]
    fn every_kind_of_leftover_survives_being_written() {
        let dir = tempfile::tempdir().unwrap();
        for entry in every_kind(dir.path()) {
            assert_eq!(
                Leftover::parse(&entry.fields().join("\t")),
                Some(entry.clone())
            );
        }
    }

    #[test]
    fn adding_twice_writes_once_and_a_successor_takes_the_entries_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cleanup/node");
        let owner = Owner::current().unwrap();
        let manifest = Manifest::create(path.clone(), &owner).unwrap();
        let link = Leftover::Link("k8s1".into());
        manifest.add(&link).unwrap();
        manifest.add(&link).unwrap();
        let again = Manifest::create(path.clone(), &owner).unwrap();
        again.add(&link).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|l| l.starts_with("link")).count(), 1);
        assert_eq!(read_owner(&path).unwrap(), Some(owner.clone()));
        assert!(owner.alive());
    }

    #[test]
    fn a_name_with_a_tab_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::current().unwrap();
        let manifest = Manifest::create(dir.path().join("m"), &owner).unwrap();
        assert!(manifest.add(&Leftover::Link("a\tb".into())).is_err());
    }

    #[test]
    fn a_pid_that_was_used_again_is_not_the_owner() {
        let mut owner = Owner::current().unwrap();
        owner.start_time += 1;
        assert!(!owner.alive());
    }

    #[test]
    fn cleaning_leaves_a_manifest_of_another_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        let owner = Owner::current().unwrap();
        let manifest = Manifest::create(dir.path().join("m"), &owner).unwrap();
        manifest.add(&Leftover::Dir(kept.clone())).unwrap();
        let mut other = owner.clone();
        other.pid += 1;
        Manifest::clean(manifest.path(), Some(&other)).unwrap();
        assert!(kept.exists() && manifest.path().exists());
        assert!(
            Manifest::clean(manifest.path(), Some(&owner))
                .unwrap()
                .is_empty()
        );
        assert!(!kept.exists() && !manifest.path().exists());
    }
}
