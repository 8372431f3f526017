//! What a cluster leaves on a machine if it leaves anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::processes;

/// The machine's mounts, links, namespaces, cgroups, tables and settings, and the processes of one
/// cluster.
pub struct Traces(BTreeSet<String>);

/// Where an instance's own cgroups are directly below.
const CGROUP_ROOTS: [&str; 6] = [
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/memory",
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup/cpu",
    "/sys/fs/cgroup/freezer",
    "/sys/fs/cgroup/systemd",
];

impl Traces {
    /// Looks at the machine now. Processes count by the folder that they name.
    pub fn take(dir: &Path) -> Self {
        let mut found = BTreeSet::new();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        for line in read("/proc/self/mounts").lines() {
            if let Some(target) = line.split(' ').nth(1) {
                found.insert(format!("mount {target}"));
            }
        }
        // Not /sys/class/net, which shows the namespace that mounted it.
        for line in read("/proc/self/net/dev").lines().skip(2) {
            let link = line.split(':').next().unwrap_or_default().trim();
            found.insert(format!("link {link}"));
        }
        for name in entries("/run/netns") {
            found.insert(format!("netns {name}"));
        }
        // Clusters of other people on this machine are none of this one's business, and executors of
        // all clusters share the parent `k8sm` where Mesos made no cgroups for them.
        let own = cli::instance::Paths::new(&dir.join("state"))
            .unwrap()
            .cgroups_root();
        for root in CGROUP_ROOTS {
            for name in entries(root) {
                let foreign = name.starts_with("k8sm") && name != own;
                if Path::new(root).join(&name).is_dir() && !foreign {
                    found.insert(format!("cgroup {root}/{name}"));
                }
            }
        }
        for process in processes::naming(dir) {
            found.insert(format!("process {} {}", process.pid, process.line));
        }
        let rules = Command::new("nft").args(["list", "tables"]).output();
        if let Ok(rules) = rules {
            for line in String::from_utf8_lossy(&rules.stdout).lines() {
                found.insert(format!("nft {line}"));
            }
        }
        // An executor leaves its run directory, empty, to the next one on its agent.
        for place in ["/var/lib/kubelet", "/var/lib/k8sm", "/run/k8sm", "/etc/cni"] {
            if entries(place).next().is_some() {
                found.insert(format!("directory {place}"));
            }
        }
        found.insert(format!(
            "ip_forward {}",
            read("/proc/sys/net/ipv4/ip_forward").trim()
        ));
        Self(found)
    }

    /// Adds cgroups that these Mesos containers have in the executors' own tree.
    pub fn add_containers(&mut self, containers: &[String]) {
        for root in CGROUP_ROOTS {
            for id in containers {
                let group = Path::new(root).join("k8sm").join(id);
                if group.is_dir() {
                    self.0.insert(format!("cgroup {}", group.display()));
                }
            }
        }
    }

    /// What is there now and was not there before.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// Ids of the Mesos containers that a cluster's agents have had.
pub fn containers(dir: &Path) -> Vec<String> {
    let output = Command::new("find")
        .arg(dir)
        .args(["-type", "d", "-path", "*/executors/*/runs/*", "-prune"])
        .args(["-printf", "%f\\n"])
        .output();
    let text = output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
    text.unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn entries(dir: &str) -> impl Iterator<Item = String> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}
