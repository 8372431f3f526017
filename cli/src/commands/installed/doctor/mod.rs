//! `k8sm doctor`: what is wrong with an installed cluster, why, and what to do.

mod bundle;
mod held;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use packaging::install::judge::{Standing, World};
use packaging::install::plan::{self, What};
use packaging::install::preflight::{self, Finding, Level, Situation};
use packaging::install::rolling::Progress;
use packaging::pki::Pki;
use serde_json::json;

use super::{block_on, home, print, site};
use crate::args::Doctor;
use crate::error::{Error, ExitCode as Code};
use crate::install::record::Kept;
use crate::install::{self, Home, Phase, Record, Site, etcd, keys, render};

/// How long somebody who serves artifacts may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `k8sm doctor`. The exit code is 0 when nothing is wrong, warnings aside.
pub fn doctor(state_dir: &Path, args: &Doctor) -> Result<ExitCode, Error> {
    let (home, record) = home(state_dir, &args.which)?;
    let findings = block_on(async {
        let site = site(&record).await?;
        let findings = examine(&home, &record, &site).await?;
        if let Some(file) = &args.bundle {
            bundle::write(&home, &record, &site, &findings, file).await?;
        }
        Ok(findings)
    })?;
    let text = print::shaped(args.output, &json!(findings), || table(&findings));
    crate::commands::print(&text)?;
    if let Some(file) = &args.bundle {
        eprintln!(
            "{} is ready; look into it before you send it",
            file.display()
        );
    }
    let bad = findings.iter().any(|f| f.level == Level::Fatal);
    Ok(if bad {
        ExitCode::from(Code::Failure as u8)
    } else {
        ExitCode::SUCCESS
    })
}

fn table(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong\n".to_owned();
    }
    let mut text = String::new();
    for finding in findings {
        let sign = match finding.level {
            Level::Fatal => "✘",
            Level::Warning => "!",
            Level::Note => "-",
        };
        text.push_str(&format!("{sign} {}\n", finding.what));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("    {}\n", finding.remedy));
        }
    }
    text
}

fn found(level: Level, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        level,
        what: what.into(),
        remedy: remedy.into(),
    }
}

async fn examine(
    home: &Home,
    record: &Record,
    site: &Site,
) -> Result<Vec<Finding>, install::Error> {
    let options = record.parsed_options()?;
    let situation = site.situation(&record.name).await?;
    let mut findings = preflight::check(&options, &situation, Some(&record.id));
    apps(record, &situation.world, &mut findings);
    drift(home, record, site, &situation.world, &mut findings)?;
    frameworks(record, &situation, &mut findings);
    nodes(
        super::status::rollout(home, record).await.as_ref(),
        &mut findings,
    );
    held::look(home, record, site, &situation, &mut findings).await?;
    certificates(home, record, &mut findings)?;
    if record.phase == Phase::Installed {
        quorum(home, record, &mut findings).await;
    }
    match record.kept_in_use() {
        Some(kept) => joined(kept, &situation, &mut findings),
        None => artifacts(record, &mut findings).await,
    }
    findings.sort_by_key(|f| std::cmp::Reverse(f.level));
    Ok(findings)
}

fn apps(record: &Record, world: &World, findings: &mut Vec<Finding>) {
    let unfinished = match record.phase {
        Phase::Installing => Some("install"),
        Phase::Restoring => Some("restore"),
        Phase::Upgrading => Some("upgrade"),
        Phase::Removing => Some("uninstall"),
        _ => None,
    };
    if let Some(command) = unfinished {
        findings.push(found(
            Level::Fatal,
            format!("`k8sm {command}` was interrupted"),
            "run it again: it goes on where it stopped",
        ));
    }
    for (id, seen) in &world.apps {
        let standing = Standing::of(Some(seen));
        match &standing {
            Standing::Unhealthy(why) => findings.push(found(
                Level::Fatal,
                format!("{id} is not healthy: {why}"),
                "its sandbox in Mesos holds what it said",
            )),
            Standing::Changing(why) => findings.push(found(
                Level::Warning,
                format!("{id} is changing: {why}"),
                "where an offer is missing, give Marathon's role more resources or the ports that the app asks for",
            )),
            Standing::Stopped if record.phase == Phase::Installed => findings.push(found(
                Level::Fatal,
                format!("{id} has no instances"),
                "`k8sm start` starts everything that belongs to the cluster",
            )),
            _ => {}
        }
    }
}

/// Apps that are not what the options say.
fn drift(
    home: &Home,
    record: &Record,
    site: &Site,
    world: &World,
    findings: &mut Vec<Finding>,
) -> Result<(), install::Error> {
    if record.phase != Phase::Installed {
        return Ok(());
    }
    let wanted = render::wanted(home, record, site, None)?;
    for app in plan::changes(&record.name, &wanted, world) {
        let (what, remedy) = match app.what {
            What::Keep => continue,
            What::Create => (
                format!("{} is missing", app.app),
                "`k8sm install` brings it back",
            ),
            What::Remove => (
                format!("{} is not wanted any more", app.app),
                "`k8sm upgrade` removes it",
            ),
            What::Update => (
                format!(
                    "{} is not as the options say: {}",
                    app.app,
                    app.changes.join("; ")
                ),
                "somebody changed it in Marathon; `k8sm upgrade` brings it back, or say the change as an option",
            ),
        };
        findings.push(found(Level::Warning, what, remedy));
    }
    Ok(())
}

fn frameworks(record: &Record, situation: &preflight::Situation, findings: &mut Vec<Finding>) {
    let ours: Vec<_> = situation
        .frameworks
        .iter()
        .filter(|f| f.name == record.name)
        .collect();
    let running = record.phase == Phase::Installed;
    match ours.as_slice() {
        [] if running => findings.push(found(
            Level::Fatal,
            format!("Mesos has no framework named {}", record.name),
            "the framework's log says why: the API must answer, and Mesos must accept its role and principal",
        )),
        [] => {}
        [one] if running && !one.connected => findings.push(found(
            Level::Fatal,
            format!("the framework {} is not connected to Mesos", one.id),
            "pods go on, new ones wait; the framework's log says why",
        )),
        [_] => {}
        several => findings.push(found(
            Level::Fatal,
            format!(
                "{} frameworks are named {}: {}",
                several.len(),
                record.name,
                several.iter().map(|f| f.id.as_str()).collect::<Vec<_>>().join(", ")
            ),
            "those whose scheduler is gone hold resources: remove them (POST /master/teardown with the id)",
        )),
    }
}

/// Nodes that are not all of the revision that the framework wants.
fn nodes(rollout: Option<&Progress>, findings: &mut Vec<Finding>) {
    let Some(rollout) = rollout else {
        return;
    };
    if let Some(since) = &rollout.paused_since {
        findings.push(found(
            Level::Warning,
            format!(
                "node rolling is paused since {since}: {}",
                rollout.counted()
            ),
            "`k8sm upgrade --resume` goes on",
        ));
    }
    if let Some(text) = rollout.about_failed() {
        findings.push(found(
            Level::Fatal,
            text,
            "once its cause is mended: `k8sm upgrade --resume` tries it again at once, the framework by itself after ten minutes; a node that is beyond help: `kubectl annotate node <node> k8s.mesosphere.io/drain=10m`",
        ));
    }
    for node in &rollout.silent {
        findings.push(found(
            Level::Warning,
            format!(
                "the executor of node {node} does not answer the framework, so the node stays at its former revision"
            ),
            "look at the executor's log on that agent; `kubectl annotate node <node> k8s.mesosphere.io/drain=10m` gives the node back, and a new one begins at the wanted revision",
        ));
    }
}

fn certificates(
    home: &Home,
    record: &Record,
    findings: &mut Vec<Finding>,
) -> Result<(), install::Error> {
    let pki = Pki::new(home.pki());
    let options = record.parsed_options()?;
    let now = SystemTime::now().into();
    for certificate in keys::plan(&options, &record.choice)?.certificates() {
        if let Some(reason) = pki.due(&certificate, now)? {
            findings.push(found(
                Level::Warning,
                format!("the certificate {} is due: {reason}", certificate.name),
                "`k8sm certs renew`",
            ));
        }
    }
    Ok(())
}

async fn quorum(home: &Home, record: &Record, findings: &mut Vec<Finding>) {
    let ask = async {
        let options = record.parsed_options()?;
        let ctl = etcd::Ctl::new(home, &options, &record.choice, None)?;
        Ok::<_, install::Error>(ctl.unhealthy().await?)
    };
    match ask.await {
        Ok(bad) if bad.is_empty() => {}
        Ok(bad) => findings.push(found(
            Level::Fatal,
            format!("etcd does not answer at {}", bad.join(", ")),
            "a member whose agent or data is gone for good is replaced: `k8sm upgrade --replace-member N`; without a majority the API is gone until members come back or a backup is restored",
        )),
        Err(install::Error::Etcd(etcd::Error::External)) => {}
        Err(error) => findings.push(found(
            Level::Note,
            format!("etcd was not asked: {error}"),
            "",
        )),
    }
}

/// Apps keep away from agents that have joined since the artifacts were brought.
fn joined(kept: &Kept, situation: &Situation, findings: &mut Vec<Finding>) {
    let joined = install::keep::joined(kept, situation);
    let hosts: Vec<&str> = joined.iter().map(|a| a.hostname.as_str()).collect();
    if !hosts.is_empty() {
        findings.push(found(
            Level::Note,
            format!("no app of the control plane runs on {}, which keep no artifacts (nodes and pods do run there)", hosts.join(", ")),
            "`k8sm upgrade` brings them there from the framework, `k8sm upgrade --serve` from this machine",
        ));
    }
}

/// Apps that start on another agent fetch again.
async fn artifacts(record: &Record, findings: &mut Vec<Finding>) {
    let url = format!(
        "{}/artifacts.json",
        record.artifacts_url.trim_end_matches('/')
    );
    let https = url.starts_with("https:");
    let asked = async {
        let client =
            crate::http::public_client(None, https, PATIENCE).map_err(|e| e.to_string())?;
        let answer = client
            .get(&url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        answer
            .map(drop)
            .map_err(|e| crate::error::chain(&e.without_url()))
    };
    if let Err(reason) = asked.await {
        findings.push(found(
            Level::Warning,
            format!("nobody serves the artifacts at {}: {reason}", record.artifacts_url),
            "an app that starts on an agent that has not fetched before will fail; `k8sm artifacts serve` serves them, a web server is better",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_paused_failed_or_silent_are_told_with_what_to_do() {
        let rollout = Progress {
            revision: "0badcafe".to_owned(),
            paused_since: Some("2026-01-01T00:00:00Z".to_owned()),
            nodes: 3,
            in_place: 1,
            failed: vec![packaging::install::rolling::FailedNode {
                node: "agent-1".to_owned(),
                why: "kubelet ended 5 times".to_owned(),
            }],
            silent: vec!["agent-2".to_owned()],
            ..Progress::default()
        };
        let mut findings = Vec::new();
        nodes(Some(&rollout), &mut findings);
        insta::assert_snapshot!(table(&findings));
        findings.clear();
        nodes(Some(&Progress::default()), &mut findings);
        assert_eq!(table(&findings), "nothing is wrong\n");
    }

    #[test]
    fn findings_are_told_with_their_remedy() {
        let findings = [found(Level::Fatal, "etcd is gone", "bring it back")];
        assert_eq!(table(&findings), "✘ etcd is gone\n    bring it back\n");
        assert_eq!(table(&[]), "nothing is wrong\n");
    }
}
