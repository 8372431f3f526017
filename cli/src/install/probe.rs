//! Looks at every agent from within: starts a probe on each, collects what they say, and removes
//! them again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use packaging::install::preflight::Agent;
use packaging::install::probe::{self, PROBE_PATH, Probe, Probed, Report};
use packaging::marathon::Artifact;
use packaging::options::Options;

use super::{Error, Site};
use crate::marathon::AppState;
use crate::progress::Step;

/// How long probes may take to be fetched, to start and to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long those that have not answered are waited for after the last one that has.
const STRAGGLERS: Duration = Duration::from_secs(20);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the app may take to go.
const GOING: Duration = Duration::from_secs(15);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(300);

/// Probes the agents that take tasks.
pub async fn run(
    site: &Site,
    options: &Options,
    install_id: &str,
    look: &Probe,
    program: Option<&Artifact>,
    agents: &[Agent],
    step: &mut Step,
) -> Result<Vec<Probed>, Error> {
    let agents: Vec<&Agent> = agents.iter().filter(|a| a.active).collect();
    let count = u32::try_from(agents.len()).unwrap_or(u32::MAX);
    let version = env!("CARGO_PKG_VERSION");
    let app = probe::app(options, look, install_id, version, program, count)
        .map_err(|e| Error::State(e.to_string()))?;
    let id = app.id.to_string();
    site.marathon.put(&id, &app, true).await?;
    let found = collect(site, &id, &agents, step).await;
    // In any case: what is left of it is removed by the installation otherwise.
    site.marathon.delete(&id, true).await?;
    gone(site, &id).await?;
    found
}

/// Waits until Marathon has forgotten an app that was deleted.
pub(super) async fn gone(site: &Site, id: &str) -> Result<(), Error> {
    let begun = Instant::now();
    while begun.elapsed() < GOING && site.marathon.app(id).await?.is_some() {
        tokio::time::sleep(EVERY).await;
    }
    Ok(())
}

async fn collect(
    site: &Site,
    id: &str,
    agents: &[&Agent],
    step: &mut Step,
) -> Result<Vec<Probed>, Error> {
    let client =
        crate::http::client(None, ANSWER).map_err(|e| Error::State(crate::error::chain(&e)))?;
    let begun = Instant::now();
    let mut answers: BTreeMap<String, (Report, f64)> = BTreeMap::new();
    let mut last: Option<Instant> = None;
    let mut app = None;
    while answers.len() < agents.len() && begun.elapsed() < PATIENCE {
        if last.is_some_and(|at| at.elapsed() > STRAGGLERS) {
            break;
        }
        app = site.marathon.apps_below(&[id]).await?.pop();
        for (agent, url) in places(app.as_ref(), agents, PROBE_PATH) {
            if answers.contains_key(&agent) {
                continue;
            }
            if let Some(answer) = ask(&client, &url).await {
                answers.insert(agent, answer);
                last = Some(Instant::now());
            }
        }
        step.detail(&format!(
            "{} of {} agents have answered",
            answers.len(),
            agents.len()
        ));
        tokio::time::sleep(EVERY).await;
    }
    let silent = match answers.len() < agents.len() {
        true => why(site, id, app.as_ref(), PATIENCE).await,
        false => String::new(),
    };
    Ok(agents
        .iter()
        .map(|agent| match answers.remove(&agent.hostname) {
            Some((report, clock_off)) => Probed {
                agent: agent.hostname.clone(),
                report: Some(report),
                cpus: agent.cpus,
                mem: agent.mem,
                clock_off,
                why: String::new(),
            },
            None => Probed {
                agent: agent.hostname.clone(),
                report: None,
                cpus: agent.cpus,
                mem: agent.mem,
                clock_off: 0.0,
                why: silent.clone(),
            },
        })
        .collect())
}

/// Where tasks answer below `path`, by agent.
pub(super) fn places(
    app: Option<&AppState>,
    agents: &[&Agent],
    path: &str,
) -> Vec<(String, String)> {
    let tasks = app.map(|a| a.tasks.as_slice()).unwrap_or_default();
    tasks
        .iter()
        .filter_map(|task| {
            let agent = agents.iter().find(|a| a.hostname == task.host)?;
            let address = agent
                .address
                .map_or_else(|| task.host.clone(), |a| a.to_string());
            let port = task.ports.first()?;
            let url = format!("http://{address}:{port}{path}");
            Some((agent.hostname.clone(), url))
        })
        .collect()
}

/// What a probe says, and how far its clock is ahead of ours.
async fn ask(client: &reqwest::Client, url: &str) -> Option<(Report, f64)> {
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0.0, |d| d.as_secs_f64())
    };
    let before = now();
    let answer = client.get(url).send().await.ok()?;
    let report: Report = answer.error_for_status().ok()?.json().await.ok()?;
    let clock_off = report.clock - (before + now()) / 2.0;
    Some((report, clock_off))
}

/// Why not all of them have answered, as far as Marathon knows.
pub(super) async fn why(
    site: &Site,
    id: &str,
    app: Option<&AppState>,
    patience: Duration,
) -> String {
    let queue = site.marathon.queue().await.unwrap_or_default();
    let waits = queue.iter().find(|q| q.app == id).map(|q| q.why());
    let failed = app
        .and_then(|a| a.last_failure.as_ref())
        .map(|f| format!("{} on {}: {}", f.state, f.host, f.message));
    let known: Vec<String> = failed.into_iter().chain(waits).collect();
    match known.is_empty() {
        true => format!("nothing came within {} s", patience.as_secs()),
        false => known.join("; "),
    }
}
