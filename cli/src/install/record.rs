//! What this machine knows of an installation: its record, its keys, its kubeconfig, its backups,
//! all in one directory that only its owner can enter.
//!
//! | file | what |
//! |---|---|
//! | `install.json` | the record |
//! | `pki/` | authorities, certificates, the key that encrypts Secrets |
//! | `kubeconfig` | for people |
//! | `config/super-admin.kubeconfig` | for this program |
//! | `backups/` | snapshots of etcd |
//! | `pause` | an upgrade that is under way shall stop between two steps |
//! | `lock` | held by a command that changes something |

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use packaging::files::{SECRET, make_dir, read_optional, write_atomic};
use packaging::install::artifacts::Manifest;
use packaging::install::keep::url;
use packaging::install::preflight::Choice;
use packaging::run::MemberState;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;

/// Name of the record.
pub const FILE: &str = "install.json";
/// Version of the record.
const VERSION: u32 = 1;
/// How long after an installation members of etcd may start without data.
pub const FIRST_START_SECONDS: u64 = 24 * 3600;

/// How far an installation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// `install` has begun.
    Installing,
    /// `restore` has begun, and members of etcd may not have the snapshot's content yet.
    Restoring,
    /// It is complete.
    Installed,
    /// `upgrade` has begun.
    Upgrading,
    /// `stop` is complete.
    Stopped,
    /// `uninstall` has begun.
    Removing,
    /// `uninstall --keep-data` is complete.
    Kept,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this file.
    pub version: u32,
    /// Names the installation in every app.
    pub id: String,
    /// Name of the cluster.
    pub name: String,
    /// How far it is.
    pub phase: Phase,
    /// Marathon's address.
    pub marathon: String,
    /// The authority of Marathon's certificate, where it is not the operating system's.
    #[serde(default)]
    pub marathon_ca: Option<PathBuf>,
    /// The Mesos masters as this machine reaches them; Marathon's word without.
    #[serde(default)]
    pub mesos: Option<String>,
    /// The options that are not at their defaults.
    pub options: Value,
    /// What was chosen.
    pub choice: Choice,
    /// Until when members of etcd may start without data, seconds since 1970.
    pub first_start_until: u64,
    /// Where the artifacts are served.
    pub artifacts_url: String,
    /// Their list.
    pub artifacts: Manifest,
    /// Agents that keep them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Folder of the upstream programs that it was installed with, if that was said.
    #[serde(default)]
    pub programs: Option<PathBuf>,
    /// How members of etcd begin that have been replaced, by their numbers.
    #[serde(default)]
    pub etcd_states: BTreeMap<u8, MemberState>,
    /// The member of etcd that is being replaced.
    #[serde(default)]
    pub replacing: Option<u8>,
    /// The framework's id in Mesos, once it is known.
    #[serde(default)]
    pub framework_id: Option<String>,
    /// What an upgrade that is under way began with, to go back to.
    #[serde(default)]
    pub before: Option<Box<Before>>,
    /// Snapshots of etcd that lie on agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
}

/// Agents that keep artifacts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The directory there.
    pub dir: String,
    /// Those that have everything: their ids in Mesos by host name. An agent of another id may have
    /// another disk.
    pub agents: BTreeMap<String, String>,
    /// All that may have something, there or in another directory: host names by directory.
    pub touched: BTreeMap<String, BTreeSet<String>>,
}

/// A snapshot of etcd on an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which agent.
    pub host: String,
    /// The file there.
    pub path: PathBuf,
}

/// What an upgrade began with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// The options.
    pub options: Value,
    /// What was chosen.
    pub choice: Choice,
    /// Where the artifacts were served.
    pub artifacts_url: String,
    /// Their list.
    pub artifacts: Manifest,
    /// Agents that had them, as in [`Kept::agents`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, String>,
}

/// The directory of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// The directory of the cluster `name`: `given`, else `$XDG_CONFIG_HOME/k8sm/<name>` or
    /// `~/.config/k8sm/<name>`.
    pub fn new(given: Option<&Path>, name: &str) -> Result<Self, Error> {
        let dir = match given {
            Some(dir) => dir.to_owned(),
            None => {
                let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
                let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".config"));
                config
                    .filter(|p| p.is_absolute())
                    .or_else(home)
                    .ok_or(Error::NoHome)?
                    .join("k8sm")
                    .join(name)
            }
        };
        let dir = std::path::absolute(&dir).map_err(Error::io("find", &dir))?;
        Ok(Self { dir })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The record's file.
    pub fn record(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The kubeconfig for people.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The kubeconfig for this program.
    pub fn super_kubeconfig(&self) -> PathBuf {
        self.dir.join("config").join("super-admin.kubeconfig")
    }

    /// Snapshots of etcd.
    pub fn backups(&self) -> PathBuf {
        self.dir.join("backups")
    }

    /// Whether there is an installation.
    pub fn exists(&self) -> bool {
        self.record().is_file()
    }

    /// Makes the directories.
    pub fn create(&self) -> Result<(), Error> {
        make_dir(&self.dir, 0o700)?;
        for dir in [self.pki(), self.dir.join("config"), self.backups()] {
            make_dir(&dir, 0o700)?;
        }
        Ok(())
    }

    /// Keeps other commands that change something out until it is dropped.
    pub fn lock(&self) -> Result<std::fs::File, Error> {
        make_dir(&self.dir, 0o700)?;
        let path = self.dir.join("lock");
        let file = std::fs::File::create(&path).map_err(Error::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(_) => Err(Error::Locked(path)),
        }
    }

    /// Reads the record; `None` when there is none.
    pub fn read(&self) -> Result<Option<Record>, Error> {
        let path = self.record();
        let Some(bytes) = read_optional(&path)? else {
            return Ok(None);
        };
        let damaged = |reason: String| Error::Damaged {
            path: path.clone(),
            reason,
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if value["version"].as_u64().unwrap_or(0) > u64::from(VERSION) {
            return Err(damaged("it was written by a newer k8sm".to_owned()));
        }
        serde_json::from_value(value)
            .map(Some)
            .map_err(|e| damaged(e.to_string()))
    }

    /// Reads the record, which must be there.
    pub fn existing(&self) -> Result<Record, Error> {
        self.read()?.ok_or_else(|| Error::None(self.dir.clone()))
    }

    fn pause(&self) -> PathBuf {
        self.dir.join("pause")
    }

    /// Whether the command that is under way shall stop between two steps.
    pub fn pause_is_asked(&self) -> bool {
        self.pause().exists()
    }

    /// Asks for that, or takes it back.
    pub fn ask_pause(&self, wanted: bool) -> Result<(), Error> {
        let path = self.pause();
        if wanted {
            return Ok(write_atomic(&path, b"", SECRET)?);
        }
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(e))
            }
            _ => Ok(()),
        }
    }

    /// Writes the record. Mesos' address may hold a password, so nobody else may read it.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec_pretty(record).map_err(|e| Error::Damaged {
            path: self.record(),
            reason: e.to_string(),
        })?;
        bytes.push(b'\n');
        Ok(write_atomic(&self.record(), &bytes, SECRET)?)
    }

    /// Forgets the installation. Backups stay.
    pub fn forget(&self) -> Result<(), Error> {
        let gone = |result: std::io::Result<()>, path: &Path| match result {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
            _ => Ok(()),
        };
        // The record last: until then the command can be repeated.
        for dir in [self.pki(), self.dir.join("config")] {
            gone(std::fs::remove_dir_all(&dir), &dir)?;
        }
        for file in [self.kubeconfig(), self.record()] {
            gone(std::fs::remove_file(&file), &file)?;
        }
        Ok(())
    }
}

impl Record {
    /// The version that this program writes.
    pub fn current_version() -> u32 {
        VERSION
    }

    /// The agents that keep the artifacts, where the apps' are from there.
    pub fn kept_in_use(&self) -> Option<&Kept> {
        let kept = self.kept.as_ref()?;
        (!kept.dir.is_empty() && self.artifacts_url == url(&kept.dir)).then_some(kept)
    }

    /// From now on its artifacts are those that agents keep: all of the plan's, and those that have
    /// had the same before.
    pub fn keep_by(&mut self, plan: &super::keep::Plan) {
        self.touched_by(plan);
        let kept = self.kept.get_or_insert_default();
        kept.dir.clone_from(&plan.dir);
        kept.agents.clone_from(&plan.had);
        let planned = plan.agents.iter();
        let planned = planned.map(|agent| (agent.hostname.clone(), agent.id.clone()));
        kept.agents.extend(planned);
        self.artifacts_url = url(&plan.dir);
    }

    /// These hosts have not what their namesakes had.
    pub fn kept_without(&mut self, hosts: &[String]) {
        if let Some(kept) = &mut self.kept {
            kept.agents.retain(|host, _| !hosts.contains(host));
        }
    }

    /// Agents that have exactly these artifacts in this directory.
    pub fn having(&self, dir: &str, list: &Manifest) -> BTreeMap<String, String> {
        let kept = self.kept_in_use().filter(|kept| kept.dir == dir);
        let kept = kept.filter(|_| self.artifacts.files == list.files);
        kept.map(|kept| kept.agents.clone()).unwrap_or_default()
    }

    /// Something of its artifacts may lie on these agents from now on.
    pub fn touched_by(&mut self, plan: &super::keep::Plan) {
        let kept = self.kept.get_or_insert_default();
        let hosts = plan.agents.iter().map(|agent| agent.hostname.clone());
        kept.touched
            .entry(plan.dir.clone())
            .or_default()
            .extend(hosts);
    }

    /// The options.
    pub fn parsed_options(&self) -> Result<packaging::options::Options, Error> {
        Ok(packaging::options::Options::from_value(&self.options)?)
    }
}
