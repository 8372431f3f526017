//! At the executor's start, before anything is reported: removes what dead executors on this
//! agent left behind, in case their guards died with them (a killed guard, a reboot).

use std::path::{Path, PathBuf};

use crate::guard::manifest::{Manifest, ManifestError, read_owner};

/// What a sweep found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Lists that were worked off.
    pub cleaned: Vec<PathBuf>,
    /// Things that could not be removed, in words.
    pub remaining: Vec<String>,
}

/// Works off the clean-up list of every dead executor. Lists of living ones are left alone.
pub fn sweep(manifests: &Path) -> Result<Swept, ManifestError> {
    let mut swept = Swept::default();
    let Ok(entries) = std::fs::read_dir(manifests) else {
        return Ok(swept);
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || !path.is_file() {
            continue;
        }
        let owner = read_owner(&path)?;
        if owner.as_ref().is_some_and(|owner| owner.alive()) {
            continue;
        }
        let remaining = Manifest::clean(&path, owner.as_ref())?;
        if remaining.is_empty() {
            swept.cleaned.push(path);
        } else {
            swept.remaining.extend(remaining);
        }
    }
    Ok(swept)
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
        let swept = sweep(&manifests).unwrap();
        assert_eq!(swept.cleaned, [manifests.join("dead")]);
        assert!(dir.path().join("living").exists());
        assert!(!dir.path().join("dead").exists());
    }

    #[test]
    fn an_agent_without_lists_is_clean() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sweep(&dir.path().join("none")).unwrap(), Swept::default());
    }
}
