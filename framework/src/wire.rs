//! Between Mesos' messages and the core's plain values. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesos::pb;
use prost::Message;
use seam::names;
use seam::node::{
    Allocatable, Artifact, ClusterConfig, NodeConfig, NodeOptions, NodePorts, Overhead, Payload,
    Revision,
};
use seam::pod::PodTask;

use crate::core::ExecutorTemplate;
use crate::core::event::{Launch, NodeLaunch, OfferedAgent, PodLaunch, Update};
use crate::core::ids::{AgentId, ExecutorId, OfferId, Role, TaskId, Time};
use crate::core::maintenance::{InverseOffer, Unavailability};
use crate::core::node::{AgentReport, bytes};
use crate::core::offer::Offer;
use crate::core::pool::{Amounts, Pool, UNIT};
use crate::core::task::{End, MesosState, Outcome};

/// What FrameworkInfo says besides its id.
#[derive(Debug, Clone)]
pub struct FrameworkDescription {
    /// `name`.
    pub name: String,
    /// `roles`.
    pub roles: Vec<String>,
    /// `principal`.
    pub principal: Option<String>,
    /// Seconds.
    pub failover_timeout: f64,
    /// `webui_url`.
    pub web_ui: Option<String>,
    /// `hostname`.
    pub hostname: Option<String>,
}

/// FrameworkInfo. `checkpoint` and `user` cannot change later and never do.
pub fn framework_info(about: &FrameworkDescription, id: &str) -> pb::FrameworkInfo {
    use pb::framework_info::capability::Type;
    let capabilities = [
        Type::MultiRole,
        Type::ReservationRefinement,
        Type::PartitionAware,
        Type::RegionAware,
        Type::GpuResources,
        Type::TaskKillingState,
    ];
    pb::FrameworkInfo {
        user: "root".to_owned(),
        name: about.name.clone(),
        id: Some(pb::FrameworkId {
            value: id.to_owned(),
        }),
        failover_timeout: Some(about.failover_timeout),
        checkpoint: Some(true),
        roles: about.roles.clone(),
        hostname: about.hostname.clone(),
        principal: about.principal.clone(),
        webui_url: about.web_ui.clone(),
        capabilities: capabilities
            .into_iter()
            .map(|kind| pb::framework_info::Capability {
                r#type: Some(kind.into()),
            })
            .collect(),
        ..Default::default()
    }
}

/// How an agent gets and starts the executor.
#[derive(Debug, Clone)]
pub struct ExecutorDescription {
    /// Where the program is fetched from.
    pub uri: String,
    /// The image that it is started from instead, by Mesos' containerizer.
    pub image: Option<String>,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
    /// For SHUTDOWN, in seconds.
    pub shutdown_grace: u64,
}

/// File name of the executor in its sandbox.
const EXECUTOR_FILE: &str = "k8sm-executor";

/// ExecutorInfo but for its id. No resources, no address of the framework but the URI of the small
/// program: all of it must stay the same while an executor lives, so it is stored verbatim.
pub fn executor_template(about: &ExecutorDescription, framework_id: &str) -> ExecutorTemplate {
    let mut arguments = vec![EXECUTOR_FILE.to_owned()];
    arguments.extend(about.arguments.iter().cloned());
    let mut command = pb::CommandInfo {
        shell: Some(false),
        arguments,
        user: Some("root".to_owned()),
        ..Default::default()
    };
    let mut container = None;
    match &about.image {
        Some(name) => {
            // Without a value the image's entry point is run, and the arguments follow it.
            command.arguments.remove(0);
            container = Some(docker_image(name));
        }
        None => {
            command.value = Some(format!("./{EXECUTOR_FILE}"));
            command.uris = vec![pb::command_info::Uri {
                value: about.uri.clone(),
                executable: Some(true),
                extract: Some(false),
                cache: Some(false),
                output_file: Some(EXECUTOR_FILE.to_owned()),
            }];
        }
    }
    ExecutorTemplate(pb::ExecutorInfo {
        r#type: Some(pb::executor_info::Type::Custom.into()),
        framework_id: Some(pb::FrameworkId {
            value: framework_id.to_owned(),
        }),
        command: Some(command),
        container,
        name: Some("Kubernetes node".to_owned()),
        shutdown_grace_period: Some(pb::DurationInfo {
            nanoseconds: i64::try_from(about.shutdown_grace.saturating_mul(1_000_000_000))
                .unwrap_or(i64::MAX),
        }),
        ..Default::default()
    })
}

/// A container of Mesos' own from a Docker image.
fn docker_image(name: &str) -> pb::ContainerInfo {
    pb::ContainerInfo {
        r#type: pb::container_info::Type::Mesos.into(),
        mesos: Some(pb::container_info::MesosInfo {
            image: Some(pb::Image {
                r#type: pb::image::Type::Docker.into(),
                docker: Some(pb::image::Docker {
                    name: name.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

impl ExecutorTemplate {
    /// ExecutorInfo as it is stored and sent.
    pub fn encode(&self, id: &ExecutorId) -> Arc<[u8]> {
        let mut info = self.0.clone();
        info.executor_id = pb::ExecutorId {
            value: id.to_string(),
        };
        info.encode_to_vec().into()
    }
}

/// Reads an offer.
pub fn offer(offer: pb::Offer) -> (Offer, OfferedAgent) {
    let role = offer
        .allocation_info
        .as_ref()
        .and_then(|a| a.role.clone())
        .unwrap_or_else(|| "*".to_owned());
    let ip = offer
        .url
        .as_ref()
        .and_then(|url| url.address.ip.as_deref())
        .and_then(|ip| ip.parse().ok());
    // What is offered to us may be used by us, however it is reserved.
    let pool = Pool::from_mesos(&offer.resources, |_| true);
    (
        Offer {
            id: OfferId::from(offer.id.value),
            agent: AgentId::from(offer.agent_id.value),
            role: Role::from(role),
            pool,
        },
        OfferedAgent {
            hostname: offer.hostname.into(),
            ip,
            attributes: offer.attributes,
            domain: offer.domain,
            executors: offer
                .executor_ids
                .into_iter()
                .map(|id| ExecutorId::from(id.value))
                .collect(),
            unavailable: offer.unavailability.as_ref().map(unavailability),
        },
    )
}

/// Reads an inverse offer; `None` for one that names no agent, which Mesos does not make.
pub fn inverse_offer(offer: &pb::InverseOffer) -> Option<InverseOffer> {
    Some(InverseOffer {
        id: OfferId::from(offer.id.value.as_str()),
        agent: AgentId::from(offer.agent_id.as_ref()?.value.as_str()),
        unavailability: unavailability(&offer.unavailability),
    })
}

fn unavailability(outage: &pb::Unavailability) -> Unavailability {
    // Before 1970 is long ago.
    let nanoseconds = |value: i64| u64::try_from(value).unwrap_or(0);
    Unavailability {
        start: Time(nanoseconds(outage.start.nanoseconds) / 1_000_000),
        duration: outage
            .duration
            .as_ref()
            .map(|duration| Duration::from_nanos(nanoseconds(duration.nanoseconds))),
    }
}

/// Reads a status update.
pub fn update(status: &pb::TaskStatus) -> Update {
    let reason = status
        .reason
        .and_then(|r| pb::task_status::Reason::try_from(r).ok());
    let source = status
        .source
        .and_then(|s| pb::task_status::Source::try_from(s).ok());
    let state = pb::TaskState::try_from(status.state).unwrap_or(pb::TaskState::TaskStaging);
    let message = status.message.as_deref().unwrap_or_default();
    let mut text = state.as_str_name().to_owned();
    for part in [
        source.map(|s| s.as_str_name()),
        reason.map(|r| r.as_str_name()),
        Some(message).filter(|m| !m.is_empty()),
    ]
    .into_iter()
    .flatten()
    {
        text.push_str(", ");
        text.push_str(part);
    }
    Update {
        task: TaskId::from(status.task_id.value.as_str()),
        agent: status
            .agent_id
            .as_ref()
            .map(|id| AgentId::from(id.value.as_str())),
        state: mesos_state(state, reason, message),
        text,
        uuid: status
            .uuid
            .as_deref()
            .and_then(|uuid| <[u8; 16]>::try_from(uuid).ok()),
        reconciliation: reason == Some(pb::task_status::Reason::Reconciliation),
        draining: reason == Some(pb::task_status::Reason::AgentDraining),
    }
}

/// The agent's words when it could not destroy the container of an executor that ended, as
/// opposed to one that it never had.
const ABNORMAL: &str = "Abnormal executor termination: ";
const NEVER_HAD: &str = "unknown container";

fn mesos_state(
    state: pb::TaskState,
    reason: Option<pb::task_status::Reason>,
    message: &str,
) -> MesosState {
    use pb::TaskState as S;
    use pb::task_status::Reason;
    let destroyed = message
        .split_once(ABNORMAL)
        .is_none_or(|(_, why)| why.starts_with(NEVER_HAD));
    let proven = |outcome| {
        if destroyed {
            MesosState::Ended(End::Proven(outcome))
        } else {
            MesosState::Ended(End::Unproven)
        }
    };
    match state {
        S::TaskStaging => MesosState::Staging,
        S::TaskStarting => MesosState::Starting,
        S::TaskRunning => MesosState::Running,
        S::TaskKilling => MesosState::Killing,
        S::TaskFinished => proven(Outcome::Finished),
        S::TaskFailed => proven(Outcome::Failed),
        S::TaskKilled => proven(Outcome::Killed),
        S::TaskGone => proven(Outcome::Gone),
        S::TaskError | S::TaskDropped => MesosState::Ended(End::NeverStarted),
        S::TaskLost if reason == Some(Reason::InvalidOffers) => {
            MesosState::Ended(End::NeverStarted)
        }
        S::TaskGoneByOperator => MesosState::Ended(End::GoneByOperator),
        S::TaskLost | S::TaskUnreachable | S::TaskUnknown => MesosState::Unreachable,
    }
}

/// Reads GET_AGENTS' answer. `usable` says of which roles reservations count for us.
pub fn agents(
    response: pb::master::response::GetAgents,
    usable: impl Fn(&str) -> bool,
) -> Vec<AgentReport> {
    let limits = pb::agent_info::capability::Type::TaskResourceLimits as i32;
    response
        .agents
        .into_iter()
        .filter_map(|agent| {
            let info = agent.agent_info;
            let id = AgentId::from(info.id?.value);
            // `slave(1)@10.0.0.1:5051`
            let ip = agent
                .pid
                .as_deref()
                .and_then(|pid| pid.rsplit_once('@'))
                .and_then(|(_, address)| address.parse::<std::net::SocketAddr>().ok())
                .map(|address| address.ip());
            Some(AgentReport {
                id,
                hostname: info.hostname.into(),
                ip,
                attributes: info.attributes,
                domain: info.domain,
                total: Pool::from_mesos(&agent.total_resources, &usable).amounts(),
                takes_limits: agent.capabilities.iter().any(|c| c.r#type == Some(limits)),
                active: agent.active,
                draining: agent.drain_info.is_some(),
            })
        })
        .collect()
}

/// Reads of GET_TASKS' answer which ports each of our tasks holds.
pub fn held_ports(
    response: &pb::master::response::GetTasks,
    framework: &str,
) -> Vec<(TaskId, Vec<u16>)> {
    let ours = response
        .tasks
        .iter()
        .filter(|task| task.framework_id.value == framework);
    ours.map(|task| {
        let held = Pool::from_mesos(&task.resources, |_| true);
        let ports = held.ports().iter().collect();
        (TaskId::from(task.task_id.value.clone()), ports)
    })
    .collect()
}

/// What every node task carries and no decision depends on.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The cluster.
    pub cluster: ClusterConfig,
    /// The archive.
    pub payload: Payload,
    /// The executor's own program, where it is known by its digest: nodes that live on are
    /// brought to it.
    pub executor: Option<Artifact>,
    /// Options.
    pub options: NodeOptions,
    /// What a node task takes.
    pub overhead: Amounts,
    /// Bytes added to each pod's task.
    pub pod_overhead_bytes: u64,
    /// kubelet's `maxPods`.
    pub pods_per_node: u32,
    /// The framework's id.
    pub framework_id: String,
}

impl NodeSettings {
    /// What every node shall be.
    pub fn revision(&self) -> Revision {
        Revision {
            cluster: self.cluster.clone(),
            payload: self.payload.clone(),
            options: self.options.clone(),
            executor: self.executor.clone(),
        }
    }
}

/// A launch whose stored ExecutorInfo cannot be read. The node needs a new life.
#[derive(Debug, thiserror::Error)]
#[error("ExecutorInfo stored on node {node}: {source}")]
pub struct BadExecutorInfo {
    /// The node.
    pub node: String,
    /// What is wrong with it.
    pub source: prost::DecodeError,
}

/// TaskInfo of a launch.
pub fn task_info(
    launch: &Launch,
    agent: &AgentId,
    role: &Role,
    settings: &NodeSettings,
) -> Result<pb::TaskInfo, BadExecutorInfo> {
    let (node, executor_info, name, data) = match launch {
        Launch::Node(launch) => (
            &launch.node,
            &launch.note.executor_info,
            format!("node.{}", launch.node),
            node_config(launch, settings).to_data(),
        ),
        Launch::Pod(launch) => (
            &launch.node,
            &launch.executor_info,
            format!("{}.{}.pod", launch.name, launch.namespace),
            serde_json::to_vec(&pod_task(launch)).unwrap_or_default(),
        ),
    };
    let executor =
        pb::ExecutorInfo::decode(&**executor_info).map_err(|source| BadExecutorInfo {
            node: node.to_string(),
            source,
        })?;
    let limits = match launch {
        Launch::Node(launch) => node_limits(launch, settings),
        Launch::Pod(launch) => pod_limits(launch),
    };
    Ok(pb::TaskInfo {
        name,
        task_id: pb::TaskId {
            value: launch.task().to_string(),
        },
        agent_id: pb::AgentId {
            value: agent.to_string(),
        },
        resources: launch.grant().to_mesos(role.as_str()),
        executor: Some(executor),
        data: Some(data),
        labels: Some(labels(launch)),
        limits,
        ..Default::default()
    })
}

fn labels(launch: &Launch) -> pb::Labels {
    let label = |key: &str, value: &str| pb::Label {
        key: format!("{}{key}", names::PREFIX),
        value: Some(value.to_owned()),
    };
    let labels = match launch {
        Launch::Node(launch) => vec![label("node", launch.node.as_str())],
        Launch::Pod(launch) => vec![
            label("pod", &launch.name),
            label("namespace", &launch.namespace),
            label("node", launch.node.as_str()),
        ],
    };
    pb::Labels { labels }
}

type Limits = std::collections::HashMap<String, pb::value::Scalar>;

/// Limits of a task; `None` is Mesos' infinity.
fn limits(takes: bool, cpu_millis: Option<u64>, mib_thousandths: Option<u64>) -> Limits {
    if !takes {
        return Limits::new();
    }
    let scalar = |thousandths: Option<u64>| pb::value::Scalar {
        value: thousandths.map_or(f64::INFINITY, |t| t as f64 / UNIT as f64),
    };
    [
        ("cpus".to_owned(), scalar(cpu_millis)),
        ("mem".to_owned(), scalar(mib_thousandths)),
    ]
    .into()
}

fn pod_limits(launch: &PodLaunch) -> Limits {
    let mib = |bytes: u64| bytes.div_ceil(crate::resources::MIB).saturating_mul(UNIT);
    limits(
        launch.takes_limits,
        launch.cpu_limit,
        launch.memory_limit.map(mib),
    )
}

/// A node starts in seconds if it may use the agent's CPUs for it, and crawls if its small request
/// is its quota. Its memory is what it was granted.
fn node_limits(launch: &NodeLaunch, settings: &NodeSettings) -> Limits {
    let whole = launch.allocatable.plus(&settings.overhead);
    limits(
        launch.takes_limits,
        Some(whole.cpus.max(settings.overhead.cpus)),
        Some(settings.overhead.mem),
    )
}

/// What the executor needs in order to make the node.
pub fn node_config(launch: &NodeLaunch, settings: &NodeSettings) -> NodeConfig {
    let ip: IpAddr = launch.ip;
    let [kubelet, proxy_health, proxy_metrics, balancer] = launch.ports;
    NodeConfig {
        node_name: launch.node.to_string(),
        node_ip: ip,
        pod_cidr: launch.pod_cidr.clone(),
        cluster: settings.cluster.clone(),
        bootstrap_token: launch.token.0.clone(),
        ports: NodePorts {
            kubelet,
            proxy_health,
            proxy_metrics,
            balancer,
        },
        allocatable: Allocatable {
            cpu_millis: launch.allocatable.cpus,
            memory_bytes: bytes(launch.allocatable.mem),
            disk_bytes: bytes(launch.allocatable.disk),
            pods: settings.pods_per_node,
            gpus: u32::try_from(launch.allocatable.gpus / UNIT).unwrap_or(u32::MAX),
        },
        overhead: Overhead {
            cpu_millis: settings.overhead.cpus,
            memory_bytes: bytes(settings.overhead.mem),
            disk_bytes: bytes(settings.overhead.disk),
            pod_memory_bytes: settings.pod_overhead_bytes,
        },
        payload: settings.payload.clone(),
        options: settings.options.clone(),
    }
}

fn pod_task(launch: &PodLaunch) -> PodTask {
    PodTask {
        namespace: launch.namespace.to_string(),
        name: launch.name.to_string(),
        uid: launch.uid.to_string(),
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
pub(crate) mod tests;
