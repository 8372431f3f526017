//! Nodes over time: timeouts of their phases, idleness, effects that are asked for again.

use std::time::Duration;

use super::State;
use super::event::Effect;
use super::ids::{NodeName, PodUid, Time};
use super::node::NodePhase;
use super::timers::Timer;

/// A node that is prepared, but finds no offer for so long, is given up.
pub(super) const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);
/// Wanted effects on objects are asked for again after this, if the watch does not show them.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(15);

impl State {
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
            NodePhase::Ready => {
                self.ask_taint(name, false);
                self.ask_outage_taint(name);
                self.check_outage(name);
                if !self.check_evacuation(name) {
                    self.check_idle(name);
                }
            }
            NodePhase::Unreachable => self.ask_taint(name, true),
            NodePhase::Draining => self.check_draining(name),
            NodePhase::Clearing => self.check_clearing(name),
            NodePhase::Offline => {
                self.ask_outage_taint(name);
                self.check_outage(name);
                self.check_offline(name);
            }
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

    /// The taint of an unreachable agent as it should be, if the object shows otherwise.
    fn ask_taint(&mut self, name: &NodeName, wanted: bool) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let Some(object) = &node.object else {
            return;
        };
        let key = seam::names::AGENT_UNREACHABLE_TAINT;
        if object.taints.iter().any(|t| t.key == key) == wanted {
            return;
        }
        if now.since(node.asked) >= ASK_AGAIN {
            node.asked = now;
            self.emit(Effect::TaintUnreachable {
                node: name.clone(),
                wanted,
            });
        }
        self.after(ASK_AGAIN, Timer::Node(name.clone()));
    }

    /// The taint of an agent whose outage is near: no pod is to be put there by whoever else
    /// binds pods, and people see why.
    fn ask_outage_taint(&mut self, name: &NodeName) {
        let now = self.now;
        let Some(node) = self.nodes.get(name) else {
            return;
        };
        let wanted = self.outage_is_near(&node.agent);
        let Some(object) = &node.object else {
            return;
        };
        let key = seam::names::AGENT_MAINTENANCE_TAINT;
        if object.taints.iter().any(|t| t.key == key) == wanted {
            return;
        }
        if now.since(node.asked_outage) >= ASK_AGAIN {
            if let Some(node) = self.nodes.get_mut(name) {
                node.asked_outage = now;
            }
            self.emit(Effect::TaintMaintenance {
                node: name.clone(),
                wanted,
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

    pub(super) fn check_offline(&mut self, name: &NodeName) {
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
        // It is to come back after the outage, as it was.
        let away = self
            .agents
            .get(&node.agent)
            .is_some_and(|agent| agent.draining || agent.unavailable.is_some());
        if !node.give_up && (idle_for < timeout || away) {
            let left = timeout.saturating_sub(idle_for);
            let left = if left.is_zero() { timeout } else { left };
            self.after(left, Timer::Node(name.clone()));
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
}
