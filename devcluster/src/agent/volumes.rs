//! Persistent volumes: directories of the agent that outlive tasks, executors and the agent's
//! process, `<work dir>/volumes/roles/<role>/<id>`, seen in sandboxes as links, as Mesos does
//! without a file system isolator.

use std::io;
use std::path::{Path, PathBuf};

use mesos::pb;

use super::disk::{self, DiskError};
use super::paths::Layout;
use super::sandbox::User;
use crate::ids;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeKey {
    /// The role that it is reserved for.
    pub role: String,
    /// Its id, unique for the role on an agent.
    pub id: String,
}

/// A volume as a task wants to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Which.
    pub volume: VolumeKey,
    /// Where, relative to the sandbox.
    pub container_path: String,
}

/// The volume that a resource is, if it is one. Names that would leave the directory of
/// volumes are none: the master has refused them.
pub fn key_of(resource: &pb::Resource) -> Option<VolumeKey> {
    let (role, id) = crate::master::volume_key(resource)?;
    let safe = |name: &str| ids::why_invalid(name).is_none();
    (safe(&id) && role.split('/').all(safe)).then_some(VolumeKey { role, id })
}

/// The volumes among resources.
pub fn keys_of(resources: &[pb::Resource]) -> std::collections::BTreeSet<VolumeKey> {
    resources.iter().filter_map(key_of).collect()
}

/// Where the tasks that use these resources want to see which volumes.
pub fn mounts_of<'a>(resources: impl IntoIterator<Item = &'a pb::Resource>) -> Vec<Mount> {
    let mount = |resource: &pb::Resource| {
        let volume = key_of(resource)?;
        let described = resource.disk.as_ref()?.volume.as_ref()?;
        Some(Mount {
            volume,
            container_path: described.container_path.clone(),
        })
    };
    resources.into_iter().filter_map(mount).collect()
}

impl Layout {
    /// The directory of a volume.
    pub fn volume(&self, volume: &VolumeKey) -> PathBuf {
        self.work_dir
            .join("volumes/roles")
            .join(&volume.role)
            .join(&volume.id)
    }
}

/// Makes a volume's directory. One that is there stays as it is.
pub fn create(layout: &Layout, volume: &VolumeKey) -> Result<(), DiskError> {
    disk::make_dir(&layout.volume(volume))
}

/// Removes a volume with all that is in it.
pub fn remove(layout: &Layout, volume: &VolumeKey) -> Result<(), DiskError> {
    let path = layout.volume(volume);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(disk::io_error("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Gives volumes to their first user, for containers that see them by mounts.
pub fn own(layout: &Layout, mounts: &[Mount], user: Option<&User>) -> Result<(), String> {
    let Some(user) = user else { return Ok(()) };
    for mount in mounts {
        let path = layout.volume(&mount.volume);
        std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))
            .map_err(|e| format!("cannot give {} to {}: {e}", path.display(), user.name))?;
    }
    Ok(())
}

/// Shows volumes in a sandbox. The first user of a volume owns it.
pub fn link(
    layout: &Layout,
    sandbox: &Path,
    mounts: &[Mount],
    user: Option<&User>,
) -> Result<(), String> {
    for mount in mounts {
        let target = layout.volume(&mount.volume);
        let name = mount.container_path.trim_matches('/');
        let relative = !mount.container_path.starts_with('/');
        if !relative || name.is_empty() || name.split('/').any(|part| part == "..") {
            return Err(format!(
                "the volume {} wants to be seen at '{}'; only paths below the sandbox are \
                 possible without a file system isolator",
                mount.volume.id, mount.container_path
            ));
        }
        let link = sandbox.join(name);
        let refused = |error: io::Error| format!("cannot link {}: {error}", link.display());
        if let Some(parent) = link.parent() {
            std::fs::create_dir_all(parent).map_err(refused)?;
        }
        match std::os::unix::fs::symlink(&target, &link) {
            // The same volume for another task of the executor.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::read_link(&link).ok().as_deref() != Some(&target) {
                    return Err(refused(error));
                }
            }
            other => other.map_err(refused)?,
        }
        if let Some(user) = user {
            std::os::unix::fs::chown(&target, Some(user.uid), Some(user.gid)).map_err(refused)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(role: &str, id: &str, path: &str) -> pb::Resource {
        pb::Resource {
            name: "disk".to_owned(),
            reservations: vec![pb::resource::ReservationInfo {
                role: Some(role.to_owned()),
                ..Default::default()
            }],
            disk: Some(pb::resource::DiskInfo {
                persistence: Some(pb::resource::disk_info::Persistence {
                    id: id.to_owned(),
                    principal: None,
                }),
                volume: Some(pb::Volume {
                    container_path: path.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_written_to_a_volume_stays_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::below(dir.path());
        let resource = volume("a/b", "v#1", "data");
        let mounts = mounts_of([&resource]);
        create(&layout, &mounts[0].volume).unwrap();
        for run in ["run1", "run2"] {
            let sandbox = dir.path().join(run);
            std::fs::create_dir(&sandbox).unwrap();
            link(&layout, &sandbox, &mounts, None).unwrap();
            link(&layout, &sandbox, &mounts, None).unwrap();
            std::fs::write(sandbox.join("data").join(run), "x").unwrap();
        }
        assert!(dir.path().join("run2/data/run1").exists());
        remove(&layout, &mounts[0].volume).unwrap();
        remove(&layout, &mounts[0].volume).unwrap();
        assert!(!dir.path().join("run2/data/run1").exists());
    }

    #[test]
    fn volumes_do_not_leave_their_directory() {
        assert_eq!(key_of(&volume("r", "../x", "data")), None);
        assert_eq!(key_of(&volume("../r", "x", "data")), None);
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::below(dir.path());
        for path in ["/abs", "../up", ""] {
            let mounts = mounts_of([&volume("r", "x", path)]);
            assert!(link(&layout, dir.path(), &mounts, None).is_err(), "{path}");
        }
    }
}
