//! Makes the cgroups.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupError, CgroupSetup, CgroupVersion};

/// Controllers that kubelet needs on v2, and those that it uses when they are there.
const NEEDED: &[&str] = &["cpu", "cpuset", "memory", "pids"];
const WANTED: &[&str] = &["io", "hugetlb"];

impl CgroupSetup {
    /// Makes every cgroup. Doing so again changes nothing.
    pub fn make(&self) -> Result<(), CgroupError> {
        // Another node's guard may remove an empty parent between its making and ours.
        const ATTEMPTS: usize = 5;
        let mut last = self.make_once();
        for _ in 1..ATTEMPTS {
            match &last {
                Err(CgroupError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    last = self.make_once();
                }
                _ => break,
            }
        }
        last
    }

    fn make_once(&self) -> Result<(), CgroupError> {
        for cgroup in [&self.pods, &self.shims, &self.node, &self.guard] {
            for hierarchy in &self.hierarchies {
                match self.version {
                    CgroupVersion::V1 => make_v1(&hierarchy.mount, cgroup)?,
                    CgroupVersion::V2 => make_v2(&hierarchy.mount, cgroup)?,
                }
            }
        }
        if self.version == CgroupVersion::V2 {
            // kubelet looks for its controllers in its own root.
            for hierarchy in &self.hierarchies {
                enable(&hierarchy.mount, &hierarchy.dir(&self.pods))?;
            }
        }
        Ok(())
    }
}

fn levels(mount: &Path, cgroup: &str) -> Vec<PathBuf> {
    let mut dir = mount.to_owned();
    cgroup
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| {
            dir.push(part);
            dir.clone()
        })
        .collect()
}

fn make_dir(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(CgroupError::io("making cgroup", dir)(error))
        }
        _ => Ok(()),
    }
}

fn make_v1(mount: &Path, cgroup: &str) -> Result<(), CgroupError> {
    let mut parent = mount.to_owned();
    for dir in levels(mount, cgroup) {
        make_dir(&dir)?;
        // A fresh cpuset is empty, and nothing can run in it.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let file = dir.join(name);
            let Ok(value) = fs::read_to_string(&file) else {
                continue;
            };
            if value.trim().is_empty() {
                let from = parent.join(name);
                let inherited =
                    fs::read_to_string(&from).map_err(CgroupError::io("reading", &from))?;
                fs::write(&file, inherited.trim()).map_err(CgroupError::io("writing", &file))?;
            }
        }
        parent = dir;
    }
    Ok(())
}

fn make_v2(mount: &Path, cgroup: &str) -> Result<(), CgroupError> {
    let mut parent = mount.to_owned();
    for dir in levels(mount, cgroup) {
        enable(mount, &parent)?;
        make_dir(&dir)?;
        parent = dir;
    }
    Ok(())
}

/// Enables kubelet's controllers for the children of `dir`.
fn enable(mount: &Path, dir: &Path) -> Result<(), CgroupError> {
    let available = dir.join("cgroup.controllers");
    let control = dir.join("cgroup.subtree_control");
    let read = |file: &PathBuf| fs::read_to_string(file).map_err(CgroupError::io("reading", file));
    let available = read(&available)?;
    let enabled = read(&control)?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|c| c == name);
    for name in NEEDED.iter().chain(WANTED) {
        if has(&enabled, name) {
            continue;
        }
        if !has(&available, name) {
            if NEEDED.contains(name) && dir == mount {
                return Err(CgroupError::MissingController(name));
            }
            continue;
        }
        fs::write(&control, format!("+{name}"))
            .map_err(CgroupError::io("enabling controllers in", &control))?;
    }
    Ok(())
}
