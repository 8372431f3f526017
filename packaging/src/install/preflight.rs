//! What would fail later, found before anything is changed, and the choices that an installation
//! makes: which agents etcd and the API servers get, where etcd keeps its data, how keys travel.
//! Each choice comes with its reason.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::judge::World;
use super::plan::{Part, group};
use crate::marathon::{AgentHost, EtcdStorage};
use crate::options::Options;

/// Oldest Mesos.
pub const OLDEST_MESOS: (u32, u32) = (1, 9);
/// Oldest Marathon.
pub const OLDEST_MARATHON: (u32, u32) = (1, 5);
/// The role of DC/OS' public agents.
const PUBLIC_ROLE: &str = "slave_public";
/// API servers may move to this many agents beside those that they start on.
const SPARE_API_HOSTS: usize = 2;

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

fn finding(level: Level, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
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
    for (id, seen) in &found.world.apps {
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

fn can_reserve(found: &Situation) -> bool {
    let role = found.marathon_role.as_deref().is_some_and(|r| r != "*");
    role && found.marathon_principal.is_some()
}

/// Chooses, keeping what was chosen before where that still is possible.
pub fn choose(
    options: &Options,
    found: &Situation,
    before: Option<&Choice>,
) -> Result<Choice, Finding> {
    let mut why = Vec::new();
    let etcd_storage = match before {
        Some(before) => before.etcd_storage,
        None => storage(options, found, &mut why),
    };
    let etcd_hosts = match before {
        Some(before) if !before.etcd_hosts.is_empty() => before.etcd_hosts.clone(),
        _ if etcd_storage == EtcdStorage::External => Vec::new(),
        _ => etcd_agents(options, found, &mut why)?,
    };
    let api_hosts = api_agents(options, found, &etcd_hosts, before, &mut why)?;
    let pki = match options.pki.source.as_str() {
        "auto" if found.marathon_secrets => {
            why.push("keys travel as Marathon's secrets, since it has them".to_owned());
            "secrets"
        }
        "auto" => {
            why.push(
                "keys travel in the apps' environment, since Marathon has no secrets".to_owned(),
            );
            "env"
        }
        other => other,
    };
    Ok(Choice {
        etcd_hosts,
        etcd_storage,
        api_hosts,
        pki: pki.to_owned(),
        why,
    })
}

fn storage(options: &Options, found: &Situation, why: &mut Vec<String>) -> EtcdStorage {
    match options.etcd.storage.as_str() {
        "external" => EtcdStorage::External,
        "persistent" => EtcdStorage::Persistent,
        "host_path" => EtcdStorage::HostPath,
        _ if can_reserve(found) => {
            why.push(format!(
                "etcd gets reserved volumes, since Marathon has the role {}",
                found.marathon_role.as_deref().unwrap_or_default()
            ));
            EtcdStorage::Persistent
        }
        _ => {
            why.push(format!(
                "etcd keeps its data below {} on its agents, since Marathon has no role and principal to reserve volumes with",
                options.etcd.host_path
            ));
            EtcdStorage::HostPath
        }
    }
}

/// Agents that can run a task of the control plane.
fn eligible(found: &Situation) -> Vec<(&Agent, Ipv4Addr)> {
    found
        .agents
        .iter()
        .filter(|a| a.active && a.role.as_deref() != Some(PUBLIC_ROLE))
        .filter_map(|a| Some((a, a.address?)))
        .collect()
}

fn host(agent: &Agent, address: Ipv4Addr) -> AgentHost {
    AgentHost {
        hostname: agent.hostname.clone(),
        address,
    }
}

fn etcd_agents(
    options: &Options,
    found: &Situation,
    why: &mut Vec<String>,
) -> Result<Vec<AgentHost>, Finding> {
    let etcd = &options.etcd;
    let count = usize::try_from(etcd.count).unwrap_or(usize::MAX);
    let agents = eligible(found);
    if !etcd.agents.is_empty() {
        return etcd
            .agents
            .iter()
            .map(|name| {
                let agent = agents.iter().find(|(a, _)| a.hostname == *name);
                agent.map(|(a, ip)| host(a, *ip)).ok_or_else(|| {
                    finding(
                        Level::Fatal,
                        format!("etcd.agents names {name}, which is no active agent of Mesos"),
                        format!("there are: {}", listed(&agents)),
                    )
                })
            })
            .collect();
    }
    let ports = [etcd.client_port, etcd.peer_port, etcd.metrics_port];
    let mut fit: Vec<_> = agents
        .iter()
        .filter(|(a, _)| {
            let roomy = a.cpus >= etcd.cpus
                && a.mem >= f64::from(etcd.mem)
                && a.disk >= f64::from(etcd.disk);
            let required = options.marathon.require_ports;
            roomy && (!required || ports.iter().all(|p| a.offers(*p)))
        })
        .collect();
    if fit.len() < count {
        return Err(shortage("etcd", count, fit.len(), &ports, options, &agents));
    }
    // The roomiest first, so that a busy store disturbs least; names decide between equals.
    fit.sort_by(|(a, _), (b, _)| {
        b.disk
            .total_cmp(&a.disk)
            .then_with(|| a.hostname.cmp(&b.hostname))
    });
    let chosen: Vec<AgentHost> = fit
        .into_iter()
        .take(count)
        .map(|(a, ip)| host(a, *ip))
        .collect();
    let names: Vec<&str> = chosen.iter().map(|h| h.hostname.as_str()).collect();
    why.push(format!(
        "etcd runs on {}: the agents with most disk",
        names.join(", ")
    ));
    Ok(chosen)
}

fn shortage(
    what: &str,
    wanted: usize,
    fit: usize,
    ports: &[u16],
    options: &Options,
    agents: &[(&Agent, Ipv4Addr)],
) -> Finding {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut remedy = match what {
        "etcd" => "lower etcd.count, cpus, mem or disk".to_owned(),
        _ => "lower apiserver.instances, cpus or mem".to_owned(),
    };
    if options.marathon.require_ports {
        remedy.push_str(&format!(
            "; let agents offer the ports {} (--resources), or set marathon.require_ports to false where nobody else uses them",
            ports.join(", ")
        ));
    }
    finding(
        Level::Fatal,
        format!(
            "{what} needs {wanted} agent(s) with room, {fit} of {} have it ({})",
            agents.len(),
            listed(agents)
        ),
        remedy,
    )
}

fn listed(agents: &[(&Agent, Ipv4Addr)]) -> String {
    const MOST: usize = 10;
    let names: Vec<&str> = agents
        .iter()
        .take(MOST)
        .map(|(a, _)| a.hostname.as_str())
        .collect();
    let more = if agents.len() > MOST { ", ..." } else { "" };
    format!("{}{more}", names.join(", "))
}

fn api_agents(
    options: &Options,
    found: &Situation,
    etcd_hosts: &[AgentHost],
    before: Option<&Choice>,
    why: &mut Vec<String>,
) -> Result<Vec<AgentHost>, Finding> {
    let api = &options.apiserver;
    let wanted = usize::try_from(api.instances).unwrap_or(usize::MAX);
    if let Some(before) = before
        && before.api_hosts.len() >= wanted
    {
        return Ok(before.api_hosts.clone());
    }
    let ports = [
        api.port,
        api.konnectivity_port,
        api.konnectivity_admin_port,
        api.konnectivity_health_port,
    ];
    let agents = eligible(found);
    let mut fit: Vec<_> = agents
        .iter()
        .filter(|(a, _)| {
            let required = options.marathon.require_ports;
            a.cpus >= api.cpus
                && a.mem >= f64::from(api.mem)
                && (!required || ports.iter().all(|p| a.offers(*p)))
        })
        .collect();
    if fit.len() < wanted {
        return Err(shortage(
            "the API",
            wanted,
            fit.len(),
            &ports,
            options,
            &agents,
        ));
    }
    // Those that were chosen before, so that nobody has to learn new addresses; then etcd's.
    let rank = |a: &Agent| {
        let known = before.is_some_and(|b| b.api_hosts.iter().any(|h| h.hostname == a.hostname));
        let near = etcd_hosts.iter().any(|h| h.hostname == a.hostname);
        (!known, !near)
    };
    fit.sort_by(|(a, _), (b, _)| {
        rank(a)
            .cmp(&rank(b))
            .then_with(|| a.hostname.cmp(&b.hostname))
    });
    let most = wanted + SPARE_API_HOSTS;
    let chosen: Vec<AgentHost> = fit
        .into_iter()
        .take(most)
        .map(|(a, ip)| host(a, *ip))
        .collect();
    let names: Vec<&str> = chosen.iter().map(|h| h.hostname.as_str()).collect();
    why.push(format!(
        "API servers may run on {} ({} at a time)",
        names.join(", "),
        api.instances
    ));
    Ok(chosen)
}

#[cfg(test)]
mod tests;
