//! What would fail later, found before anything is changed, and the choices that an installation
//! makes: which agents etcd and the API servers get, where etcd keeps its data, how keys travel.
//! Each choice comes with its reason.

mod choose;

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::judge::World;
use super::plan::{Part, group};
use crate::marathon::{AgentHost, EtcdStorage};
use crate::options::Options;

pub use choose::{choose, replace_member};

/// Oldest Mesos.
pub const OLDEST_MESOS: (u32, u32) = (1, 9);
/// Oldest Marathon.
pub const OLDEST_MARATHON: (u32, u32) = (1, 5);

/// An agent of Mesos.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// Its host name, which constraints match.
    pub hostname: String,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Its version.
    pub version: String,
    /// Whether it takes tasks.
    pub active: bool,
    /// Role that all of it is reserved for, if it is.
    pub role: Option<String>,
    /// CPUs that are not reserved for others, used ones included.
    pub cpus: f64,
    /// Memory, MiB, likewise.
    pub mem: f64,
    /// Disk, MiB, likewise.
    pub disk: f64,
    /// Ports that it offers, first and last of each range.
    pub ports: Vec<(u16, u16)>,
}

impl Agent {
    fn offers(&self, port: u16) -> bool {
        self.ports
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }
}

/// A framework of Mesos.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameworkSeen {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether its scheduler is connected.
    pub connected: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Situation {
    /// Marathon's version as it says it.
    pub marathon_version: String,
    /// Marathon's role in Mesos.
    pub marathon_role: Option<String>,
    /// Marathon's principal in Mesos.
    pub marathon_principal: Option<String>,
    /// Whether Marathon has secrets.
    pub marathon_secrets: bool,
    /// Mesos' version.
    pub mesos_version: String,
    /// Agents.
    pub agents: Vec<Agent>,
    /// Frameworks that are registered.
    pub frameworks: Vec<FrameworkSeen>,
    /// Apps with one of the cluster's paths.
    pub world: World,
    /// Apps that stand where the cluster's group would be.
    pub in_the_way: Vec<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Good to know.
    Note,
    /// It works, but somebody should look at it.
    Warning,
    /// It would not work.
    Fatal,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What.
    pub what: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A finding.
pub(super) fn finding(level: Level, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        level,
        what: what.into(),
        remedy: remedy.into(),
    }
}

/// What an installation has chosen. Kept for its life: members of etcd do not move by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Agents of etcd's members, by their numbers.
    pub etcd_hosts: Vec<AgentHost>,
    /// Where etcd keeps its data.
    pub etcd_storage: EtcdStorage,
    /// Agents that API servers may run on.
    pub api_hosts: Vec<AgentHost>,
    /// How keys travel: `secrets`, `file`, `uri` or `env`.
    pub pki: String,
    /// Why, one sentence per choice.
    pub why: Vec<String>,
}

/// `1.11.24` as numbers; what is not understood is 0.
pub fn version(text: &str) -> (u32, u32) {
    let mut numbers = text
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Everything that is wrong, worst first. `own` is the id of an installation of ours that is to be
/// completed or changed.
pub fn check(options: &Options, found: &Situation, own: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    versions(found, &mut findings);
    names(options, found, own, &mut findings);
    ports(options, found, &mut findings);
    ways(options, found, &mut findings);
    if own.is_none() {
        room(options, found, &mut findings);
    }
    findings.sort_by_key(|f| std::cmp::Reverse(f.level));
    findings
}

fn versions(found: &Situation, findings: &mut Vec<Finding>) {
    for (what, text, oldest) in [
        ("Marathon", &found.marathon_version, OLDEST_MARATHON),
        ("Mesos", &found.mesos_version, OLDEST_MESOS),
    ] {
        if version(text) < oldest {
            findings.push(finding(
                Level::Fatal,
                format!("{what} {text} is older than {}.{}", oldest.0, oldest.1),
                format!("upgrade {what} first"),
            ));
        }
    }
}

fn names(options: &Options, found: &Situation, own: Option<&str>, findings: &mut Vec<Finding>) {
    let name = &options.service.name;
    // An earlier look at the agents that was interrupted is in nobody's way.
    let lasting = found.world.apps.iter();
    for (id, seen) in lasting.filter(|(id, _)| Part::of(name, id) != Some(Part::Probe)) {
        if own.is_none() || seen.install_id() != own {
            let whose = match seen.install_id() {
                Some(other) => format!("belongs to the installation {other}"),
                None => "is none of k8sm's".to_owned(),
            };
            findings.push(finding(
                Level::Fatal,
                format!("the app {id} exists and {whose}"),
                "choose another service.name, remove it, or run this where its record is (--state-dir)",
            ));
        }
    }
    for id in &found.in_the_way {
        findings.push(finding(
            Level::Fatal,
            format!("{id} is an app, where the group {} has to be", group(name)),
            "choose another service.name, or remove that app",
        ));
    }
    let ours =
        found.world.apps.iter().any(|(id, seen)| {
            Part::of(name, id) == Some(Part::Framework) && seen.install_id() == own
        });
    for framework in found.frameworks.iter().filter(|f| f.name == *name && !ours) {
        let state = if framework.connected {
            "runs"
        } else {
            "is registered without a scheduler"
        };
        findings.push(finding(
            Level::Fatal,
            format!("a framework named {name} {state} ({})", framework.id),
            "choose another service.name, or remove it from Mesos (POST /master/teardown with its id) if nobody needs its tasks",
        ));
    }
}

fn ports(options: &Options, found: &Situation, findings: &mut Vec<Finding>) {
    let range = &options.kubernetes.node_port_range;
    let Some((first, last)) = range
        .split_once('-')
        .and_then(|(a, b)| Some((a.parse::<u16>().ok()?, b.parse::<u16>().ok()?)))
    else {
        return;
    };
    let overlapping = found.agents.iter().find_map(|agent| {
        let ports = agent
            .ports
            .iter()
            .find(|(a, b)| *a <= last && first <= *b)?;
        // A range of one port is taken by its task and can be reserved by hand.
        (ports.1 > ports.0).then(|| (agent.hostname.clone(), *ports))
    });
    if let Some((host, (a, b))) = overlapping {
        findings.push(finding(
            Level::Fatal,
            format!("NodePorts {range} overlap the ports {a}-{b} that agent {host} offers: services would take other frameworks' ports"),
            "set kubernetes.node_port_range to ports that no agent offers",
        ));
    }
}

fn ways(options: &Options, found: &Situation, findings: &mut Vec<Finding>) {
    if options.etcd.storage == "persistent" && !can_reserve(found) {
        findings.push(finding(
            Level::Fatal,
            "etcd.storage is persistent, but this Marathon cannot reserve",
            "start Marathon with --mesos_role and --mesos_authentication_principal, or set etcd.storage to host_path",
        ));
    }
    if options.pki.source == "secrets" && !found.marathon_secrets {
        findings.push(finding(
            Level::Fatal,
            "pki.source is secrets, but this Marathon has none",
            "start it with --enable_features secrets and a secret store, or choose file, uri or env",
        ));
    }
    if options.pki.source == "env" || (options.pki.source == "auto" && !found.marathon_secrets) {
        findings.push(finding(
            Level::Warning,
            "keys travel in the apps' environment: whoever may read Marathon's apps or an agent's state can read them",
            "for other than trial use, set pki.source to secrets, file or uri",
        ));
    }
    if options.kubernetes.dns.enabled && found.agents.is_empty() {
        findings.push(finding(Level::Fatal, "Mesos has no agents", "add some"));
    }
}

/// Whether the agents together have room for the control plane and one node. What others use is
/// not known here, so this finds only what can never fit.
fn room(options: &Options, found: &Situation, findings: &mut Vec<Finding>) {
    let o = options;
    let members = match o.etcd.storage.as_str() {
        "external" => 0,
        _ => o.etcd.count,
    };
    let doors = if o.proxy.enabled {
        o.proxy.instances
    } else {
        0
    };
    let parts = [
        (members, o.etcd.cpus, o.etcd.mem),
        (o.apiserver.instances, o.apiserver.cpus, o.apiserver.mem),
        (
            o.controller_manager.instances,
            o.controller_manager.cpus,
            o.controller_manager.mem,
        ),
        (1, o.framework.cpus, o.framework.mem),
        (doors, o.proxy.cpus, o.proxy.mem),
        (1, o.nodes.cpus, o.nodes.mem),
    ];
    let add = |of: fn(&(u32, f64, u32)) -> f64| parts.iter().map(of).sum::<f64>();
    let active = || found.agents.iter().filter(|a| a.active);
    for (what, needed, there) in [
        (
            "CPUs",
            add(|(n, cpus, _)| f64::from(*n) * cpus),
            active().map(|a| a.cpus).sum::<f64>(),
        ),
        (
            "MiB of memory",
            add(|(n, _, mem)| f64::from(*n) * f64::from(*mem)),
            active().map(|a| a.mem).sum::<f64>(),
        ),
    ] {
        if needed > there {
            findings.push(finding(
                Level::Fatal,
                format!(
                    "the control plane and one node need {needed:.1} {what}, and all agents together have {there:.1}"
                ),
                "add agents, or lower etcd.count and the cpus and mem of the components (`k8sm options`)",
            ));
        }
    }
}

fn can_reserve(found: &Situation) -> bool {
    let role = found.marathon_role.as_deref().is_some_and(|r| r != "*");
    role && found.marathon_principal.is_some()
}

#[cfg(test)]
mod tests;
