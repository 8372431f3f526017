//! Nodes and agents: offers that come, the lives of nodes, what follows from their ends.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use seam::message::ToFramework;

use crate::placement::{attributes, names};

use super::State;
use super::event::{Effect, OfferedAgent};
use super::ids::{AgentId, ExecutorId, NodeName, PodUid, Role, TaskId, Time};
use super::node::{Agent, AgentReport, Life, Node, NodeNote, NodePhase, NodeView, Plan, Token};
use super::offer::Offer;
use super::pod::Stage;
use super::pool::Amounts;
use super::task::{End, Outcome, TaskPhase};
use super::timers::Timer;

/// A node that is prepared, but finds no offer for so long, is given up.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);
/// Wanted effects on objects are asked for again after this, if the watch does not show them.
const ASK_AGAIN: Duration = Duration::from_secs(15);

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
        let (offers, node_of) = (&self.offers, &self.node_of);
        self.agents.retain(|id, agent| {
            let listed = seen.contains(id);
            agent.active &= listed;
            listed || offers.has(id) || node_of.contains_key(id)
        });
    }

    pub(super) fn node_seen(&mut self, view: NodeView) {
        let name = view.name.clone();
        let Some(node) = self.nodes.get_mut(&name) else {
            self.foreign_or_recovered_node(view);
            return;
        };
        let first = node.object.is_none();
        let changed = node.object.as_ref().is_none_or(|old| {
            old.labels != view.labels
                || old.taints != view.taints
                || old.unschedulable != view.unschedulable
                || old.other != view.other
        });
        let deleting = view.deleting;
        node.object = Some(view);
        let (agent, phase) = (node.agent.clone(), node.phase);
        if phase == NodePhase::AwaitingPodCidr {
            self.pod_range_may_be_known(&name);
        }
        if changed {
            self.stale(&agent);
            self.wake_pods();
            self.wants_revive = true;
        }
        if deleting && phase.takes_pods() {
            self.drain(&name, "its Node object is being deleted");
        }
        if first || changed {
            self.after(Duration::ZERO, Timer::Node(name));
        }
    }

    /// A Node object that this process did not make: after a restart one of ours.
    fn foreign_or_recovered_node(&mut self, view: NodeView) {
        let Some(note) = view.ours.clone() else {
            self.foreign_nodes.insert(view.name);
            return;
        };
        let name = view.name.clone();
        let agent = note.agent.clone();
        let task = note.task.clone();
        let mut node = Node::new(name.clone(), agent.clone(), NodePhase::Launching, self.now);
        node.taint = view
            .taints
            .iter()
            .any(|t| t.key == seam::names::AGENT_UNREACHABLE_TAINT);
        node.object = Some(view);
        node.life = Some(Life {
            note,
            token: None,
            role: None,
        });
        if let Some(other) = self.node_of.get(&agent) {
            self.problem(format!(
                "nodes {other} and {name} both claim agent {agent}: {name} is given up"
            ));
            node.give_up = true;
        } else {
            self.node_of.insert(agent.clone(), name.clone());
        }
        let give_up = node.give_up;
        self.nodes.insert(name.clone(), node);
        self.stale(&agent);
        // Whether it lives is asked of Mesos, with all other tasks or, later, at once.
        self.insert_task(&task, &agent, &name, None, TaskPhase::Launching);
        if let Some(task) = self.ledger.get_mut(&task) {
            task.heard = Time(0);
        }
        if give_up {
            self.kill(&task, "another node has its agent");
        }
        if self.recovered {
            self.ask_for(vec![task]);
        }
        self.node_appeared_or_gone(&name);
        self.after(ASK_AGAIN, Timer::Node(name));
    }

    pub(super) fn node_gone(&mut self, name: &NodeName) {
        self.foreign_nodes.remove(name);
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.object = None;
        let agent = node.agent.clone();
        match node.phase {
            NodePhase::ObjectWanted => {}
            NodePhase::AwaitingPodCidr | NodePhase::AwaitingOffer | NodePhase::Offline => {
                self.forget_node(name);
            }
            NodePhase::Launching | NodePhase::Starting | NodePhase::Ready => {
                self.drain(name, "its Node object was deleted");
            }
            NodePhase::Draining => {}
            NodePhase::Clearing => self.after(Duration::ZERO, Timer::Node(name.clone())),
            NodePhase::Unreachable => {
                // The operator gave it up. Tasks that come back are killed as strays.
                let tasks: Vec<TaskId> = self.ledger.of_node(name).map(|t| t.id.clone()).collect();
                for task in tasks {
                    self.ledger.end(&task);
                }
                self.forget_node(name);
            }
        }
        self.stale(&agent);
    }

    pub(super) fn nodes_listed(&mut self, present: &HashSet<NodeName>) {
        let gone: Vec<NodeName> = self
            .nodes
            .values()
            .filter(|n| n.object.is_some() && !present.contains(&n.name))
            .map(|n| n.name.clone())
            .collect();
        for name in gone {
            self.node_gone(&name);
        }
        self.foreign_nodes.retain(|name| present.contains(name));
        self.nodes_listed = true;
        self.dirty = true;
    }

    fn forget_node(&mut self, name: &NodeName) {
        self.drop_plan(name);
        if let Some(node) = self.nodes.remove(name)
            && self.node_of.get(&node.agent) == Some(name)
        {
            self.node_of.remove(&node.agent);
            self.stale(&node.agent);
        }
        self.node_appeared_or_gone(name);
    }

    /// The name that an agent's node would get.
    pub(super) fn future_name(&self, agent: &AgentId, hostname: &str) -> NodeName {
        let taken = |name: &str| self.nodes.contains_key(name) || self.foreign_nodes.contains(name);
        NodeName::from(names::NodeName::choose(hostname, agent.as_str(), taken).as_str())
    }

    /// Begins a new life on an agent: the object first, because what it says must be known before
    /// anything is launched.
    pub(super) fn want_node(&mut self, agent_id: &AgentId) -> Option<NodeName> {
        let agent = self.agents.get(agent_id)?;
        let (ip, hostname, labels) = (agent.ip?, agent.hostname.clone(), agent.labels.clone());
        let name = match self.node_of.get(agent_id) {
            Some(name) => name.clone(),
            None => self.future_name(agent_id, &hostname),
        };
        let attempt = self.random_attempt();
        let task = seam::id::TaskKind::node(name.as_str(), attempt);
        let executor = ExecutorId::from(format!("node.{name}.{attempt:08x}"));
        let note = NodeNote {
            agent: agent_id.clone(),
            executor_info: self.config.executor_info.encode(&executor),
            executor,
            task: TaskId::from(task.to_string()),
        };
        let now = self.now;
        let node = self.nodes.entry(name.clone()).or_insert_with(|| {
            Node::new(name.clone(), agent_id.clone(), NodePhase::ObjectWanted, now)
        });
        node.enter(NodePhase::ObjectWanted, now);
        node.since = now;
        node.unproven = false;
        node.give_up = false;
        node.life = Some(Life {
            note: note.clone(),
            token: None,
            role: None,
        });
        self.node_of.insert(agent_id.clone(), name.clone());
        self.emit(Effect::PrepareNode {
            node: name.clone(),
            note,
            hostname,
            ip,
            labels,
        });
        self.after(PREPARE_TIMEOUT, Timer::Node(name.clone()));
        Some(name)
    }

    pub(super) fn node_prepared(&mut self, name: &NodeName, life: &TaskId, token: Token) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.phase != NodePhase::ObjectWanted || node.task() != Some(life) {
            return;
        }
        if let Some(life) = &mut node.life {
            life.token = Some(token);
        }
        node.enter(NodePhase::AwaitingPodCidr, now);
        self.pod_range_may_be_known(name);
    }

    fn pod_range_may_be_known(&mut self, name: &NodeName) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(name)
            && node.pod_cidr().is_some()
        {
            node.enter(NodePhase::AwaitingOffer, now);
            self.dirty = true;
        }
    }

    pub(super) fn prepare_failed(&mut self, name: &NodeName, life: &TaskId, error: &str) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.phase != NodePhase::ObjectWanted || node.task() != Some(life) {
            return;
        }
        let agent = node.agent.clone();
        let has_object = node.object.is_some();
        self.problem(format!("node {name} could not be prepared: {error}"));
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.failed_to_start(now);
            let at = agent.not_before;
            self.timers.set(at, Timer::Agent(agent.id.clone()));
        }
        self.drop_plan(name);
        if has_object {
            self.enter(name, NodePhase::Offline);
        } else {
            self.forget_node(name);
        }
    }

    pub(super) fn node_task_started(&mut self, name: &NodeName, task: &TaskId, running: bool) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.task() != Some(task) {
            self.kill(task, "its node does not live by it");
            return;
        }
        let to = if running {
            NodePhase::Ready
        } else {
            NodePhase::Starting
        };
        let moves = match node.phase {
            NodePhase::Launching | NodePhase::Starting => node.phase != to,
            NodePhase::Unreachable => true,
            _ => false,
        };
        if node.taint {
            node.taint = false;
            node.asked = now;
            self.emit(Effect::TaintUnreachable {
                node: name.clone(),
                wanted: false,
            });
        }
        if !moves {
            return;
        }
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let agent = node.agent.clone();
        if node.give_up {
            // It was being given up when its agent got lost.
            self.drain(name, "it was to be given back before its agent was lost");
            return;
        }
        node.enter(to, now);
        if to == NodePhase::Ready
            && let Some(agent) = self.agents.get_mut(&agent)
        {
            agent.failures = 0;
        }
        self.stale(&agent);
        self.wants_revive = true;
        self.node_touched(name);
        self.after(self.config.start_timeout, Timer::Node(name.clone()));
    }

    pub(super) fn node_unreachable(&mut self, name: &NodeName, task: &TaskId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.task() != Some(task)
            || matches!(node.phase, NodePhase::Clearing | NodePhase::Offline)
        {
            return;
        }
        let agent = node.agent.clone();
        node.enter(NodePhase::Unreachable, now);
        node.taint = true;
        node.asked = now;
        self.emit(Effect::TaintUnreachable {
            node: name.clone(),
            wanted: true,
        });
        self.stale(&agent);
        self.after(ASK_AGAIN, Timer::Node(name.clone()));
    }

    /// The node's life is over.
    pub(super) fn node_task_ended(&mut self, name: &NodeName, task: &TaskId, end: End, text: &str) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.task() != Some(task) {
            return;
        }
        let was = node.phase;
        let agent_id = node.agent.clone();
        let wanted_end = was == NodePhase::Draining;
        // Told by a reconciliation after a restart: whether this life ever began is not known.
        let started = matches!(was, NodePhase::Ready | NodePhase::Unreachable) || wanted_end;
        node.unproven = end == End::Unproven;
        node.gone_by_operator = end == End::GoneByOperator;
        node.give_up |= node.gone_by_operator;
        if node.gone_by_operator {
            node.asked = now;
        }
        node.enter(NodePhase::Clearing, now);
        if node.gone_by_operator {
            self.emit(Effect::TaintOutOfService { node: name.clone() });
        }
        if !started && let Some(agent) = self.agents.get_mut(&agent_id) {
            agent.failed_to_start(now);
            let at = agent.not_before;
            self.timers.set(at, Timer::Agent(agent_id.clone()));
        }
        if end == End::Unproven {
            self.emit(Effect::NodeEvent {
                node: name.clone(),
                reason: "NodeEndUnproven".to_owned(),
                message: "Mesos could not destroy the container of the node's executor, so its pods may still run \
                          and are left alone. If the machine is off for certain: kubectl taint nodes <node> \
                          node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
                    .to_owned(),
                warning: true,
            });
        }
        let expected = wanted_end || end == End::Proven(Outcome::Gone) && !started;
        self.emit(Effect::NodeEvent {
            node: name.clone(),
            reason: if expected {
                "NodeStopped"
            } else {
                "NodeFailed"
            }
            .to_owned(),
            message: format!("The Mesos executor of the node has ended: {text}"),
            warning: !expected,
        });
        // Tasks of this executor can run no more; those that reached the agent later must not
        // start it anew without its node task.
        let tasks: Vec<TaskId> = self
            .ledger
            .of_node(name)
            .filter(|t| t.pod.is_some())
            .map(|t| t.id.clone())
            .collect();
        for task in tasks {
            self.kill(&task, "the executor of its node has ended");
        }
        self.drop_plan(name);
        self.stale(&agent_id);
        self.after(Duration::ZERO, Timer::Node(name.clone()));
    }

    /// Gives a node up: pods first, the node task last, then the object.
    pub(super) fn drain(&mut self, name: &NodeName, reason: &'static str) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.give_up = true;
        node.enter(NodePhase::Draining, now);
        let (agent, cordon) = (node.agent.clone(), node.object.is_some());
        if cordon {
            self.emit(Effect::Cordon { node: name.clone() });
            self.emit(Effect::NodeEvent {
                node: name.clone(),
                reason: "Draining".to_owned(),
                message: format!("The node is given back to Mesos: {reason}"),
                warning: false,
            });
        }
        self.stale(&agent);
        self.after(Duration::ZERO, Timer::Node(name.clone()));
    }

    /// Something about a node's pods or tasks changed.
    pub(super) fn node_touched(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get(name) else {
            return;
        };
        let agent = node.agent.clone();
        if matches!(
            node.phase,
            NodePhase::Ready | NodePhase::Draining | NodePhase::Clearing
        ) {
            self.after(Duration::ZERO, Timer::Node(name.clone()));
        }
        self.stale(&agent);
    }

    fn enter(&mut self, name: &NodeName, phase: NodePhase) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(name) {
            node.enter(phase, now);
            let agent = node.agent.clone();
            self.stale(&agent);
            self.after(self.config.idle_timeout, Timer::Node(name.clone()));
        }
    }

    /// Timeouts of a node's phases, and effects that are still wanted.
    pub(super) fn check_node(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get(name) else {
            return;
        };
        let in_phase = self.now.since(node.since);
        match node.phase {
            NodePhase::ObjectWanted | NodePhase::AwaitingPodCidr | NodePhase::AwaitingOffer => {
                if in_phase >= PREPARE_TIMEOUT {
                    self.give_preparation_up(name);
                } else {
                    self.after(PREPARE_TIMEOUT - in_phase, Timer::Node(name.clone()));
                }
            }
            NodePhase::Launching | NodePhase::Starting => {
                if in_phase >= self.config.start_timeout {
                    if let Some(task) = node.task().cloned() {
                        self.kill(&task, "its node did not become Ready in time");
                    }
                } else {
                    let wait = self.config.start_timeout - in_phase;
                    self.after(wait, Timer::Node(name.clone()));
                }
            }
            NodePhase::Ready => self.check_idle(name),
            NodePhase::Unreachable => self.ask_taint(name),
            NodePhase::Draining => self.check_draining(name),
            NodePhase::Clearing => self.check_clearing(name),
            NodePhase::Offline => self.check_offline(name),
        }
    }

    fn give_preparation_up(&mut self, name: &NodeName) {
        self.problem(format!(
            "node {name} waited too long for its pod range or for an offer with room for it"
        ));
        self.drop_plan(name);
        if let Some(node) = self.nodes.get_mut(name) {
            node.give_up = true;
        }
        self.enter(name, NodePhase::Offline);
        self.check_offline(name);
    }

    fn is_idle(&self, name: &NodeName) -> bool {
        let daemon = |uid: &PodUid| self.pods.get(uid).is_some_and(|p| p.view.daemon);
        let bound = self
            .bound
            .get(name)
            .is_none_or(|pods| pods.iter().all(daemon));
        let tasks = self
            .ledger
            .of_node(name)
            .filter_map(|t| t.pod.as_ref())
            .all(daemon);
        bound && tasks
    }

    fn check_idle(&mut self, name: &NodeName) {
        let idle = self.is_idle(name);
        let now = self.now;
        let timeout = self.config.idle_timeout;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if !idle {
            node.idle_since = None;
            return;
        }
        let since = *node.idle_since.get_or_insert(now);
        let idle_for = now.since(since);
        if idle_for < timeout {
            self.after(timeout - idle_for, Timer::Node(name.clone()));
            return;
        }
        let living = self
            .nodes
            .values()
            .filter(|n| n.phase.takes_pods() || n.phase.is_prepared_for())
            .count();
        if living > self.config.nodes_min {
            self.drain(name, "it had no pods for nodes.idle_timeout");
        } else {
            self.after(timeout, Timer::Node(name.clone()));
        }
    }

    fn ask_taint(&mut self, name: &NodeName) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let shown = node.object.as_ref().is_some_and(|object| {
            object
                .taints
                .iter()
                .any(|t| t.key == seam::names::AGENT_UNREACHABLE_TAINT)
        });
        if shown || node.object.is_none() {
            return;
        }
        if now.since(node.asked) >= ASK_AGAIN {
            node.asked = now;
            self.emit(Effect::TaintUnreachable {
                node: name.clone(),
                wanted: true,
            });
        }
        self.after(ASK_AGAIN, Timer::Node(name.clone()));
    }

    fn check_draining(&mut self, name: &NodeName) {
        let (mut pods, mut own) = (Vec::new(), None);
        for task in self.ledger.of_node(name) {
            if task.pod.is_some() {
                pods.push(task.id.clone());
            } else {
                own = Some(task.id.clone());
            }
        }
        if !pods.is_empty() {
            for task in pods {
                self.kill(&task, "its node is given up");
            }
        } else if let Some(task) = own {
            self.kill(&task, "its node is given up");
        } else {
            self.enter(name, NodePhase::Clearing);
            self.after(Duration::ZERO, Timer::Node(name.clone()));
        }
    }

    /// Pods of a life that is over: failed and deleted when its end is proven, else left to
    /// node heartbeats. When none is left, the agent may have another life.
    fn check_clearing(&mut self, name: &NodeName) {
        let now = self.now;
        let bound: Vec<PodUid> = self
            .bound
            .get(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let tasks = self.ledger.of_node(name).count();
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if bound.is_empty() && tasks == 0 {
            node.asked = Time(0);
            self.enter(name, NodePhase::Offline);
            self.check_offline(name);
            self.wants_revive = true;
            return;
        }
        let ask = node.asked == Time(0) || now.since(node.asked) >= ASK_AGAIN;
        let ask = ask || node.asked < node.since;
        if ask {
            node.asked = now;
            if node.gone_by_operator {
                self.emit(Effect::TaintOutOfService { node: name.clone() });
            } else if !node.unproven {
                for uid in bound {
                    let Some(pod) = self.pods.get(&uid) else {
                        continue;
                    };
                    let effect = Effect::FailPod {
                        pod: pod.reference(),
                        message: format!(
                            "The Mesos executor of node {name} has ended, and with it all containers of the node"
                        ),
                    };
                    self.emit(effect);
                }
            }
        }
        self.after(ASK_AGAIN, Timer::Node(name.clone()));
    }

    fn check_offline(&mut self, name: &NodeName) {
        let now = self.now;
        let has_pods = self.bound.contains_key(name);
        let timeout = self.config.idle_timeout;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if has_pods {
            // A pod was bound to it by somebody else meanwhile.
            node.enter(NodePhase::Clearing, now);
            self.after(Duration::ZERO, Timer::Node(name.clone()));
            return;
        }
        let idle_for = now.since(node.since);
        if !node.give_up && idle_for < timeout {
            self.after(timeout - idle_for, Timer::Node(name.clone()));
            return;
        }
        node.give_up = true;
        let Some(uid) = node.object.as_ref().map(|o| o.uid.clone()) else {
            self.forget_node(name);
            return;
        };
        if node.asked == Time(0) || now.since(node.asked) >= ASK_AGAIN {
            node.asked = now;
            self.emit(Effect::DeleteNode {
                node: name.clone(),
                uid,
            });
        }
        self.after(ASK_AGAIN, Timer::Node(name.clone()));
    }

    pub(super) fn message(&mut self, executor: &ExecutorId, message: ToFramework) {
        let node = self
            .nodes
            .values()
            .find(|n| {
                n.life
                    .as_ref()
                    .is_some_and(|l| l.note.executor == *executor)
            })
            .map(|n| n.name.clone());
        let Some(node) = node else {
            return;
        };
        let ToFramework::Component {
            component,
            reason,
            message,
            warning,
        } = message;
        self.emit(Effect::NodeEvent {
            node,
            reason,
            message: format!("{component}: {message}"),
            warning,
        });
    }

    /// Forgets what was planned on an agent's offers of a role: one of them is void.
    pub(super) fn void_plan(&mut self, agent: &AgentId, role: &Role) {
        if let Some(name) = self.node_of.get(agent).cloned()
            && self
                .nodes
                .get(&name)
                .is_some_and(|n| n.plan.role.as_ref() == Some(role))
        {
            let plan = self.take_plan(&name);
            self.requeue(plan);
        }
    }

    /// All offers are void.
    pub(super) fn void_all_plans(&mut self) {
        let names: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for name in names {
            let plan = self.take_plan(&name);
            self.requeue(plan);
        }
    }

    /// Forgets a node's plan and gives the resources back to the held offers.
    fn drop_plan(&mut self, name: &NodeName) {
        let agent = self.nodes.get(name).map(|n| n.agent.clone());
        let plan = self.take_plan(name);
        if let (Some(agent), Some(role)) = (agent, &plan.role)
            && let Some(held) = self.offers.get_mut(&agent, role)
        {
            if let Some((grant, _)) = &plan.node {
                held.free.add(grant);
            }
            for (_, grant, _) in &plan.pods {
                held.free.add(grant);
            }
            self.stale(&agent);
        }
        self.requeue(plan);
    }

    pub(super) fn take_plan(&mut self, name: &NodeName) -> Plan {
        self.nodes
            .get_mut(name)
            .map(|n| std::mem::take(&mut n.plan))
            .unwrap_or_default()
    }

    fn requeue(&mut self, plan: Plan) {
        self.wants_revive |= plan.node.is_some() || !plan.pods.is_empty();
        for (uid, _, _) in plan.pods {
            self.enqueue(&uid);
        }
    }

    /// Takes one pod out of the plan that it is in.
    pub(super) fn unplan(&mut self, uid: &PodUid) {
        let Some(Stage::Planned(name)) = self.pods.get(uid).map(|p| p.stage.clone()) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(&name) else {
            return;
        };
        let Some(at) = node
            .plan
            .pods
            .iter()
            .position(|(planned, _, _)| planned == uid)
        else {
            return;
        };
        let (_, grant, _) = node.plan.pods.remove(at);
        let (agent, role) = (node.agent.clone(), node.plan.role.clone());
        if let Some(held) = role.and_then(|role| self.offers.get_mut(&agent, &role)) {
            held.free.add(&grant);
        }
        self.stale(&agent);
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
