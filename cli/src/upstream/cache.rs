//! Where built components live, and how a complete one is told from anything else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::table::{Component, Project};
use super::{Error, Result};

/// Everything that decides a component's bytes, as one short name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of a component built by this Go version for this architecture.
    pub fn of(component: &Component, go_version: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [
            component.project.go_mod,
            component.project.go_sum,
            component.package,
            &component.linker_flags(),
            component.tags,
            if component.cgo { "cgo" } else { "nocgo" },
            go_version,
            std::env::consts::ARCH,
        ] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        Self(format!(
            "{}-{}-{}",
            component.name,
            component.version(),
            hex(&digest[..6])
        ))
    }

    /// The folder's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cache folder: `$K8SM_CACHE`, else `$XDG_CACHE_HOME/k8sm`, else `~/.cache/k8sm`.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user, or an explicit one.
    pub fn new(root: Option<PathBuf>) -> Self {
        let from = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = root
            .or_else(|| from("K8SM_CACHE"))
            .or_else(|| from("XDG_CACHE_HOME").map(|it| it.join("k8sm")))
            .or_else(|| from("HOME").map(|it| it.join(".cache/k8sm")))
            .unwrap_or_else(|| PathBuf::from("/var/cache/k8sm"));
        Self { root }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of the built components.
    pub fn upstream(&self) -> PathBuf {
        self.root.join("upstream")
    }

    /// Where a component lies once it is complete.
    pub fn entry(&self, key: &Key) -> PathBuf {
        self.upstream().join(key.as_str())
    }

    /// The program of a complete component, if it is there.
    pub fn program(&self, component: &Component, key: &Key) -> Option<PathBuf> {
        let path = self.entry(key).join(component.name);
        path.is_file().then_some(path)
    }

    /// Takes the build lock, which ends with the file that is returned (or with the process).
    pub fn lock(&self, patience: std::time::Duration) -> Result<fs::File> {
        let dir = self.upstream();
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let path = dir.join("lock");
        let file = fs::File::create(&path).map_err(Error::io("create", &path))?;
        let start = std::time::Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::Error(source)) => {
                    return Err(Error::io("lock", &path)(source));
                }
                Err(fs::TryLockError::WouldBlock) if start.elapsed() >= patience => {
                    return Err(Error::Locked {
                        lock: path,
                        minutes: start.elapsed().as_secs() / 60,
                    });
                }
                Err(fs::TryLockError::WouldBlock) => {
                    std::thread::sleep(std::time::Duration::from_millis(200));
                }
            }
        }
    }

    /// Writes a project's module files to where Go reads them.
    pub fn module_dir(&self, project: &Project) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        hash.update(project.go_mod);
        hash.update(project.go_sum);
        let dir = self.upstream().join("src").join(format!(
            "{}-{}",
            project.name,
            hex(&hash.finalize()[..6])
        ));
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        for (name, text) in [("go.mod", project.go_mod), ("go.sum", project.go_sum)] {
            let path = dir.join(name);
            if fs::read_to_string(&path).ok().as_deref() != Some(text) {
                write_atomically(&path, text.as_bytes())?;
            }
        }
        Ok(dir)
    }

    /// A folder with a link to the program of each component, and the list of their versions, for
    /// PATH and for `--upstream-dir`. Its name follows from its content, so a folder that exists is
    /// complete.
    pub fn view(&self, programs: &[(&'static Component, PathBuf)]) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        // The form of the folder: with a list.
        hash.update([2]);
        for (component, path) in programs {
            hash.update(component.name);
            hash.update([0]);
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update([0]);
        }
        let dir = self
            .upstream()
            .join(format!("bin-{}", hex(&hash.finalize()[..6])));
        if dir.is_dir() {
            return Ok(dir);
        }
        let temporary = self.upstream().join(format!(".bin-{}", std::process::id()));
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
        let mut versions = BTreeMap::new();
        for (component, path) in programs {
            let link = temporary.join(component.name);
            std::os::unix::fs::symlink(path, &link).map_err(Error::io("link", &link))?;
            versions.insert(component.name, component.version());
        }
        let list = serde_json::to_vec_pretty(&versions).unwrap_or_default();
        write_atomically(&temporary.join(super::versions::FILE), &list)?;
        match fs::rename(&temporary, &dir) {
            Ok(()) => Ok(dir),
            // Another process made the same folder in the meantime.
            Err(_) if dir.is_dir() => {
                let _ = fs::remove_dir_all(&temporary);
                Ok(dir)
            }
            Err(source) => Err(Error::io("rename to", &dir)(source)),
        }
    }
}

/// Writes a file so that it is either the old or the new one, whatever happens.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = fs::File::create(&temporary).map_err(Error::io("create", &temporary))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("rename to", path))
}

#[cfg(test)]
mod tests {
    use super::super::table::COMPONENTS;
    use super::*;

    #[test]
    fn a_key_changes_with_the_go_version_and_with_the_component() {
        let first = Key::of(&COMPONENTS[0], "go1.26.8");
        assert_eq!(first, Key::of(&COMPONENTS[0], "go1.26.8"));
        assert_ne!(first, Key::of(&COMPONENTS[0], "go1.26.9"));
        assert_ne!(first, Key::of(&COMPONENTS[1], "go1.26.8"));
        assert!(first.as_str().starts_with("runc-v"), "{first:?}");
    }

    #[test]
    fn an_entry_without_its_program_is_not_complete() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(dir.path().to_owned()));
        let key = Key::of(&COMPONENTS[0], "go1.26.8");
        assert_eq!(cache.program(&COMPONENTS[0], &key), None);
        fs::create_dir_all(cache.entry(&key)).unwrap();
        assert_eq!(cache.program(&COMPONENTS[0], &key), None);
        fs::write(cache.entry(&key).join(COMPONENTS[0].name), "x").unwrap();
        assert!(cache.program(&COMPONENTS[0], &key).is_some());
    }

    #[test]
    fn a_second_build_gives_up_waiting_with_the_name_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(dir.path().to_owned()));
        let held = cache.lock(std::time::Duration::ZERO).unwrap();
        let error = cache.lock(std::time::Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(held);
        cache.lock(std::time::Duration::ZERO).unwrap();
    }
}
