//! `k8sm status` of an installed cluster.

use std::process::ExitCode;
use std::time::Duration;

use packaging::install::judge::{Standing, World};
use packaging::install::plan::Part;
use packaging::install::rolling::Progress;
use serde::Serialize;
use serde_json::json;

use super::{block_on, print, site};
use crate::args::Shape;
use crate::cluster::api::{Cluster, node_is_ready};
use crate::commands::table;
use crate::error::{Error, ExitCode as Code};
use crate::install::rolling::Rolling;
use crate::install::{self, Home, Record, Site};

/// How long the API server may take to answer a status.
const API_PATIENCE: Duration = Duration::from_secs(5);

/// An app as status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppLine {
    /// Its id in Marathon.
    pub app: String,
    /// What it is at, in a word.
    pub state: &'static str,
    /// How many are wanted.
    pub instances: u32,
    /// How many are healthy.
    pub healthy: u32,
    /// Where they are.
    pub hosts: Vec<String>,
    /// Which k8sm rendered it.
    pub version: String,
    /// Why it is not healthy.
    pub why: String,
}

/// What status knows.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    name: String,
    id: String,
    phase: install::Phase,
    marathon: String,
    marathon_version: String,
    mesos_version: String,
    kubernetes_version: String,
    framework: String,
    api: String,
    nodes: Option<(usize, usize)>,
    /// How far nodes are on their way to the revision that the framework wants.
    rollout: Option<Progress>,
    certificates: String,
    apps: Vec<AppLine>,
    healthy: bool,
}

/// Shows an installed cluster. The exit code is 0 when every app is healthy.
pub fn status(home: &Home, shape: Shape) -> Result<ExitCode, Error> {
    let record = home.existing()?;
    let report = block_on(async {
        let site = site(&record).await?;
        gather(home, &record, &site).await
    })?;
    let value = json!(report);
    crate::commands::print(&print::shaped(shape, &value, || text(&report)))?;
    Ok(match report.healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Code::NotUp as u8),
    })
}

/// The apps of an installation, the first to start first.
pub async fn apps(home: &Home) -> Result<Vec<AppLine>, install::Error> {
    let record = home.existing()?;
    let site = site(&record).await?;
    let world = site.world(&record.name).await?;
    Ok(lines(&record.name, &world))
}

/// Apps as people see them.
pub fn app_table(apps: &[AppLine]) -> String {
    let rows: Vec<Vec<String>> = apps
        .iter()
        .map(|a| {
            vec![
                a.app.clone(),
                a.state.to_owned(),
                format!("{}/{}", a.healthy, a.instances),
                a.hosts.join(","),
                a.why.clone(),
            ]
        })
        .collect();
    match rows.is_empty() {
        true => "Marathon has none of its apps\n".to_owned(),
        false => table(&["APP", "STATE", "HEALTHY", "AGENTS", "WHY"], &rows),
    }
}

/// Whether all apps are there and healthy.
pub fn are_healthy(apps: &[AppLine]) -> bool {
    !apps.is_empty() && apps.iter().all(|a| a.state == "healthy")
}

pub(super) async fn gather(
    home: &Home,
    record: &Record,
    site: &Site,
) -> Result<Report, install::Error> {
    let world = site.world(&record.name).await?;
    let frameworks = site.mesos.frameworks().await?;
    let ours: Vec<String> = frameworks
        .iter()
        .filter(|f| f.name == record.name)
        .map(|f| {
            let state = if f.connected {
                "connected"
            } else {
                "not connected"
            };
            format!("{} ({state})", f.id)
        })
        .collect();
    let (api, nodes) = api(home).await;
    let rollout = match nodes {
        Some(_) => rollout(home, record).await,
        None => None,
    };
    let apps = lines(&record.name, &world);
    Ok(Report {
        name: record.name.clone(),
        id: record.id.clone(),
        phase: record.phase,
        marathon: record.marathon.clone(),
        marathon_version: site.info.version.clone(),
        mesos_version: site.mesos.version().await?,
        kubernetes_version: install::render::kubernetes_version(&record.artifacts),
        framework: match ours.is_empty() {
            true => "not registered".to_owned(),
            false => ours.join(", "),
        },
        api,
        nodes,
        rollout,
        certificates: super::certs::next_expiry(home, record)?,
        healthy: are_healthy(&apps),
        apps,
    })
}

async fn api(home: &Home) -> (String, Option<(usize, usize)>) {
    if !home.kubeconfig().is_file() {
        return ("there is no kubeconfig yet".to_owned(), None);
    }
    let ask = async {
        let cluster = Cluster::connect(&home.kubeconfig()).await?;
        let nodes = cluster.nodes().await?;
        let ready = nodes.iter().filter(|n| node_is_ready(n)).count();
        Ok::<_, crate::cluster::Error>((ready, nodes.len()))
    };
    match tokio::time::timeout(API_PATIENCE, ask).await {
        Ok(Ok(nodes)) => ("answers".to_owned(), Some(nodes)),
        Ok(Err(error)) => (error.to_string(), None),
        Err(_) => (
            format!("does not answer within {} s", API_PATIENCE.as_secs()),
            None,
        ),
    }
}

/// What there is to say about nodes of an installation that are not all of one revision.
pub async fn about_nodes(home: &Home) -> Option<String> {
    let record = home.existing().ok()?;
    about(&rollout(home, &record).await?)
}

pub(super) async fn rollout(home: &Home, record: &Record) -> Option<Progress> {
    let rolling = Rolling::connect(home, &record.name).await.ok()?;
    rolling.read().await.ok()?.1
}

/// What there is to say about nodes that are not all of one revision.
fn about(rollout: &Progress) -> Option<String> {
    if let Some(since) = &rollout.paused_since {
        return Some(format!(
            "{}; paused since {since}: `k8sm upgrade --resume`",
            rollout.counted()
        ));
    }
    let failed = rollout.about_failed();
    let under_way = || (!rollout.is_complete()).then(|| rollout.counted());
    failed.or_else(under_way)
}

fn lines(name: &str, world: &World) -> Vec<AppLine> {
    let mut lines: Vec<(Part, AppLine)> = world
        .apps
        .iter()
        .filter_map(|(id, seen)| {
            let standing = Standing::of(Some(seen));
            let line = AppLine {
                app: id.clone(),
                state: standing.word(),
                instances: seen.instances,
                healthy: seen.healthy,
                hosts: seen.hosts.clone(),
                version: seen.definition["labels"]["K8SM_VERSION"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                why: standing.why().to_owned(),
            };
            Some((Part::of(name, id)?, line))
        })
        .collect();
    lines.sort_by(|a, b| (a.0, &a.1.app).cmp(&(b.0, &b.1.app)));
    lines.into_iter().map(|(_, line)| line).collect()
}

fn text(report: &Report) -> String {
    let phase = json!(report.phase);
    let mut text = format!(
        "cluster {} ({})\n\n",
        report.name,
        phase.as_str().unwrap_or_default()
    );
    text.push_str(&app_table(&report.apps));
    let nodes = match report.nodes {
        Some((ready, all)) => format!("{ready} of {all} ready"),
        None => "unknown".to_owned(),
    };
    let nodes = match report.rollout.as_ref().and_then(about) {
        Some(more) => format!("{nodes}; {more}"),
        None => nodes,
    };
    for (what, value) in [
        ("Kubernetes", &report.kubernetes_version),
        ("API", &report.api),
        ("nodes", &nodes),
        ("framework", &report.framework),
        ("certificates", &report.certificates),
        (
            "Marathon",
            &format!("{} ({})", report.marathon, report.marathon_version),
        ),
        ("Mesos", &report.mesos_version),
    ] {
        text.push_str(&format!("\n{what:<13} {value}"));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use packaging::install::judge::Seen;

    #[test]
    fn status_shows_apps_in_the_order_of_their_start_and_why_one_is_not_healthy() {
        let seen = |healthy, hosts: &[&str]| Seen {
            instances: 1,
            running: 1,
            healthy,
            hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
            ..Seen::default()
        };
        let world = World {
            apps: [
                ("/k8s".to_owned(), seen(0, &["agent-1"])),
                ("/k8s-cp/apiserver".to_owned(), seen(1, &["agent-2"])),
                ("/k8s-cp/etcd-0".to_owned(), seen(1, &["agent-2"])),
            ]
            .into(),
        };
        let report = Report {
            name: "k8s".to_owned(),
            id: "id".to_owned(),
            phase: install::Phase::Installed,
            marathon: "http://marathon:8080".to_owned(),
            marathon_version: "1.11.24".to_owned(),
            mesos_version: "1.11.0".to_owned(),
            kubernetes_version: "v1.37.1".to_owned(),
            framework: "F-1 (connected)".to_owned(),
            api: "answers".to_owned(),
            nodes: Some((2, 3)),
            rollout: Some(Progress {
                revision: "0badcafe".to_owned(),
                nodes: 3,
                in_place: 1,
                paused_since: Some("2026-01-01T00:00:00Z".to_owned()),
                ..Progress::default()
            }),
            certificates: "the first expires in 364 days (apiserver)".to_owned(),
            apps: lines("k8s", &world),
            healthy: false,
        };
        insta::assert_snapshot!(text(&report));
    }
}
