//! The choices of an installation, and why they were made.

use std::net::Ipv4Addr;

use super::{Agent, Choice, Finding, Level, Situation, can_reserve, finding};
use crate::marathon::{AgentHost, EtcdStorage};
use crate::options::Options;

/// The role of DC/OS' public agents.
const PUBLIC_ROLE: &str = "slave_public";
/// API servers may move to this many agents beside those that they start on.
const SPARE_API_HOSTS: usize = 2;

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
    let fit = roomy(options, &agents);
    if fit.len() < count {
        let ports = ports(etcd);
        return Err(shortage("etcd", count, fit.len(), &ports, options, &agents));
    }
    let chosen: Vec<AgentHost> = fit
        .into_iter()
        .take(count)
        .map(|(a, ip)| host(a, ip))
        .collect();
    let names: Vec<&str> = chosen.iter().map(|h| h.hostname.as_str()).collect();
    why.push(format!(
        "etcd runs on {}: the agents with most disk",
        names.join(", ")
    ));
    Ok(chosen)
}

fn ports(etcd: &crate::options::Etcd) -> [u16; 3] {
    [etcd.client_port, etcd.peer_port, etcd.metrics_port]
}

/// Agents with room for a member of etcd, the roomiest first, so that a busy store disturbs least;
/// names decide between equals.
fn roomy<'a>(options: &Options, agents: &[(&'a Agent, Ipv4Addr)]) -> Vec<(&'a Agent, Ipv4Addr)> {
    let etcd = &options.etcd;
    let mut fit: Vec<_> = agents
        .iter()
        .filter(|(a, _)| {
            let roomy = a.cpus >= etcd.cpus
                && a.mem >= f64::from(etcd.mem)
                && a.disk >= f64::from(etcd.disk);
            let required = options.marathon.require_ports;
            roomy && (!required || ports(etcd).iter().all(|p| a.offers(*p)))
        })
        .copied()
        .collect();
    fit.sort_by(|(a, _), (b, _)| {
        b.disk
            .total_cmp(&a.disk)
            .then_with(|| a.hostname.cmp(&b.hostname))
    });
    fit
}

/// The choice with a new place for the member `number` of etcd, whose data is lost: its own agent
/// where that one is still there, else the roomiest that has no member.
pub fn replace_member(
    options: &Options,
    found: &Situation,
    before: &Choice,
    number: u8,
) -> Result<Choice, Finding> {
    let at = usize::from(number);
    let fatal = |what: String, remedy: &str| finding(Level::Fatal, what, remedy);
    let Some(old) = before.etcd_hosts.get(at) else {
        return Err(fatal(
            format!("etcd has no member etcd-{number}"),
            "`k8sm status` shows the members",
        ));
    };
    if before.etcd_hosts.len() == 1 {
        return Err(fatal(
            "etcd has one member only, and without it nobody has its data".to_owned(),
            "`k8sm restore` makes a new cluster of a backup",
        ));
    }
    let agents = eligible(found);
    let taken = |a: &Agent| before.etcd_hosts.iter().any(|h| h.hostname == a.hostname);
    let same = agents.iter().find(|(a, _)| a.hostname == old.hostname);
    let other = roomy(options, &agents).into_iter().find(|(a, _)| !taken(a));
    let Some((agent, address)) = same.copied().or(other) else {
        return Err(shortage(
            "etcd",
            1,
            0,
            &ports(&options.etcd),
            options,
            &agents,
        ));
    };
    let mut choice = before.clone();
    choice.why = vec![format!("etcd-{number} moves to {}", agent.hostname)];
    choice.etcd_hosts[at] = host(agent, address);
    Ok(choice)
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
