//! On cgroup v2: gives the node's own tree the CPU that Mesos granted.
//!
//! There the pods live beside the Mesos container's cgroup, so what Mesos writes into that one
//! (`cpu.max` by the tasks' limits or `--cgroups_enable_cfs`, `cpu.weight` by their requests) holds
//! for the executor alone. It is copied whenever it has changed. Agents without CPU isolation
//! grant nothing, and nothing is copied.
//!
//! Weights count among siblings only. All nodes' trees of the machine have one parent, beside the
//! one of Mesos' containers; its weight is set so that a node competes with Mesos' other
//! containers as if it were among them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupError, CgroupSetup};

/// The kernel's bounds of `cpu.weight`.
const WEIGHTS: std::ops::RangeInclusive<u64> = 1..=10_000;

/// What Mesos lets a container have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Granted {
    /// `cpu.max`: `<quota in microseconds or "max"> <period>`.
    max: String,
    /// `cpu.weight`.
    weight: u64,
}

impl Granted {
    /// None where the container has no CPU controller, or is gone.
    fn read(dir: &Path) -> Option<Self> {
        Some(Self {
            max: fs::read_to_string(dir.join("cpu.max"))
                .ok()?
                .trim()
                .to_owned(),
            weight: weight_of(dir)?,
        })
    }
}

/// Copies what Mesos granted.
#[derive(Debug)]
pub struct Mirror {
    /// Mesos' cgroup of the executor's container.
    granted: PathBuf,
    /// The first cgroup on the way there, in which all of Mesos' containers are.
    top: PathBuf,
    /// The executor's tree.
    base: PathBuf,
    written: Option<Granted>,
    written_parent: Option<u64>,
}

impl Mirror {
    /// For an executor whose tree lies beside Mesos'. None on v1, and where Mesos' launcher uses
    /// no cgroups.
    pub fn new(setup: &CgroupSetup) -> Option<Self> {
        let hierarchy = setup.hierarchies.first()?;
        let granted = hierarchy.dir(setup.granted.as_deref()?);
        let first = granted.strip_prefix(&hierarchy.mount).ok()?.iter().next()?;
        Some(Self {
            top: hierarchy.mount.join(first),
            base: hierarchy.dir(&setup.base),
            granted,
            written: None,
            written_parent: None,
        })
    }

    /// Whether Mesos grants CPU at all.
    pub fn grants_cpu(&self) -> bool {
        Granted::read(&self.granted).is_some()
    }

    /// Copies what has changed. To be called every now and then.
    pub fn update(&mut self) -> Result<(), CgroupError> {
        let Some(granted) = Granted::read(&self.granted) else {
            return Ok(());
        };
        if self.written.as_ref() != Some(&granted) {
            set(&self.base.join("cpu.max"), &granted.max)?;
            set(&self.base.join("cpu.weight"), &granted.weight.to_string())?;
            self.written = Some(granted);
        }
        let parent = self.base.parent().zip(self.granted.parent());
        if let Some((ours, theirs)) = parent {
            let weight = among(ours, theirs, &self.top);
            if weight.is_some() && self.written_parent != weight {
                set(
                    &ours.join("cpu.weight"),
                    &weight.unwrap_or_default().to_string(),
                )?;
                self.written_parent = weight;
            }
        }
        Ok(())
    }
}

fn set(file: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(file, value).map_err(CgroupError::io("setting", file))
}

fn weight_of(dir: &Path) -> Option<u64> {
    fs::read_to_string(dir.join("cpu.weight"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The weight that the parent of our trees shall have.
fn among(ours: &Path, theirs: &Path, top: &Path) -> Option<u64> {
    let children = |dir: &Path| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name())
            .collect::<Vec<_>>()
    };
    let nodes = children(ours);
    let sum = |dir: &Path, names: &mut dyn Iterator<Item = &std::ffi::OsString>| {
        names
            .filter_map(|name| weight_of(&dir.join(name)))
            .fold(0, u64::saturating_add)
    };
    let own = sum(ours, &mut nodes.iter());
    // Only the executors themselves are in the containers whose pods live in our trees.
    let containers = children(theirs);
    let others = sum(
        theirs,
        &mut containers.iter().filter(|name| !nodes.contains(name)),
    );
    Some(fair_weight(weight_of(top)?, own, others))
}

/// A tree of weight `own` beside one of weight `top`, in which `others` share: as if all shared
/// in one. Where nobody else is, both weigh the same.
fn fair_weight(top: u64, own: u64, others: u64) -> u64 {
    if own == 0 || others == 0 {
        return top;
    }
    (top.saturating_mul(own) / others).clamp(*WEIGHTS.start(), *WEIGHTS.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(dir: &Path, max: &str, weight: u64) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("cpu.max"), format!("{max}\n")).unwrap();
        fs::write(dir.join("cpu.weight"), format!("{weight}\n")).unwrap();
    }

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn mirror(root: &Path) -> Mirror {
        Mirror {
            granted: root.join("mesos/c1"),
            top: root.join("mesos"),
            base: root.join("k8sm/c1"),
            written: None,
            written_parent: None,
        }
    }

    #[test]
    fn what_mesos_granted_is_copied_and_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        cgroup(&root.join("mesos"), "max 100000", 100);
        cgroup(&root.join("mesos/c1"), "max 100000", 50);
        cgroup(&root.join("k8sm"), "max 100000", 100);
        cgroup(&root.join("k8sm/c1"), "max 100000", 100);
        let mut mirror = mirror(root);
        mirror.update().unwrap();
        assert_eq!(read(&root.join("k8sm/c1"), "cpu.weight"), "50");

        cgroup(&root.join("mesos/c1"), "250000 100000", 250);
        mirror.update().unwrap();
        assert_eq!(read(&root.join("k8sm/c1"), "cpu.max"), "250000 100000");
        assert_eq!(read(&root.join("k8sm/c1"), "cpu.weight"), "250");
    }

    #[test]
    fn a_node_competes_with_other_containers_as_if_it_were_among_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        cgroup(&root.join("mesos"), "max 100000", 100);
        cgroup(&root.join("mesos/c1"), "max 100000", 300);
        cgroup(&root.join("mesos/spark"), "max 100000", 100);
        cgroup(&root.join("k8sm"), "max 100000", 100);
        cgroup(&root.join("k8sm/c1"), "max 100000", 100);
        mirror(root).update().unwrap();
        // 3 to 1, as their weights are.
        assert_eq!(read(&root.join("k8sm"), "cpu.weight"), "300");
        fs::remove_dir_all(root.join("mesos/spark")).unwrap();
        mirror(root).update().unwrap();
        assert_eq!(read(&root.join("k8sm"), "cpu.weight"), "100");
    }

    #[test]
    fn weights_stay_within_the_kernels_bounds() {
        assert_eq!(fair_weight(100, 1, 10_000), 1);
        assert_eq!(fair_weight(100, 10_000, 1), 10_000);
        assert_eq!(fair_weight(100, u64::MAX, 1), 10_000);
    }

    #[test]
    fn without_cpu_isolation_nothing_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("mesos/c1")).unwrap();
        let mut mirror = mirror(dir.path());
        assert!(!mirror.grants_cpu());
        mirror.update().unwrap();
        assert!(!dir.path().join("k8sm").exists());
    }
}
