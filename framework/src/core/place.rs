//! Where a pod goes: an existing node before a new one, the emptier of equal ones.
//!
//! Not every agent is looked at for every pod: the search starts where the last one ended and
//! stops once it has found enough to choose from, so that a pod costs the same among ten agents
//! and among a thousand. Only when nothing is found is everything looked at, for the reasons.

use crate::placement::{Candidate, Diagnosis, Fit, Free, Rejection, filter, fits};
use crate::resources::{HostPort, PortSet};

use super::State;
use super::agents::future_labels;
use super::ids::{AgentId, NodeName, PodUid, Role};
use super::node::{Agent, Node, NodePhase, bytes};
use super::pod::PodTemplate;
use super::pool::{Amounts, Pool, UNIT};

/// A search ends after so many places that would do.
const ENOUGH: usize = 8;

/// Taints that say no more than that a node is still coming up; a pod's task waits for that in
/// its executor, the Binding comes after.
const COMING_UP: [&str; 3] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/network-unavailable",
];

/// How good a kind of place is; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// A node that is Ready.
    Ready,
    /// A node whose executor is coming up.
    Starting,
    /// A node that is being prepared and will be launched with its pods.
    Prepared,
    /// An agent without a node.
    Fresh,
}

/// Where a pod may go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub rank: Rank,
    pub agent: AgentId,
    pub role: Role,
    pub fit: Fit,
}

/// What a node's pods use besides what Mesos counts.
#[derive(Debug, Default)]
struct Load {
    pods: u32,
    ports: Vec<HostPort>,
    /// Extended resources and huge pages.
    other: std::collections::BTreeMap<String, u64>,
}

/// The held pools in the order in which they are tried.
pub(super) type Order = Vec<(Rank, AgentId, Role)>;

impl State {
    /// What can be done on an agent now, or why nothing.
    pub(super) fn rank(&self, id: &AgentId) -> Result<Rank, Rejection> {
        let not_now = |why| Err(Rejection::NotNow(why));
        let Some(agent) = self.agents.get(id) else {
            return not_now("node(s) whose Mesos agent is not registered");
        };
        if agent.draining {
            return not_now("node(s) whose Mesos agent is being drained");
        }
        if self.outage_is_near(id) {
            return not_now("node(s) whose Mesos agent is about to be maintained");
        }
        let node = self.node_of.get(id).and_then(|name| self.nodes.get(name));
        if node.is_some_and(|n| n.evacuation.is_some()) {
            return not_now("node(s) that are being emptied");
        }
        match node.map(|n| (n.phase, n.give_up)) {
            Some((NodePhase::Ready, false)) => Ok(Rank::Ready),
            Some((NodePhase::Starting, false)) => Ok(Rank::Starting),
            Some((phase, false)) if phase.is_prepared_for() => Ok(Rank::Prepared),
            None | Some((NodePhase::Offline, false)) => {
                if agent.ip.is_none() {
                    not_now("Mesos agent(s) that offer no address")
                } else if !agent.executors.is_empty() {
                    not_now("node(s) whose former executor has not ended yet")
                } else if self.has_former_pods(id, agent) {
                    not_now("node(s) whose former pods are not removed yet")
                } else if agent.not_before > self.now {
                    not_now("node(s) that failed to start and are tried again soon")
                } else {
                    Ok(Rank::Fresh)
                }
            }
            Some((NodePhase::Launching, false)) => not_now("node(s) that Mesos is about to start"),
            Some((NodePhase::Unreachable, _)) => {
                not_now("node(s) whose Mesos agent is unreachable")
            }
            Some((NodePhase::Clearing, _)) => {
                not_now("node(s) whose executor has ended and whose pods are being removed")
            }
            Some(_) => not_now("node(s) that are being given back to Mesos"),
        }
    }

    /// Whether pods are bound to the name that a new node would get: its kubelet would run them
    /// a second time.
    fn has_former_pods(&self, id: &AgentId, agent: &Agent) -> bool {
        match self.node_of.get(id) {
            Some(name) => self.bound.contains_key(name),
            None => {
                self.pods_without_node
                    && self
                        .bound
                        .contains_key(&self.future_name(id, &agent.hostname))
            }
        }
    }

    /// Whether any pod is bound to a node that is not ours, or is gone.
    pub(super) fn look_for_pods_without_node(&mut self) {
        let nodes = &self.nodes;
        self.pods_without_node = self.bound.keys().any(|name| !nodes.contains_key(name));
    }

    pub(super) fn order(&self) -> Order {
        let mut order: Order = self
            .offers
            .iter()
            .filter_map(|(agent, role, _)| {
                let rank = self.rank(agent).ok()?;
                if rank == Rank::Prepared {
                    // Its pods share an ACCEPT with the node task, so its role.
                    let node = self.nodes.get(self.node_of.get(agent)?)?;
                    let same = node.plan.node.is_some() && node.plan.role.as_ref() == Some(role);
                    return same.then(|| (rank, agent.clone(), role.clone()));
                }
                Some((rank, agent.clone(), role.clone()))
            })
            .collect();
        order.sort_by_key(|(rank, _, _)| *rank);
        order
    }

    /// Whether an offer of an agent whose node runs, or is about to, may still come: worth a
    /// moment's waiting before another node is started.
    pub(super) fn awaits_running_nodes(&self) -> bool {
        self.nodes.values().any(|node| {
            let offers_known = || {
                self.offers.has(&node.agent)
                    || self.agents.get(&node.agent).is_none_or(|agent| {
                        !agent.active || agent.declined.values().any(|d| d.at >= self.last_revive)
                    })
            };
            node.phase.takes_pods() && !node.give_up && !offers_known()
        })
    }

    /// The best place for a pod among the held offers; on agents without a node only if `fresh`.
    pub(super) fn find_place(
        &mut self,
        template: &PodTemplate,
        order: &Order,
        fresh: bool,
    ) -> Option<Place> {
        let requirements = template.requirements.as_ref().ok()?;
        let only = requirements.node.only_node().map(str::to_owned);
        if let Some(name) = &only {
            let agent = self.agent_for_node(name)?;
            let mut found: Option<Place> = None;
            for (rank, of, role) in order.iter().filter(|(_, of, _)| *of == agent) {
                if self.role_order(template, role).is_some()
                    && let Some(fit) = self.fits(template, *rank, of, role)
                {
                    found.get_or_insert(Place {
                        rank: *rank,
                        agent: of.clone(),
                        role: role.clone(),
                        fit,
                    });
                }
            }
            return found;
        }
        let mut start = 0;
        while start < order.len() {
            let rank = order[start].0;
            if rank == Rank::Fresh && !fresh {
                return None;
            }
            let end = start + order[start..].iter().take_while(|o| o.0 == rank).count();
            if let Some(place) = self.best_in(template, &order[start..end]) {
                return Some(place);
            }
            start = end;
        }
        None
    }

    fn best_in(
        &mut self,
        template: &PodTemplate,
        group: &[(Rank, AgentId, Role)],
    ) -> Option<Place> {
        let mut best: Option<((usize, u64), Place)> = None;
        let mut found = 0;
        for step in 0..group.len() {
            let at = (self.cursor + step) % group.len();
            let (rank, agent, role) = &group[at];
            let Some(role_order) = self.role_order(template, role) else {
                continue;
            };
            let Some(fit) = self.fits(template, *rank, agent, role) else {
                continue;
            };
            let score = (role_order, u64::MAX - self.emptiness(agent, role));
            if best.as_ref().is_none_or(|(least, _)| score < *least) {
                let place = Place {
                    rank: *rank,
                    agent: agent.clone(),
                    role: role.clone(),
                    fit,
                };
                best = Some((score, place));
            }
            found += 1;
            if found >= ENOUGH {
                self.cursor = self.cursor.wrapping_add(step + 1);
                break;
            }
        }
        best.map(|(_, place)| place)
    }

    /// The pod's preference among roles; `None` if it may not use this one.
    pub(super) fn role_order(&self, template: &PodTemplate, role: &Role) -> Option<usize> {
        if template.roles.is_empty() {
            return Some(0);
        }
        template.roles.iter().position(|wanted| wanted == role)
    }

    /// Free CPU and memory in thousandths of what the agent has.
    fn emptiness(&self, agent: &AgentId, role: &Role) -> u64 {
        let free = self
            .offers
            .get(agent, role)
            .map(|held| held.free.amounts())
            .unwrap_or_default();
        let total = self.agents.get(agent).map(|a| a.total).unwrap_or_default();
        let share = |free: u64, total: u64| free.saturating_mul(UNIT) / total.max(1);
        share(free.cpus, total.cpus) + share(free.mem, total.mem)
    }

    fn fits(
        &mut self,
        template: &PodTemplate,
        rank: Rank,
        agent: &AgentId,
        role: &Role,
    ) -> Option<Fit> {
        let requirements = template.requirements.as_ref().ok()?;
        let known = |state: &Self| {
            state
                .candidates
                .get(agent)
                .is_some_and(|of| of.contains_key(role))
        };
        if !known(self) {
            let pool = &self.offers.get(agent, role)?.free;
            let candidate = self.candidate(agent, rank, pool);
            self.candidates
                .entry(agent.clone())
                .or_default()
                .insert(role.clone(), candidate);
        }
        let candidate = self.candidates.get(agent)?.get(role)?;
        let fit = fits(requirements, candidate)?;
        // The filters count bytes, Mesos whole MiB.
        let held = self.offers.get(agent, role)?;
        let mut needed = template.amounts;
        if rank == Rank::Fresh {
            needed = needed.plus(&self.config.node_overhead);
        }
        held.free.covers(&needed, &fit.ports).then_some(fit)
    }

    /// What an agent looks like to the filters, with this pool free.
    pub(super) fn candidate(&self, id: &AgentId, rank: Rank, pool: &Pool) -> Candidate {
        let mut candidate = self.unbooked_candidate(id, rank, pool);
        if let Some(name) = self.node_of.get(id) {
            for (demand, fit) in self.booked.get(name).into_iter().flatten() {
                candidate.take(demand, fit);
            }
        }
        candidate
    }

    /// The same with what is set aside for nominated pods still in it.
    pub(super) fn unbooked_candidate(&self, id: &AgentId, rank: Rank, pool: &Pool) -> Candidate {
        let node = self.node_of.get(id).and_then(|name| self.nodes.get(name));
        let object = node.and_then(|n| n.object.as_ref());
        let agent = self.agents.get(id);
        let name = match (node, agent) {
            (Some(node), _) => node.name.to_string(),
            (None, Some(agent)) => self.future_name(id, &agent.hostname).to_string(),
            (None, None) => String::new(),
        };
        let labels = match (object, agent) {
            (Some(object), _) => object.labels.clone(),
            (None, Some(agent)) => future_labels(agent, &name),
            (None, None) => Default::default(),
        };
        let mut taints = object.map(|o| o.taints.clone()).unwrap_or_default();
        if rank != Rank::Ready {
            taints.retain(|t| !COMING_UP.contains(&t.key.as_str()));
        }
        let mut amounts = pool.amounts();
        let mut ports = pool.ports();
        if rank == Rank::Fresh {
            amounts = amounts.minus(&self.config.node_overhead);
            if !super::node_ports::suffice(&ports, &self.config.node_avoid_ports) {
                ports = PortSet::default();
                amounts = Amounts::default();
            }
        }
        let load = node.map(|n| self.load_of(n)).unwrap_or_default();
        let mut other = object.map(|o| o.other.clone()).unwrap_or_default();
        for (name, used) in load.other {
            if let Some(left) = other.get_mut(&name) {
                *left = left.saturating_sub(used);
            }
        }
        Candidate {
            node_name: name,
            labels,
            taints,
            unschedulable: object.is_some_and(|o| o.unschedulable),
            free: Free {
                cpu_millis: amounts.cpus,
                memory_bytes: bytes(amounts.mem),
                disk_bytes: bytes(amounts.disk),
                gpus: u32::try_from(amounts.gpus / UNIT).unwrap_or(u32::MAX),
                pods: self.config.pods_per_node.saturating_sub(load.pods),
                ports,
                other,
            },
            capacity: agent.map(|a| a.capacity()).unwrap_or_default(),
            used_ports: load.ports,
        }
    }

    /// What the pods of a node use, planned ones included.
    fn load_of(&self, node: &Node) -> Load {
        let bound = self.bound.get(&node.name).into_iter().flatten();
        let tasked = self
            .ledger
            .of_node(&node.name)
            .filter_map(|t| t.pod.as_ref());
        let planned = node.plan.pods.iter().map(|(uid, _, _)| uid);
        let all: std::collections::HashSet<&PodUid> = bound.chain(tasked).chain(planned).collect();
        let mut load = Load {
            pods: u32::try_from(all.len()).unwrap_or(u32::MAX),
            ..Load::default()
        };
        for uid in &all {
            if let Some(pod) = self.pods.get(*uid)
                && let Ok(requirements) = &pod.view.template.requirements
            {
                let demand = &requirements.demand;
                load.ports.extend_from_slice(&demand.host_ports);
                for (name, amount) in &demand.other {
                    *load.other.entry(name.clone()).or_default() += amount;
                }
            }
        }
        load
    }

    /// The agent whose node has, or will have, this name.
    fn agent_for_node(&self, name: &str) -> Option<AgentId> {
        if let Some(node) = self.nodes.get(name) {
            return Some(node.agent.clone());
        }
        self.offers
            .agents()
            .filter(|id| !self.node_of.contains_key(*id))
            .find(|id| {
                self.agents
                    .get(*id)
                    .is_some_and(|agent| self.future_name(id, &agent.hostname).as_str() == name)
            })
            .cloned()
    }

    /// What an agent has free for a pod, by role: in the held offers (`true`), and in what was
    /// declined since the last REVIVE.
    pub(super) fn available<'a>(
        &'a self,
        agent: &'a Agent,
        template: &'a PodTemplate,
    ) -> impl Iterator<Item = (&'a Role, bool, &'a Pool)> {
        let held = self
            .offers
            .of(&agent.id)
            .map(|(role, held)| (role, true, &held.free));
        // What was declined before the last REVIVE would be here again if it were free.
        let declined = agent
            .declined
            .iter()
            .filter(|(_, declined)| declined.at >= self.last_revive)
            .map(|(role, declined)| (role, false, &declined.pool));
        held.chain(declined)
            .filter(|(role, _, _)| self.role_order(template, role).is_some())
    }

    /// Why a pod fits nowhere: every active agent, with what it offers or last offered.
    /// `None` if it would fit what was declined lately, so that a REVIVE helps.
    pub(super) fn diagnose(&self, template: &PodTemplate) -> Option<String> {
        let requirements = match &template.requirements {
            Ok(requirements) => requirements,
            Err(error) => return Some(error.clone()),
        };
        let mut diagnosis = Diagnosis::default();
        for agent in self.agents.values().filter(|a| a.active) {
            let capacity = agent.capacity();
            let rank = match self.rank(&agent.id) {
                Ok(rank) => rank,
                Err(rejection) => {
                    diagnosis.add(vec![rejection], &capacity);
                    continue;
                }
            };
            let empty = Pool::default();
            let mut pools: Vec<(bool, &Pool)> = self
                .available(agent, template)
                .map(|(_, held, pool)| (held, pool))
                .collect();
            if pools.is_empty() {
                pools.push((true, &empty));
            }
            let mut best: Option<Vec<Rejection>> = None;
            for (held, pool) in pools {
                let candidate = self.candidate(&agent.id, rank, pool);
                let rejections = match filter(requirements, &candidate) {
                    Err(rejections) => rejections,
                    Ok(_) if !held => return None,
                    // The bytes fit, whole MiB do not; or it is planned for others.
                    Ok(_) => vec![Rejection::Insufficient("memory".to_owned())],
                };
                if best.as_ref().is_none_or(|b| rejections.len() < b.len()) {
                    best = Some(rejections);
                }
            }
            diagnosis.add(best.unwrap_or_default(), &capacity);
        }
        let mut message = diagnosis.message(&requirements.demand);
        if let Some(unconsidered) = &template.unconsidered {
            message.push(' ');
            message.push_str(unconsidered);
        }
        Some(message)
    }

    /// The name of the node of an agent, if it has one.
    pub(super) fn node_name_of(&self, agent: &AgentId) -> Option<NodeName> {
        self.node_of.get(agent).cloned()
    }
}
