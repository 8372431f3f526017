//! A node's life: from the wish for it to its end, and what follows for its pods.

use std::time::Duration;

use super::State;
use super::event::Effect;
use super::ids::{AgentId, ExecutorId, NodeName, TaskId};
use super::node::{Life, Node, NodeNote, NodePhase, Token};
use super::task::{End, Outcome};
use super::timers::Timer;
use super::upkeep::{ASK_AGAIN, PREPARE_TIMEOUT};

impl State {
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

    pub(super) fn pod_range_may_be_known(&mut self, name: &NodeName) {
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
        if to == NodePhase::Ready {
            if let Some(life) = &node.life {
                let executor = life.note.executor.clone();
                let greeting = Effect::Greet {
                    executor,
                    agent: agent.clone(),
                };
                self.emit(greeting);
                self.rollout.ready(name, now);
                self.after(Duration::ZERO, Timer::Rollout);
            }
            if let Some(agent) = self.agents.get_mut(&agent) {
                agent.failures = 0;
            }
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
        self.after(Duration::ZERO, Timer::Rollout);
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
        let drained = self
            .agents
            .get(&agent_id)
            .is_some_and(|agent| agent.draining);
        let wanted_end = was == NodePhase::Draining || drained;
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
        // Perhaps it was being changed.
        self.after(Duration::ZERO, Timer::Rollout);
        self.after(Duration::ZERO, Timer::Node(name.clone()));
    }

    /// Gives a node up: pods first, the node task last, then the object.
    pub(super) fn drain(&mut self, name: &NodeName, reason: &'static str) {
        self.give_back(name, reason, true);
    }

    /// The same; the object may stay, for the node to come back with its labels.
    pub(super) fn give_back(&mut self, name: &NodeName, reason: &'static str, delete: bool) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.give_up |= delete;
        node.enter(NodePhase::Draining, now);
        let (agent, seen) = (node.agent.clone(), node.object.is_some());
        if seen && delete {
            // Who creates pods for nodes is to leave this one alone.
            self.emit(Effect::Cordon { node: name.clone() });
        }
        if seen {
            self.emit(Effect::NodeEvent {
                node: name.clone(),
                reason: "Draining".to_owned(),
                message: format!("The node is given back to Mesos: {reason}"),
                warning: false,
            });
        }
        self.stale(&agent);
        self.after(Duration::ZERO, Timer::Rollout);
        self.after(Duration::ZERO, Timer::Node(name.clone()));
    }
}
