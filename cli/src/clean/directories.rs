//! Directories of the system over which nodes and agents mount their own: kubelet's and the
//! runtime's well-known places, which charts and tools have hard-coded. Where they did not exist an
//! empty one is made to mount on, and goes again with the cluster.

use std::path::{Path, PathBuf};

/// The places, the inner ones first.
const MOUNT_POINTS: [&str; 8] = [
    "/run/containerd",
    "/run/k8sm",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/k8sm",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];

/// Those that do not exist now.
pub fn absent() -> Vec<PathBuf> {
    MOUNT_POINTS
        .iter()
        .map(Path::new)
        .filter(|path| !path.exists())
        .map(Path::to_owned)
        .collect()
}

/// Removes directories that are empty and known; anything else stays.
pub fn remove_empty(dirs: &[PathBuf]) {
    for dir in dirs {
        let known = MOUNT_POINTS.iter().any(|point| Path::new(point) == dir);
        if known {
            // Fails when somebody else has put something there meanwhile, and so it should.
            let _ = std::fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_places_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        remove_empty(std::slice::from_ref(&empty));
        assert!(empty.exists());
        assert!(absent().iter().all(|path| !path.exists()));
    }
}
