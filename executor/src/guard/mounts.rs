//! Which mounts keep a directory from being removed, from `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

struct Mount<'a> {
    device: &'a str,
    /// What of the file system is shown.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

/// mountinfo writes space, tab, newline and backslash as octal numbers.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(
        text.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\"),
    )
}

fn parse(line: &str) -> Option<Mount<'_>> {
    let mut fields = line.split(' ').skip(2);
    let device = fields.next()?;
    let root = fields.next()?;
    Some(Mount {
        device,
        // The kernel adds this when the directory shown was removed elsewhere.
        root: unescape(root.strip_suffix("//deleted").unwrap_or(root)),
        point: unescape(fields.next()?),
    })
}

/// Mount points to detach before `path` can be removed, innermost first: those at or below it,
/// and those elsewhere that show a part of it (a bind of kubelet's directory, say, with the pods'
/// volumes mounted in it: the kernel finds those busy by either name).
pub fn in_the_way(mountinfo: &str, path: &Path) -> Vec<PathBuf> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(parse).collect();
    // Where in its file system the directory is. Of mounts on top of each other the last counts.
    let inside = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point) && path != mount.point)
        .max_by_key(|mount| mount.point.components().count())
        .and_then(|mount| {
            let below = path.strip_prefix(&mount.point).ok()?;
            Some((mount.device, mount.root.join(below)))
        });
    mounts
        .iter()
        .rev()
        .filter(|mount| {
            mount.point.starts_with(path)
                || inside.as_ref().is_some_and(|(device, root)| {
                    mount.device == *device && mount.root.starts_with(root)
                })
        })
        .map(|mount| mount.point.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
1 0 254:0 / / rw - ext4 /dev/vda rw
2 1 254:1 / /data rw - ext4 /dev/vdb rw
3 1 254:1 /nodes/n/kubelet /var/lib/kubelet rw shared:1 - ext4 /dev/vdb rw
4 3 0:44 / /var/lib/kubelet/pods/u/volume rw - tmpfs tmpfs rw
5 2 0:45 / /data/nodes/n/a\\040b rw - tmpfs tmpfs rw
6 1 254:1 /nodes/n/cni//deleted /var/lib/cni rw - ext4 /dev/vdb rw
7 1 254:1 /nodes/other/kubelet /mnt rw - ext4 /dev/vdb rw
8 1 254:0 /nodes/n /elsewhere rw - ext4 /dev/vda rw
";

    #[test]
    fn mounts_below_a_directory_and_binds_of_it_are_in_its_way() {
        assert_eq!(
            in_the_way(MOUNTS, Path::new("/data/nodes/n")),
            [
                Path::new("/var/lib/cni"),
                Path::new("/data/nodes/n/a b"),
                Path::new("/var/lib/kubelet"),
            ]
        );
    }

    #[test]
    fn a_mount_point_itself_is_in_its_own_way_and_its_file_system_is_not() {
        let mounts = "1 0 254:0 / / rw - ext4 x rw\n2 1 0:9 / /run/n rw - tmpfs tmpfs rw\n3 1 0:9 / /other rw - tmpfs tmpfs rw\n";
        assert_eq!(
            in_the_way(mounts, Path::new("/run/n")),
            [Path::new("/run/n")]
        );
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        assert!(in_the_way("\nx\n1 2\n", Path::new("/data/nodes/n")).is_empty());
    }
}
