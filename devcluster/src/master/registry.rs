//! What the master remembers across restarts: which agents there are, which are unreachable
//! and which are gone for good. Everything else it learns again from agents and frameworks.
//!
//! The file is JSON, written whole and atomically; a file that cannot be read stops the start
//! with a message rather than forgetting agents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use mesos::pb;
use serde::{Deserialize, Serialize};

use super::drain::Drain;
use super::maintenance::{Machine, Mode};
use super::quota;
use crate::allocator::quota::Quota;
use crate::clock::Time;
use crate::ids::AgentId;

/// Unreachable and gone agents that are remembered, as many as Mesos keeps by default
/// (`--registry_max_agent_count`).
const MAX_REMEMBERED: usize = 100 * 1024;
const FILE: &str = "registry.json";
const VERSION: u32 = 1;

/// Why the registry could not be kept or read. None of these is worth a retry without a
/// person: the disk is full or the file is damaged.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file system refused.
    #[error("registry {path}: cannot {attempted}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        attempted: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not a registry.
    #[error(
        "registry {path} is damaged ({reason}); remove it to start with no agents known (they \
         register again, their tasks keep running)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registry {
    /// Agents that are admitted.
    pub admitted: BTreeMap<AgentId, pb::AgentInfo>,
    /// Agents that do not answer, since when.
    pub unreachable: BTreeMap<AgentId, Time>,
    /// Agents that an operator declared gone, since when.
    pub gone: BTreeMap<AgentId, Time>,
    /// Agents that an operator took out of use.
    pub deactivated: BTreeSet<AgentId>,
    /// Those of them whose tasks were killed.
    pub draining: BTreeMap<AgentId, Drain>,
    /// Planned outages.
    pub schedule: pb::maintenance::Schedule,
    /// The machines of the schedule.
    pub machines: BTreeMap<Machine, Mode>,
    /// Quotas of roles.
    pub quotas: BTreeMap<String, Quota>,
    /// Weights of roles; they go before those that the master was started with.
    pub weights: BTreeMap<String, f64>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    admitted: Vec<serde_json::Value>,
    unreachable: BTreeMap<String, u64>,
    gone: BTreeMap<String, u64>,
    #[serde(default)]
    deactivated: Vec<String>,
    #[serde(default)]
    draining: BTreeMap<String, DrainRecord>,
    #[serde(default)]
    schedule: Option<serde_json::Value>,
    #[serde(default)]
    machines: Vec<(Machine, Mode)>,
    #[serde(default)]
    quotas: Vec<serde_json::Value>,
    #[serde(default)]
    weights: BTreeMap<String, f64>,
}

#[derive(Serialize, Deserialize)]
struct DrainRecord {
    config: serde_json::Value,
    drained: bool,
    since: u64,
}

impl Registry {
    /// Nothing is known any more of an agent's being taken out of use.
    pub(super) fn forget_drain(&mut self, id: &AgentId) {
        self.draining.remove(id);
        self.deactivated.remove(id);
    }

    /// Forgets the oldest of what is remembered beyond the bound.
    pub(super) fn trim(&mut self) {
        for map in [&mut self.unreachable, &mut self.gone] {
            while map.len() > MAX_REMEMBERED {
                let oldest = map
                    .iter()
                    .min_by_key(|(_, t)| **t)
                    .map(|(id, _)| id.clone());
                oldest.map(|id| map.remove(&id));
            }
        }
    }

    /// Reads the registry of a work directory; an absent file is an empty registry.
    pub fn load(work_dir: &Path) -> Result<Self, RegistryError> {
        let path = work_dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(RegistryError::Io {
                    path,
                    attempted: "read",
                    source,
                });
            }
        };
        let damaged = |reason: String| RegistryError::Damaged {
            path: path.clone(),
            reason,
        };
        let file: File = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if file.version != VERSION {
            return Err(damaged(format!("version {} is unknown", file.version)));
        }
        let times = |map: BTreeMap<String, u64>| {
            map.into_iter()
                .map(|(id, t)| (AgentId::from(id), Time::from_nanos(t)))
                .collect()
        };
        let mut out = Self {
            admitted: BTreeMap::new(),
            unreachable: times(file.unreachable),
            gone: times(file.gone),
            deactivated: file.deactivated.into_iter().map(AgentId::from).collect(),
            draining: BTreeMap::new(),
            schedule: match &file.schedule {
                Some(schedule) => {
                    mesos::codec::from_json(schedule).map_err(|e| damaged(e.to_string()))?
                }
                None => pb::maintenance::Schedule::default(),
            },
            machines: file.machines.into_iter().collect(),
            quotas: BTreeMap::new(),
            weights: file.weights,
        };
        for quota in &file.quotas {
            let config: pb::quota::QuotaConfig =
                mesos::codec::from_json(quota).map_err(|e| damaged(e.to_string()))?;
            let quota = quota::read(&config).map_err(damaged)?;
            out.quotas.insert(config.role, quota);
        }
        for (id, record) in file.draining {
            let drain = Drain {
                config: mesos::codec::from_json(&record.config)
                    .map_err(|e| damaged(e.to_string()))?,
                drained: record.drained,
                since: Time::from_nanos(record.since),
            };
            out.draining.insert(AgentId::from(id), drain);
        }
        for value in &file.admitted {
            let info: pb::AgentInfo =
                mesos::codec::from_json(value).map_err(|e| damaged(e.to_string()))?;
            let Some(id) = info.id.as_ref().map(AgentId::from) else {
                return Err(damaged("an agent has no id".to_owned()));
            };
            out.admitted.insert(id, info);
        }
        Ok(out)
    }

    /// Writes the registry: temporary file, sync, rename, sync of the directory.
    pub fn save(&self, work_dir: &Path) -> Result<(), RegistryError> {
        let times = |map: &BTreeMap<AgentId, Time>| {
            map.iter()
                .map(|(id, t)| (id.to_string(), t.as_nanos()))
                .collect()
        };
        let file = File {
            version: VERSION,
            admitted: self.admitted.values().map(mesos::codec::to_json).collect(),
            unreachable: times(&self.unreachable),
            gone: times(&self.gone),
            deactivated: self.deactivated.iter().map(ToString::to_string).collect(),
            draining: self
                .draining
                .iter()
                .map(|(id, drain)| {
                    let record = DrainRecord {
                        config: mesos::codec::to_json(&drain.config),
                        drained: drain.drained,
                        since: drain.since.as_nanos(),
                    };
                    (id.to_string(), record)
                })
                .collect(),
            schedule: Some(mesos::codec::to_json(&self.schedule)),
            machines: self
                .machines
                .iter()
                .map(|(machine, mode)| (machine.clone(), *mode))
                .collect(),
            quotas: self
                .quotas
                .iter()
                .map(|(role, quota)| mesos::codec::to_json(&quota::config(role, quota)))
                .collect(),
            weights: self.weights.clone(),
        };
        let path = work_dir.join(FILE);
        let fail = |attempted: &'static str| {
            let path = path.clone();
            move |source| RegistryError::Io {
                path,
                attempted,
                source,
            }
        };
        let bytes =
            serde_json::to_vec(&file).map_err(|e| fail("encode")(std::io::Error::other(e)))?;
        fs::create_dir_all(work_dir).map_err(fail("make the work directory of"))?;
        let temporary = work_dir.join(format!("{FILE}.tmp"));
        let mut out = fs::File::create(&temporary).map_err(fail("create"))?;
        out.write_all(&bytes).map_err(fail("write"))?;
        out.sync_all().map_err(fail("sync"))?;
        fs::rename(&temporary, &path).map_err(fail("replace"))?;
        let dir = fs::File::open(work_dir).map_err(fail("open the directory of"))?;
        dir.sync_all().map_err(fail("sync the directory of"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Registry {
        let info = pb::AgentInfo {
            hostname: "agent1.test".to_owned(),
            id: Some(pb::AgentId {
                value: "m-S0".to_owned(),
            }),
            ..Default::default()
        };
        let quota = Quota {
            guarantees: BTreeMap::new(),
            limits: [("cpus".into(), crate::resources::Scalar::from_millis(500))].into(),
        };
        let drain = Drain {
            config: pb::DrainConfig {
                max_grace_period: Some(pb::DurationInfo { nanoseconds: 7 }),
                mark_gone: Some(true),
            },
            drained: true,
            since: Time::from_secs(7),
        };
        Registry {
            admitted: [("m-S0".into(), info)].into(),
            unreachable: [("m-S1".into(), Time::from_secs(5))].into(),
            gone: [("m-S2".into(), Time::from_secs(6))].into(),
            deactivated: ["m-S0".into()].into(),
            draining: [("m-S0".into(), drain)].into(),
            schedule: pb::maintenance::Schedule {
                windows: vec![pb::maintenance::Window {
                    machine_ids: vec![pb::MachineId {
                        hostname: Some("agent1.test".to_owned()),
                        ip: Some("10.0.0.1".to_owned()),
                    }],
                    unavailability: pb::Unavailability::default(),
                }],
            },
            machines: [(Machine::of_agent("agent1.test", "10.0.0.1"), Mode::Down)].into(),
            quotas: [("eng".to_owned(), quota)].into(),
            weights: [("eng".to_owned(), 2.5)].into(),
        }
    }

    #[test]
    fn the_registry_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Registry::load(dir.path()).unwrap(), Registry::default());
        sample().save(dir.path()).unwrap();
        assert_eq!(Registry::load(dir.path()).unwrap(), sample());
    }

    #[test]
    fn a_registry_from_before_maintenance_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"version":1,"admitted":[],"unreachable":{"m-S1":5},"gone":{}}"#;
        fs::write(dir.path().join(FILE), text).unwrap();
        let registry = Registry::load(dir.path()).unwrap();
        assert_eq!(registry.unreachable.len(), 1);
        assert!(registry.deactivated.is_empty() && registry.schedule.windows.is_empty());
    }

    #[test]
    fn a_damaged_registry_is_named_and_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":9,"admitted":[],"unreachable":{},"gone":{}}"#,
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = Registry::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains("registry.json is damaged"), "{error}");
        }
    }
}
