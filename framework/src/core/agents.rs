//! Agents: what offers and the operator API say about them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::placement::{attributes, names};

use super::State;
use super::event::{Effect, OfferedAgent};
use super::ids::{AgentId, ExecutorId, NodeName};
use super::node::{Agent, AgentReport, NodePhase};
use super::offer::Offer;
use super::pool::Amounts;
use super::timers::Timer;

impl State {
    pub(super) fn offered(&mut self, offer: Offer, about: OfferedAgent) {
        self.counters.offers_received += 1;
        let (id, role) = (offer.agent.clone(), offer.role.clone());
        let unknown = !self.agents.contains_key(&id);
        let agent = self
            .agents
            .entry(id.clone())
            .or_insert_with(|| Agent::new(id.clone(), about.hostname.clone()));
        describe(
            agent,
            about.hostname,
            about.ip,
            &about.attributes,
            about.domain.as_ref(),
        );
        agent.active = true;
        let outage = about.unavailable;
        let occupied = !about.executors.is_empty();
        agent.executors = about.executors;
        let no_address = agent.ip.is_none() && !agent.told_without_address;
        agent.told_without_address |= no_address;
        // News is what is more than what was declined before; the rest only returns.
        let (amounts, ports) = (offer.pool.amounts(), offer.pool.ports().len());
        let known = agent.declined.remove(&role);
        let news = known.is_none_or(|declined| {
            !declined.pool.amounts().covers(&amounts) || declined.pool.ports().len() < ports
        });
        let total_unknown = agent.total == Amounts::default();
        if !self.offers.add(offer, self.now) {
            return;
        }
        self.announced(&id, outage);
        // Drained agents offer nothing.
        self.agent_drains(&id, false);
        self.stale(&id);
        if unknown || total_unknown {
            self.emit(Effect::PollAgents);
        }
        if no_address {
            self.problem(format!(
                "agent {id} offers resources without an address (offer.url.address.ip): no node can run there"
            ));
        }
        if news {
            self.wake_pods();
        }
        if occupied {
            self.end_stray_executors(&id);
        }
    }

    /// Executors that no node lives by are ended: two on one agent would be two nodes of one
    /// name. They turn up when an agent comes back whose node was given up meanwhile.
    fn end_stray_executors(&mut self, id: &AgentId) {
        if !self.recovered {
            return;
        }
        let Some(agent) = self.agents.get(id) else {
            return;
        };
        let node = self.node_of.get(id).and_then(|name| self.nodes.get(name));
        let living = node
            .filter(|n| !matches!(n.phase, NodePhase::Clearing | NodePhase::Offline))
            .filter(|n| !n.phase.is_prepared_for())
            .and_then(|n| n.life.as_ref())
            .map(|life| life.note.executor.clone());
        let stray: Vec<ExecutorId> = agent
            .executors
            .iter()
            .filter(|executor| Some(*executor) != living.as_ref())
            .cloned()
            .collect();
        if stray.is_empty() {
            return;
        }
        for executor in stray {
            self.emit(Effect::Shutdown {
                executor,
                agent: id.clone(),
            });
        }
        // Until then nothing is started there; ask again soon.
        self.after(Duration::from_secs(2), Timer::Agent(id.clone()));
    }

    pub(super) fn agents_reported(&mut self, reports: Vec<AgentReport>) {
        let mut seen = HashSet::new();
        let drains: Vec<(AgentId, bool)> = reports
            .iter()
            .map(|report| (report.id.clone(), report.draining))
            .collect();
        for report in reports {
            seen.insert(report.id.clone());
            let agent = self
                .agents
                .entry(report.id.clone())
                .or_insert_with(|| Agent::new(report.id.clone(), report.hostname.clone()));
            let before = (agent.total, agent.active, agent.takes_limits, agent.ip);
            describe(
                agent,
                report.hostname,
                report.ip,
                &report.attributes,
                report.domain.as_ref(),
            );
            agent.total = report.total;
            agent.takes_limits = report.takes_limits;
            agent.active = report.active;
            if before != (agent.total, agent.active, agent.takes_limits, agent.ip) {
                self.stale(&report.id);
            }
        }
        for (id, draining) in drains {
            // Offers are newer than this answer: it was brought back meanwhile.
            let draining = draining && !self.offers.has(&id);
            self.agent_drains(&id, draining);
        }
        let (offers, node_of) = (&self.offers, &self.node_of);
        self.agents.retain(|id, agent| {
            let listed = seen.contains(id);
            agent.active &= listed;
            listed || offers.has(id) || node_of.contains_key(id)
        });
    }

    /// The name that an agent's node would get.
    pub(super) fn future_name(&self, agent: &AgentId, hostname: &str) -> NodeName {
        let taken = |name: &str| self.nodes.contains_key(name) || self.foreign_nodes.contains(name);
        NodeName::from(names::NodeName::choose(hostname, agent.as_str(), taken).as_str())
    }
}

fn describe(
    agent: &mut Agent,
    hostname: Arc<str>,
    ip: Option<std::net::IpAddr>,
    attributes: &[mesos::pb::Attribute],
    domain: Option<&mesos::pb::DomainInfo>,
) {
    agent.hostname = hostname;
    agent.ip = ip.or(agent.ip);
    let read = attributes::labels_of(attributes, domain);
    if *agent.labels != read.labels {
        agent.labels = Arc::new(read.labels);
    }
    if *agent.label_problems != *read.problems {
        agent.label_problems = read.problems.into();
    }
}

/// Labels that a node of this agent will have: what pods select by before it exists.
pub(super) fn future_labels(agent: &Agent, name: &str) -> BTreeMap<String, String> {
    let mut labels = (*agent.labels).clone();
    if let Some(name) = names::NodeName::parse(name) {
        labels.extend(crate::kube::nodes::wellknown_labels(&name));
    }
    labels
}
