//! Finds the machine's hierarchies and the executor's place in them, from `/proc`.

use std::path::{Path, PathBuf};

use super::{CgroupError, CgroupSetup, CgroupVersion};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// v1: its controllers (`name=systemd` included). v2: empty.
    pub controllers: Vec<String>,
    /// The executor's own cgroup in it, relative to the mount, starting with `/`.
    pub own: String,
}

impl Hierarchy {
    /// Directory of a cgroup.
    pub fn dir(&self, cgroup: &str) -> PathBuf {
        self.mount.join(cgroup.trim_start_matches('/'))
    }
}

/// What `/proc` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// The machine's kind. Hybrid mounts count as v1: that is where the controllers are.
    pub version: CgroupVersion,
    /// What is mounted.
    pub hierarchies: Vec<Hierarchy>,
    /// See [`CgroupSetup::hybrid`].
    pub hybrid: Option<Hierarchy>,
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub fn discover() -> Result<Discovered, CgroupError> {
    let read = |path: &str| {
        std::fs::read_to_string(path).map_err(CgroupError::io("reading", Path::new(path)))
    };
    parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
}

/// Controllers that are file systems' options and not controllers.
const OPTIONS: &[&str] = &["rw", "ro", "xattr", "noprefix", "clone_children"];

/// The pure part of [`discover`].
pub fn parse(mountinfo: &str, own: &str) -> Result<Discovered, CgroupError> {
    let mut v1: Vec<Hierarchy> = Vec::new();
    let mut v2: Option<Hierarchy> = None;
    for line in mountinfo.lines() {
        let Some((head, tail)) = line.split_once(" - ") else {
            continue;
        };
        let head: Vec<&str> = head.split(' ').collect();
        let tail: Vec<&str> = tail.split(' ').collect();
        let (Some(root), Some(mount), Some(kind)) = (head.get(3), head.get(4), tail.first()) else {
            continue;
        };
        let mount = PathBuf::from(unescape(mount));
        match *kind {
            "cgroup" => {
                let controllers: Vec<String> = tail
                    .get(2)
                    .unwrap_or(&"")
                    .split(',')
                    .filter(|word| !OPTIONS.contains(word) && !word.starts_with("release_agent="))
                    .map(str::to_owned)
                    .collect();
                if v1.iter().any(|h| h.controllers == controllers) {
                    continue;
                }
                let own = own_path(own, |line| {
                    line.split(',')
                        .any(|c| controllers.iter().any(|have| have == c))
                });
                v1.push(Hierarchy {
                    mount,
                    controllers,
                    own: below(root, &own),
                });
            }
            "cgroup2" if v2.is_none() => {
                let own = own_path(own, str::is_empty);
                v2 = Some(Hierarchy {
                    mount,
                    controllers: Vec::new(),
                    own: below(root, &own),
                });
            }
            _ => {}
        }
    }
    let has_memory = v1
        .iter()
        .any(|h| h.controllers.iter().any(|c| c == "memory"));
    if has_memory {
        return Ok(Discovered {
            version: CgroupVersion::V1,
            hierarchies: v1,
            hybrid: v2,
        });
    }
    match v2 {
        Some(unified) => Ok(Discovered {
            version: CgroupVersion::V2,
            hierarchies: vec![unified],
            hybrid: None,
        }),
        None => Err(CgroupError::NoneMounted),
    }
}

fn own_path(own: &str, matches: impl Fn(&str) -> bool) -> String {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            matches(controllers).then(|| path.to_owned())
        })
        .next()
        .unwrap_or_else(|| "/".to_owned())
}

/// A path of `/proc/self/cgroup` as seen from a mount that shows only the part below `root`.
fn below(root: &str, path: &str) -> String {
    if root == "/" {
        return path.to_owned();
    }
    match path.strip_prefix(root) {
        Some("") => "/".to_owned(),
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        _ => path.to_owned(),
    }
}

/// mountinfo writes space, tab, newline and backslash as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

impl Discovered {
    /// Where everything goes for that Mesos container.
    pub fn plan(self, container_id: &str) -> Result<CgroupSetup, CgroupError> {
        let fits = !container_id.is_empty()
            && container_id.len() <= 128
            && !container_id.starts_with('.')
            && container_id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits {
            return Err(CgroupError::BadContainerId(container_id.to_owned()));
        }
        let own = format!("/k8sm/{container_id}");
        let base = match self.version {
            CgroupVersion::V2 => own.clone(),
            CgroupVersion::V1 => self
                .hierarchies
                .iter()
                .find_map(|h| up_to(&h.own, container_id))
                .unwrap_or_else(|| own.clone()),
        };
        let granted = match self.version {
            CgroupVersion::V1 => None,
            CgroupVersion::V2 => self
                .hierarchies
                .first()
                .and_then(|h| up_to(&h.own, container_id)),
        };
        Ok(CgroupSetup {
            granted,
            version: self.version,
            hierarchies: self.hierarchies,
            hybrid: self.hybrid,
            pods: format!("{base}/k8s"),
            shims: format!("{base}/k8s/shims"),
            node: format!("{base}/node"),
            guard: format!("{own}/guard"),
            base,
        })
    }
}

/// `/mesos/<id>` of `/mesos/<id>/...`.
fn up_to(path: &str, container_id: &str) -> Option<String> {
    let mut taken = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        taken.push('/');
        taken.push_str(part);
        if part == container_id {
            return Some(taken);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::manifest::Leftover;

    const MOUNTS: &str = "\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
28 25 0:25 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
29 25 0:26 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
30 25 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn on_v1_pods_nest_below_the_mesos_container_in_every_hierarchy() {
        let own = "4:memory:/elsewhere\n3:cpu,cpuacct:/\n2:freezer:/mesos/abc\n1:name=systemd:/mesos/abc\n0::/\n";
        let found = parse(MOUNTS, own).unwrap();
        assert_eq!(found.version, CgroupVersion::V1);
        assert_eq!(found.hierarchies.len(), 4);
        let setup = found.plan("abc").unwrap();
        assert_eq!(setup.base, "/mesos/abc");
        assert_eq!(setup.guard, "/k8sm/abc/guard");
        assert_eq!(
            setup.dir_of("cpuacct", &setup.shims).unwrap(),
            Path::new("/sys/fs/cgroup/cpu,cpuacct/mesos/abc/k8s/shims")
        );
        let removed = setup.leftovers();
        let has = |path: &str| removed.contains(&Leftover::Cgroup(path.into()));
        assert!(has("/sys/fs/cgroup/freezer/mesos/abc/k8s"));
        assert!(
            !has("/sys/fs/cgroup/freezer/mesos/abc"),
            "the container's own cgroup is Mesos' to remove"
        );
        assert!(
            has("/sys/fs/cgroup/memory/mesos/abc"),
            "where Mesos made none it is ours"
        );
        assert!(has("/sys/fs/cgroup/unified/mesos/abc"));
        let parent = Leftover::CgroupParent("/sys/fs/cgroup/memory/mesos".into());
        assert!(removed.contains(&parent));
    }

    #[test]
    fn where_mesos_made_no_cgroup_the_tree_is_our_own() {
        let setup = parse(MOUNTS, "4:memory:/\n0::/\n")
            .unwrap()
            .plan("abc")
            .unwrap();
        assert_eq!(setup.base, "/k8sm/abc");
        assert!(
            setup
                .leftovers()
                .contains(&Leftover::Cgroup("/sys/fs/cgroup/memory/k8sm/abc".into()))
        );
    }

    #[test]
    fn on_v2_the_tree_is_outside_mesos() {
        let mounts = "25 20 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let setup = parse(mounts, "0::/mesos/abc/leaf\n")
            .unwrap()
            .plan("abc")
            .unwrap();
        assert_eq!(setup.version, CgroupVersion::V2);
        assert_eq!(setup.base, "/k8sm/abc");
        assert_eq!(setup.granted.as_deref(), Some("/mesos/abc"));
    }

    #[test]
    fn on_v2_without_mesos_linux_launcher_there_is_no_grant_to_follow() {
        let mounts = "25 20 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let setup = parse(mounts, "0::/system.slice/mesos-agent.service\n")
            .unwrap()
            .plan("abc")
            .unwrap();
        assert_eq!(setup.granted, None);
    }

    #[test]
    fn a_mount_that_shows_a_part_only_is_understood() {
        let mounts = "26 25 0:23 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = parse(mounts, "4:memory:/docker/x/mesos/abc\n").unwrap();
        assert_eq!(found.hierarchies[0].own, "/mesos/abc");
    }

    #[test]
    fn a_container_id_that_climbs_is_refused() {
        for id in ["", "..", "a/b", "../../x", "a b"] {
            let error = parse(MOUNTS, "").unwrap().plan(id).unwrap_err();
            assert!(matches!(error, CgroupError::BadContainerId(_)), "{id}");
        }
    }

    #[test]
    fn a_machine_without_cgroups_is_refused() {
        assert!(matches!(
            parse("1 1 0:1 / / rw - ext4 /dev/vda rw\n", ""),
            Err(CgroupError::NoneMounted)
        ));
    }
}
