//! The scheduling pass: pods onto offers, nodes that are wanted, offers that go back.
//!
//! One pass looks at the queue in order and gives each pod a place. Pods for nodes that run are
//! launched at once; pods for agents without a node are planned, and launched together with the node task
//! once the Node object is ready. All tasks for one agent and role share one ACCEPT.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use seam::id::TaskKind;

use super::event::{Effect, Launch, NodeLaunch, PodLaunch};
use super::ids::{AgentId, NodeName, PodUid, Role, TaskId};
use super::market::REFUSE_IDLE;
use super::node::NodePhase;
use super::place::{Order, Place, Rank};
use super::pod::{PodTemplate, Stage};
use super::pods::EVICT_AFTER;
use super::pool::{Amounts, Grant};
use super::preempt::Searches;
use super::task::TaskPhase;
use super::timers::Timer;
use super::{State, node_ports};

/// A pod is not called unschedulable before offers had this long to come: an allocation takes up
/// to a second.
pub(super) const SETTLE: Duration = Duration::from_millis(1500);
/// So long a pod waits for offers of agents whose nodes run, before it has a node started. A REVIVE
/// brings them within milliseconds; shorter than offers are held.
const FRESH_AFTER: Duration = Duration::from_millis(500);

type Accepts = BTreeMap<(AgentId, Role), Vec<Launch>>;

impl State {
    pub(super) fn schedule(&mut self) {
        self.counters.passes += 1;
        self.look_for_pods_without_node();
        let mut accepts = Accepts::new();
        self.plan_waiting_nodes();
        self.adopt_pods(&mut accepts);
        self.cover_ports(&mut accepts);
        self.place_pods(&mut accepts);
        self.keep_nodes_min();
        self.launch_nodes(&mut accepts);
        let launched = !accepts.is_empty();
        self.send_accepts(accepts);
        if launched {
            self.fruitless_revives = 0;
            // The ACCEPTs gave the rest of those agents back: others may want it at once.
            self.wants_revive |= !self.queue.is_empty() || !self.unaccounted.is_empty();
        }
        self.return_offers();
        self.revive_or_suppress();
        if self.queue.is_empty() {
            // Made anew in microseconds, and of some size for each agent.
            self.candidates = HashMap::new();
        }
    }

    /// Bound pods without a task get one on their node's agent, or are evicted.
    fn adopt_pods(&mut self, accepts: &mut Accepts) {
        let candidates: Vec<PodUid> = self
            .unaccounted
            .iter()
            .filter(|uid| self.pods.get(*uid).is_some_and(|pod| self.may_adopt(pod)))
            .cloned()
            .collect();
        for uid in candidates {
            let Some(pod) = self.pods.get(&uid) else {
                continue;
            };
            let Some(name) = pod.view.node.clone() else {
                continue;
            };
            let template = pod.view.template.clone();
            let since = match pod.stage {
                Stage::Unaccounted(since) => since,
                _ => continue,
            };
            let reference = pod.reference();
            let Some(node) = self.nodes.get(&name) else {
                continue;
            };
            let (phase, agent) = (node.phase, node.agent.clone());
            if phase == NodePhase::Offline {
                self.after(Duration::ZERO, Timer::Node(name.clone()));
            }
            if !matches!(phase, NodePhase::Starting | NodePhase::Ready) {
                continue;
            }
            let ports = match &template.requirements {
                Ok(requirements) => {
                    let mut ports = requirements.demand.port_numbers();
                    ports.retain(|port| !self.ledger.holds_port(&name, *port));
                    ports
                }
                Err(_) => Vec::new(),
            };
            let roles: Vec<Role> = self
                .offers
                .of(&agent)
                .map(|(role, _)| role.clone())
                .collect();
            let role = roles.into_iter().find(|role| {
                self.offers
                    .get(&agent, role)
                    .is_some_and(|held| held.free.covers(&template.amounts, &ports))
            });
            let grant = role.as_ref().and_then(|role| {
                self.offers
                    .get_mut(&agent, role)?
                    .free
                    .take(&template.amounts, &ports)
            });
            match (role, grant) {
                (Some(role), Some(grant)) => {
                    if let Some(task) = self.launch_pod(&uid, &name, &role, grant, &ports, accepts)
                    {
                        self.emit(Effect::Annotate {
                            pod: reference,
                            task,
                        });
                    }
                }
                _ if self.now.since(since) >= EVICT_AFTER => self.evict_unaccounted(&uid),
                _ => {
                    let left = EVICT_AFTER.saturating_sub(self.now.since(since));
                    self.after(left, Timer::Pod(uid));
                }
            }
        }
    }

    fn place_pods(&mut self, accepts: &mut Accepts) {
        if self.queue.is_empty() {
            return;
        }
        self.forget_bookings();
        let mut order = self.order();
        let due = self.offers_due_in();
        if order.is_empty()
            && let Some(left) = due
        {
            // Nothing to choose from, and too early to say so: with thousands of pods that wait,
            // even looking costs.
            self.after(left, Timer::Schedule);
            return;
        }
        let waiting = self.waiting_pods();
        // Pods of one template fail alike, as long as nothing is added in between.
        let mut hopeless: HashMap<(*const PodTemplate, bool), Option<Arc<str>>> = HashMap::new();
        let awaits = self.awaits_running_nodes();
        let mut settles: Option<Duration> = None;
        let mut searches = Searches::default();
        for uid in waiting {
            let Some(pod) = self.pods.get(&uid) else {
                continue;
            };
            let template = pod.view.template.clone();
            let waited = self.now.since(pod.queued_at);
            let fresh = !awaits || waited >= FRESH_AFTER;
            let key = (Arc::as_ptr(&template), fresh);
            let reference = pod.reference();
            if let Entry::Vacant(untried) = hopeless.entry(key) {
                if let Some(place) = self.find_place(&template, &order, fresh) {
                    self.put(&uid, &template, &place, &mut order, accepts);
                    continue;
                }
                untried.insert(None);
            }
            if self.waits_for_victims(&uid, &template) {
                settles = Some(settles.map_or(SETTLE, |least| least.min(SETTLE)));
                continue;
            }
            if waited < SETTLE {
                let left = if fresh { SETTLE } else { FRESH_AFTER }.saturating_sub(waited);
                settles = Some(settles.map_or(left, |least| least.min(left)));
                continue;
            }
            if let Some(left) = due {
                settles = Some(settles.map_or(left, |least| least.min(left)));
                continue;
            }
            self.judging();
            let message = match hopeless.get(&key).cloned().flatten() {
                Some(message) => message,
                None => {
                    let Some(message) = self.diagnose(&template) else {
                        self.wants_revive = true;
                        self.enqueue(&uid);
                        settles = Some(settles.map_or(SETTLE, |least| least.min(SETTLE)));
                        continue;
                    };
                    let message: Arc<str> = message.into();
                    hopeless.insert(key, Some(message.clone()));
                    message
                }
            };
            self.counters.unschedulable += 1;
            self.emit(Effect::Unschedulable {
                pod: reference,
                message: message.to_string(),
            });
            if self.preempt(&uid, &template, &mut searches) {
                self.enqueue(&uid);
                settles = Some(settles.map_or(SETTLE, |least| least.min(SETTLE)));
            } else {
                self.back_off(&uid);
            }
        }
        if let Some(left) = settles {
            self.after(left, Timer::Schedule);
        }
    }

    /// Gives a pod its place: a launch, or a plan.
    fn put(
        &mut self,
        uid: &PodUid,
        template: &PodTemplate,
        place: &Place,
        order: &mut Order,
        accepts: &mut Accepts,
    ) {
        let (agent, role) = (&place.agent, &place.role);
        if place.rank == Rank::Fresh {
            let Some(name) = self.want_node(agent) else {
                return;
            };
            if !self.plan_node(&name, agent, role, Some(template)) {
                return;
            }
            // From now on its other roles are out, this one ranks as prepared.
            order.retain(|(_, of, _)| of != agent);
            let at = order.partition_point(|(rank, _, _)| *rank <= Rank::Prepared);
            order.insert(at, (Rank::Prepared, agent.clone(), role.clone()));
        }
        let Some(name) = self.node_name_of(agent) else {
            return;
        };
        let Some(held) = self.offers.get_mut(agent, role) else {
            return;
        };
        let Some(grant) = held.free.take(&template.amounts, &place.fit.ports) else {
            return;
        };
        if let (Some(candidate), Ok(requirements)) = (
            self.candidates
                .get_mut(agent)
                .and_then(|of| of.get_mut(role)),
            &template.requirements,
        ) {
            candidate.take(&requirements.demand, &place.fit);
        }
        // Another role's pool of the same node sees one pod more, too.
        if let Some(of) = self.candidates.get_mut(agent) {
            of.retain(|other, _| other == role);
        }
        if let Some(pod) = self.pods.get_mut(uid) {
            // The Binding clears what was written about it.
            pod.nomination = None;
        }
        match place.rank {
            Rank::Ready | Rank::Starting => {
                self.launch_pod(uid, &name, role, grant, &place.fit.ports, accepts);
            }
            Rank::Prepared | Rank::Fresh => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.plan
                        .pods
                        .push((uid.clone(), grant, place.fit.ports.clone()));
                }
                self.set_stage(uid, Stage::Planned(name));
            }
        }
    }

    /// Puts a pod's task into the ACCEPT of its agent and role.
    fn launch_pod(
        &mut self,
        uid: &PodUid,
        name: &NodeName,
        role: &Role,
        grant: Grant,
        ports: &[u16],
        accepts: &mut Accepts,
    ) -> Option<TaskId> {
        let attempt = self.random_attempt();
        let task = TaskId::from(TaskKind::pod(uid.as_str(), attempt).to_string());
        let node = self.nodes.get(name)?;
        let life = node.life.as_ref()?;
        let agent_id = node.agent.clone();
        let pod = self.pods.get(uid)?;
        let requirements = pod.view.template.requirements.as_ref().ok();
        let limits = requirements.map(|r| r.demand.limits).unwrap_or_default();
        let request = pod.view.template.amounts;
        let or_request = |limit: Option<u64>, request: u64| match limit {
            None if !self.config.overcommit => Some(request),
            other => other,
        };
        let launch = PodLaunch {
            task: task.clone(),
            uid: uid.clone(),
            namespace: pod.view.namespace.clone(),
            name: pod.view.name.clone(),
            node: name.clone(),
            executor_info: life.note.executor_info.clone(),
            grant,
            cpu_limit: or_request(limits.cpu_millis, request.cpus),
            memory_limit: or_request(limits.memory_bytes, super::node::bytes(request.mem)),
            takes_limits: self.agents.get(&agent_id).is_some_and(|a| a.takes_limits),
        };
        self.insert_task(&task, &agent_id, name, Some(uid), TaskPhase::Launching);
        if let Some(entry) = self.ledger.get_mut(&task) {
            entry.ports = Some(ports.into());
            entry.role = Some(role.clone());
        }
        self.set_stage(uid, Stage::Tasked(task.clone()));
        self.counters.pods_launched += 1;
        accepts
            .entry((agent_id, role.clone()))
            .or_default()
            .push(Launch::Pod(launch));
        Some(task)
    }

    fn keep_nodes_min(&mut self) {
        let living = |phase: NodePhase| phase.takes_pods() || phase.is_prepared_for();
        let have = self.nodes.values().filter(|n| living(n.phase)).count();
        let Some(mut missing) = self.config.nodes_min.checked_sub(have).filter(|n| *n > 0) else {
            return;
        };
        let overhead = self.config.node_overhead;
        for (rank, agent, role) in self.order() {
            if missing == 0 {
                return;
            }
            let roomy = self.offers.get(&agent, &role).is_some_and(|held| {
                held.free.covers(&overhead, &[])
                    && node_ports::suffice(&held.free.ports(), &self.config.node_avoid_ports)
            });
            if rank == Rank::Fresh
                && roomy
                && self.rank(&agent) == Ok(Rank::Fresh)
                && let Some(name) = self.want_node(&agent)
            {
                self.plan_node(&name, &agent, &role, None);
                missing -= 1;
            }
        }
    }

    /// Nodes whose object is ready and whose room is set aside: launched with their pods.
    fn launch_nodes(&mut self, accepts: &mut Accepts) {
        let ready: Vec<NodeName> = self
            .nodes
            .values()
            .filter(|n| n.phase == NodePhase::AwaitingOffer && n.plan.node.is_some() && !n.give_up)
            .map(|n| n.name.clone())
            .collect();
        for name in ready {
            let plan = self.take_plan(&name);
            let (Some((grant, ports)), Some(role)) = (plan.node, plan.role) else {
                continue;
            };
            let now = self.now;
            let overhead = self.config.node_overhead;
            let Some(node) = self.nodes.get_mut(&name) else {
                continue;
            };
            let agent_id = node.agent.clone();
            let pod_cidr = node.pod_cidr().map(str::to_owned);
            let agent = self.agents.get(&agent_id);
            let held = self.offers.get(&agent_id, &role);
            let token = node.life.as_mut().and_then(|life| life.token.take());
            let (Some(life), Some(agent), Some(held), Some(pod_cidr), Some(token)) =
                (node.life.as_mut(), agent, held, pod_cidr, token)
            else {
                continue;
            };
            let Some(ip) = agent.ip else {
                continue;
            };
            life.role = Some(role.clone());
            let note = life.note.clone();
            // Without an answer of the operator API: what is offered now.
            let total = if agent.total == Amounts::default() {
                held.whole().amounts()
            } else {
                agent.total
            };
            let launch = NodeLaunch {
                node: name.clone(),
                note: note.clone(),
                ip,
                pod_cidr,
                token,
                ports,
                allocatable: total.minus(&overhead),
                grant,
                takes_limits: agent.takes_limits,
            };
            node.enter(NodePhase::Launching, now);
            self.insert_task(&note.task, &agent_id, &name, None, TaskPhase::Launching);
            if let Some(entry) = self.ledger.get_mut(&note.task) {
                entry.ports = Some(ports.into());
                entry.role = Some(role.clone());
            }
            self.counters.nodes_launched += 1;
            accepts
                .entry((agent_id.clone(), role.clone()))
                .or_default()
                .push(Launch::Node(Box::new(launch)));
            for (uid, grant, ports) in plan.pods {
                self.launch_pod(&uid, &name, &role, grant, &ports, accepts);
            }
            self.stale(&agent_id);
            self.after(self.config.start_timeout, Timer::Node(name));
        }
    }

    fn send_accepts(&mut self, accepts: Accepts) {
        // What is left over is of use at once if something still waits.
        let refuse_seconds = if self.queue.is_empty() {
            REFUSE_IDLE
        } else {
            0.0
        };
        for ((agent, role), launches) in accepts {
            let Some(held) = self.offers.remove(&agent, &role) else {
                continue;
            };
            let offers = held.ids();
            self.counters.offers_accepted += offers.len() as u64;
            self.remember_declined(&agent, &role, held.free);
            self.stale(&agent);
            self.emit(Effect::Accept {
                offers,
                agent,
                role,
                launches,
                refuse_seconds,
            });
        }
        // `stale` asked for another pass; there is nothing new to be seen in it.
        self.dirty = false;
    }
}
