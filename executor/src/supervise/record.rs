//! What runs, on disk: how a component's process is found again after an `exec`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::component::Component;
use crate::guard::manifest::start_time;

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot: a used-again pid is no match.
    pub start_time: u64,
    /// Digest of program, arguments, environment and directory.
    pub definition: String,
}

/// Digest of everything that a restart would be needed for.
pub fn digest(component: &Component) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(component.program.as_os_str().as_encoded_bytes());
    add(component.cwd.as_os_str().as_encoded_bytes());
    for arg in &component.args {
        add(arg.as_bytes());
    }
    add(b"environment");
    for (name, value) in &component.env {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn path(records: &Path, component: &str) -> PathBuf {
    records.join(format!("{component}.json"))
}

/// Notes a process.
pub fn write(records: &Path, component: &str, record: &Record) -> io::Result<()> {
    fs::create_dir_all(records)?;
    let path = path(records, component);
    let new = records.join(format!(".{component}.new"));
    fs::write(&new, serde_json::to_vec(record)?)?;
    fs::rename(new, path)
}

/// Forgets it.
pub fn forget(records: &Path, component: &str) {
    let _ = fs::remove_file(path(records, component));
}

/// The process that was noted, if it still runs.
pub fn find(records: &Path, component: &str) -> Option<Record> {
    let bytes = fs::read(path(records, component)).ok()?;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    (start_time(record.pid) == Some(record.start_time)).then_some(record)
}
