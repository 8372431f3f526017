//! Mounts below an instance's directories in the machine's own mount namespace. Those of nodes and
//! agents are in namespaces of their own and vanish with their processes.

use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

/// Unmounts everything below these directories, the innermost first. A directory that is itself a
/// mount point is somebody's disk, and stays. Returns what would not go.
pub fn unmount_below(dirs: &[PathBuf]) -> Vec<String> {
    let table = match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(table) => table,
        Err(error) => return vec![format!("mounts could not be listed: {error}")],
    };
    mount_points(&table)
        .into_iter()
        .rev()
        .filter(|point| is_below(point, dirs))
        .filter_map(|point| {
            // Lazily: whatever still has it open keeps it until it ends.
            match rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => None,
                Err(error) => Some(format!("mount {}: {error}", point.display())),
            }
        })
        .collect()
}

fn is_below(point: &Path, dirs: &[PathBuf]) -> bool {
    dirs.iter()
        .any(|dir| point.starts_with(dir) && point != dir)
}

/// Mount points in the order in which they were mounted.
fn mount_points(table: &str) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| Path::new(&unescape(field)).to_owned())
        .collect()
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4);
        match code.and_then(|c| u8::from_str_radix(c, 8).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                text.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_a_disk_of_its_own_stays_mounted() {
        let dirs = [PathBuf::from("/state")];
        assert!(is_below(Path::new("/state/node/x"), &dirs));
        assert!(!is_below(Path::new("/state"), &dirs));
        assert!(!is_below(Path::new("/state2/x"), &dirs));
    }

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table = "22 1 0:20 / /proc rw - proc proc rw\n\
                     30 22 0:21 / /var/lib/a\\040b rw,nosuid shared:7 - tmpfs tmpfs rw\n";
        assert_eq!(
            mount_points(table),
            [PathBuf::from("/proc"), PathBuf::from("/var/lib/a b")]
        );
    }
}
