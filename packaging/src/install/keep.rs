//! Artifacts that agents keep, so that nobody outside the cluster has to serve them.
//!
//! `k8sm install --serve` serves the artifacts from the operator's machine, which goes home in the
//! evening. An app's URIs, on the other hand, are for as long as the app: Marathon fetches them
//! again wherever and whenever it starts a task. No address in the cluster is good for that long,
//! the framework's moves with it. So the files go where a URI never changes its meaning: into one
//! directory of every agent ([`dir`]), and the apps' URIs are `file:` ones below it. What brings
//! them there is an app of one task per agent ([`app`]) that loads what is missing, checks it, tells
//! how far it is ([`Progress`]) and is deleted.
//!
//! The framework serves the directory of its agent, too: from there agents that join later get
//! theirs, without the operator's machine. Until they have them, the apps' constraints keep apps
//! away from them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::artifacts::Manifest;
use super::helper::Helper;
use super::judge::World;
use super::preflight::{Choice, Finding, Level, finding};
use crate::marathon::app::{App, BadAppId};
use crate::marathon::{AgentHost, Artifact, containerizer, literal};
use crate::options::Options;

/// Environment variable with the [`Keep`].
pub const KEEP_ENV: &str = "K8SM_KEEP";
/// Path under which a task answers with its [`Progress`].
pub const KEEP_PATH: &str = "/keep";
/// A task that nobody ends does so itself, seconds.
const LIFE_SECONDS: u64 = 3600;

/// What an agent is to keep: the variable [`KEEP_ENV`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The directory.
    pub dir: String,
    /// Where the files are, the directory of [`super::artifacts`] over HTTP.
    pub source: String,
    /// The files.
    pub list: Manifest,
    /// Digests of further files that stay where they are there: those that apps refer to, and those
    /// that are the way back. Everything else goes.
    pub also: BTreeSet<String>,
    /// When it ends by itself, seconds.
    pub life_seconds: u64,
}

impl Keep {
    /// The artifacts `list`, which are at `source`, in the directory `dir`; what has the digests
    /// `also` stays.
    pub fn new(dir: &str, source: &str, list: &Manifest, also: BTreeSet<String>) -> Self {
        Self {
            dir: dir.to_owned(),
            source: source.trim_end_matches('/').to_owned(),
            list: list.clone(),
            also,
            life_seconds: LIFE_SECONDS,
        }
    }
}

/// Digests of a list's files.
pub fn digests(list: &Manifest) -> impl Iterator<Item = String> {
    list.files.values().map(|entry| entry.sha256.clone())
}

/// Digests that the apps there are refer to, in URIs and in what they are told: any word of 64
/// hexadecimal digits. One too many does no harm.
pub fn referred(world: &World) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for seen in world.apps.values() {
        let text = seen.definition.to_string();
        let words = text.split(|c: char| !c.is_ascii_hexdigit());
        found.extend(words.filter(|w| w.len() == 64).map(str::to_owned));
    }
    found
}

/// How far an agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Bytes that are there.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Whether everything is there and checked.
    pub complete: bool,
    /// What went wrong last.
    pub trouble: Option<String>,
}

/// The directory of an installation's artifacts on agents; `None` where agents are to keep none:
/// where that is not wanted, and where apps have two roles, so that no app gets to all agents.
pub fn dir(options: &Options) -> Option<String> {
    let base = options.artifacts.agent_dir.trim_end_matches('/');
    (!base.is_empty() && !options.proxy.public)
        .then(|| format!("{base}/{}/artifacts", options.service.name))
}

/// The directory as the base of URIs.
pub fn url(dir: &str) -> String {
    format!("file://{dir}")
}

/// What cannot be where only `agents` keep the artifacts.
pub fn unfit(options: &Options, choice: &Choice, agents: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut bad = |what: String, remedy: &str| {
        findings.push(finding(Level::Fatal, what, remedy));
    };
    if options.proxy.public {
        bad(
            "proxy.public does not go with artifacts that agents keep: Marathon's apps of two roles cannot bring them to all agents".to_owned(),
            "serve them from a web server: --artifacts-url",
        );
    }
    let bring = "see why they did not come, then repeat this with --serve; or serve them from a web server: --artifacts-url";
    let is_plain = containerizer(options).is_none();
    let has = |host: &&AgentHost| agents.contains(&host.hostname);
    if is_plain && let Some(host) = choice.etcd_hosts.iter().find(|h| !has(h)) {
        bad(
            format!(
                "the agent {} is to run etcd and keeps no artifacts",
                host.hostname
            ),
            bring,
        );
    }
    let servers = choice.api_hosts.iter().filter(has).count();
    let all = agents.len();
    let managers = options.controller_manager.instances;
    let proxies = if options.proxy.enabled {
        options.proxy.instances
    } else {
        0
    };
    for (what, wanted, there) in [
        ("API servers", options.apiserver.instances, servers),
        ("controller managers", managers, all),
        ("front doors", proxies, all),
        ("the framework", 1, all),
    ] {
        if there < usize::try_from(wanted).unwrap_or(usize::MAX) {
            bad(
                format!(
                    "{there} agents that may run {what} keep the artifacts, {wanted} are needed"
                ),
                bring,
            );
        }
    }
    findings
}

/// The app that brings the artifacts to `agents`. `program` is `k8sm`.
pub fn app(
    options: &Options,
    keep: &Keep,
    install_id: &str,
    version: &str,
    program: &Artifact,
    agents: &[&str],
) -> Result<App, BadAppId> {
    let helper = Helper {
        name: "keep",
        variable: KEEP_ENV,
        spec: json!(keep).to_string(),
        install_id,
        version,
        agents: u32::try_from(agents.len()).unwrap_or(u32::MAX),
    };
    let mut app = helper.app(options)?;
    let hosts: Vec<String> = agents.iter().map(|agent| literal(agent)).collect();
    app.constraints.push(vec![
        "hostname".to_owned(),
        "LIKE".to_owned(),
        hosts.join("|"),
    ]);
    // It writes where only root may.
    app.user = Some("root".to_owned());
    helper.plain(options, Some(program), &mut app);
    Ok(app)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::artifacts::{Entry, VERSION};

    fn list(c: char) -> Manifest {
        let entry = Entry {
            sha256: c.to_string().repeat(64),
            size: 3,
        };
        Manifest {
            version: VERSION,
            base_url: None,
            files: [("k8sm".to_owned(), entry)].into(),
            components: Default::default(),
        }
    }

    #[test]
    fn a_task_per_agent_brings_the_artifacts_to_a_directory_of_the_cluster() {
        let options = Options::default();
        let dir = dir(&options).unwrap();
        let keep = Keep::new(
            &dir,
            "http://192.0.2.1:81/",
            &list('a'),
            digests(&list('b')).collect(),
        );
        let program = Artifact {
            uri: "http://192.0.2.1:81/aa/k8sm".to_owned(),
            sha256: "aa".to_owned(),
            size: 3,
        };
        let agents = ["agent-1.example.org", "agent-2"];
        let app = app(&options, &keep, "id", "0.1.0", &program, &agents).unwrap();
        let shown = serde_json::to_string_pretty(&app).unwrap();
        insta::assert_snapshot!(shown);
        let read: Keep = serde_json::from_str(&json!(keep).to_string()).unwrap();
        assert_eq!(read, keep);
    }

    #[test]
    fn what_apps_refer_to_is_known_from_their_definitions() {
        let digest = "0123456789abcdef".repeat(4);
        let seen = crate::install::Seen {
            definition: json!({
                "fetch": [{"uri": format!("file:///a/{digest}/k8sm")}],
                "env": {"X": format!("'{}'", "f".repeat(64)), "Y": "f".repeat(63)},
            }),
            ..Default::default()
        };
        let world = World {
            apps: [("/k".to_owned(), seen)].into(),
        };
        assert_eq!(referred(&world), [digest, "f".repeat(64)].into());
    }

    #[test]
    fn apps_that_would_find_no_artifacts_are_refused_together() {
        let host = |n: u8| AgentHost {
            hostname: format!("a{n}"),
            address: [192, 0, 2, n].into(),
        };
        let choice = Choice {
            etcd_hosts: (1..=3).map(host).collect(),
            etcd_storage: crate::marathon::EtcdStorage::HostPath,
            api_hosts: (1..=3).map(host).collect(),
            pki: "env".to_owned(),
            why: Vec::new(),
        };
        let mut options = Options::default();
        let all = ["a1", "a2", "a3"].map(str::to_owned).into();
        assert_eq!(unfit(&options, &choice, &all), []);
        options.proxy.public = true;
        options.apiserver.instances = 2;
        let some = ["a1", "a4"].map(str::to_owned).into();
        let lines: Vec<String> = unfit(&options, &choice, &some)
            .iter()
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn agents_keep_nothing_where_no_directory_is_named() {
        let mut options = Options::default();
        options.artifacts.agent_dir = String::new();
        assert_eq!(dir(&options), None);
        options.artifacts.agent_dir = "/srv/k8sm/".to_owned();
        assert_eq!(dir(&options).unwrap(), "/srv/k8sm/kubernetes/artifacts");
        options.proxy.public = true;
        assert_eq!(dir(&options), None);
    }
}
