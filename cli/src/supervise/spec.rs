//! What the supervisor keeps running: written by `k8sm up`, read by `k8sm dev supervise`.

use std::path::{Path, PathBuf};

use packaging::control_plane::Readiness;
use packaging::files::{self, SECRET, read_optional, write_atomic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// All processes of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Spec {
    /// Rises with every change; the status says which one it is about.
    pub generation: u64,
    /// The processes, those that others wait for first.
    pub processes: Vec<ProcessSpec>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Unique name.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Arguments, no secret among them.
    pub args: Vec<String>,
    /// The whole environment beside `PATH` and `HOME`.
    pub env: Vec<(String, String)>,
    /// When it is ready.
    pub readiness: Readiness,
    /// Names of the processes that must be ready before it starts.
    pub after: Vec<String>,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_seconds: u64,
    /// A process that runs with another fingerprint is replaced.
    pub fingerprint: String,
}

impl ProcessSpec {
    /// Computes [`Self::fingerprint`] from everything that the process was started with:
    /// arguments, environment, the binary's size and time, and the content of `inputs`.
    pub fn seal(mut self, inputs: &[PathBuf]) -> Self {
        use std::os::unix::fs::MetadataExt;
        let mut hash = Sha256::new();
        let mut feed = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        feed(self.program.as_os_str().as_encoded_bytes());
        for arg in &self.args {
            feed(arg.as_bytes());
        }
        for (name, value) in &self.env {
            feed(name.as_bytes());
            feed(value.as_bytes());
        }
        if let Ok(m) = std::fs::metadata(&self.program) {
            feed(format!("{} {} {}", m.len(), m.mtime(), m.mtime_nsec()).as_bytes());
        }
        for path in inputs {
            feed(path.as_os_str().as_encoded_bytes());
            feed(&std::fs::read(path).unwrap_or_default());
        }
        self.fingerprint = hash
            .finalize()
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect();
        self
    }
}

/// Why the specification could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    File(#[from] files::Error),
    /// It is there and damaged; `k8sm up` writes it anew.
    #[error("{path} is damaged: {source}; run `k8sm up` to write it anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl Spec {
    /// Reads it; `None` when there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        read_optional(path)?
            .map(|bytes| {
                serde_json::from_slice(&bytes).map_err(|source| Error::Damaged {
                    path: path.to_owned(),
                    source,
                })
            })
            .transpose()
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|source| Error::Damaged {
            path: path.to_owned(),
            source,
        })?;
        Ok(write_atomic(path, &bytes, SECRET)?)
    }
}
