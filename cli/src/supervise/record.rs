//! Which process of this machine is which process of the instance.

use std::path::{Path, PathBuf};

use packaging::files::{self, PUBLIC, read_optional, write_atomic};
use serde::{Deserialize, Serialize};

use crate::procfs::{self, ProcessId};

/// A started process, as its record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name in the specification.
    pub name: String,
    /// The process.
    #[serde(flatten)]
    pub id: ProcessId,
    /// What it was started with.
    pub fingerprint: String,
}

/// The records of an instance, one file each.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Records in `dir`, which exists.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// Notes a process.
    pub fn write(&self, record: &Record) -> Result<(), files::Error> {
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        write_atomic(&self.path(&record.name), &bytes, PUBLIC)
    }

    /// Forgets a process.
    pub fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.path(name));
    }

    /// One record, if it is readable.
    pub fn read(&self, name: &str) -> Option<Record> {
        read(&self.path(name))
    }

    /// Every record of a process that still runs.
    pub fn alive(&self) -> Vec<Record> {
        let mut found: Vec<Record> = std::fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .filter_map(|e| read(&e.ok()?.path()))
            .filter(|r| r.id.is_alive())
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}

fn read(path: &Path) -> Option<Record> {
    // A damaged record is as good as none: the mark in the environment still finds the process.
    serde_json::from_slice(&read_optional(path).ok()??).ok()
}

/// Processes that carry the instance's mark and a name, but have no record: their supervisor was
/// killed between starting them and writing that down. What they started in turn carries the same
/// mark, so of each name only the topmost counts.
pub fn unrecorded(instance: &str, recorded: &[Record]) -> Vec<Record> {
    let marked: Vec<(u32, String)> = procfs::of_instance(instance)
        .into_iter()
        .filter_map(|pid| Some((pid, procfs::variable(pid, procfs::PROCESS_VARIABLE)?)))
        .collect();
    marked
        .iter()
        .filter(|(pid, name)| {
            let parent = procfs::stat(*pid).map(|s| s.parent);
            let has_marked_parent = marked
                .iter()
                .any(|(other, other_name)| Some(*other) == parent && other_name == name);
            !has_marked_parent && !recorded.iter().any(|r| r.name == *name)
        })
        .filter_map(|(pid, name)| {
            Some(Record {
                name: name.clone(),
                id: ProcessId::of(*pid)?,
                // Unknown: it is replaced.
                fingerprint: String::new(),
            })
        })
        .collect()
}
