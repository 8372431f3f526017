//! At the executor's start, before anything is reported: removes what dead executors on this
//! agent left behind, in case their guards died with them (a killed guard, a reboot).

use std::path::{Path, PathBuf};

use crate::guard::manifest::{Manifest, read_owner};

/// What a sweep found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Lists that were worked off.
    pub cleaned: Vec<PathBuf>,
    /// Things that could not be removed, in words.
    pub remaining: Vec<String>,
}

/// Works off the clean-up list of every dead executor. Lists of living ones are left alone. What
/// fails is told and does not keep the new executor from starting: a node that comes up finds
/// out itself whether it can live with it.
pub fn sweep(manifests: &Path) -> Swept {
    let mut swept = Swept::default();
    let Ok(entries) = std::fs::read_dir(manifests) else {
        return swept;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || !path.is_file() {
            continue;
        }
        let owner = match read_owner(&path) {
            Ok(owner) => owner,
            Err(error) => {
                swept.remaining.push(error.to_string());
                continue;
            }
        };
        if owner.as_ref().is_some_and(|owner| owner.alive()) {
            continue;
        }
        match Manifest::clean(&path, owner.as_ref()) {
            Ok(remaining) if remaining.is_empty() => swept.cleaned.push(path),
            Ok(remaining) => swept.remaining.extend(remaining),
            Err(error) => swept.remaining.push(error.to_string()),
        }
    }
    swept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::manifest::{Leftover, Owner};

    #[test]
    fn a_dead_executors_leftovers_go_and_a_living_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = dir.path().join("cleanup");
        let living = Owner::current().unwrap();
        let mut dead = living.clone();
        dead.start_time += 1;
        for (name, owner) in [("living", &living), ("dead", &dead)] {
            let data = dir.path().join(name);
            std::fs::create_dir(&data).unwrap();
            let manifest = Manifest::create(manifests.join(name), owner).unwrap();
            manifest.add(&Leftover::Dir(data)).unwrap();
        }
        let swept = sweep(&manifests);
        assert_eq!(swept.cleaned, [manifests.join("dead")]);
        assert!(dir.path().join("living").exists());
        assert!(!dir.path().join("dead").exists());
    }

    #[test]
    fn an_agent_without_lists_is_clean() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sweep(&dir.path().join("none")), Swept::default());
    }

    #[test]
    fn a_damaged_list_is_worked_off_as_far_as_it_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = dir.path().join("cleanup");
        let data = dir.path().join("data");
        std::fs::create_dir_all(&manifests).unwrap();
        std::fs::create_dir(&data).unwrap();
        let mut bytes = b"\xff\xfe\nlink\ndir\n".to_vec();
        bytes.extend(format!("dir\t{}\ndir\t/\n", data.display()).bytes());
        std::fs::write(manifests.join("n"), bytes).unwrap();
        let swept = sweep(&manifests);
        assert!(!data.exists());
        assert_eq!(swept.remaining, ["/: too near the root to be removed"]);
    }
}
