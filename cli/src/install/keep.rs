//! Brings artifacts to the agents that are to keep them ([`packaging::install::keep`]), and removes
//! them: decides which agents and from where, starts the app, follows it ([`Follow`]), and deletes
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use packaging::install::keep::{self, KEEP_PATH, Keep, Progress};
use packaging::install::plan::{self, Part};
use packaging::install::preflight::{Agent, Finding, Situation};
use packaging::options::Options;

use super::actions::Outcome;
use super::record::{Kept, Record};
use super::work::Work;
use super::{Error, Site, probe, render};
use crate::marathon::AppState;
use crate::progress::Step;

/// How long nothing may move anywhere before those that are not ready are given up.
const STALLED: Duration = Duration::from_secs(60);
/// How long tasks may be staged: all agents fetch `k8sm`, 50 MB, from one machine at once.
const STAGED: Duration = Duration::from_secs(900);
/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long agents may take to remove what they keep, once nothing moves any more.
const SWEPT: Duration = Duration::from_secs(30);
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
    /// Who has exactly these artifacts already: ids in Mesos by host name.
    pub had: BTreeMap<String, String>,
}

impl Plan {
    /// The same for nobody.
    pub fn without_agents(&self) -> Self {
        Self {
            agents: Vec::new(),
            had: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// For people, before it is done.
    pub fn told(&self) -> String {
        let hosts: Vec<&str> = self.agents.iter().map(|a| a.hostname.as_str()).collect();
        format!(
            "artifacts: {} get them, to keep in {}",
            hosts.join(", "),
            self.dir
        )
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
        had: BTreeMap::new(),
    })
}

/// Agents on which apps may run and that lack the artifacts: they have joined since, or are others
/// than those of their name that have them.
pub fn joined(kept: &Kept, found: &Situation) -> Vec<Agent> {
    able(found)
        .filter(|agent| kept.agents.get(&agent.hostname) != Some(&agent.id))
        .cloned()
        .collect()
}

/// What is to be brought to agents that have joined, from the framework of a cluster whose
/// artifacts agents keep.
///
/// # Errors
///
/// Why it cannot serve them.
pub async fn from_framework(
    record: &Record,
    kept: &Kept,
    found: &Situation,
    joined: Vec<Agent>,
) -> Result<Plan, String> {
    let options = record.parsed_options().map_err(|e| e.to_string())?;
    let apps = found.world.apps.iter();
    let host = apps
        .filter(|(id, _)| Part::of(&record.name, id) == Some(Part::Framework))
        .flat_map(|(_, seen)| &seen.hosts)
        .next()
        .ok_or("the framework, which serves them, does not run")?;
    let agent = found.agents.iter().find(|a| a.hostname == *host);
    let address = agent.and_then(|a| a.address).map(|ip| ip.to_string());
    let address = address.unwrap_or_else(|| host.clone());
    let source = format!("http://{address}:{}/artifacts", options.framework.port);
    let client = crate::http::client(None, ANSWER).map_err(|e| e.to_string())?;
    for (name, entry) in &record.artifacts.files {
        let url = format!("{source}/{}/{name}", entry.sha256);
        let answer = client.head(&url).send().await;
        answer
            .and_then(reqwest::Response::error_for_status)
            .map_err(|e| {
                let why = crate::error::chain(&e.without_url());
                format!("the framework does not serve {name} at {source}: {why}")
            })?;
    }
    Ok(Plan {
        dir: kept.dir.clone(),
        source,
        agents: joined,
        had: kept.agents.clone(),
    })
}

/// Agents that may take tasks of Marathon's.
fn able(found: &Situation) -> impl Iterator<Item = &Agent> {
    let role = found.marathon_role.as_deref();
    found
        .agents
        .iter()
        .filter(move |a| a.active && (a.role.is_none() || a.role.as_deref() == role))
}

/// What cannot run with what the record says agents keep.
pub fn unfit(options: &Options, record: &Record) -> Vec<Finding> {
    let Some(kept) = record.kept_in_use() else {
        return Vec::new();
    };
    let agents = kept.agents.keys().cloned().collect();
    keep::unfit(options, &record.choice, &agents)
}

/// Brings the artifacts of the record there, and notes in it which agents have them: those that
/// had them stay. Why others have not got them, a line each.
///
/// # Errors
///
/// Marathon's, and the list's.
pub async fn bring(
    site: &Site,
    options: &Options,
    record: &mut Record,
    plan: &Plan,
    step: &mut Step,
) -> Result<Vec<String>, Error> {
    let world = site.world(&record.name).await?;
    let mut also = keep::referred(&world);
    if let Some(before) = &record.before {
        also.extend(keep::digests(&before.artifacts));
    }
    let keep = Keep::new(&plan.dir, &plan.source, &record.artifacts, also);
    let artifacts = render::artifacts(&record.artifacts, &plan.source)?;
    let program = artifacts
        .get("k8sm")
        .ok_or_else(|| packaging::install::artifacts::Error::Missing("k8sm".to_owned()))?;
    let hosts: Vec<&str> = plan.agents.iter().map(|a| a.hostname.as_str()).collect();
    let version = env!("CARGO_PKG_VERSION");
    let app = keep::app(options, &keep, &record.id, version, program, &hosts)
        .map_err(|e| Error::State(e.to_string()))?;
    let id = app.id.to_string();
    // One that was interrupted may have brought something else.
    if world.apps.contains_key(&id) {
        remove(site, &id).await?;
    }
    site.marathon.put(&id, &app, true).await?;
    let found = follow(site, &id, &plan.agents, step).await;
    remove(site, &id).await?;
    let lacking = found?;
    if let Some(kept) = &mut record.kept {
        let ids = plan.agents.iter().map(|a| (&a.hostname, &a.id));
        let ids: BTreeMap<&String, &String> = ids.collect();
        kept.agents.retain(|host, _| {
            !lacking.contains_key(host) || plan.had.get(host) == ids.get(host).copied()
        });
    }
    Ok(lacking
        .iter()
        .map(|(agent, why)| format!("agent {agent} did not get the artifacts: {why}"))
        .collect())
}

async fn remove(site: &Site, id: &str) -> Result<(), Error> {
    site.marathon.delete(id, true).await?;
    probe::gone(site, id).await
}

/// What the agents have said, and whether to wait on. Times are since the beginning.
#[derive(Debug, Default)]
struct Follow {
    /// The best that each has said.
    best: BTreeMap<String, Progress>,
    /// What went wrong last, by agent.
    trouble: BTreeMap<String, String>,
    /// The first task that was staged, by agent.
    staged: BTreeMap<String, String>,
    /// When something moved last.
    moved: Duration,
}

impl Follow {
    /// Takes what an agent says. Only more than ever before is a move: an agent whose file is
    /// refused at its end comes that far again and again.
    fn hears(&mut self, now: Duration, agent: &str, said: Progress) {
        match &said.trouble {
            Some(trouble) => self.trouble.insert(agent.to_owned(), trouble.clone()),
            None => None,
        };
        let is_first = !self.best.contains_key(agent);
        let best = self.best.entry(agent.to_owned()).or_default();
        if is_first || said.done > best.done || said.complete {
            self.moved = now;
            *best = said;
        }
    }

    /// A task is being started: `k8sm` is fetched. A second one after a first that failed is no move.
    fn is_staged(&mut self, now: Duration, agent: &str, task: &str) {
        let first = self.staged.entry(agent.to_owned());
        let first = first.or_insert_with(|| task.to_owned());
        if first == task && now < STAGED {
            self.moved = now;
        }
    }

    fn is_complete(&self, agent: &str) -> bool {
        self.best.get(agent).is_some_and(|p| p.complete)
    }

    fn complete(&self) -> usize {
        self.best.values().filter(|p| p.complete).count()
    }

    /// Whether waiting helps.
    fn goes_on(&self, now: Duration, agents: usize) -> bool {
        self.complete() < agents && now < LONGEST && now.saturating_sub(self.moved) < STALLED
    }

    /// How far they are together.
    fn shown(&self, agents: usize) -> String {
        let complete = self.complete();
        let done: u64 = self.best.values().map(|p| p.done).sum();
        let total = self.best.values().map(|p| p.total).max().unwrap_or(0);
        let total = total.saturating_mul(u64::try_from(agents).unwrap_or(u64::MAX));
        let mut text = format!("{complete} of {agents} agents have them");
        if complete < agents && total > 0 {
            text.push_str(&format!(", {} of {} MiB", done >> 20, total >> 20));
        }
        let troubled = self
            .trouble
            .iter()
            .find(|(agent, _)| !self.is_complete(agent));
        if let Some((agent, trouble)) = troubled {
            text.push_str(&format!("; {agent}: {trouble}"));
        }
        text
    }

    /// Why an agent is not ready; `None` where it is. `silent` is why those are not that said nothing.
    fn why_not(&self, agent: &str, silent: &str) -> Option<String> {
        if self.is_complete(agent) {
            return None;
        }
        let far = |p: &Progress| format!("{} of {} MiB have come", p.done >> 20, p.total >> 20);
        let trouble = self.trouble.get(agent).cloned();
        Some(
            trouble
                .or_else(|| self.best.get(agent).map(far))
                .unwrap_or_else(|| silent.to_owned()),
        )
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
    let all: Vec<&Agent> = agents.iter().collect();
    let begun = Instant::now();
    let mut follow = Follow::default();
    let mut app: Option<AppState> = None;
    while follow.goes_on(begun.elapsed(), agents.len()) {
        app = site.marathon.apps_below(&[id]).await?.pop();
        let tasks = app.iter().flat_map(|app| &app.tasks);
        for task in tasks.filter(|t| t.state.as_deref() == Some("TASK_STAGING")) {
            follow.is_staged(begun.elapsed(), &task.host, &task.id);
        }
        let places = probe::places(app.as_ref(), &all, KEEP_PATH).into_iter();
        let asked = places
            .filter(|(agent, _)| !follow.is_complete(agent))
            .map(async |(agent, url)| (agent, ask(&client, &url).await));
        for (agent, said) in futures::future::join_all(asked).await {
            if let Some(said) = said {
                follow.hears(begun.elapsed(), &agent, said);
            }
        }
        step.detail(&follow.shown(agents.len()));
        tokio::time::sleep(EVERY).await;
    }
    let silent = match follow.complete() < agents.len() {
        true => probe::why(site, id, app.as_ref(), STALLED).await,
        false => String::new(),
    };
    let lacking = agents.iter().filter_map(|agent| {
        let why = follow.why_not(&agent.hostname, &silent)?;
        Some((agent.hostname.clone(), why))
    });
    Ok(lacking.collect())
}

async fn ask(client: &reqwest::Client, url: &str) -> Option<Progress> {
    let answer = client.get(url).send().await.ok()?;
    answer.error_for_status().ok()?.json().await.ok()
}

/// Removes what agents keep, as far as they are there and have room for a task: what stays holds no
/// data, and is named.
pub async fn sweep(work: &mut Work<'_>) -> Result<Outcome, Error> {
    let Some(kept) = work.record.kept.clone() else {
        return Ok(Outcome::Done("there are none".to_owned()));
    };
    let agents = work.site.mesos.agents(None).await?;
    let mut stays: Vec<String> = Vec::new();
    for (dir, hosts) in &kept.touched {
        let (there, gone): (Vec<&str>, Vec<&str>) = hosts
            .iter()
            .map(String::as_str)
            .partition(|host| agents.iter().any(|a| a.active && a.hostname == **host));
        let mut left: BTreeSet<&str> = gone.into_iter().collect();
        if !there.is_empty() {
            left.extend(swept(work, dir, &there).await?);
        }
        stays.extend(left.iter().map(|host| format!("{dir} on {host}")));
    }
    Ok(Outcome::Done(match stays.is_empty() {
        true => String::new(),
        false => format!("remove by hand: {}", stays.join(", ")),
    }))
}

/// Removes a directory from agents; those that did not.
async fn swept<'a>(
    work: &Work<'_>,
    directory: &str,
    hosts: &[&'a str],
) -> Result<Vec<&'a str>, Error> {
    let site = work.site;
    let app = plan::sweep(&work.record.name, &work.record.id, directory, hosts);
    site.marathon.put(&app.id, &app.definition, true).await?;
    let begun = Instant::now();
    let (mut moved, mut done) = (Instant::now(), BTreeSet::new());
    while done.len() < hosts.len() && moved.elapsed() < SWEPT && begun.elapsed() < LONGEST {
        let found = site.marathon.apps_below(&[&app.id]).await?.pop();
        for task in found.iter().flat_map(|app| &app.tasks) {
            let alive = task.health_check_results.iter().any(|result| result.alive);
            if alive && done.insert(task.host.clone()) {
                moved = Instant::now();
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    remove(site, &app.id).await?;
    let left = hosts.iter().copied().filter(|host| !done.contains(*host));
    Ok(left.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(hostname: &str, role: Option<&str>, active: bool) -> Agent {
        Agent {
            id: format!("id-of-{hostname}"),
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

    fn hosts(agents: &[Agent]) -> Vec<&str> {
        agents.iter().map(|a| a.hostname.as_str()).collect()
    }

    #[test]
    fn artifacts_go_to_agents_that_take_tasks_of_marathons() {
        let options = Options::default();
        let plan = from_here(&options, &situation(), "http://192.0.2.1:81", None).unwrap();
        assert_eq!(hosts(&plan.agents), ["a1", "a4"]);
        let only = ["a4".to_owned()];
        let plan = from_here(&options, &situation(), "http://x", Some(&only)).unwrap();
        assert_eq!(hosts(&plan.agents), ["a4"]);
    }

    #[test]
    fn an_agent_that_joined_or_has_another_id_lacks_them() {
        let id = |host: &str| (host.to_owned(), format!("id-of-{host}"));
        let mut kept = Kept {
            agents: [id("a4")].into(),
            ..Kept::default()
        };
        assert_eq!(hosts(&joined(&kept, &situation())), ["a1"]);
        kept.agents.insert("a1".to_owned(), "another".to_owned());
        assert_eq!(hosts(&joined(&kept, &situation())), ["a1"]);
        kept.agents.extend([id("a1")]);
        assert_eq!(joined(&kept, &situation()), []);
    }

    fn said(done: u64, trouble: Option<&str>) -> Progress {
        Progress {
            done: done << 20,
            total: 100 << 20,
            complete: done == 100,
            trouble: trouble.map(str::to_owned),
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn progress_is_that_of_all_together() {
        let mut follow = Follow::default();
        follow.hears(s(1), "a1", said(50, Some("the disk is full")));
        follow.hears(s(1), "a2", said(100, None));
        assert_eq!(
            follow.shown(3),
            "1 of 3 agents have them, 150 of 300 MiB; a1: the disk is full"
        );
        assert_eq!(follow.why_not("a2", "-"), None);
        assert_eq!(follow.why_not("a1", "-").unwrap(), "the disk is full");
        assert_eq!(follow.why_not("a3", "no offer").unwrap(), "no offer");
        follow.hears(s(2), "a1", said(100, None));
        assert_eq!(follow.shown(2), "2 of 2 agents have them");
        assert!(!follow.goes_on(s(2), 2));
    }

    #[test]
    fn agents_are_waited_for_as_long_as_something_new_comes_or_tasks_are_staged() {
        let mut follow = Follow::default();
        follow.is_staged(s(100), "a1", "t1");
        assert!(follow.goes_on(s(120), 1), "it is being fetched");
        follow.hears(s(150), "a1", said(10, None));
        assert!(follow.goes_on(s(200), 1));
        // The same again is nothing new.
        follow.hears(s(200), "a1", said(5, None));
        follow.hears(s(205), "a1", said(10, Some("SHA-256")));
        assert!(!follow.goes_on(s(211), 1));
        follow.is_staged(s(220), "a1", "t2");
        assert!(!follow.goes_on(s(220), 1), "it has failed once");
        follow.is_staged(s(1000), "a1", "t1");
        assert!(!follow.goes_on(s(1000), 1), "staged for too long");
    }
}
