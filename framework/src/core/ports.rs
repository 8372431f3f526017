//! Host port numbers that several pods of a node share, by protocol or address.
//!
//! Kubernetes lets pods share a number as long as protocol or address differ; Mesos counts numbers.
//! So the first pod's task takes the number, and when that task ends, Mesos may give the number to
//! anybody although another pod still uses it. Then the number is *owed*: a task of its own, with
//! nothing but the port, is launched for a pod that is left, out of the next offer that has
//! the number. A pod that stays without it for too long is evicted, as every pod is that uses
//! what nobody granted.
//!
//! After a restart it is not known which task holds a number, so Mesos is asked (GET_TASKS) as soon
//! as there are pods that use any. Until it has answered, or where it must not be asked, numbers
//! whose holder is not known are taken again whenever they are offered, which proves that none of
//! our tasks has them.

use std::collections::BTreeMap;

use seam::id::TaskKind;

use super::State;
use super::event::{Effect, Launch, PodLaunch};
use super::ids::{AgentId, NodeName, PodUid, Role, TaskId, Time};
use super::node::NodePhase;
use super::pods::EVICT_AFTER;
use super::pool::Amounts;
use super::task::{Task, TaskPhase};
use super::timers::Timer;

/// A port number that a pod uses and, for all that is known, no task holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owed {
    /// Since when.
    since: Time,
    /// Whether it is known that no task holds it.
    certain: bool,
}

/// By node and number.
pub(super) type OwedPorts = BTreeMap<(NodeName, u16), Owed>;

impl State {
    /// A pod's task has ended: numbers that it held may be used by others still.
    pub(super) fn ports_may_be_owed(&mut self, ended: &Task) {
        let bound = self.bound.get(&ended.node).into_iter().flatten();
        let others: Vec<&PodUid> = bound
            .filter(|uid| Some(*uid) != ended.pod.as_ref())
            .collect();
        let mut owed: Vec<(u16, bool)> = Vec::new();
        for uid in others {
            for port in self.port_numbers(uid) {
                // Tasks of an earlier process have forgotten their ports.
                let certain = ended.holds(port);
                let known = ended.ports.is_some();
                if (certain || !known) && !self.ledger.holds_port(&ended.node, port) {
                    owed.push((port, certain));
                }
            }
        }
        for (port, certain) in owed {
            let since = self.now;
            let entry = self
                .owed_ports
                .entry((ended.node.clone(), port))
                .or_insert(Owed { since, certain });
            entry.certain |= certain;
            self.wants_revive = true;
            self.dirty = true;
        }
    }

    /// Asks Mesos which ports our tasks hold, if that matters: some bound pod uses ports, and its
    /// node has a task of which it is not known.
    pub(super) fn ask_for_held_ports(&mut self) {
        let matters = self.ledger.iter().any(|task| {
            let uses = |uid: &PodUid| !self.port_numbers(uid).is_empty();
            task.ports.is_none() && task.pod.as_ref().is_some_and(uses)
        });
        if matters && self.recovered {
            self.emit(Effect::PollPorts);
        }
    }

    /// Mesos has told which ports our tasks hold.
    pub(super) fn ports_reported(&mut self, held: Vec<(TaskId, Vec<u16>)>) {
        for (id, ports) in held {
            if let Some(task) = self.ledger.get_mut(&id)
                && task.ports.is_none()
            {
                task.ports = Some(ports.into());
                self.dirty = true;
            }
        }
    }

    fn port_numbers(&self, uid: &PodUid) -> Vec<u16> {
        let pod = self.pods.get(uid).filter(|pod| !pod.view.deleting);
        pod.and_then(|pod| pod.view.template.requirements.as_ref().ok())
            .map(|requirements| requirements.demand.port_numbers())
            .unwrap_or_default()
    }

    /// Whether offers are wanted for numbers that are owed for certain.
    pub(super) fn owes_ports(&self) -> bool {
        self.owed_ports.values().any(|owed| owed.certain)
    }

    /// Launches tasks that hold owed numbers, as far as they are offered.
    pub(super) fn cover_ports(&mut self, accepts: &mut BTreeMap<(AgentId, Role), Vec<Launch>>) {
        let owed: Vec<((NodeName, u16), Owed)> = self
            .owed_ports
            .iter()
            .map(|(key, owed)| (key.clone(), owed.clone()))
            .collect();
        for (key, owed) in owed {
            let (name, port) = &key;
            let bound = self.bound.get(name).into_iter().flatten();
            let user = bound
                .filter(|uid| self.port_numbers(uid).contains(port))
                .min()
                .cloned();
            let lives = self
                .nodes
                .get(name)
                .is_some_and(|node| node.phase == NodePhase::Ready);
            let (Some(user), true) = (user, lives) else {
                // Nobody uses it any more, or everything on the node is about to end.
                self.owed_ports.remove(&key);
                continue;
            };
            if self.ledger.holds_port(name, *port) || self.hold_port(&user, name, *port, accepts) {
                self.owed_ports.remove(&key);
                continue;
            }
            if !owed.certain {
                continue;
            }
            let waited = self.now.since(owed.since);
            if waited >= EVICT_AFTER {
                self.owed_ports.remove(&key);
                self.evict_for_port(&user, name, *port);
            } else {
                self.after(EVICT_AFTER - waited, Timer::Schedule);
            }
        }
    }

    /// A task for the pod with nothing but the port. Says whether it is launched.
    fn hold_port(
        &mut self,
        uid: &PodUid,
        name: &NodeName,
        port: u16,
        accepts: &mut BTreeMap<(AgentId, Role), Vec<Launch>>,
    ) -> bool {
        let Some(node) = self.nodes.get(name) else {
            return false;
        };
        let (Some(life), agent) = (node.life.as_ref(), node.agent.clone()) else {
            return false;
        };
        let executor_info = life.note.executor_info.clone();
        let roles: Vec<Role> = self
            .offers
            .of(&agent)
            .map(|(role, _)| role.clone())
            .collect();
        let mut taken = None;
        for role in roles {
            let held = self.offers.get_mut(&agent, &role);
            if let Some(grant) = held.and_then(|held| held.free.take(&Amounts::default(), &[port]))
            {
                taken = Some((role, grant));
                break;
            }
        }
        let (Some((role, grant)), Some(pod)) = (taken, self.pods.get(uid)) else {
            return false;
        };
        let (namespace, pod_name) = (pod.view.namespace.clone(), pod.view.name.clone());
        let attempt = self.random_attempt();
        let task = TaskId::from(TaskKind::pod(uid.as_str(), attempt).to_string());
        let launch = PodLaunch {
            task: task.clone(),
            uid: uid.clone(),
            namespace,
            name: pod_name,
            node: name.clone(),
            executor_info,
            grant,
            cpu_limit: None,
            memory_limit: None,
            // It uses nothing that could be limited.
            takes_limits: false,
        };
        self.insert_task(&task, &agent, name, Some(uid), TaskPhase::Launching);
        if let Some(entry) = self.ledger.get_mut(&task) {
            entry.ports = Some([port].into());
            entry.role = Some(role.clone());
            entry.extra = true;
        }
        accepts
            .entry((agent, role))
            .or_default()
            .push(Launch::Pod(launch));
        true
    }

    fn evict_for_port(&mut self, uid: &PodUid, node: &NodeName, port: u16) {
        let Some(pod) = self.pods.get(uid) else {
            return;
        };
        let message = format!(
            "The pod uses port {port} of node {node}, which it shared with a pod that has ended; Mesos has not offered \
             the port again within {} s, so somebody else may have it",
            EVICT_AFTER.as_secs()
        );
        let pod = pod.reference();
        self.emit(Effect::EvictPod { pod, message });
    }

    /// A task of an earlier process, besides the pod's own one, on the pod's node: it holds a port.
    pub(super) fn is_extra(&self, uid: &PodUid, node: &NodeName) -> bool {
        let bound_there = self
            .pods
            .get(uid)
            .is_some_and(|pod| pod.view.node.as_ref() == Some(node));
        bound_there && !self.port_numbers(uid).is_empty()
    }
}
