//! Resident memory of the cluster's processes, from `/proc`.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::table::Row;

/// Which process of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `k8sm-framework`.
    Framework,
    /// `k8sm-executor`, the node itself.
    Executor,
    /// `k8sm-executor guard`.
    Guard,
}

impl Program {
    fn is(self, line: &[&str]) -> bool {
        let named = |name: &str| line.first().is_some_and(|first| first.ends_with(name));
        let guard = line.get(1) == Some(&"guard");
        match self {
            Self::Framework => named("k8sm-framework"),
            Self::Executor => named("k8sm-executor") && !guard,
            Self::Guard => named("k8sm-executor") && guard,
        }
    }
}

/// Rows for the executor and its guard. Their command lines name the state directory, by which
/// they are told from those of other clusters on the machine.
pub fn rows(state: &Path, condition: &str) -> Result<Vec<Row>> {
    [
        ("executor", Program::Executor, 15_000),
        ("guard", Program::Guard, 3_000),
        ("framework of this cluster", Program::Framework, 60_000),
    ]
    .into_iter()
    .map(|(name, program, limit)| {
        let found = resident(state, program)?;
        ensure!(!found.is_empty(), "no {name} of {} runs", state.display());
        let most = found.into_iter().max().unwrap_or_default();
        Ok(Row {
            what: format!("{name}, resident memory, {condition}"),
            measured: format!("{:.1} MB", most as f64 / 1000.0),
            reach: format!("{} MB", limit / 1000),
            reached: most <= limit,
        })
    })
    .collect()
}

/// Resident memory in thousands of bytes of each such process of the cluster.
fn resident(state: &Path, program: Program) -> Result<Vec<u64>> {
    let state = state.to_string_lossy();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let words: Vec<&str> = line.split('\0').collect();
        if !program.is(&words) || !line.contains(&*state) {
            continue;
        }
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let kib: Option<u64> = status
            .lines()
            .find_map(|it| it.strip_prefix("VmRSS:"))
            .and_then(|it| it.split_whitespace().next()?.parse().ok());
        // A process that ended meanwhile has no status.
        found.extend(kib.map(|it| it * 1024 / 1000));
    }
    Ok(found)
}
