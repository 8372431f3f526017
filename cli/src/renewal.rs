//! Certificates of a cluster that runs for long: `up` and `start` renew what is due, and the
//! supervisor has `start` do so while the cluster runs. A certificate is due when a third of its
//! year is left, so that there are months in which a failed renewal is repeated and seen in
//! `status`.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::SystemTime;

use packaging::pki::{Certificate, Pki};
use serde::Serialize;

use crate::cluster::{self, prepare};
use crate::install::{self, Home};
use crate::instance::{self, Paths, Settings};
use crate::supervise::logs;

/// Name of the log of renewals.
pub const LOG: &str = "renewal";
/// How long the components may take to be ready with their new certificates, in seconds.
const TIMEOUT: &str = "600";

/// A certificate that will be renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Due {
    /// Whose.
    pub name: String,
    /// Why, for a person.
    pub reason: String,
}

/// Why nothing can be said about the certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance's files.
    #[error(transparent)]
    Instance(#[from] instance::Error),
    /// The certificates themselves.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The record of an installation.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// The renewal could not be started. Tried again at the next look.
    #[error("run {program} start: {source}")]
    Start {
        /// This program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Certificates of the control plane that are due at a moment. Needs the right to read them.
pub fn due(paths: &Paths, settings: &Settings, now: SystemTime) -> Result<Vec<Due>, Error> {
    if settings.marathon.is_some() {
        return due_installed(paths, settings, now);
    }
    let control_plane = prepare::control_plane(paths, settings)?;
    due_among(
        &control_plane.pki,
        &control_plane.certificate_plan().certificates(),
        now,
    )
}

/// The same where the control plane is Marathon apps.
fn due_installed(paths: &Paths, settings: &Settings, now: SystemTime) -> Result<Vec<Due>, Error> {
    let home = Home::new(Some(&paths.installed()), &settings.name)?;
    // Before its record there is nothing to renew.
    let Some(record) = home.read()? else {
        return Ok(Vec::new());
    };
    let options = record.parsed_options()?;
    let plan = install::keys::plan(&options, &record.choice)?;
    let pki = Pki::new(home.pki()).with_life(options.pki.certificate_life());
    due_among(&pki, &plan.certificates(), now)
}

fn due_among(pki: &Pki, certificates: &[Certificate], now: SystemTime) -> Result<Vec<Due>, Error> {
    let mut due = Vec::new();
    for wanted in certificates {
        let reason = pki.due(wanted, now.into());
        if let Some(reason) = reason.map_err(cluster::Error::from)? {
            due.push(Due {
                name: wanted.name.to_string(),
                reason,
            });
        }
    }
    Ok(due)
}

/// The same for an instance as it is written down, now.
pub fn due_now(paths: &Paths) -> Result<Vec<Due>, Error> {
    match Settings::read(paths)? {
        Some(settings) => due(paths, &settings, SystemTime::now()),
        None => Ok(Vec::new()),
    }
}

/// Renews what is due: `k8sm start`, which is safe to repeat, in a process of its own.
pub fn renew(paths: &Paths) -> Result<ExitStatus, Error> {
    let program = std::env::current_exe().unwrap_or_else(|_| "k8sm".into());
    run(&program, paths).map_err(|source| Error::Start {
        program: program.display().to_string(),
        source,
    })
}

fn run(program: &Path, paths: &Paths) -> std::io::Result<ExitStatus> {
    let log = logs::open(&paths.log(LOG))?;
    Command::new(program)
        .args(["start", "--timeout", TIMEOUT, "--state-dir"])
        .arg(paths.state())
        .arg("--run-root")
        .arg(paths.run_root())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .status()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use packaging::install::preflight::Choice;
    use packaging::marathon::{AgentHost, EtcdStorage};
    use packaging::options::Options;

    use super::*;
    use crate::instance::MarathonPorts;

    #[test]
    fn certificates_are_due_when_a_third_of_their_life_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::with_run_root(&dir.path().join("state"), dir.path()).unwrap();
        paths.create().unwrap();
        let settings = Settings {
            owner: (
                nix::unistd::getuid().as_raw(),
                nix::unistd::getgid().as_raw(),
            ),
            ..Settings::sample()
        };
        let now = SystemTime::now();
        let in_days = |days: u64| now + Duration::from_secs(days * 86_400);
        let control_plane = prepare::control_plane(&paths, &settings).unwrap();
        let made = prepare::credentials(&paths, &settings, &control_plane).unwrap();
        assert!(!made.is_empty());
        assert_eq!(due(&paths, &settings, in_days(200)).unwrap(), []);
        let all = due(&paths, &settings, in_days(280)).unwrap();
        assert_eq!(
            all.len(),
            control_plane.certificate_plan().certificates().len()
        );
        assert!(all[0].reason.contains("days"), "{all:?}");
        let late = due(&paths, &settings, in_days(400)).unwrap();
        assert!(late[0].reason.contains("expired"), "{late:?}");
    }

    #[test]
    fn so_are_those_of_marathons_apps_once_there_is_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::with_run_root(&dir.path().join("state"), dir.path()).unwrap();
        let settings = Settings {
            marathon: Some(MarathonPorts {
                api: 8081,
                artifacts: 8088,
                api_server: 6444,
                proxy_http: 6480,
                proxy_metrics: 6481,
            }),
            ..Settings::sample()
        };
        let in_days = |days: u64| SystemTime::now() + Duration::from_secs(days * 86_400);
        assert_eq!(due(&paths, &settings, in_days(400)).unwrap(), []);

        let host = AgentHost {
            hostname: "agent-1".to_owned(),
            address: [192, 0, 2, 1].into(),
        };
        let choice = Choice {
            etcd_hosts: vec![host.clone()],
            etcd_storage: EtcdStorage::HostPath,
            api_hosts: vec![host],
            pki: "file".to_owned(),
            why: Vec::new(),
        };
        let home = Home::new(Some(&paths.installed()), &settings.name).unwrap();
        home.create().unwrap();
        install::keys::ensure(&home, &Options::default(), &choice).unwrap();
        let record = serde_json::json!({
            "version": 1, "id": "id", "name": "kubernetes", "phase": "installed", "options": {},
            "marathon": "http://192.0.2.7:8081", "choice": choice, "first_start_until": 0,
            "artifacts_url": "", "artifacts": {"version": 1, "files": {}, "components": {}},
        });
        std::fs::write(home.record(), record.to_string()).unwrap();
        assert_eq!(due(&paths, &settings, in_days(200)).unwrap(), []);
        let all = due(&paths, &settings, in_days(280)).unwrap();
        assert!(all.iter().any(|due| due.name == "apiserver"), "{all:?}");
    }
}
