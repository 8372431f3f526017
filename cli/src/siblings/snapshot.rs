//! A snapshot of etcd before the apps of a cluster change, as `k8sm upgrade` takes one.
//!
//! It lies on the agent on which this task runs, beside the place where members of etcd have their
//! data, readable by the task's user alone: `<etcd.host_path>/<name>/snapshots/etcd-<time>.db`. Not
//! in the sandbox, which goes with the task, and not in Marathon or the secret store, which hold
//! a mebibyte. The record says which agents have any; uninstallation removes them.
//!
//! One is taken for each change, at its beginning: a change that was cut off, or whose options
//! are changed once more, goes on with the one that it began with. So what is kept is always of a
//! cluster that was whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use packaging::install::judge::World;
use packaging::install::plan::{AppPlan, Part, What};
use packaging::marathon::Artifact;
use packaging::options::Options;

use super::Service;
use crate::download;
use crate::install::record::Snapshot;
use crate::install::{Home, Phase, Record, etcd};

/// The program.
pub(super) const PROGRAM: &str = "etcdctl";
/// So many are kept on an agent.
const KEPT: usize = 3;
/// Variable in which Marathon names a task's agent.
const HOST_ENV: &str = "HOST";
/// How long the program may take to arrive: 25 MB.
const FETCH_PATIENCE: Duration = Duration::from_secs(300);

/// Why there is none. Worth a retry: agents, disks and servers come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody can be asked, and etcd itself is to change.
    #[error(
        "no member of etcd answers, so no snapshot can be taken, and {apps} would change: nothing was changed. Bring etcd back first; if the change is what brings it back, make it in Marathon by hand ({apps}), or go back to the former options"
    )]
    Silent {
        /// The apps of etcd that would change.
        apps: String,
    },
    /// etcdctl is not among the artifacts.
    #[error("nobody says where etcdctl can be fetched, which takes the snapshot before a change")]
    NoProgram,
    /// etcdctl cannot be fetched.
    #[error("{0}; etcdctl takes the snapshot before a change, so nothing was changed")]
    Fetch(#[from] download::Error),
    /// The snapshot.
    #[error("{0}; nothing was changed, since there is no snapshot to go back to")]
    Etcd(#[from] etcd::Error),
    /// The disk.
    #[error("{0}; nothing was changed, since there is no snapshot to go back to")]
    File(#[from] packaging::files::Error),
}

/// What comes before a change.
#[derive(Debug, PartialEq, Eq)]
enum Before {
    /// Nothing: nothing that exists changes, or the snapshot has been taken.
    Nothing,
    /// A snapshot. The apps of etcd that change.
    Snapshot { etcd: Vec<String> },
}

/// Whether any member of etcd is meant to run.
fn runs(name: &str, world: &World) -> bool {
    let is_member = |id: &str| Part::of(name, id) == Some(Part::Etcd);
    let mut apps = world.apps.iter();
    apps.any(|(id, seen)| is_member(id) && seen.instances > 0)
}

/// Decides by what would be done with the apps. `runs` says whether there is an etcd of ours that
/// is meant to run: whoever has stopped it starts it again with this.
fn before(name: &str, phase: Phase, runs: bool, changes: &[AppPlan]) -> Before {
    // A cluster that is not complete yet has nothing to lose; one that is changing has got its
    // snapshot.
    if phase != Phase::Installed || !runs {
        return Before::Nothing;
    }
    let changing = |c: &&AppPlan| matches!(c.what, What::Update | What::Remove);
    if changes.iter().find(changing).is_none() {
        return Before::Nothing;
    }
    let etcd = changes
        .iter()
        .filter(changing)
        .filter(|c| Part::of(name, &c.app) == Some(Part::Etcd));
    Before::Snapshot {
        etcd: etcd.map(|c| c.app.clone()).collect(),
    }
}

/// Takes what has to be taken before these changes, and notes it in the record. Without a member
/// that answers, it goes on only where nothing of etcd changes.
pub(super) async fn ensure(
    service: &Service,
    home: &Home,
    record: &mut Record,
    program: Option<&Artifact>,
    world: &World,
    changes: &[AppPlan],
) -> Result<bool, Error> {
    let options = &service.options;
    let runs = runs(service.name(), world);
    let Before::Snapshot { etcd: changing } = before(service.name(), record.phase, runs, changes)
    else {
        return Ok(false);
    };
    let programs = service.dir.join("programs");
    fetch(&programs, program.ok_or(Error::NoProgram)?).await?;
    let ctl = etcd::Ctl::new(home, options, &record.choice, Some(&programs))?;
    if ctl.unhealthy().await?.len() == record.choice.etcd_hosts.len() {
        if !changing.is_empty() {
            let apps = changing.join(", ");
            return Err(Error::Silent { apps });
        }
        let text = "no member of etcd answers: the change is made without a snapshot, since nothing of etcd changes";
        tracing::warn!("{text}");
        service.board.snapshot(text.to_owned());
        return Ok(false);
    }
    let host = std::env::var(HOST_ENV).unwrap_or_else(|_| "this agent".to_owned());
    let dir = directory(options);
    let path = dir.join(etcd::file_name());
    let size = ctl.snapshot(&path).await?;
    packaging::files::keep_secret(&path)?;
    record.snapshots.push(Snapshot {
        host: host.clone(),
        path: path.clone(),
    });
    for old in surplus(&dir)? {
        if let Err(error) = std::fs::remove_file(&old) {
            tracing::warn!("remove the old snapshot {}: {error}", old.display());
            continue;
        }
        record.snapshots.retain(|s| s.host != host || s.path != old);
    }
    record.phase = Phase::Upgrading;
    let text = format!("{} on {host} ({} KiB)", path.display(), size / 1024);
    tracing::info!("snapshot of etcd: {text}");
    service.board.snapshot(text);
    Ok(true)
}

/// Where snapshots are on an agent.
fn directory(options: &Options) -> PathBuf {
    Path::new(&options.etcd.host_path)
        .join(&options.service.name)
        .join("snapshots")
}

/// All but the latest ones. Their names sort by time.
fn surplus(dir: &Path) -> Result<Vec<PathBuf>, packaging::files::Error> {
    let read = |source| packaging::files::Error::Read {
        path: dir.to_owned(),
        source,
    };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.starts_with("etcd-") && name.ends_with(".db") {
            all.push(path);
        }
    }
    all.sort();
    all.truncate(all.len().saturating_sub(KEPT));
    Ok(all)
}

/// Brings the program, unless it is there.
async fn fetch(dir: &Path, artifact: &Artifact) -> Result<(), Error> {
    let path = dir.join(PROGRAM);
    if path.is_file() {
        return Ok(());
    }
    packaging::files::make_dir(dir, 0o700)?;
    Ok(download::fetch(artifact, &path, 0o700, FETCH_PATIENCE, |_| ()).await?)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn plan(app: &str, what: What) -> AppPlan {
        AppPlan {
            app: app.to_owned(),
            what,
            changes: Vec::new(),
        }
    }

    #[test]
    fn a_snapshot_comes_before_the_change_of_a_complete_cluster_and_once() {
        let api = plan("/k-cp/apiserver", What::Update);
        let member = plan("/k-cp/etcd-1", What::Update);
        let same = plan("/k-cp/etcd-0", What::Keep);
        let new = plan("/k-cp/proxy", What::Create);
        let gone = plan("/k-cp/proxy", What::Remove);
        let take = |etcd: &[&str]| Before::Snapshot {
            etcd: etcd.iter().map(|e| (*e).to_owned()).collect(),
        };
        for (phase, runs, changes, wanted) in [
            (Phase::Installing, true, vec![&api], Before::Nothing),
            (Phase::Installed, true, vec![&same, &new], Before::Nothing),
            (Phase::Installed, true, vec![&same, &api], take(&[])),
            (Phase::Installed, true, vec![&same, &gone], take(&[])),
            (
                Phase::Installed,
                true,
                vec![&same, &member, &api],
                take(&["/k-cp/etcd-1"]),
            ),
            (Phase::Installed, false, vec![&api], Before::Nothing),
            (Phase::Upgrading, true, vec![&member], Before::Nothing),
        ] {
            let changes: Vec<AppPlan> = changes.into_iter().cloned().collect();
            assert_eq!(before("k", phase, runs, &changes), wanted, "{changes:?}");
        }
    }

    #[test]
    fn the_latest_ones_are_kept_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "etcd-20260101-000000.db",
            "etcd-20260301-000000.db",
            "etcd-20260201-000000.db",
            "etcd-20260401-000000.db",
            "etcd-20260501-000000.db.part",
            "mine.db",
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let old = dir.path().join("etcd-20260101-000000.db");
        assert_eq!(surplus(dir.path()).unwrap(), [old]);
    }

    /// An etcdctl that says whether members answer, and saves a word.
    async fn program(healthy: bool) -> (Artifact, crate::serving::Server) {
        let health = if healthy { "exit 0" } else { "exit 1" };
        let script = format!(
            "#!/bin/sh\nfor last; do case $last in health) {health};; esac; done\necho content >$last\n"
        );
        let served = script.clone();
        let answer = axum::routing::get(move || std::future::ready(served.clone()));
        let router = axum::Router::new().route("/etcdctl", answer);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let uri = format!("http://{}/etcdctl", listener.local_addr().unwrap());
        let digest = Sha256::digest(&script);
        let artifact = Artifact {
            uri,
            sha256: crate::upstream::cache::hex(&digest),
            size: script.len() as u64,
        };
        let server = crate::serving::Server::on(listener, router, "artifacts").unwrap();
        (artifact, server)
    }

    fn service(dir: &Path) -> Service {
        let mut options = Options::default();
        options.etcd.host_path = dir.join("etcd").display().to_string();
        Service {
            options,
            command: packaging::universe::command::Command {
                kubernetes_version: String::new(),
                artifacts: Default::default(),
                options: serde_json::Value::Null,
            },
            dir: dir.to_owned(),
            secret: None,
            token: Default::default(),
            board: std::sync::Arc::default(),
        }
    }

    /// A cluster that is complete, with its etcd, and a change of that app.
    fn complete(home: &Home, app: &str) -> (Record, World, Vec<AppPlan>) {
        home.create().unwrap();
        let record: Record = serde_json::from_value(serde_json::json!({
            "version": 1, "id": "i-1", "name": "kubernetes", "phase": "installed",
            "marathon": "http://m", "options": {},
            "choice": {"etcd_hosts": [{"hostname": "a", "address": "127.0.0.1"}],
                       "etcd_storage": "host_path", "api_hosts": [], "pki": "env", "why": []},
            "first_start_until": 0, "artifacts_url": "http://a",
            "artifacts": {"version": 1, "files": {}, "components": {}},
        }))
        .unwrap();
        let seen = packaging::install::judge::Seen {
            instances: 1,
            ..Default::default()
        };
        let apps = [("/kubernetes-cp/etcd-0".to_owned(), seen)].into();
        (record, World { apps }, vec![plan(app, What::Update)])
    }

    #[tokio::test]
    async fn a_change_begins_with_a_snapshot_for_this_user_alone_and_is_noted() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        let home = service.home().unwrap();
        let (mut record, world, changes) = complete(&home, "/kubernetes-cp/etcd-0");
        let (etcdctl, _server) = program(true).await;
        let taken = ensure(
            &service,
            &home,
            &mut record,
            Some(&etcdctl),
            &world,
            &changes,
        );
        assert!(taken.await.unwrap());
        assert_eq!(record.phase, Phase::Upgrading);
        let [snapshot] = record.snapshots.as_slice() else {
            panic!("{:?}", record.snapshots);
        };
        let about = std::fs::metadata(&snapshot.path).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        // Cut off, it goes on with the one that it has.
        let again = ensure(&service, &home, &mut record, None, &world, &changes);
        assert!(!again.await.unwrap());
    }

    #[tokio::test]
    async fn without_an_answer_only_what_leaves_etcd_alone_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        let home = service.home().unwrap();
        let (etcdctl, _server) = program(false).await;
        let (mut record, world, changes) = complete(&home, "/kubernetes-cp/etcd-0");
        let refused = ensure(
            &service,
            &home,
            &mut record,
            Some(&etcdctl),
            &world,
            &changes,
        );
        let error = refused.await.unwrap_err().to_string();
        assert!(
            error.contains("/kubernetes-cp/etcd-0 would change"),
            "{error}"
        );
        let (mut record, world, changes) = complete(&home, "/kubernetes-cp/apiserver");
        let goes_on = ensure(
            &service,
            &home,
            &mut record,
            Some(&etcdctl),
            &world,
            &changes,
        );
        assert!(!goes_on.await.unwrap());
        assert_eq!(
            record.phase,
            Phase::Installed,
            "the next attempt tries again"
        );
        assert!(record.snapshots.is_empty());
    }

    #[test]
    fn who_stopped_etcd_starts_it_again_without_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(Some(dir.path()), "kubernetes").unwrap();
        let (_, mut world, _) = complete(&home, "/kubernetes-cp/etcd-0");
        assert!(runs("kubernetes", &world));
        for seen in world.apps.values_mut() {
            seen.instances = 0;
        }
        assert!(!runs("kubernetes", &world));
    }
}
