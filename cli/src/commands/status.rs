//! `k8sm status`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::installed::{self, AppLine};
use super::{print, runtime, table};
use crate::args::StatusFormat;
use crate::cluster::api::{Cluster, LEASE_AGE, node_address, node_is_ready};
use crate::cluster::processes;
use crate::error::{Error, ExitCode as Code};
use crate::install::{self, Home};
use crate::instance::{Paths, Settings};
use crate::preflight::facts;
use crate::procfs;
use crate::renewal::{self, Due};
use crate::supervise::record::Records;
use crate::supervise::{Report, Stage, Supervisor};

/// A node, as far as status shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
struct NodeLine {
    name: String,
    ready: bool,
    /// Whether its kubelet has been heard lately. A Node object goes on saying that it is ready
    /// for a while after its kubelet has ended, and for as long as the control plane is stopped.
    heard: bool,
    address: Option<String>,
    version: Option<String>,
}

/// How long the API server may take.
const API_PATIENCE: Duration = Duration::from_secs(5);
/// How long Marathon may take.
const MARATHON_PATIENCE: Duration = Duration::from_secs(5);
/// Less than this is a warning: etcd alone allocates its log in pieces of 64 MiB.
const LITTLE_SPACE: u64 = 512 << 20;

/// Shows what runs. The exit code is 0 when every process is ready, else that of "not up".
pub fn run(paths: &Paths, format: StatusFormat) -> Result<ExitCode, Error> {
    let settings = super::settings(paths)?;
    let supervisor = Supervisor::new(paths);
    let process = supervisor.process();
    let reports = match &process {
        Some(_) => supervisor.status().map(|s| s.processes).unwrap_or_default(),
        None => Vec::new(),
    };
    let apps = settings.marathon.map(|_| match &process {
        Some(_) => apps(paths, &settings),
        None => Ok(Vec::new()),
    });
    let apps_ready = apps
        .as_ref()
        .is_none_or(|apps| apps.as_ref().is_ok_and(|apps| installed::are_healthy(apps)));
    let all_ready =
        apps_ready && !reports.is_empty() && reports.iter().all(|r| r.stage == Stage::Ready);
    let orphans = match &process {
        Some(_) => 0,
        None => Records::new(paths.pids()).alive().len(),
    };
    let api_ready = match &apps {
        Some(apps) => apps.as_ref().is_ok_and(|apps| api_server_is_healthy(apps)),
        None => is_ready(&reports, "kube-apiserver"),
    };
    let nodes = match api_ready {
        true => nodes(paths, &reports),
        false => Err("the API server is not ready".to_owned()),
    };
    // Only root may read them, and who cannot is told nothing.
    let due = renewal::due_now(paths).unwrap_or_default();
    let mut warnings = warnings(facts::space_free(paths.state()), paths, &due);
    if apps.is_some() && api_ready {
        warnings.extend(rollout(paths, &settings));
    }
    let text = match format {
        StatusFormat::Text => {
            let found = Found {
                supervisor: process.map(|p| p.pid),
                orphans,
                reports: &reports,
                apps: apps.as_ref(),
                nodes: &nodes,
                warnings: &warnings,
            };
            text(paths, &settings, &found)
        }
        StatusFormat::Json | StatusFormat::Yaml => {
            let (nodes, error) = match &nodes {
                Ok(nodes) => (json!(nodes), None),
                Err(error) => (json!([]), Some(error.clone())),
            };
            let value = json!({
                "stateDir": paths.state(),
                "supervisor": process.map(|p| p.pid),
                "ready": all_ready,
                "processes": reports,
                "apps": apps.as_ref().and_then(|apps| apps.as_ref().ok()),
                "appsError": apps.as_ref().and_then(|apps| apps.as_ref().err()),
                "nodes": nodes,
                "nodesError": error,
                "certificatesDue": due,
                "warnings": warnings,
                "kubeconfig": paths.kubeconfig(),
                "mesosMaster": processes::shown_master_address(&settings),
            });
            match format {
                // JSON is YAML, too, should this ever fail.
                StatusFormat::Yaml => {
                    serde_yaml::to_string(&value).unwrap_or_else(|_| format!("{value:#}\n"))
                }
                _ => format!("{value:#}\n"),
            }
        }
    };
    print(&text)?;
    Ok(if all_ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Code::NotUp as u8)
    })
}

fn is_ready(reports: &[Report], name: &str) -> bool {
    reports
        .iter()
        .any(|r| r.name == name && r.stage == Stage::Ready)
}

/// What there is to say about nodes that are brought to another revision, or are kept from it.
fn rollout(paths: &Paths, settings: &Settings) -> Option<String> {
    let home = Home::new(Some(&paths.installed()), &settings.name).ok()?;
    let asked = async {
        let asked = installed::about_nodes(&home);
        tokio::time::timeout(API_PATIENCE, asked).await.ok()?
    };
    let about = runtime().ok()?.block_on(asked)?;
    Some(format!("nodes: {about}"))
}

/// The apps that the control plane is.
fn apps(paths: &Paths, settings: &Settings) -> Result<Vec<AppLine>, String> {
    let ask = async {
        let home = Home::new(Some(&paths.installed()), &settings.name)?;
        let work = installed::apps(&home);
        tokio::time::timeout(MARATHON_PATIENCE, work)
            .await
            .unwrap_or_else(|_| {
                let seconds = MARATHON_PATIENCE.as_secs();
                let text = format!("Marathon does not answer within {seconds} s");
                Err(install::Error::State(text))
            })
    };
    let runtime = runtime().map_err(|e| e.to_string())?;
    runtime.block_on(ask).map_err(|e| e.to_string())
}

fn api_server_is_healthy(apps: &[AppLine]) -> bool {
    apps.iter()
        .any(|a| a.app.ends_with("/apiserver") && a.state == "healthy")
}

fn nodes(paths: &Paths, reports: &[Report]) -> Result<Vec<NodeLine>, String> {
    let since = heard_since(reports);
    let list = async {
        let cluster = Cluster::connect(&paths.kubeconfig()).await?;
        let heard = cluster.nodes_heard_since(since).await?;
        Ok::<_, crate::cluster::Error>((cluster.nodes().await?, heard))
    };
    let runtime = runtime().map_err(|e| e.to_string())?;
    let list = async { tokio::time::timeout(API_PATIENCE, list).await };
    let (nodes, heard) = match runtime.block_on(list) {
        Ok(listed) => listed.map_err(|e| e.to_string())?,
        Err(_) => {
            return Err(format!(
                "the API server does not answer within {} s",
                API_PATIENCE.as_secs()
            ));
        }
    };
    Ok(nodes
        .into_iter()
        .map(|node| {
            let heard = node
                .metadata
                .name
                .as_ref()
                .is_some_and(|n| heard.contains(n));
            NodeLine {
                ready: heard && node_is_ready(&node),
                heard,
                address: node_address(&node),
                version: node
                    .status
                    .as_ref()
                    .and_then(|s| s.node_info.as_ref())
                    .map(|i| i.kubelet_version.clone()),
                name: node.metadata.name.unwrap_or_default(),
            }
        })
        .collect())
}

/// From when on what nodes say counts: they renew their leases every few seconds, and not before
/// the API server was there.
fn heard_since(reports: &[Report]) -> SystemTime {
    let api_age = reports
        .iter()
        .find(|r| r.name == "kube-apiserver")
        .and_then(|r| procfs::age(r.pid?));
    SystemTime::now() - api_age.map_or(LEASE_AGE, |age| age.min(LEASE_AGE))
}

/// What is about to go wrong, and what to do about it.
fn warnings(space_free: u64, paths: &Paths, due: &[Due]) -> Vec<String> {
    let mut warnings = Vec::new();
    if space_free < LITTLE_SPACE {
        warnings.push(format!(
            "{} MiB are free below {}, where etcd, Mesos and the nodes write, and what cannot write ends: free some space, and everything goes on",
            space_free >> 20,
            paths.state().display(),
        ));
    }
    if let Some(first) = due.first() {
        warnings.push(format!(
            "{} certificate(s) due for renewal ({}: {}); a running cluster does that by itself, `sudo k8sm start` at once, and `k8sm logs {}` tells why it has not been done",
            due.len(),
            first.name,
            first.reason,
            renewal::LOG,
        ));
    }
    warnings
}

/// What was found.
struct Found<'a> {
    /// Its process.
    supervisor: Option<u32>,
    /// How many of its processes run without it.
    orphans: usize,
    reports: &'a [Report],
    /// The control plane, where it is apps of Marathon's.
    apps: Option<&'a Result<Vec<AppLine>, String>>,
    nodes: &'a Result<Vec<NodeLine>, String>,
    warnings: &'a [String],
}

fn text(paths: &Paths, settings: &Settings, found: &Found<'_>) -> String {
    let &Found {
        supervisor,
        orphans,
        reports,
        apps,
        nodes,
        warnings,
    } = found;
    let mut text = match supervisor {
        Some(pid) => format!("cluster {} (supervisor: pid {pid})\n\n", settings.name),
        None if orphans > 0 => format!(
            "the supervisor of cluster {} does not run, {orphans} of its processes do; `sudo k8sm start` starts one that takes them over\n\n",
            settings.name
        ),
        None => format!(
            "cluster {} is stopped; `sudo k8sm start` starts it\n\n",
            settings.name
        ),
    };
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|r| {
            vec![
                r.name.clone(),
                stage(&r.stage).to_owned(),
                r.pid.map(|p| p.to_string()).unwrap_or_default(),
                r.restarts.to_string(),
                r.last_error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(
            &["PROCESS", "STATE", "PID", "RESTARTS", "LAST PROBLEM"],
            &rows,
        ));
        text.push('\n');
    }
    match apps {
        Some(Ok(apps)) if supervisor.is_some() => {
            text.push_str(&format!("{}\n", installed::app_table(apps)));
        }
        Some(Err(error)) => text.push_str(&format!("apps: {error}\n\n")),
        Some(Ok(_)) | None => {}
    }
    match nodes {
        Ok(nodes) if nodes.is_empty() => {
            text.push_str("no nodes: they come with the first pods that want them\n");
        }
        Ok(nodes) => {
            let rows: Vec<Vec<String>> = nodes
                .iter()
                .map(|n| {
                    let state = match n {
                        NodeLine { ready: true, .. } => "ready",
                        NodeLine { heard: false, .. } => "not heard of",
                        NodeLine { .. } => "not ready",
                    };
                    vec![
                        n.name.clone(),
                        state.to_owned(),
                        n.address.clone().unwrap_or_default(),
                        n.version.clone().unwrap_or_default(),
                    ]
                })
                .collect();
            text.push_str(&table(&["NODE", "STATE", "ADDRESS", "KUBELET"], &rows));
        }
        Err(error) if supervisor.is_some() => text.push_str(&format!("nodes: {error}\n")),
        Err(_) => {}
    }
    for warning in warnings {
        text.push_str(&format!("\n! {warning}\n"));
    }
    text.push_str(&format!(
        "\nkubeconfig    {}\nMesos master  {}\nlogs          {}\n",
        paths.kubeconfig().display(),
        processes::shown_master_address(settings),
        paths.logs().display(),
    ));
    text
}

fn stage(stage: &Stage) -> &'static str {
    match stage {
        Stage::Waiting => "waiting",
        Stage::BackOff => "back-off",
        Stage::Starting => "starting",
        Stage::Ready => "ready",
        Stage::Unhealthy => "unhealthy",
        Stage::Stopping => "stopping",
        Stage::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Mesos;

    #[test]
    fn status_shows_processes_nodes_and_where_things_are() {
        let paths = Paths::new(std::path::Path::new("/state")).unwrap();
        let settings = Settings {
            mesos: Mesos::Existing {
                url: "zk://a/mesos".to_owned(),
            },
            ..Settings::sample()
        };
        let report = |name: &str, stage, pid, error: Option<&str>| Report {
            name: name.to_owned(),
            stage,
            pid,
            restarts: 1,
            last_error: error.map(str::to_owned),
        };
        let reports = [
            report("etcd", Stage::Ready, Some(12), None),
            report("framework", Stage::BackOff, None, Some("exit status: 1")),
        ];
        let node = |name: &str, ready, heard| NodeLine {
            name: name.to_owned(),
            ready,
            heard,
            address: Some("192.0.2.7".to_owned()),
            version: Some("v1.37.1".to_owned()),
        };
        let nodes = vec![
            node("node-1", true, true),
            node("node-2", false, true),
            node("node-3", false, false),
        ];
        let due = [Due {
            name: "apiserver".to_owned(),
            reason: "it would expire in 100 days".to_owned(),
        }];
        let warnings = warnings(3 << 20, &paths, &due);
        let apps = Ok(vec![AppLine {
            app: "/kubernetes".to_owned(),
            state: "healthy",
            instances: 1,
            healthy: 1,
            hosts: vec!["192.0.2.7".to_owned()],
            version: "1".to_owned(),
            why: String::new(),
        }]);
        let running = Found {
            supervisor: Some(11),
            orphans: 0,
            reports: &reports,
            apps: Some(&apps),
            nodes: &Ok(nodes),
            warnings: &warnings,
        };
        let stopped = Found {
            supervisor: None,
            orphans: 0,
            reports: &[],
            apps: None,
            nodes: &Err(String::new()),
            warnings: &[],
        };
        insta::assert_snapshot!(format!(
            "{}=====\n{}",
            text(&paths, &settings, &running),
            text(&paths, &settings, &stopped),
        ));
    }
}
