//! Finds the programs that a cluster needs: upstream's, and our own beside this one.

use std::path::{Path, PathBuf};

/// Programs of ours, installed in the folder of `k8sm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// The Mesos framework.
    Framework,
    /// The Mesos executor.
    Executor,
    /// The front door.
    Proxy,
    /// The pause program of pods.
    Pause,
    /// The example.
    Hello,
}

impl Own {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Framework,
        Self::Executor,
        Self::Proxy,
        Self::Pause,
        Self::Hello,
    ];

    /// Name of the file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Framework => "k8sm-framework",
            Self::Executor => "k8sm-executor",
            Self::Proxy => "k8sm-proxy",
            Self::Pause => "k8sm-pause",
            Self::Hello => "k8sm-hello",
        }
    }
}

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of ours.
    #[error(
        "{name} is not in {dir}: build all programs (`cargo build --workspace --bins`), or name their folder with --programs-dir or K8SM_PROGRAMS_DIR"
    )]
    Own {
        /// Which.
        name: &'static str,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Upstream's.
    #[error(
        "{names} missing in {dir}: `k8sm upstream build` makes them, `k8sm upstream path` prints where they are"
    )]
    Upstream {
        /// Which.
        names: String,
        /// Where they were looked for.
        dir: PathBuf,
    },
    /// This program's own path.
    #[error("find the folder of this program: {0}; name it with --programs-dir")]
    Self_(std::io::Error),
}

/// Upstream programs that `k8sm up` starts or packs.
pub const UPSTREAM: [&str; 19] = [
    "bridge",
    "containerd",
    "containerd-shim-runc-v2",
    "coredns",
    "ctr",
    "etcd",
    "firewall",
    "host-local",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kubectl",
    "kubelet",
    "loopback",
    "portmap",
    "proxy-agent",
    "proxy-server",
    "ptp",
    "runc",
];

/// Where the programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    own: PathBuf,
    upstream: PathBuf,
}

impl Catalog {
    /// Checks that everything is there. `own` is the folder of our programs, by default this
    /// program's.
    pub fn new(own: Option<&Path>, upstream: &Path) -> Result<Self, Error> {
        let own = match own {
            Some(dir) => dir.to_owned(),
            None => own_dir()?,
        };
        for program in Own::ALL {
            if !own.join(program.file_name()).is_file() {
                return Err(Error::Own {
                    name: program.file_name(),
                    dir: own,
                });
            }
        }
        let missing: Vec<&str> = UPSTREAM
            .into_iter()
            .filter(|name| !upstream.join(name).is_file())
            .collect();
        if !missing.is_empty() {
            return Err(Error::Upstream {
                names: missing.join(", "),
                dir: upstream.to_owned(),
            });
        }
        Ok(Self {
            own,
            upstream: upstream.to_owned(),
        })
    }

    /// A program of ours.
    pub fn own(&self, program: Own) -> PathBuf {
        self.own.join(program.file_name())
    }

    /// An upstream program.
    pub fn upstream(&self, name: &str) -> PathBuf {
        self.upstream.join(name)
    }

    /// The folder of our programs.
    pub fn own_dir(&self) -> &Path {
        &self.own
    }

    /// The folder of the upstream programs.
    pub fn upstream_dir(&self) -> &Path {
        &self.upstream
    }
}

/// The folder of this program.
pub fn own_dir() -> Result<PathBuf, Error> {
    let exe = std::env::current_exe().map_err(Error::Self_)?;
    Ok(exe.parent().map(Path::to_owned).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = Catalog::new(Some(dir.path()), dir.path()).unwrap_err();
        assert!(error.to_string().starts_with("k8sm-framework is not in"));
        for program in Own::ALL {
            std::fs::write(dir.path().join(program.file_name()), "").unwrap();
        }
        for name in UPSTREAM.iter().skip(2) {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let error = Catalog::new(Some(dir.path()), dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("bridge, containerd missing in"), "{text}");
        assert!(text.contains("k8sm upstream build"), "{text}");
    }
}
