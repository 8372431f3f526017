//! etcd from outside, by way of etcdctl: health, snapshots. The client certificate is that of the
//! API servers, from this machine's record.

use std::path::{Path, PathBuf};
use std::time::Duration;

use packaging::files::make_dir;
use packaging::install::preflight::Choice;
use packaging::options::Options;
use packaging::pki::{Authority, Name, Pki};
use serde::Deserialize;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Home;

/// How long a snapshot may take. The largest store, 8 GiB, over a slow network.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(900);
/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why etcd could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is missing.
    #[error(
        "{0} is not there: name the folder of the upstream programs with --upstream-dir or K8SM_UPSTREAM_BIN, or build them (`k8sm upstream build`)"
    )]
    NoProgram(PathBuf),
    /// It could not be started.
    #[error("start {program}: {source}", program = .program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It failed. Worth a retry while members start.
    #[error("{what}: {output}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// The end of what it said.
        output: String,
    },
    /// It took too long. Worth a retry.
    #[error("{what}: no answer within {} s", .limit.as_secs())]
    Timeout {
        /// What was tried.
        what: &'static str,
        /// How long it was given.
        limit: Duration,
    },
    /// The disk.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
    /// There is no etcd of ours.
    #[error("etcd is external: save it with its own tools")]
    External,
}

impl Error {
    /// Whether it may work later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Timeout { .. })
    }
}

/// Where members are.
pub fn endpoints(options: &Options, choice: &Choice) -> Vec<String> {
    choice
        .etcd_hosts
        .iter()
        .map(|h| format!("https://{}:{}", h.address, options.etcd.client_port))
        .collect()
}

#[derive(Debug, Deserialize)]
struct List {
    members: Vec<Listed>,
}

/// A member as etcd knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: u64,
    /// Its name; empty until it has started.
    #[serde(default)]
    pub name: String,
    /// Where the others reach it.
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started.
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

/// A name for a snapshot of now.
pub fn file_name() -> String {
    let format = format_description!("[year][month][day]-[hour][minute][second]");
    let now = OffsetDateTime::now_utc().format(format).unwrap_or_default();
    format!("etcd-{now}.db")
}

/// etcdctl with everything that it needs.
#[derive(Debug, Clone)]
pub struct Ctl {
    program: PathBuf,
    args: Vec<String>,
    endpoints: Vec<String>,
}

impl Ctl {
    /// For the members of an installation; `programs` is the folder of etcdctl.
    pub fn new(
        home: &Home,
        options: &Options,
        choice: &Choice,
        programs: Option<&Path>,
    ) -> Result<Self, Error> {
        let endpoints = endpoints(options, choice);
        if endpoints.is_empty() {
            return Err(Error::External);
        }
        // As it was installed, where nothing else is said.
        let noted = home.read().ok().flatten().and_then(|r| r.programs);
        let program = program(programs.or(noted.as_deref()), "etcdctl")?;
        let pki = Pki::new(home.pki());
        let args = vec![
            format!(
                "--cacert={}",
                pki.authority_certificate(Authority::Etcd).display()
            ),
            format!(
                "--cert={}",
                pki.certificate(Name::ApiServerEtcdClient).display()
            ),
            format!("--key={}", pki.key(Name::ApiServerEtcdClient).display()),
        ];
        Ok(Self {
            program,
            args,
            endpoints,
        })
    }

    async fn call(
        &self,
        what: &'static str,
        endpoint: &str,
        args: &[&str],
        limit: Duration,
    ) -> Result<String, Error> {
        let output = tokio::process::Command::new(&self.program)
            .args(&self.args)
            .arg(format!("--endpoints={endpoint}"))
            .args(args)
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(limit, output).await {
            Err(_) => return Err(Error::Timeout { what, limit }),
            Ok(Err(source)) => {
                return Err(Error::Start {
                    program: self.program.clone(),
                    source,
                });
            }
            Ok(Ok(output)) => output,
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rev().find(|l| !l.trim().is_empty());
        Err(Error::Failed {
            what,
            output: last.unwrap_or("it said nothing").trim().to_owned(),
        })
    }

    /// The same without one of the members.
    #[must_use]
    pub fn without(mut self, endpoint: &str) -> Self {
        self.endpoints.retain(|e| e != endpoint);
        self
    }

    /// One that asks nobody.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self {
            program: PathBuf::new(),
            args: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// The members as etcd knows them.
    pub async fn members(&self) -> Result<Vec<Listed>, Error> {
        let what = "list the members of etcd";
        let args = ["member", "list", "--write-out=json"];
        let text = self
            .call(what, &self.endpoints.join(","), &args, PATIENCE)
            .await?;
        let list: List = serde_json::from_str(&text).map_err(|e| Error::Failed {
            what,
            output: e.to_string(),
        })?;
        Ok(list.members)
    }

    /// Removes a member.
    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let (what, id) = ("remove a member of etcd", format!("{id:x}"));
        let args = ["member", "remove", id.as_str()];
        let all = self.endpoints.join(",");
        self.call(what, &all, &args, PATIENCE).await.map(drop)
    }

    /// Adds a member, which then may start without data.
    pub async fn add(&self, name: &str, peer_url: &str) -> Result<(), Error> {
        let url = format!("--peer-urls={peer_url}");
        let args = ["member", "add", name, url.as_str()];
        let all = self.endpoints.join(",");
        let what = "add a member to etcd";
        self.call(what, &all, &args, PATIENCE).await.map(drop)
    }

    /// Whether a member answers and has a leader.
    pub async fn answers(&self, endpoint: &str) -> Result<bool, Error> {
        let args = ["endpoint", "health"];
        let what = "ask etcd for its health";
        match self.call(what, endpoint, &args, PATIENCE).await {
            Ok(_) => Ok(true),
            Err(error) if error.retryable() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Members that do not answer or have no leader.
    pub async fn unhealthy(&self) -> Result<Vec<String>, Error> {
        let mut bad = Vec::new();
        for endpoint in &self.endpoints {
            if !self.answers(endpoint).await? {
                bad.push(endpoint.clone());
            }
        }
        Ok(bad)
    }

    /// Saves the store into a file, from the first member that gives it; returns its size. The
    /// file appears whole.
    pub async fn snapshot(&self, path: &Path) -> Result<u64, Error> {
        if let Some(dir) = path.parent() {
            make_dir(dir, 0o700)?;
        }
        let mut half = path.as_os_str().to_owned();
        half.push(".part");
        let half = PathBuf::from(half);
        let text = half.display().to_string();
        let mut last = Error::External;
        for endpoint in &self.endpoints {
            let args = ["snapshot", "save", text.as_str()];
            let what = "take a snapshot of etcd";
            // etcdctl waits for ever for one that is lost, and for one that is about to be replaced.
            if !self.answers(endpoint).await? {
                last = Error::Failed {
                    what,
                    output: format!("{endpoint} does not answer, or has no leader"),
                };
                continue;
            }
            match self.call(what, endpoint, &args, SNAPSHOT_PATIENCE).await {
                Ok(_) => {
                    let size = std::fs::metadata(&half)
                        .and_then(|about| std::fs::rename(&half, path).map(|()| about.len()));
                    return Ok(size.map_err(|source| packaging::files::Error::Write {
                        path: path.to_owned(),
                        source,
                    })?);
                }
                Err(error) => last = error,
            }
        }
        let _ = std::fs::remove_file(&half);
        Err(last)
    }
}

/// A program of upstream's.
pub fn program(dir: Option<&Path>, name: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = crate::catalog::own_dir().unwrap_or_default();
    dir.map(Path::to_owned)
        .into_iter()
        .chain([beside])
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NoProgram(PathBuf::from(name)))
}
