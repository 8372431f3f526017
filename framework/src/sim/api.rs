//! API server, controllers and kubelets of a simulation.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::seq::IteratorRandom;

use super::mesos::Mesos;
use super::{Action, Stream, World};
use crate::core::event::BindOutcome;
use crate::core::ids::{NodeName, PodUid, TaskId, Time};
use crate::core::node::{NodeView, Token};
use crate::core::pod::{PodPhase, PodTemplate, PodView};
use crate::core::{Effect, Event};

/// What happens inside Kubernetes by itself.
#[derive(Debug)]
pub enum Inside {
    /// Controllers look: replicas, garbage of nodes that are gone.
    Control,
    /// The controller manager gives a node its pod range.
    PodRange(NodeName),
    /// A kubelet looks at a pod that is bound to it.
    Kubelet(PodUid),
    /// A kubelet has stopped a pod that was being deleted.
    Stopped(PodUid),
}

/// The set of pods that belong to none.
const LOOSE: usize = usize::MAX;

#[derive(Debug)]
struct Pod {
    view: PodView,
    set: usize,
    /// The life in which its containers were started.
    ran_in: Option<TaskId>,
    bound_at: Option<Time>,
}

#[derive(Debug)]
struct Replicas {
    priority: i32,
    count: usize,
    template: Arc<PodTemplate>,
}

/// The API server.
#[derive(Default)]
pub struct Api {
    pods: BTreeMap<PodUid, Pod>,
    nodes: BTreeMap<NodeName, NodeView>,
    node_gone_at: BTreeMap<NodeName, Time>,
    sets: Vec<Replicas>,
    next: u64,
    /// Pods said to be unschedulable so far, with the last message.
    pub unschedulable: u64,
    /// The last such message.
    pub last_message: String,
    /// Bindings created.
    pub bindings: u64,
    /// Pods that were told to make room, each as often as it was told.
    pub preempted: u64,
    /// Whether disruption budgets refuse every eviction.
    pub budget_refuses: bool,
    /// Reasons of nodes' events so far.
    pub node_events: Vec<String>,
}

impl Api {
    /// A replica set: its pods are created, and replaced whenever they end.
    pub fn add_replicas(&mut self, count: usize, template: Arc<PodTemplate>) -> usize {
        self.add_important_replicas(0, count, template)
    }

    /// The same with a priority.
    pub fn add_important_replicas(
        &mut self,
        priority: i32,
        count: usize,
        template: Arc<PodTemplate>,
    ) -> usize {
        self.sets.push(Replicas {
            priority,
            count,
            template,
        });
        self.sets.len() - 1
    }

    /// How many pods of a set run.
    pub fn running_of(&self, set: usize) -> usize {
        self.live()
            .filter(|p| p.set == set && p.view.phase == PodPhase::Running)
            .count()
    }

    /// Another number of replicas.
    pub fn scale(&mut self, set: usize, count: usize) {
        if let Some(set) = self.sets.get_mut(set) {
            set.count = count;
        }
    }

    /// Pods that are bound and not terminal.
    pub fn bound(&self) -> usize {
        self.live().filter(|p| p.view.node.is_some()).count()
    }

    /// Nodes that exist.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn live(&self) -> impl Iterator<Item = &Pod> {
        self.pods
            .values()
            .filter(|p| p.view.phase != PodPhase::Terminal)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (&PodUid, &NodeName)> {
        self.live()
            .filter_map(|p| Some((&p.view.uid, p.view.node.as_ref()?)))
    }

    pub(super) fn is_bound_to(&self, uid: &PodUid, node: &NodeName) -> bool {
        self.pods
            .get(uid)
            .is_some_and(|p| p.view.node.as_ref() == Some(node))
    }

    /// Everything, to a framework that has just started.
    pub(super) fn list(&self, world: &mut World) {
        for node in self.nodes.values() {
            world.watch(Stream::Nodes, Event::Node(Box::new(node.clone())));
        }
        let names: HashSet<NodeName> = self.nodes.keys().cloned().collect();
        world.watch(Stream::Nodes, Event::NodesListed(names));
        // As the driver does: pods after nodes.
        world.streams[Stream::Pods as usize] = world.streams[Stream::Nodes as usize];
        for pod in self.pods.values() {
            world.watch(Stream::Pods, Event::Pod(pod.view.clone()));
        }
        let uids: HashSet<PodUid> = self.pods.keys().cloned().collect();
        world.watch(Stream::Pods, Event::PodsListed(uids));
    }

    fn changed(&self, world: &mut World, uid: &PodUid) {
        if let Some(pod) = self.pods.get(uid) {
            world.watch(Stream::Pods, Event::Pod(pod.view.clone()));
        }
    }

    fn node_changed(&self, world: &mut World, name: &NodeName) {
        if let Some(node) = self.nodes.get(name) {
            world.watch(Stream::Nodes, Event::Node(Box::new(node.clone())));
        }
    }

    fn remove(&mut self, world: &mut World, uid: &PodUid) {
        if self.pods.remove(uid).is_some() {
            world.watch(Stream::Pods, Event::PodGone(uid.clone()));
        }
    }

    pub(super) fn request(&mut self, world: &mut World, effect: Effect) {
        match effect {
            Effect::PrepareNode { node, note, .. } => {
                let life = note.task.clone();
                let new = !self.nodes.contains_key(&node);
                let view = self.nodes.entry(node.clone()).or_insert_with(|| NodeView {
                    name: node.clone(),
                    uid: format!("uid-{life}"),
                    labels: BTreeMap::new(),
                    taints: Vec::new(),
                    unschedulable: false,
                    pod_cidr: None,
                    other: BTreeMap::new(),
                    deleting: false,
                    drain: None,
                    ours: None,
                });
                view.ours = Some(note);
                self.node_gone_at.remove(&node);
                self.node_changed(world, &node);
                if new {
                    let after = world.millis(10..300);
                    world.at(after, Action::Api(Inside::PodRange(node.clone())));
                }
                let token = Token("t.s".to_owned());
                world.outcome(Event::NodePrepared { node, life, token });
            }
            Effect::Bind {
                pod, node, task, ..
            } => self.bind(world, &pod.uid, node, task),
            Effect::Annotate { pod, task } => {
                if let Some(pod) = self.pods.get_mut(&pod.uid) {
                    pod.view.task = Some(task);
                }
                self.changed(world, &pod.uid);
            }
            Effect::FailPod { pod, .. } => self.remove(world, &pod.uid),
            Effect::EvictPod { pod, .. } => self.delete(world, &pod.uid),
            Effect::Preempt { pod, .. } => {
                self.preempted += 1;
                self.delete(world, &pod.uid);
            }
            Effect::DeleteNode { node, uid }
                if self.nodes.get(&node).is_some_and(|n| n.uid == uid) =>
            {
                self.nodes.remove(&node);
                self.node_gone_at.insert(node.clone(), world.now);
                world.watch(Stream::Nodes, Event::NodeGone(node));
            }
            Effect::Cordon { node } => {
                if let Some(view) = self.nodes.get_mut(&node) {
                    view.unschedulable = true;
                }
                self.node_changed(world, &node);
            }
            Effect::TaintUnreachable { node, wanted } => {
                self.taint(world, &node, seam::names::AGENT_UNREACHABLE_TAINT, wanted);
            }
            Effect::TaintMaintenance { node, wanted } => {
                self.taint(world, &node, seam::names::AGENT_MAINTENANCE_TAINT, wanted);
            }
            Effect::NodeEvent { reason, .. } => self.node_events.push(reason),
            Effect::EvictByBudget { pod, .. } => {
                let refused = world.faults.budget;
                if world.chance(refused) || self.budget_refuses {
                    world.outcome(Event::EvictionHeld(pod.uid));
                } else {
                    self.delete(world, &pod.uid);
                }
            }
            Effect::Unschedulable { message, .. } => {
                self.unschedulable += 1;
                self.last_message = message;
            }
            _ => {}
        }
    }

    fn taint(&mut self, world: &mut World, node: &NodeName, key: &str, wanted: bool) {
        if let Some(view) = self.nodes.get_mut(node) {
            view.taints.retain(|t| t.key != key);
            if wanted {
                view.taints.push(k8s_openapi::api::core::v1::Taint {
                    key: key.to_owned(),
                    effect: "NoSchedule".to_owned(),
                    ..Default::default()
                });
            }
        }
        self.node_changed(world, node);
    }

    /// An operator annotates a node: it is to be emptied; budgets hold for so long.
    pub(super) fn ask_to_drain(&mut self, world: &mut World, node: &NodeName, time: Duration) {
        if let Some(view) = self.nodes.get_mut(node) {
            view.drain = Some(time);
        }
        self.node_changed(world, node);
    }

    /// Whether a node has a taint.
    pub fn is_tainted(&self, node: &str) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|view| !view.taints.is_empty())
    }

    /// How many pods are bound to a node.
    pub fn pods_on(&self, node: &str) -> usize {
        self.running().filter(|(_, on)| on.as_str() == node).count()
    }

    fn bind(&mut self, world: &mut World, uid: &PodUid, node: NodeName, task: TaskId) {
        let lost = world.faults.bind_lost;
        let (lost, happens) = (world.chance(lost), world.chance(0.5));
        if lost && !happens {
            return;
        }
        let now = world.now;
        let outcome = match self.pods.get_mut(uid) {
            None => BindOutcome::Refused("gone".to_owned()),
            Some(pod) if pod.view.deleting || pod.view.phase == PodPhase::Terminal => {
                BindOutcome::Refused("being deleted".to_owned())
            }
            Some(pod) => match &pod.view.node {
                Some(bound) if *bound == node => BindOutcome::Created,
                Some(bound) => BindOutcome::Refused(format!("bound to {bound}")),
                None => {
                    pod.view.node = Some(node);
                    pod.view.task = Some(task.clone());
                    pod.bound_at = Some(now);
                    self.bindings += 1;
                    BindOutcome::Created
                }
            },
        };
        self.changed(world, uid);
        self.kubelet_looks(world, uid);
        if !lost {
            world.outcome(Event::Bound {
                pod: uid.clone(),
                task,
                outcome,
            });
        }
    }

    pub(super) fn kubelet_looks(&mut self, world: &mut World, uid: &PodUid) {
        let after = world.millis(50..400);
        world.at(after, Action::Api(Inside::Kubelet(uid.clone())));
    }

    /// A kubelet begins a life: it starts every pod that is bound to it.
    pub(super) fn node_ready(&mut self, world: &mut World, node: &NodeName, life: &TaskId) {
        let bound: Vec<PodUid> = self
            .live()
            .filter(|p| p.view.node.as_ref() == Some(node))
            .map(|p| p.view.uid.clone())
            .collect();
        for uid in bound {
            let ran = self.pods.get(&uid).and_then(|p| p.ran_in.clone());
            if ran.is_some_and(|before| before != *life) {
                world.violation(format!("pod {uid} runs in a second life of {node}"));
            }
            self.kubelet_looks(world, &uid);
        }
    }

    pub(super) fn life_ended(&mut self, _node: &NodeName, _life: &TaskId) {}

    /// Deletes a pod, with grace where a kubelet may have it.
    pub(super) fn delete(&mut self, world: &mut World, uid: &PodUid) {
        let Some(pod) = self.pods.get_mut(uid) else {
            return;
        };
        if pod.view.node.is_none() {
            self.remove(world, uid);
            return;
        }
        if !pod.view.deleting {
            pod.view.deleting = true;
            self.changed(world, uid);
        }
        self.kubelet_looks(world, uid);
    }

    pub(super) fn delete_some_pod(&mut self, world: &mut World) {
        let some = self.pods.keys().cloned().choose(&mut world.rng);
        if let Some(uid) = some {
            self.delete(world, &uid);
        }
    }

    pub(super) fn delete_some_node(&mut self, world: &mut World) {
        let some = self.nodes.keys().cloned().choose(&mut world.rng);
        if let Some(node) = some {
            self.nodes.remove(&node);
            self.node_gone_at.insert(node.clone(), world.now);
            world.watch(Stream::Nodes, Event::NodeGone(node));
        }
    }

    /// A pod that never passes a scheduler.
    pub(super) fn create_with_node(&mut self, world: &mut World) {
        let node = self.nodes.keys().cloned().choose(&mut world.rng);
        let template = self.sets.first().map(|set| set.template.clone());
        if let (Some(node), Some(template)) = (node, template) {
            let uid = self.create(world, LOOSE, template);
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.view.node = Some(node);
            }
            self.changed(world, &uid);
            self.kubelet_looks(world, &uid);
        }
    }

    pub(super) fn inside(&mut self, world: &mut World, mesos: &mut Mesos, inside: Inside) {
        match inside {
            Inside::Control => {
                self.control(world);
                world.at(Duration::from_secs(1), Action::Api(Inside::Control));
            }
            Inside::PodRange(name) => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.pod_cidr = Some("10.244.1.0/24".to_owned());
                }
                self.node_changed(world, &name);
            }
            Inside::Kubelet(uid) => {
                let Some(pod) = self.pods.get_mut(&uid) else {
                    return;
                };
                let Some(node) = pod.view.node.clone() else {
                    return;
                };
                let Some(life) = mesos.life_of(&node) else {
                    return;
                };
                if pod.view.deleting {
                    let after = world.millis(100..3000);
                    world.at(after, Action::Api(Inside::Stopped(uid)));
                    return;
                }
                if pod.view.phase == PodPhase::Pending {
                    pod.ran_in = Some(life);
                    pod.view.phase = PodPhase::Running;
                    self.changed(world, &uid);
                }
                mesos.pod_is(world, &node, &uid, true);
            }
            Inside::Stopped(uid) => {
                let node = self.pods.get(&uid).and_then(|p| p.view.node.clone());
                if let Some(node) = node
                    && mesos.life_of(&node).is_some()
                {
                    mesos.pod_is(world, &node, &uid, false);
                    self.remove(world, &uid);
                }
            }
        }
    }

    fn control(&mut self, world: &mut World) {
        // Pods of nodes that are gone.
        let now = world.now;
        let garbage: Vec<PodUid> = self
            .pods
            .values()
            .filter(|p| {
                p.view.node.as_ref().is_some_and(|node| {
                    !self.nodes.contains_key(node)
                        && self
                            .node_gone_at
                            .get(node)
                            .is_none_or(|at| now.since(*at) > Duration::from_secs(40))
                })
            })
            .map(|p| p.view.uid.clone())
            .collect();
        for uid in garbage {
            self.remove(world, &uid);
        }
        let mut have: BTreeMap<usize, BTreeSet<PodUid>> = BTreeMap::new();
        for pod in self.live().filter(|p| !p.view.deleting) {
            have.entry(pod.set)
                .or_default()
                .insert(pod.view.uid.clone());
        }
        for set in 0..self.sets.len() {
            let mut present = have.remove(&set).unwrap_or_default();
            let (count, template) = (self.sets[set].count, self.sets[set].template.clone());
            for _ in present.len()..count {
                self.create(world, set, template.clone());
            }
            while present.len() > count {
                if let Some(uid) = present.pop_last() {
                    self.delete(world, &uid);
                }
            }
        }
    }

    fn create(&mut self, world: &mut World, set: usize, template: Arc<PodTemplate>) -> PodUid {
        self.next += 1;
        let uid = PodUid::from(format!("uid-{:06}", self.next));
        let view = PodView {
            uid: uid.clone(),
            namespace: "default".into(),
            name: format!("pod-{:06}", self.next).into(),
            priority: self.sets.get(set).map_or(0, |set| set.priority),
            created: world.now,
            ours: true,
            gated: false,
            node: None,
            deleting: false,
            phase: PodPhase::Pending,
            task: None,
            mirror: false,
            daemon: false,
            template,
        };
        let pod = Pod {
            view,
            set,
            ran_in: None,
            bound_at: None,
        };
        self.pods.insert(uid.clone(), pod);
        if set != LOOSE {
            self.changed(world, &uid);
        }
        uid
    }

    pub(super) fn unsettled(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for pod in self.pods.values() {
            if pod.view.node.is_none() {
                problems.push(format!("pod {} is not bound", pod.view.uid));
            } else if pod.view.phase == PodPhase::Pending {
                problems.push(format!("pod {} does not run", pod.view.uid));
            } else if pod.view.deleting {
                problems.push(format!("pod {} is stuck terminating", pod.view.uid));
            }
        }
        for (number, set) in self.sets.iter().enumerate() {
            let have = self.live().filter(|p| p.set == number).count();
            if have != set.count {
                problems.push(format!("set {number} has {have} pods of {}", set.count));
            }
        }
        problems
    }
}
