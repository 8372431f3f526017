//! Brings artifacts to the agents that are to keep them ([`packaging::install::keep`]): decides
//! which agents and from where, starts the app, follows it, and removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use packaging::install::artifacts::{FILE, Manifest};
use packaging::install::keep::{self, KEEP_PATH, Keep, Progress};
use packaging::install::plan::Part;
use packaging::install::preflight::{Agent, Situation};
use packaging::options::Options;

use super::record::{Kept, Record};
use super::{Error, Site, probe, render};
use crate::marathon::AppState;
use crate::progress::Step;

/// How long nothing may become more anywhere before those that are not ready are given up.
const STALLED: Duration = Duration::from_secs(60);
/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(300);

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The directory on the agents.
    pub dir: String,
    /// Where they get the artifacts.
    pub source: String,
    /// Which agents.
    pub agents: Vec<Agent>,
}

impl Plan {
    /// What a record says once it is done, after what it says now.
    pub fn kept(&self, now: Option<&Kept>) -> Kept {
        let agents: BTreeSet<String> = self.agents.iter().map(|a| a.hostname.clone()).collect();
        let touched = now.map(|kept| kept.touched.clone()).unwrap_or_default();
        Kept {
            dir: self.dir.clone(),
            touched: touched.union(&agents).cloned().collect(),
            agents,
        }
    }
}

/// What is to be brought to which agents where a command serves artifacts itself, at `served`;
/// `None` where agents are to keep nothing. `answering` are those that can run tasks, where that is
/// known.
pub fn from_here(
    options: &Options,
    found: &Situation,
    served: &str,
    answering: Option<&[String]>,
) -> Option<Plan> {
    let agents = able(found).filter(|agent| answering.is_none_or(|a| a.contains(&agent.hostname)));
    Some(Plan {
        dir: keep::dir(options)?,
        source: served.to_owned(),
        agents: agents.cloned().collect(),
    })
}

/// What is to be brought where artifacts are kept and agents have joined since: the framework
/// serves them. `None` where none have, or where it does not answer.
pub async fn from_framework(record: &Record, options: &Options, found: &Situation) -> Option<Plan> {
    let kept = record.kept_in_use()?;
    let agents: Vec<Agent> = able(found).cloned().collect();
    if agents.iter().all(|a| kept.agents.contains(&a.hostname)) {
        return None;
    }
    let source = framework(record, options, found).await?;
    Some(Plan {
        dir: kept.dir.clone(),
        source,
        agents,
    })
}

/// Agents on which apps may run that lack the artifacts.
pub fn lacking<'a>(kept: &'a Kept, found: &'a Situation) -> impl Iterator<Item = &'a str> {
    able(found)
        .map(|agent| agent.hostname.as_str())
        .filter(|host| !kept.agents.contains(*host))
}

/// Agents that may take tasks of Marathon's.
fn able(found: &Situation) -> impl Iterator<Item = &Agent> {
    let role = found.marathon_role.as_deref();
    found
        .agents
        .iter()
        .filter(move |a| a.active && (a.role.is_none() || a.role.as_deref() == role))
}

/// Where the framework serves the artifacts of the record, if it does.
async fn framework(record: &Record, options: &Options, found: &Situation) -> Option<String> {
    let apps = found.world.apps.iter();
    let hosts = apps
        .filter(|(id, _)| Part::of(&record.name, id) == Some(Part::Framework))
        .flat_map(|(_, seen)| &seen.hosts);
    let client = crate::http::client(None, ANSWER).ok()?;
    for host in hosts {
        let agent = found.agents.iter().find(|a| a.hostname == *host);
        let address = agent.and_then(|a| a.address).map(|ip| ip.to_string());
        let address = address.unwrap_or_else(|| host.clone());
        let source = format!("http://{address}:{}/artifacts", options.framework.port);
        let answer = client.get(format!("{source}/{FILE}")).send().await;
        let Ok(answer) = answer.and_then(reqwest::Response::error_for_status) else {
            continue;
        };
        let list = answer.bytes().await.ok();
        let list = list.and_then(|bytes| Manifest::parse(&bytes).ok());
        if list.is_some_and(|list| list.files == record.artifacts.files) {
            return Some(source);
        }
    }
    None
}

/// Brings the artifacts of the record there, and notes in it which agents have them. Those that
/// did not get them are told, and apps will not run there. What apps have been made from `before`
/// stays.
///
/// # Errors
///
/// Marathon's, and that nobody, or none of those that etcd and the API servers need, got them.
pub async fn bring(
    site: &Site,
    options: &Options,
    record: &mut Record,
    plan: &Plan,
    before: Option<&Manifest>,
    step: &mut Step,
) -> Result<Vec<String>, Error> {
    let way_back = record.before.as_ref().map(|before| &before.artifacts);
    let before: Vec<&Manifest> = before.into_iter().chain(way_back).collect();
    let keep = Keep::new(&plan.dir, &plan.source, &record.artifacts, &before);
    let artifacts = render::artifacts(&record.artifacts, &plan.source)?;
    let program = artifacts
        .get("k8sm")
        .ok_or_else(|| packaging::install::artifacts::Error::Missing("k8sm".to_owned()))?;
    let hosts: Vec<&str> = plan.agents.iter().map(|a| a.hostname.as_str()).collect();
    let version = env!("CARGO_PKG_VERSION");
    let app = keep::app(options, &keep, &record.id, version, program, &hosts)
        .map_err(|e| Error::State(e.to_string()))?;
    let id = app.id.to_string();
    site.marathon.put(&id, &app, true).await?;
    let found = follow(site, &id, &plan.agents, step).await;
    site.marathon.delete(&id, true).await?;
    probe::gone(site, &id).await?;
    let lacking = found?;
    if let Some(kept) = &mut record.kept {
        kept.agents.retain(|host| !lacking.contains_key(host));
    }
    let lines: Vec<String> = lacking
        .iter()
        .map(|(agent, why)| format!("agent {agent} did not get the artifacts: {why}"))
        .collect();
    match enough(options, record) {
        Ok(()) => Ok(lines),
        Err(what) => Err(Error::State(format!("{what}\n  {}", lines.join("\n  ")))),
    }
}

/// Whether what is pinned to agents can run.
fn enough(options: &Options, record: &Record) -> Result<(), String> {
    let Some(kept) = &record.kept else {
        return Ok(());
    };
    let has = |host: &&packaging::marathon::AgentHost| kept.agents.contains(&host.hostname);
    let choice = &record.choice;
    if let Some(host) = choice.etcd_hosts.iter().find(|h| !has(h)) {
        return Err(format!(
            "the agent {} is to run etcd and lacks the artifacts",
            host.hostname
        ));
    }
    let servers = choice.api_hosts.iter().filter(has).count();
    let wanted = usize::try_from(options.apiserver.instances).unwrap_or(usize::MAX);
    match servers < wanted.min(choice.api_hosts.len()) || kept.agents.is_empty() {
        true => Err(format!(
            "{servers} agents that may run API servers have the artifacts, {wanted} are needed"
        )),
        false => Ok(()),
    }
}

/// Waits until all have everything, or until nothing comes any more; why the others have not.
async fn follow(
    site: &Site,
    id: &str,
    agents: &[Agent],
    step: &mut Step,
) -> Result<BTreeMap<String, String>, Error> {
    let client =
        crate::http::client(None, ANSWER).map_err(|e| Error::State(crate::error::chain(&e)))?;
    let agents: Vec<&Agent> = agents.iter().collect();
    let begun = Instant::now();
    let mut progress: BTreeMap<String, Progress> = BTreeMap::new();
    let mut moved = Instant::now();
    let mut app: Option<AppState> = None;
    let complete =
        |progress: &BTreeMap<String, Progress>| progress.values().filter(|p| p.complete).count();
    while complete(&progress) < agents.len()
        && moved.elapsed() < STALLED
        && begun.elapsed() < LONGEST
    {
        app = site.marathon.apps_below(&[id]).await?.pop();
        for (agent, url) in probe::places(app.as_ref(), &agents, KEEP_PATH) {
            if progress.get(&agent).is_some_and(|p| p.complete) {
                continue;
            }
            let Some(now) = ask(&client, &url).await else {
                continue;
            };
            let before = progress.insert(agent, now.clone()).unwrap_or_default();
            if now.done > before.done || now.complete {
                moved = Instant::now();
            }
        }
        step.detail(&shown(&progress, agents.len()));
        tokio::time::sleep(EVERY).await;
    }
    let silent = match progress.len() < agents.len() {
        true => probe::why(site, id, app.as_ref(), STALLED).await,
        false => String::new(),
    };
    Ok(agents
        .iter()
        .filter_map(|agent| {
            let why = match progress.remove(&agent.hostname) {
                Some(p) if p.complete => return None,
                Some(p) => p.trouble.unwrap_or_else(|| {
                    format!("{} of {} MiB have come", p.done >> 20, p.total >> 20)
                }),
                None => silent.clone(),
            };
            Some((agent.hostname.clone(), why))
        })
        .collect())
}

/// How far they are together.
fn shown(progress: &BTreeMap<String, Progress>, agents: usize) -> String {
    let complete = progress.values().filter(|p| p.complete).count();
    let done: u64 = progress.values().map(|p| p.done).sum();
    let total = progress.values().map(|p| p.total).max().unwrap_or(0);
    let total = total.saturating_mul(u64::try_from(agents).unwrap_or(u64::MAX));
    let mut text = format!("{complete} of {agents} agents have them");
    if complete < agents && total > 0 {
        text.push_str(&format!(", {} of {} MiB", done >> 20, total >> 20));
    }
    if let Some(trouble) = progress.values().find_map(|p| p.trouble.as_deref()) {
        text.push_str(&format!("; {trouble}"));
    }
    text
}

async fn ask(client: &reqwest::Client, url: &str) -> Option<Progress> {
    let answer = client.get(url).send().await.ok()?;
    answer.error_for_status().ok()?.json().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(hostname: &str, role: Option<&str>, active: bool) -> Agent {
        Agent {
            hostname: hostname.to_owned(),
            role: role.map(str::to_owned),
            active,
            ..Agent::default()
        }
    }

    fn situation() -> Situation {
        Situation {
            agents: vec![
                agent("a1", None, true),
                agent("a2", Some("slave_public"), true),
                agent("a3", None, false),
                agent("a4", Some("k8s"), true),
            ],
            marathon_role: Some("k8s".to_owned()),
            ..Situation::default()
        }
    }

    #[test]
    fn artifacts_go_to_agents_that_take_tasks_of_marathons() {
        let options = Options::default();
        let plan = from_here(&options, &situation(), "http://192.0.2.1:81", None).unwrap();
        let kept = plan.kept(None);
        assert_eq!(kept.agents, ["a1", "a4"].map(str::to_owned).into());
        let only = ["a4".to_owned()];
        let plan = from_here(&options, &situation(), "http://x", Some(&only)).unwrap();
        let later = plan.kept(Some(&kept));
        assert_eq!(later.agents, only.into());
        assert_eq!(later.touched, kept.agents, "what has been there is known");
        let found = situation();
        assert_eq!(lacking(&later, &found).collect::<Vec<_>>(), ["a1"]);
    }

    #[test]
    fn progress_is_that_of_all_together() {
        let half = Progress {
            done: 50 << 20,
            total: 100 << 20,
            complete: false,
            trouble: Some("the disk is full".to_owned()),
        };
        let whole = Progress {
            done: 100 << 20,
            complete: true,
            trouble: None,
            ..half.clone()
        };
        let mut progress = [("a1".to_owned(), half), ("a2".to_owned(), whole.clone())].into();
        assert_eq!(
            shown(&progress, 3),
            "1 of 3 agents have them, 150 of 300 MiB; the disk is full"
        );
        progress.insert("a1".to_owned(), whole);
        assert_eq!(shown(&progress, 2), "2 of 2 agents have them");
    }
}
