//! What happens to the core, and what it wants done.
//!
//! Effects are level-triggered wherever they can be: an effect that got lost is asked for
//! again as long as what was seen since does not show it. So the loops may drop one at any time.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use packaging::install::rolling::Order;
use seam::message::ToFramework;

use super::ids::{AgentId, ExecutorId, NodeName, OfferId, PodUid, Role, TaskId, Time};
use super::maintenance::{InverseOffer, Unavailability};
use super::node::{AgentReport, NodeNote, NodeView, Token};
use super::offer::Offer;
use super::pod::PodView;
use super::pool::{Amounts, Grant};
use super::task::MesosState;

/// What an offer says about its agent.
#[derive(Debug, Clone)]
pub struct OfferedAgent {
    /// Its host name.
    pub hostname: Arc<str>,
    /// Its address; `None` if the offer has none or an unreadable one.
    pub ip: Option<IpAddr>,
    /// Attributes.
    pub attributes: Vec<mesos::pb::Attribute>,
    /// Fault domain.
    pub domain: Option<mesos::pb::DomainInfo>,
    /// Executors of ours that run there, as the master knew when it made the offer.
    pub executors: Vec<ExecutorId>,
    /// Its next planned outage.
    pub unavailable: Option<Unavailability>,
}

/// A status update.
#[derive(Debug, Clone)]
pub struct Update {
    /// The task.
    pub task: TaskId,
    /// Its agent, when told.
    pub agent: Option<AgentId>,
    /// Its state.
    pub state: MesosState,
    /// `message`, `reason` and `source` for people.
    pub text: String,
    /// To be acknowledged when present.
    pub uuid: Option<[u8; 16]>,
    /// Whether it answers a reconciliation.
    pub reconciliation: bool,
    /// Whether the task ended because its agent is being drained.
    pub draining: bool,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// Time has passed; see `State::next_wake`.
    Tick,
    /// SUBSCRIBED: earlier offers are void, reconciliation starts.
    Subscribed,
    /// The subscription broke.
    Disconnected,
    /// The master has taken the last [`Effect::Revive`], or it could not be sent.
    Revived,
    /// Offers came.
    Offers(Vec<(Offer, OfferedAgent)>),
    /// An offer is void.
    Rescind(OfferId),
    /// Mesos asks for agents' resources back. A withdrawn one (RESCIND_INVERSE_OFFER) is no event:
    /// inverse offers are answered at once, and what is announced no more is forgotten.
    InverseOffers(Vec<InverseOffer>),
    /// [`Effect::EvictByBudget`]: a disruption budget does not allow it now.
    EvictionHeld(PodUid),
    /// A status update.
    Update(Update),
    /// It is not known whether these tasks were launched: Mesos is asked.
    Doubt(Vec<TaskId>),
    /// FAILURE of an executor, or of a whole agent.
    Failure {
        /// The agent.
        agent: AgentId,
        /// The executor; `None` if the agent itself is lost.
        executor: Option<ExecutorId>,
    },
    /// A message from an executor.
    Message {
        /// The executor.
        executor: ExecutorId,
        /// The message.
        message: ToFramework,
    },
    /// All agents, from the operator API.
    Agents(Vec<AgentReport>),
    /// Our tasks and the ports that each of them holds, from the operator API.
    HeldPorts(Vec<(TaskId, Vec<u16>)>),
    /// A pod was added or changed.
    Pod(PodView),
    /// A pod is gone.
    PodGone(PodUid),
    /// A complete list of pods has been delivered; others are gone.
    PodsListed(HashSet<PodUid>),
    /// A node was added or changed.
    Node(Box<NodeView>),
    /// A node is gone.
    NodeGone(NodeName),
    /// A complete list of nodes has been delivered; others are gone.
    NodesListed(HashSet<NodeName>),
    /// [`Effect::PrepareNode`] succeeded.
    NodePrepared {
        /// The node.
        node: NodeName,
        /// The life that it was prepared for.
        life: TaskId,
        /// Its bootstrap token.
        token: Token,
    },
    /// [`Effect::PrepareNode`] failed for good, or too often.
    PrepareFailed {
        /// The node.
        node: NodeName,
        /// The life.
        life: TaskId,
        /// What went wrong.
        error: String,
    },
    /// What an operator wants of the roll-out of the nodes' revision, as it is stored.
    Rollout(Order),
    /// [`Effect::Bind`] has an outcome.
    Bound {
        /// The pod.
        pod: PodUid,
        /// The task.
        task: TaskId,
        /// How it went.
        outcome: BindOutcome,
    },
}

/// How a Binding went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindOutcome {
    /// Created.
    Created,
    /// The pod is bound already, is gone, or is being deleted. The watch tells which.
    Refused(String),
    /// Outcome unknown or not created; may be tried again.
    Failed(String),
}

/// A task to launch.
#[derive(Debug, Clone, PartialEq)]
pub enum Launch {
    /// A node task.
    Node(Box<NodeLaunch>),
    /// A pod's task.
    Pod(PodLaunch),
}

/// Everything about a node task.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeLaunch {
    /// The node.
    pub node: NodeName,
    /// Task, executor and agent.
    pub note: NodeNote,
    /// The agent's address.
    pub ip: IpAddr,
    /// `spec.podCIDR`.
    pub pod_cidr: String,
    /// The bootstrap token.
    pub token: Token,
    /// kubelet, kube-proxy's health and metrics, balancer.
    pub ports: [u16; 4],
    /// What the node may give to pods.
    pub allocatable: Amounts,
    /// Its resources.
    pub grant: Grant,
    /// Whether the agent takes limits.
    pub takes_limits: bool,
}

/// Everything about a pod's task.
#[derive(Debug, Clone, PartialEq)]
pub struct PodLaunch {
    /// The task.
    pub task: TaskId,
    /// The pod.
    pub uid: PodUid,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The node.
    pub node: NodeName,
    /// ExecutorInfo, verbatim.
    pub executor_info: Arc<[u8]>,
    /// Its resources.
    pub grant: Grant,
    /// CPU limit in thousandths; `None`: none.
    pub cpu_limit: Option<u64>,
    /// Memory limit in bytes; `None`: none.
    pub memory_limit: Option<u64>,
    /// Whether the agent takes limits.
    pub takes_limits: bool,
}

impl Launch {
    /// The task's id.
    pub fn task(&self) -> &TaskId {
        match self {
            Self::Node(node) => &node.note.task,
            Self::Pod(pod) => &pod.task,
        }
    }

    /// Its resources.
    pub fn grant(&self) -> &Grant {
        match self {
            Self::Node(node) => &node.grant,
            Self::Pod(pod) => &pod.grant,
        }
    }
}

/// A pod's identity in effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// `metadata.uid`.
    pub uid: PodUid,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// What the core wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// ACCEPT the offers with these tasks.
    Accept {
        /// All of one agent and role.
        offers: Vec<OfferId>,
        /// Agent.
        agent: AgentId,
        /// Role.
        role: Role,
        /// Tasks in launch order.
        launches: Vec<Launch>,
        /// For how many seconds the rest is not offered again.
        refuse_seconds: f64,
    },
    /// DECLINE.
    Decline {
        /// The offers.
        offers: Vec<OfferId>,
        /// For how many seconds they are not offered again.
        refuse_seconds: f64,
    },
    /// ACCEPT_INVERSE_OFFERS or DECLINE_INVERSE_OFFERS.
    AnswerInverse {
        /// The inverse offers.
        offers: Vec<OfferId>,
        /// Whether the resources will be given back in time, for all that is known.
        accept: bool,
        /// For how many seconds they are not repeated.
        refuse_seconds: f64,
    },
    /// SUPPRESS for all roles.
    Suppress,
    /// REVIVE for all roles. Ends with `Revived`.
    Revive,
    /// KILL.
    Kill {
        /// The task.
        task: TaskId,
        /// Its agent.
        agent: AgentId,
        /// Why, for the log.
        reason: &'static str,
    },
    /// SHUTDOWN of an executor that no node lives by.
    Shutdown {
        /// The executor.
        executor: ExecutorId,
        /// Its agent.
        agent: AgentId,
    },
    /// Tell the executor of a node that has become Ready what may have changed since it was launched.
    Greet {
        /// The executor.
        executor: ExecutorId,
        /// Its agent.
        agent: AgentId,
    },
    /// Ask the executor of a node to bring it to the wanted revision.
    Revise {
        /// The executor.
        executor: ExecutorId,
        /// Its agent.
        agent: AgentId,
    },
    /// ACKNOWLEDGE.
    Acknowledge {
        /// The task.
        task: TaskId,
        /// The agent.
        agent: AgentId,
        /// The update.
        uuid: [u8; 16],
    },
    /// RECONCILE; without tasks it is implicit.
    Reconcile {
        /// Tasks and their agents.
        tasks: Vec<(TaskId, Option<AgentId>)>,
    },
    /// GET_AGENTS, soon.
    PollAgents,
    /// GET_TASKS, soon: which ports do our tasks hold? Ends with `HeldPorts`.
    PollPorts,
    /// Create the Node or annotate it for a new life, and make a bootstrap token.
    /// Ends with `NodePrepared` or `PrepareFailed`.
    PrepareNode {
        /// The node.
        node: NodeName,
        /// What to write on it.
        note: NodeNote,
        /// The agent's host name.
        hostname: Arc<str>,
        /// The agent's address.
        ip: IpAddr,
        /// Labels from attributes and domain.
        labels: Arc<BTreeMap<String, String>>,
    },
    /// Delete the Node object.
    DeleteNode {
        /// Its name.
        node: NodeName,
        /// `metadata.uid`: a later node of this name stays.
        uid: String,
    },
    /// Set or remove the taint of an unreachable agent.
    TaintUnreachable {
        /// The node.
        node: NodeName,
        /// Whether it is wanted.
        wanted: bool,
    },
    /// Set the out-of-service taint: the operator vouched for the agent's end.
    TaintOutOfService {
        /// The node.
        node: NodeName,
    },
    /// Mark a node unschedulable: it is being given up.
    Cordon {
        /// The node.
        node: NodeName,
    },
    /// Create a Binding with the task's id as annotation. Ends with `Bound`.
    Bind {
        /// The pod.
        pod: PodRef,
        /// The node.
        node: NodeName,
        /// The task.
        task: TaskId,
        /// When the pod was created.
        created: Time,
    },
    /// Write a new task's id on a pod that is bound already.
    Annotate {
        /// The pod.
        pod: PodRef,
        /// The task.
        task: TaskId,
    },
    /// Its node is proven dead: phase Failed, condition DisruptionTarget, then delete with grace 0.
    FailPod {
        /// The pod.
        pod: PodRef,
        /// For people.
        message: String,
    },
    /// Set or remove the taint of an agent whose maintenance is near.
    TaintMaintenance {
        /// The node.
        node: NodeName,
        /// Whether it is wanted.
        wanted: bool,
    },
    /// Evict a pod through the eviction API, as its disruption budgets allow. Ends with
    /// `EvictionHeld`, or shows in the watch.
    EvictByBudget {
        /// The pod.
        pod: PodRef,
        /// For people.
        message: String,
    },
    /// Delete a bound pod that cannot be accounted for, or whose time to be evicted by budget is
    /// over, with its grace and an event.
    EvictPod {
        /// The pod.
        pod: PodRef,
        /// For people.
        message: String,
    },
    /// A pod of higher priority needs its room: condition DisruptionTarget, then delete with its
    /// own grace, and an event.
    Preempt {
        /// The victim.
        pod: PodRef,
        /// The pod that needs the room.
        by: PodRef,
        /// Their node.
        node: NodeName,
    },
    /// Write where a pod waits for its victims' room (`status.nominatedNodeName`), or that it
    /// does not any more.
    Nominate {
        /// The pod.
        pod: PodRef,
        /// The node.
        node: Option<NodeName>,
    },
    /// The pod does not fit: event FailedScheduling and condition PodScheduled=False.
    Unschedulable {
        /// The pod.
        pod: PodRef,
        /// For people.
        message: String,
    },
    /// An event of a node.
    NodeEvent {
        /// The node.
        node: NodeName,
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
        /// Whether it is a warning.
        warning: bool,
    },
    /// A line for the log and a counter: something unusual that has no object.
    Problem {
        /// For people.
        message: String,
    },
}
