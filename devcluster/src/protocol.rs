//! What an agent and the master say to each other.
//!
//! Real Mesos does this with libprocess messages, which nobody else speaks; this is our own,
//! with the same messages and the same meaning, over HTTP:
//!
//! 1. The agent opens `POST /internal/agent/subscribe` ([`SUBSCRIBE_PATH`]) with a protobuf
//!    [`Subscribe`]. The answer is 200 with an endless body: RecordIO frames, each a protobuf
//!    [`ToAgent`], the first of them [`Registered`] or [`Refused`]. The header
//!    [`STREAM_ID`] names the stream. While this response lives the agent counts as connected;
//!    its end is noticed at once by both.
//! 2. Whatever the agent has to say it sends to `POST /internal/agent/call` ([`CALL_PATH`]) as a
//!    protobuf [`FromAgent`] with that header: one call at a time, in order, since the master
//!    handles them in the order of arrival. 202: taken. 409: the stream is over, subscribe
//!    again. 400: malformed, do not repeat. 503: try again.
//!
//! A new `subscribe` of the same agent id ends the stream before it. Delivery on the stream is
//! in order and at most once, as in Mesos: what must not be lost is repeated by who cares
//! (status updates by the agent until acknowledged, kills by the framework).

use mesos::pb;

/// Where an agent subscribes.
pub const SUBSCRIBE_PATH: &str = "/internal/agent/subscribe";
/// Where an agent sends its calls.
pub const CALL_PATH: &str = "/internal/agent/call";
/// Header that names the agent's stream.
pub const STREAM_ID: &str = "Devcluster-Agent-Stream-Id";
/// Media type of both.
pub const MEDIA_TYPE: &str = "application/x-protobuf";
/// Greatest message of either side, bytes. A `Subscribe` of an agent with many tasks is the
/// largest there is.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// An agent introduces itself, for the first time (no `info.id`) or again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Subscribe {
    /// Host name, port, resources (as started with), attributes, domain. `id` once it has one.
    #[prost(message, required, tag = "1")]
    pub info: pb::AgentInfo,
    /// Address at which the agent's own HTTP API is reached. Empty: the peer address of the
    /// connection.
    #[prost(string, tag = "2")]
    pub ip: String,
    /// What the agent can do; TASK_RESOURCE_LIMITS among it.
    #[prost(message, repeated, tag = "3")]
    pub capabilities: Vec<pb::agent_info::Capability>,
    /// Version it reports, `1.12.0`.
    #[prost(string, tag = "4")]
    pub version: String,
    /// The frameworks of the executors and tasks below.
    #[prost(message, repeated, tag = "5")]
    pub frameworks: Vec<pb::FrameworkInfo>,
    /// Running executors; `framework_id` is set in each. Command executors are not listed.
    #[prost(message, repeated, tag = "6")]
    pub executors: Vec<pb::ExecutorInfo>,
    /// All tasks whose terminal update is not acknowledged yet. `state` is the latest,
    /// `status_update_state` and `status_update_uuid` those of the update that was sent last
    /// and is not acknowledged.
    #[prost(message, repeated, tag = "7")]
    pub tasks: Vec<pb::Task>,
    /// Whether the agent checkpoints (survives restarts with its tasks). When not, the master
    /// takes every task for lost as soon as the connection breaks.
    #[prost(bool, tag = "8")]
    pub checkpoint: bool,
    /// What the agent has with reservations and volumes, once an operation has changed it.
    /// Empty: `info.resources`.
    #[prost(message, repeated, tag = "9")]
    pub checkpointed: Vec<pb::Resource>,
}

/// From the master.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToAgent {
    /// The message. A kind that the agent does not know is `None`: to be ignored.
    #[prost(
        oneof = "to_agent::Message",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14"
    )]
    pub message: Option<to_agent::Message>,
}

/// The kinds of [`ToAgent`].
pub mod to_agent {
    /// One message to an agent.
    #[allow(
        clippy::large_enum_variant,
        reason = "prost knows no boxes here; one is on its way at a time"
    )]
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Message {
        /// First on a stream: welcome (again).
        #[prost(message, tag = "1")]
        Registered(super::Registered),
        /// First on a stream and the last: never come again with this id.
        #[prost(message, tag = "2")]
        Refused(super::Refused),
        /// Answer with [`super::from_agent::Message::Pong`]. Without a ping for
        /// `ping_timeout_nanos` the agent subscribes again.
        #[prost(message, tag = "3")]
        Ping(super::Ping),
        /// Launch a task.
        #[prost(message, tag = "4")]
        RunTask(super::RunTask),
        /// Launch a task group.
        #[prost(message, tag = "5")]
        RunTaskGroup(super::RunTaskGroup),
        /// Kill a task. One that the agent does not know it ignores with a warning.
        #[prost(message, tag = "6")]
        KillTask(super::KillTask),
        /// Shut an executor down.
        #[prost(message, tag = "7")]
        ShutdownExecutor(super::ShutdownExecutor),
        /// Shut all executors of a framework down and forget the framework.
        #[prost(message, tag = "8")]
        ShutdownFramework(super::ShutdownFramework),
        /// The scheduler acknowledged an update.
        #[prost(message, tag = "9")]
        Acknowledge(super::Acknowledge),
        /// A message from the scheduler to an executor.
        #[prost(message, tag = "10")]
        FrameworkMessage(super::ExecutorMessage),
        /// A framework subscribed again, perhaps with a changed FrameworkInfo. The agent sends
        /// all updates of the framework that wait for an acknowledgement once more, at once.
        #[prost(message, tag = "11")]
        UpdateFramework(super::UpdateFramework),
        /// Kill everything and end (the agent is gone by the operator's word, or unknown).
        #[prost(message, tag = "12")]
        Shutdown(super::Shutdown),
        /// Reservations and volumes change.
        #[prost(message, tag = "13")]
        ApplyOperation(super::ApplyOperation),
        /// Kill every task. Sent again whenever the agent comes back before it is reactivated.
        #[prost(message, tag = "14")]
        Drain(super::Drain),
    }
}

/// The agent is taken out of use: all of its tasks are killed, with the configuration's grace where
/// it is shorter than theirs. Terminal updates of tasks say so (REASON_AGENT_DRAINING).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Drain {
    /// As the operator wanted it.
    #[prost(message, required, tag = "1")]
    pub config: pb::DrainConfig,
}

/// Reservations and volumes change. The agent writes down what it has from now on, makes the
/// directories of new volumes and removes those of volumes that are gone, in that order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ApplyOperation {
    /// Names the operation in the answer.
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    /// Whether [`OperationApplied`] is wanted.
    #[prost(bool, tag = "2")]
    pub wants_feedback: bool,
    /// All that the agent has from now on.
    #[prost(message, repeated, tag = "3")]
    pub total: Vec<pb::Resource>,
}

/// The agent is registered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Registered {
    /// The agent's id, given here the first time; to be kept on disk.
    #[prost(message, required, tag = "1")]
    pub agent_id: pb::AgentId,
    /// Without a ping for this long the agent subscribes again (Mesos: ping timeout times
    /// count, 75 s).
    #[prost(uint64, tag = "2")]
    pub ping_timeout_nanos: u64,
    /// Tasks that the master has and the agent did not list. For each that the agent does not
    /// know either by now it sends TASK_DROPPED (TASK_LOST without PARTITION_AWARE),
    /// SOURCE_AGENT, REASON_RECONCILIATION, `Task is unknown to the agent`.
    #[prost(message, repeated, tag = "3")]
    pub reconcile: Vec<ReconcileTask>,
    /// Whether the master knew the agent before.
    #[prost(bool, tag = "4")]
    pub reregistered: bool,
    /// Who the master is.
    #[prost(message, required, tag = "5")]
    pub master_info: pb::MasterInfo,
}

/// A task that the master believes to be on the agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReconcileTask {
    /// Its framework.
    #[prost(message, required, tag = "1")]
    pub framework_id: pb::FrameworkId,
    /// The task.
    #[prost(message, required, tag = "2")]
    pub task_id: pb::TaskId,
    /// Whether its framework is PARTITION_AWARE.
    #[prost(bool, tag = "3")]
    pub partition_aware: bool,
}

/// The agent may not register.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// Why.
    #[prost(string, tag = "1")]
    pub message: String,
}

/// The master is there.
#[derive(Clone, PartialEq, Eq, Copy, prost::Message)]
pub struct Ping {}

/// Launch a task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunTask {
    /// The task's framework, `id` set.
    #[prost(message, required, tag = "1")]
    pub framework: pb::FrameworkInfo,
    /// The task, `executor` (with `framework_id`) set for a custom executor; every resource has
    /// its allocation.
    #[prost(message, required, tag = "2")]
    pub task: pb::TaskInfo,
    /// Whether the executor is to be started. If not and it does not run: TASK_DROPPED
    /// (TASK_LOST), SOURCE_AGENT, REASON_EXECUTOR_TERMINATED.
    #[prost(bool, tag = "3")]
    pub launch_executor: bool,
}

/// Launch a task group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunTaskGroup {
    /// The group's framework, `id` set.
    #[prost(message, required, tag = "1")]
    pub framework: pb::FrameworkInfo,
    /// The executor, `framework_id` set.
    #[prost(message, required, tag = "2")]
    pub executor: pb::ExecutorInfo,
    /// The tasks; `executor` is not set in them.
    #[prost(message, required, tag = "3")]
    pub task_group: pb::TaskGroupInfo,
    /// As in [`RunTask`].
    #[prost(bool, tag = "4")]
    pub launch_executor: bool,
}

/// Kill a task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KillTask {
    /// The task's framework.
    #[prost(message, required, tag = "1")]
    pub framework_id: pb::FrameworkId,
    /// The task.
    #[prost(message, required, tag = "2")]
    pub task_id: pb::TaskId,
    /// Overrides the task's own.
    #[prost(message, optional, tag = "3")]
    pub kill_policy: Option<pb::KillPolicy>,
}

/// Shut an executor down.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ShutdownExecutor {
    /// The executor's framework.
    #[prost(message, required, tag = "1")]
    pub framework_id: pb::FrameworkId,
    /// The executor.
    #[prost(message, required, tag = "2")]
    pub executor_id: pb::ExecutorId,
}

/// Shut a framework down.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ShutdownFramework {
    /// The framework.
    #[prost(message, required, tag = "1")]
    pub framework_id: pb::FrameworkId,
}

/// An update arrived at its scheduler.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Acknowledge {
    /// The task's framework.
    #[prost(message, required, tag = "1")]
    pub framework_id: pb::FrameworkId,
    /// The task.
    #[prost(message, required, tag = "2")]
    pub task_id: pb::TaskId,
    /// The update's UUID, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub uuid: Vec<u8>,
}

/// A message between a scheduler and an executor, unreliable both ways.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecutorMessage {
    /// The framework.
    #[prost(message, required, tag = "1")]
    pub framework_id: pb::FrameworkId,
    /// The executor.
    #[prost(message, required, tag = "2")]
    pub executor_id: pb::ExecutorId,
    /// What they say.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
}

/// A framework's changed FrameworkInfo.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateFramework {
    /// The new one, `id` set.
    #[prost(message, required, tag = "1")]
    pub framework: pb::FrameworkInfo,
}

/// Kill everything and end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Shutdown {
    /// Why.
    #[prost(string, tag = "1")]
    pub message: String,
}

/// From an agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromAgent {
    /// The message.
    #[prost(oneof = "from_agent::Message", tags = "1, 2, 3, 4, 5, 6")]
    pub message: Option<from_agent::Message>,
}

/// The kinds of [`FromAgent`].
pub mod from_agent {
    /// One message from an agent.
    #[allow(
        clippy::large_enum_variant,
        reason = "prost knows no boxes here; one is on its way at a time"
    )]
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Message {
        /// Answer to a ping.
        #[prost(message, tag = "1")]
        Pong(super::Pong),
        /// A task's state; repeated until acknowledged.
        #[prost(message, tag = "2")]
        Update(super::Update),
        /// An executor ended. Sent once, just before the updates of its tasks.
        #[prost(message, tag = "3")]
        ExitedExecutor(super::ExitedExecutor),
        /// A message from an executor to its scheduler.
        #[prost(message, tag = "4")]
        ExecutorMessage(super::ExecutorMessage),
        /// The agent ends for good (SIGUSR1 in Mesos): its tasks are gone.
        #[prost(message, tag = "5")]
        Unregister(super::Unregister),
        /// An operation is done.
        #[prost(message, tag = "6")]
        OperationApplied(super::OperationApplied),
    }
}

/// An operation is done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperationApplied {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    /// Names the status, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub uuid: Vec<u8>,
}

/// Answer to a ping.
#[derive(Clone, PartialEq, Eq, Copy, prost::Message)]
pub struct Pong {}

/// A task's state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Update {
    /// The task's framework.
    #[prost(message, required, tag = "1")]
    pub framework_id: pb::FrameworkId,
    /// The status as the scheduler shall see it: `agent_id`, `uuid` (unless it is one that
    /// needs no acknowledgement), `container_status` and so on are filled in.
    #[prost(message, required, tag = "2")]
    pub status: pb::TaskStatus,
    /// The task's latest state ([`pb::TaskState`]), which may be later than the status's: the
    /// master gives the resources of a finished task back by this.
    #[prost(int32, optional, tag = "3")]
    pub latest_state: Option<i32>,
    /// The executor that the task belongs to, for the master's books; not forwarded.
    #[prost(message, optional, tag = "4")]
    pub executor_id: Option<pb::ExecutorId>,
}

/// An executor ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExitedExecutor {
    /// The executor's framework.
    #[prost(message, required, tag = "1")]
    pub framework_id: pb::FrameworkId,
    /// The executor.
    #[prost(message, required, tag = "2")]
    pub executor_id: pb::ExecutorId,
    /// Wait status as of waitpid(2), -1 when unknown.
    #[prost(int32, tag = "3")]
    pub status: i32,
}

/// The agent ends for good.
#[derive(Clone, PartialEq, Eq, Copy, prost::Message)]
pub struct Unregister {}

impl From<to_agent::Message> for ToAgent {
    fn from(message: to_agent::Message) -> Self {
        Self {
            message: Some(message),
        }
    }
}

impl From<from_agent::Message> for FromAgent {
    fn from(message: from_agent::Message) -> Self {
        Self {
            message: Some(message),
        }
    }
}
