//! A bench for the decision core: feeds events, answers what every API server would, keeps the
//! effects for the test to look at.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use framework::core::event::{BindOutcome, Launch, OfferedAgent, Update};
use framework::core::ids::{AgentId, NodeName, PodUid, TaskId, Time};
use framework::core::node::{AgentReport, NodeNote, NodePhase, NodeView, Token};
use framework::core::offer::Offer;
use framework::core::pod::{PodPhase, PodTemplate, PodView};
use framework::core::pool::{Amounts, Pool, UNIT};
use framework::core::task::MesosState;
use framework::core::{CoreConfig, Effect, Event, State};
use framework::placement::PodRequirements;
use framework::resources::{Accounting, PodDemand, PortSet};
use k8s_openapi::api::core::v1::PodSpec;

/// What every agent has.
pub const SIZE: Amounts = Amounts {
    cpus: 8 * UNIT,
    mem: 16_384 * UNIT,
    disk: 100_000 * UNIT,
    gpus: 0,
};

/// A pod of this spec.
pub fn pod_of(name: &str, spec: serde_json::Value) -> PodView {
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    let demand = PodDemand::of_spec(&spec, &Accounting::default()).unwrap();
    let requirements = PodRequirements::of(&spec, demand);
    PodView {
        uid: name.into(),
        namespace: "default".into(),
        name: name.into(),
        priority: 0,
        created: Time(1_000),
        ours: true,
        gated: false,
        node: None,
        deleting: false,
        phase: PodPhase::Pending,
        task: None,
        mirror: false,
        daemon: false,
        template: Arc::new(PodTemplate::new(Ok(requirements), None, Vec::new())),
    }
}

/// A pod with these resources.
pub fn pod_with(name: &str, resources: serde_json::Value) -> PodView {
    pod_of(
        name,
        serde_json::json!({"containers": [{"name": "c", "resources": resources}]}),
    )
}

/// A small pod.
pub fn pod(name: &str) -> PodView {
    pod_with(
        name,
        serde_json::json!({"requests": {"cpu": "100m", "memory": "64Mi"}}),
    )
}

/// The core, and what it wanted.
pub struct Bench {
    pub state: State,
    config: CoreConfig,
    now: Time,
    effects: Vec<Effect>,
    marks: Vec<TaskId>,
    nodes: BTreeMap<NodeName, NodeView>,
    pods: BTreeMap<PodUid, PodView>,
    launched: BTreeMap<TaskId, AgentId>,
    agents: BTreeMap<AgentId, Option<IpAddr>>,
    uuid: u8,
    role: String,
    executor: Option<String>,
    /// Answer PrepareNode at once, with a pod range.
    pub auto_prepare: bool,
    /// Answer Bind at once.
    pub auto_bind: bool,
}

impl Bench {
    /// Subscribed, nothing running.
    pub fn started() -> Self {
        Self::started_with(CoreConfig::default())
    }

    /// The same, configured.
    pub fn started_with(config: CoreConfig) -> Self {
        let now = Time(1_000_000);
        let mut bench = Self {
            state: State::new(config.clone(), 1, now),
            config,
            now,
            effects: Vec::new(),
            marks: Vec::new(),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            launched: BTreeMap::new(),
            agents: BTreeMap::new(),
            uuid: 100,
            role: "*".to_owned(),
            executor: None,
            auto_prepare: true,
            auto_bind: true,
        };
        bench.subscribe();
        bench.reconciled(&[]);
        bench.effects.clear();
        bench
    }

    /// With a Ready node on an agent, and its offers used up.
    pub fn with_node(agent: &str) -> Self {
        let mut bench = Self::started();
        bench.add_node(agent);
        bench
    }

    fn subscribe(&mut self) {
        for view in self.nodes.values().cloned().collect::<Vec<_>>() {
            self.send(Event::Node(Box::new(view)));
        }
        let names: HashSet<NodeName> = self.nodes.keys().cloned().collect();
        self.send(Event::NodesListed(names));
        for view in self.pods.values().cloned().collect::<Vec<_>>() {
            self.send(Event::Pod(view));
        }
        let uids: HashSet<PodUid> = self.pods.keys().cloned().collect();
        self.send(Event::PodsListed(uids));
        self.send(Event::Subscribed);
    }

    /// The process is killed and started again; these pods exist, unbound.
    pub fn restart(&mut self, pods: &[PodView]) {
        self.effects.clear();
        self.marks.clear();
        self.pods = pods.iter().map(|p| (p.uid.clone(), p.clone())).collect();
        self.state = State::new(self.config.clone(), 2, self.now);
        let alive: Vec<TaskId> = self
            .nodes
            .values()
            .filter_map(|n| Some(n.ours.as_ref()?.task.clone()))
            .collect();
        self.subscribe();
        for task in alive {
            self.answer(&task, MesosState::Running);
        }
    }

    /// One event.
    pub fn send(&mut self, event: Event) {
        self.now = Time(self.now.0 + 1);
        let effects = self.state.apply(event, self.now);
        self.keep(effects);
    }

    fn keep(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let answer = self.answer_to(&effect);
            self.effects.push(effect);
            for event in answer {
                self.send(event);
            }
        }
    }

    fn answer_to(&mut self, effect: &Effect) -> Vec<Event> {
        match effect {
            Effect::Reconcile { tasks } => {
                if let [(mark, None)] = &tasks[..] {
                    self.marks.push(mark.clone());
                }
                Vec::new()
            }
            Effect::Revive => vec![Event::Revived],
            Effect::Accept {
                agent, launches, ..
            } => {
                for launch in launches {
                    self.launched.insert(launch.task().clone(), agent.clone());
                }
                Vec::new()
            }
            Effect::PrepareNode { node, note, .. } if self.auto_prepare => self.prepare(node, note),
            Effect::PrepareNode { node, note, .. } => {
                // The object is there, its pod range and the answer are not.
                let mut view = view(node, note);
                view.pod_cidr = None;
                self.nodes.insert(node.clone(), view);
                Vec::new()
            }
            Effect::Bind {
                pod, node, task, ..
            } if self.auto_bind => {
                let mut events = vec![Event::Bound {
                    pod: pod.uid.clone(),
                    task: task.clone(),
                    outcome: BindOutcome::Created,
                }];
                if let Some(view) = self.pods.get_mut(&pod.uid) {
                    view.node = Some(node.clone());
                    view.task = Some(task.clone());
                    events.push(Event::Pod(view.clone()));
                }
                events
            }
            _ => Vec::new(),
        }
    }

    fn prepare(&mut self, node: &NodeName, note: &NodeNote) -> Vec<Event> {
        let view = view(node, note);
        self.nodes.insert(node.clone(), view.clone());
        vec![
            Event::Node(Box::new(view)),
            Event::NodePrepared {
                node: node.clone(),
                life: note.task.clone(),
                token: Token("id.secret".to_owned()),
            },
        ]
    }

    /// The answer that `auto_prepare` would have given.
    pub fn finish_preparing(&mut self, node: &str) {
        let node = NodeName::from(node);
        let note = self.nodes[&node].ours.clone().unwrap();
        for event in self.prepare(&node, &note) {
            self.send(event);
        }
    }

    /// A node that is not ours.
    pub fn foreign_node(&mut self, name: &str) {
        let note = NodeNote {
            agent: name.into(),
            executor: "e".into(),
            executor_info: Arc::from([]),
            task: "t".into(),
        };
        let mut view = view(&name.into(), &note);
        view.ours = None;
        self.send(Event::Node(Box::new(view)));
    }

    /// Time passes, timer by timer.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.state.next_wake().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let effects = self.state.step(self.now);
            self.keep(effects);
        }
        self.now = until;
    }

    /// A pod was added or changed.
    pub fn pod(&mut self, view: PodView) {
        self.pods.insert(view.uid.clone(), view.clone());
        self.send(Event::Pod(view));
    }

    /// A pod is being deleted, with its grace.
    pub fn delete(&mut self, pod: &str) {
        let mut view = self.pods[pod].clone();
        view.deleting = true;
        self.pod(view);
    }

    /// A pod as it is now.
    pub fn view_of(&self, pod: &str) -> PodView {
        self.pods[pod].clone()
    }

    /// A pod's containers have ended, and its object is gone.
    pub fn end(&mut self, pod: &str, task: &TaskId) {
        self.pods.remove(pod);
        self.send(Event::PodGone(pod.into()));
        let ended = framework::core::task::End::Proven(framework::core::task::Outcome::Killed);
        self.update(task, MesosState::Ended(ended));
    }

    /// An offer of a whole agent.
    pub fn offer(&mut self, id: &str, agent: &str) {
        self.offer_from(id, agent, Some(IpAddr::from([10, 0, 0, 1])));
    }

    /// The same, from an agent with or without an address.
    pub fn offer_from(&mut self, id: &str, agent: &str, ip: Option<IpAddr>) {
        self.send_offer(id, agent, ip, PortSet::from_ranges([(31_000, 31_099)]));
    }

    /// An offer without ports.
    pub fn offer_without_ports(&mut self, id: &str, agent: &str) {
        self.send_offer(
            id,
            agent,
            Some(IpAddr::from([10, 0, 0, 1])),
            PortSet::default(),
        );
    }

    /// An offer of a part of an agent.
    pub fn offer_of(&mut self, id: &str, agent: &str, amounts: Amounts) {
        let ip = Some(IpAddr::from([10, 0, 0, 1]));
        let ports = PortSet::from_ranges([(31_050, 31_099)]);
        self.send_offer_of(id, agent, ip, Pool::unreserved(amounts, ports));
    }

    /// An offer in a role.
    pub fn offer_in(&mut self, id: &str, agent: &str, role: &str) {
        self.role = role.to_owned();
        self.offer(id, agent);
        self.role = "*".to_owned();
    }

    /// An offer of an agent on which an executor runs.
    pub fn offer_with_executor(&mut self, id: &str, agent: &str, executor: &str) {
        self.executor = Some(executor.to_owned());
        self.offer(id, agent);
        self.executor = None;
    }

    fn send_offer(&mut self, id: &str, agent: &str, ip: Option<IpAddr>, ports: PortSet) {
        self.send_offer_of(id, agent, ip, Pool::unreserved(SIZE, ports));
    }

    fn send_offer_of(&mut self, id: &str, agent: &str, ip: Option<IpAddr>, pool: Pool) {
        self.agents.insert(agent.into(), ip);
        let reports = self
            .agents
            .iter()
            .map(|(id, ip)| AgentReport {
                id: id.clone(),
                hostname: id.as_str().into(),
                ip: *ip,
                attributes: Vec::new(),
                domain: None,
                total: SIZE,
                takes_limits: true,
                active: true,
                draining: false,
            })
            .collect();
        self.send(Event::Agents(reports));
        let offer = Offer {
            id: id.into(),
            agent: agent.into(),
            role: self.role.as_str().into(),
            pool,
        };
        let about = OfferedAgent {
            hostname: agent.into(),
            ip,
            attributes: Vec::new(),
            domain: None,
            executors: self.executor.iter().map(|e| e.as_str().into()).collect(),
            unavailable: None,
        };
        self.send(Event::Offers(vec![(offer, about)]));
    }

    /// A Ready node on an agent, made by a pod that is gone again.
    pub fn add_node(&mut self, agent: &str) {
        let seed = format!("seed-{agent}");
        let mut first = pod(&seed);
        first.priority = 100;
        self.pod(first);
        self.offer(&format!("first-{agent}"), agent);
        // Where another node runs, its agent's offer is waited for first.
        self.wait(Duration::from_millis(600));
        self.settle();
        self.pods.remove(seed.as_str());
        self.send(Event::PodGone(seed.as_str().into()));
        let tasks: Vec<TaskId> = self.kills();
        for task in tasks {
            self.update(
                &task,
                MesosState::Ended(framework::core::task::End::Proven(
                    framework::core::task::Outcome::Killed,
                )),
            );
        }
        self.wait(Duration::from_secs(11));
        let tasks: Vec<TaskId> = self.kills();
        for task in tasks {
            self.update(
                &task,
                MesosState::Ended(framework::core::task::End::Proven(
                    framework::core::task::Outcome::Killed,
                )),
            );
        }
        assert_eq!(self.phase(agent), Some(NodePhase::Ready));
        self.effects.clear();
    }

    /// Everything that was launched and not heard of yet runs.
    pub fn settle(&mut self) {
        let tasks: Vec<TaskId> = self
            .effects
            .iter()
            .filter_map(|e| match e {
                Effect::Accept { launches, .. } => Some(launches),
                _ => None,
            })
            .flatten()
            .map(|l| l.task().clone())
            .collect();
        for task in tasks {
            self.update(&task, MesosState::Starting);
            self.update(&task, MesosState::Running);
        }
    }

    /// Launches a pod on an agent and says which task it got.
    pub fn launch(&mut self, view: PodView, agent: &str) -> TaskId {
        let uid = view.uid.clone();
        self.pod(view);
        let id = format!("for-{uid}");
        self.offer(&id, agent);
        let mut accepts = self.accepts();
        let (_, launches) = accepts.pop().expect("it fits");
        launches[0].task().clone()
    }

    /// The same, and it runs.
    pub fn run(&mut self, view: PodView, agent: &str) -> TaskId {
        let task = self.launch(view, agent);
        self.update(&task, MesosState::Starting);
        self.update(&task, MesosState::Running);
        self.effects.clear();
        task
    }

    /// Launches a pod that requires its node, and it runs.
    pub fn run_on(&mut self, mut view: PodView, agent: &str) -> TaskId {
        let spec = serde_json::json!({"containers": [{"name": "c"}], "affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": [agent]}]}]}}}});
        view.template = pod_of(view.uid.as_str(), spec).template;
        self.run(view, agent)
    }

    /// A status update with an uuid of its own.
    pub fn update(&mut self, task: &TaskId, state: MesosState) {
        self.uuid = self.uuid.wrapping_add(1);
        let uuid = self.uuid;
        self.update_with(task, state, uuid);
    }

    /// A status update with this uuid.
    pub fn update_with(&mut self, task: &TaskId, state: MesosState, uuid: u8) {
        let update = self.update_of(task, state, Some([uuid; 16]));
        self.send(Event::Update(update));
    }

    fn answer(&mut self, task: &TaskId, state: MesosState) {
        let update = self.update_of(task, state, None);
        self.send(Event::Update(update));
    }

    fn update_of(&self, task: &TaskId, state: MesosState, uuid: Option<[u8; 16]>) -> Update {
        Update {
            task: task.clone(),
            agent: self.launched.get(task).cloned(),
            state,
            text: format!("{state:?}"),
            uuid,
            reconciliation: uuid.is_none(),
            draining: false,
        }
    }

    /// A reconciliation is answered: these tasks, then the end.
    pub fn reconciled(&mut self, tasks: &[(TaskId, MesosState)]) {
        for (task, state) in tasks {
            self.answer(task, *state);
        }
        for mark in std::mem::take(&mut self.marks) {
            self.answer(&mark, MesosState::Unreachable);
        }
    }

    /// A Binding's outcome.
    pub fn bound(&mut self, pod: &str, task: &TaskId, outcome: BindOutcome) {
        self.send(Event::Bound {
            pod: pod.into(),
            task: task.clone(),
            outcome,
        });
    }

    /// Takes effects out.
    pub fn take(&mut self, wanted: impl Fn(&Effect) -> bool) -> Vec<Effect> {
        let (taken, left) = std::mem::take(&mut self.effects)
            .into_iter()
            .partition(|e| wanted(e));
        self.effects = left;
        taken
    }

    /// ACCEPTs: agent and launches.
    pub fn accepts(&mut self) -> Vec<(AgentId, Vec<Launch>)> {
        self.take(|e| matches!(e, Effect::Accept { .. }))
            .into_iter()
            .filter_map(|e| match e {
                Effect::Accept {
                    agent, launches, ..
                } => Some((agent, launches)),
                _ => None,
            })
            .collect()
    }

    /// Bindings wanted.
    pub fn binds(&mut self) -> Vec<(PodUid, TaskId)> {
        self.take(|e| matches!(e, Effect::Bind { .. }))
            .into_iter()
            .filter_map(|e| match e {
                Effect::Bind { pod, task, .. } => Some((pod.uid, task)),
                _ => None,
            })
            .collect()
    }

    /// Tasks for which KILLs were sent, each once.
    pub fn kills(&mut self) -> Vec<TaskId> {
        let mut tasks: Vec<TaskId> = self
            .take(|e| matches!(e, Effect::Kill { .. }))
            .into_iter()
            .filter_map(|e| match e {
                Effect::Kill { task, .. } => Some(task),
                _ => None,
            })
            .collect();
        tasks.dedup();
        tasks
    }

    /// How many updates were acknowledged.
    pub fn acknowledgements(&mut self) -> usize {
        self.take(|e| matches!(e, Effect::Acknowledge { .. })).len()
    }

    /// Pods that were to be failed, each once.
    pub fn failed_pods(&mut self) -> Vec<PodUid> {
        let mut pods: Vec<PodUid> = self
            .take(|e| matches!(e, Effect::FailPod { .. }))
            .into_iter()
            .filter_map(|e| match e {
                Effect::FailPod { pod, .. } => Some(pod.uid),
                _ => None,
            })
            .collect();
        pods.dedup();
        pods
    }

    /// Taints of unreachable agents wanted or not any more.
    pub fn taints(&mut self) -> Vec<(NodeName, bool)> {
        self.take(|e| matches!(e, Effect::TaintUnreachable { .. }))
            .into_iter()
            .filter_map(|e| match e {
                Effect::TaintUnreachable { node, wanted } => Some((node, wanted)),
                _ => None,
            })
            .collect()
    }

    /// Nodes that were to be prepared.
    pub fn prepared(&mut self) -> Vec<NodeName> {
        self.take(|e| matches!(e, Effect::PrepareNode { .. }))
            .into_iter()
            .filter_map(|e| match e {
                Effect::PrepareNode { node, .. } => Some(node),
                _ => None,
            })
            .collect()
    }

    /// A node's phase.
    pub fn phase(&self, node: &str) -> Option<NodePhase> {
        self.state.node(node).map(|n| n.phase)
    }

    /// A node's task.
    pub fn node_task(&self, node: &str) -> TaskId {
        self.state
            .node(node)
            .and_then(|n| n.task())
            .expect("the node lives")
            .clone()
    }
}

fn view(node: &NodeName, note: &NodeNote) -> NodeView {
    NodeView {
        name: node.clone(),
        uid: format!("uid-{node}"),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        unschedulable: false,
        pod_cidr: Some("10.244.1.0/24".to_owned()),
        other: BTreeMap::new(),
        deleting: false,
        drain: None,
        ours: Some(note.clone()),
    }
}

/// A node as a large cluster has it.
pub fn node_on(number: usize) -> NodeView {
    let name = format!("agent-{number}.example.org");
    let note = NodeNote {
        agent: format!("0b6a8d3c-7b43-4bfb-8a6a-3b9a1f0f8f11-S{number}").into(),
        executor: format!("node.{name}.0000beef").into(),
        executor_info: vec![7; 300].into(),
        task: format!("node.{name}.0000beef").into(),
    };
    let mut view = view(&name.as_str().into(), &note);
    for label in 0..12 {
        view.labels.insert(
            format!("k8s.mesosphere.io/attribute-number-{label}"),
            format!("value-{label}"),
        );
    }
    view
}
