//! Secrets that tasks refer to: files below `--secrets-dir`, one for each, named as the
//! reference is. Values never leave the agent and its tasks: messages carry references only.

use std::io;
use std::path::{Path, PathBuf};

use mesos::pb;
use pb::environment::variable::Type as VariableType;

use super::sandbox::User;

/// Longest secret, in bytes: as much as one variable of an environment can hold.
const MAX_BYTES: u64 = 128 << 10;

/// Why a secret cannot be had. Worth a retry once somebody has put it there.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The agent knows no secrets.
    #[error("secret '{name}': this agent has no --secrets-dir")]
    NoDirectory {
        /// Its name.
        name: String,
    },
    /// A name that is no path below the directory.
    #[error("secret '{name}': not a path below the directory of secrets")]
    Name {
        /// The name.
        name: String,
    },
    /// It cannot be read.
    #[error("secret '{name}': cannot read {}: {source}", path.display())]
    Read {
        /// Its name.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is too long.
    #[error("secret '{name}' is longer than {MAX_BYTES} bytes")]
    TooLong {
        /// Its name.
        name: String,
    },
    /// It is no text and cannot be in an environment.
    #[error("secret '{name}' is no text; only a file can hold it")]
    NoText {
        /// Its name.
        name: String,
    },
    /// Neither a reference nor a value.
    #[error("a secret has neither a reference nor a value")]
    Empty,
    /// The file for a task cannot be made.
    #[error("secret file {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Where secrets are.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    dir: Option<PathBuf>,
}

impl Secrets {
    /// Files below a directory; without one there are none.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// The value of a secret.
    pub fn resolve(&self, secret: &pb::Secret) -> Result<Vec<u8>, SecretError> {
        if let Some(value) = &secret.value {
            return Ok(value.data.clone());
        }
        let Some(reference) = &secret.reference else {
            return Err(SecretError::Empty);
        };
        let name = reference.name.clone();
        let Some(dir) = &self.dir else {
            return Err(SecretError::NoDirectory { name });
        };
        let parts: Vec<&str> = name.split('/').filter(|p| !p.is_empty()).collect();
        if parts.is_empty() || parts.iter().any(|p| crate::ids::why_invalid(p).is_some()) {
            return Err(SecretError::Name { name });
        }
        let path = parts.iter().fold(dir.clone(), |path, part| path.join(part));
        let read = || -> io::Result<Option<Vec<u8>>> {
            if std::fs::metadata(&path)?.len() > MAX_BYTES {
                return Ok(None);
            }
            std::fs::read(&path).map(Some)
        };
        match read() {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(SecretError::TooLong { name }),
            Err(source) => Err(SecretError::Read { name, path, source }),
        }
    }

    fn text(&self, secret: &pb::Secret) -> Result<String, SecretError> {
        let name = secret.reference.as_ref().map_or("", |r| &r.name).to_owned();
        String::from_utf8(self.resolve(secret)?).map_err(|_| SecretError::NoText { name })
    }

    /// The value of a variable.
    pub fn value_of(&self, variable: &pb::environment::Variable) -> Result<String, SecretError> {
        match (&variable.value, &variable.secret) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(secret)) => self.text(secret),
            (None, None) => Ok(String::new()),
        }
    }

    /// Puts values in the place of references in the environments of tasks that are about to
    /// be delivered. What cannot be had any more is left out.
    pub fn fill_in(&self, event: &mut pb::executor::Event) {
        let one = event.launch.iter_mut().map(|l| &mut l.task);
        let group = event.launch_group.iter_mut();
        let many = group.flat_map(|g| &mut g.task_group.tasks);
        let commands = one.chain(many).filter_map(|t| t.command.as_mut());
        for command in commands {
            let Some(environment) = &mut command.environment else {
                continue;
            };
            environment.variables.retain_mut(|variable| {
                if variable.secret.is_none() {
                    return true;
                }
                match self.value_of(variable) {
                    Ok(value) => {
                        variable.value = Some(value);
                        variable.secret = None;
                        variable.r#type = Some(VariableType::Value as i32);
                        true
                    }
                    Err(error) => {
                        tracing::warn!(variable = variable.name, %error, "a variable is left out");
                        false
                    }
                }
            });
        }
    }

    /// Makes the files that tasks find secrets in, readable by their user only.
    pub fn write_files(
        &self,
        sandbox: &Path,
        volumes: &[pb::Volume],
        user: Option<&User>,
    ) -> Result<(), SecretError> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        for volume in volumes {
            let Some(secret) = volume.source.as_ref().and_then(|s| s.secret.as_ref()) else {
                continue;
            };
            let value = self.resolve(secret)?;
            let name = &volume.container_path;
            if name.starts_with('/') || name.split('/').any(|part| part == ".." || part.is_empty())
            {
                return Err(SecretError::Write {
                    path: name.into(),
                    source: io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "only paths below the sandbox are possible without a file system isolator",
                    ),
                });
            }
            let path = sandbox.join(name);
            let refused = |source| SecretError::Write {
                path: path.clone(),
                source,
            };
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(refused)?;
            }
            let mut file = std::fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o400)
                .open(&path)
                .map_err(refused)?;
            file.write_all(&value).map_err(refused)?;
            if let Some(user) = user {
                std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))
                    .map_err(refused)?;
            }
        }
        Ok(())
    }
}

/// Whether a volume is a file with a secret.
pub fn is_secret(volume: &pb::Volume) -> bool {
    let kind = volume.source.as_ref().map(pb::volume::Source::r#type);
    kind == Some(pb::volume::source::Type::Secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str) -> pb::Secret {
        pb::Secret {
            r#type: Some(pb::secret::Type::Reference as i32),
            reference: Some(pb::secret::Reference {
                name: name.to_owned(),
                key: None,
            }),
            value: None,
        }
    }

    #[test]
    fn secrets_are_files_below_their_directory_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("team")).unwrap();
        std::fs::write(dir.path().join("team/key"), "s3cret").unwrap();
        let secrets = Secrets::new(Some(dir.path().join("team")));
        assert_eq!(secrets.resolve(&reference("/key")).unwrap(), b"s3cret");
        for name in ["../team/key", "", "/", "none", "."] {
            let error = secrets.resolve(&reference(name)).unwrap_err().to_string();
            assert!(error.starts_with("secret '"), "{error}");
        }
        let none = Secrets::default().resolve(&reference("key")).unwrap_err();
        assert!(none.to_string().contains("no --secrets-dir"));
    }

    #[test]
    fn files_with_secrets_are_for_their_reader_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "s3cret").unwrap();
        let secrets = Secrets::new(Some(dir.path().to_owned()));
        let sandbox = dir.path().join("sandbox");
        std::fs::create_dir(&sandbox).unwrap();
        let volume = |path: &str| pb::Volume {
            container_path: path.to_owned(),
            source: Some(pb::volume::Source {
                r#type: Some(pb::volume::source::Type::Secret as i32),
                secret: Some(reference("key")),
                ..Default::default()
            }),
            ..Default::default()
        };
        secrets
            .write_files(&sandbox, &[volume("a/key")], None)
            .unwrap();
        let path = sandbox.join("a/key");
        assert_eq!(std::fs::read(&path).unwrap(), b"s3cret");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o400
        );
        assert!(
            secrets
                .write_files(&sandbox, &[volume("/etc/key")], None)
                .is_err()
        );
        assert!(
            secrets
                .write_files(&sandbox, &[volume("../key")], None)
                .is_err()
        );
    }
}
