//! Carries out the core's effects on Kubernetes objects.
//!
//! A fixed number of workers, each with a bounded queue. Effects on one object go to one worker, so
//! they happen in order. What fails is tried again a few times; what still fails is reported where the core
//! waits for an outcome, and otherwise wanted again by the core itself.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use k8s_openapi::api::core::v1::{Pod, Taint};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use seam::names;
use tokio::sync::mpsc;

use super::tokens::Tokens;
use crate::core::event::BindOutcome;
use crate::core::ids::{TaskId, Time};
use crate::core::node::Token;
use crate::core::{Effect, Event, event};
use crate::kube::api::{call, unless_missing};
use crate::kube::binding::{self, Bound, PodRef};
use crate::kube::events::{Kind, Note, Recorder, Subject};
use crate::kube::pods::{Disruption, Evicted, WaitReason};
use crate::kube::{ApiError, Retry, bootstrap, nodes, pods};
use crate::metrics::{CallOutcome, Metrics};
use crate::placement::names::NodeName;

/// Workers. Each has one request under way; an API server answers hundreds a second.
const WORKERS: usize = 32;
/// Effects that wait for one worker. More are dropped, and wanted again.
const QUEUE: usize = 512;
/// How often one effect is tried.
const ATTEMPTS: u32 = 5;
/// The taint by which an operator says that a node is gone for good (upstream's).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What workers need.
#[derive(Clone)]
pub struct Context {
    /// API client.
    pub client: Client,
    /// Outcomes.
    pub events: mpsc::Sender<Event>,
    /// Events for people.
    pub recorder: Recorder,
    /// Bootstrap tokens.
    pub tokens: Arc<Tokens>,
    /// The Mesos framework's id, for annotations.
    pub framework_id: Arc<str>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// Hands effects to the workers.
#[derive(Debug)]
pub struct Workers {
    queues: Vec<mpsc::Sender<Effect>>,
    recorder: Recorder,
    events: mpsc::Sender<Event>,
}

impl Workers {
    /// Starts the workers. They end when this is dropped.
    pub fn spawn(context: &Context) -> Self {
        let queues = (0..WORKERS)
            .map(|_| {
                let (queue, mut effects) = mpsc::channel(QUEUE);
                let context = context.clone();
                tokio::spawn(async move {
                    while let Some(effect) = effects.recv().await {
                        carry_out(&context, effect).await;
                    }
                });
                queue
            })
            .collect();
        Self {
            queues,
            recorder: context.recorder.clone(),
            events: context.events.clone(),
        }
    }

    /// Takes an effect on an object; never waits.
    pub fn submit(&self, effect: Effect) {
        match &effect {
            Effect::NodeEvent {
                node,
                reason,
                message,
                warning,
            } => {
                self.recorder.publish(Note {
                    subject: Subject::Node {
                        name: node.to_string(),
                        uid: None,
                    },
                    kind: if *warning {
                        Kind::Warning
                    } else {
                        Kind::Normal
                    },
                    reason: reason.clone(),
                    message: message.clone(),
                });
                return;
            }
            Effect::Problem { message } => {
                tracing::warn!("{message}");
                return;
            }
            _ => {}
        }
        let Some(key) = key_of(&effect) else {
            return;
        };
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let worker = usize::try_from(hasher.finish() % WORKERS as u64).unwrap_or(0);
        if let Err(refused) = self.queues[worker].try_send(effect) {
            tracing::warn!(
                object = key,
                "too many effects wait: one is dropped for now"
            );
            // Where the core waits for an outcome it must hear one.
            if let Some(event) = dropped(refused.into_inner()) {
                let _ = self.events.try_send(event);
            }
        }
    }
}

fn key_of(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::PrepareNode { node, .. }
        | Effect::DeleteNode { node, .. }
        | Effect::TaintUnreachable { node, .. }
        | Effect::TaintOutOfService { node }
        | Effect::TaintMaintenance { node, .. }
        | Effect::Cordon { node } => node.to_string(),
        Effect::Bind { pod, .. }
        | Effect::Annotate { pod, .. }
        | Effect::FailPod { pod, .. }
        | Effect::EvictPod { pod, .. }
        | Effect::EvictByBudget { pod, .. }
        | Effect::Preempt { pod, .. }
        | Effect::Nominate { pod, .. }
        | Effect::Unschedulable { pod, .. } => pod.uid.to_string(),
        _ => return None,
    })
}

fn dropped(effect: Effect) -> Option<Event> {
    let error = "too many effects waited".to_owned();
    match effect {
        Effect::Bind { pod, task, .. } => Some(Event::Bound {
            pod: pod.uid,
            task,
            outcome: BindOutcome::Failed(error),
        }),
        Effect::PrepareNode { node, note, .. } => Some(Event::PrepareFailed {
            node,
            life: note.task,
            error,
        }),
        _ => None,
    }
}

fn reference(pod: &event::PodRef) -> PodRef {
    PodRef {
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
        uid: pod.uid.to_string(),
    }
}

/// Repeats what may succeed later: 0.2 s, doubling, with jitter, or as the API server says.
async fn patiently<T, F, Fut>(attempt: F) -> Result<T, ApiError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, ApiError>>,
{
    let mut tried = 1;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if error.retry() == Retry::Never || tried == ATTEMPTS {
            return Err(error);
        }
        let pause = Duration::from_millis(100 << tried).mul_f64(rand::random_range(0.5..1.5));
        let pause = error
            .retry_after()
            .map_or(pause, |asked| asked.min(Duration::from_secs(10)).max(pause));
        tokio::time::sleep(pause).await;
        tried += 1;
    }
}

/// Name of an effect in the metrics.
fn name_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::PrepareNode { .. } => "prepare-node",
        Effect::Bind { .. } => "bind",
        Effect::DeleteNode { .. } => "delete-node",
        Effect::TaintUnreachable { .. }
        | Effect::TaintMaintenance { .. }
        | Effect::TaintOutOfService { .. } => "taint",
        Effect::Cordon { .. } => "cordon",
        Effect::Annotate { .. } => "annotate",
        Effect::FailPod { .. } => "fail-pod",
        Effect::EvictPod { .. } | Effect::EvictByBudget { .. } => "evict",
        Effect::Preempt { .. } => "preempt",
        Effect::Nominate { .. } => "nominate",
        Effect::Unschedulable { .. } => "unschedulable",
        _ => "other",
    }
}

async fn carry_out(context: &Context, effect: Effect) {
    let name = name_of(&effect);
    let result = match effect {
        Effect::PrepareNode { .. } => prepare_node(context, effect).await,
        Effect::Bind {
            pod,
            node,
            task,
            created,
        } => bind(context, &pod, node.as_str(), &task, created).await,
        Effect::DeleteNode { node, uid } => {
            patiently(|| nodes::delete(&context.client, node.as_str(), &uid))
                .await
                .map(drop)
        }
        Effect::TaintUnreachable { node, wanted } => {
            own_taint(
                context,
                node.as_str(),
                names::AGENT_UNREACHABLE_TAINT,
                wanted,
            )
            .await
        }
        Effect::TaintMaintenance { node, wanted } => {
            own_taint(
                context,
                node.as_str(),
                names::AGENT_MAINTENANCE_TAINT,
                wanted,
            )
            .await
        }
        Effect::TaintOutOfService { node } => {
            let taint = [taint(OUT_OF_SERVICE, "NoExecute", Some("mesos-agent-gone"))];
            patiently(|| nodes::change_taints(&context.client, node.as_str(), &taint, &[]))
                .await
                .map(drop)
        }
        Effect::Cordon { node } => {
            patiently(|| nodes::cordon(&context.client, node.as_str(), true)).await
        }
        Effect::Annotate { pod, task } => annotate(context, &pod, task.as_str()).await,
        Effect::FailPod { pod, message } => fail_pod(context, &pod, message).await,
        Effect::EvictPod { pod, message } => evict(context, &pod, message).await,
        Effect::EvictByBudget { pod, message } => evict_by_budget(context, &pod, message).await,
        Effect::Preempt { pod, by, node } => preempt(context, &pod, &by, node.as_str()).await,
        Effect::Nominate { pod, node } => nominate(context, &pod, node.as_ref()).await,
        Effect::Unschedulable { pod, message } => unschedulable(context, &pod, message).await,
        // Mesos' effects and those for people do not come here.
        _ => Ok(()),
    };
    let outcome = if result.is_ok() {
        CallOutcome::Ok
    } else {
        CallOutcome::Failed
    };
    context.metrics.api_call(name, outcome);
    if let Err(error) = result {
        tracing::warn!(%error, "an effect failed");
    }
}

/// Sets or removes a taint NoSchedule of ours.
async fn own_taint(context: &Context, node: &str, key: &str, wanted: bool) -> Result<(), ApiError> {
    let taint = [taint(key, "NoSchedule", None)];
    let (add, remove): (&[Taint], &[Taint]) = if wanted { (&taint, &[]) } else { (&[], &taint) };
    patiently(|| nodes::change_taints(&context.client, node, add, remove))
        .await
        .map(drop)
}

fn taint(key: &str, effect: &str, value: Option<&str>) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: effect.to_owned(),
        value: value.map(str::to_owned),
        time_added: None,
    }
}

/// The Node with labels and annotations, and a token for its first certificates.
async fn prepare_node(context: &Context, effect: Effect) -> Result<(), ApiError> {
    let Effect::PrepareNode {
        node,
        note,
        hostname,
        ip,
        labels,
    } = effect
    else {
        return Ok(());
    };
    let life = note.task.clone();
    let outcome = async {
        let name = NodeName::parse(node.as_str())
            .ok_or_else(|| format!("`{node}` is no name for a node"))?;
        let mut all = nodes::wellknown_labels(&name);
        all.extend((*labels).clone());
        // The Node says whose token it is before there is one: so it is known after a restart.
        let token = bootstrap::BootstrapToken::generate().map_err(|e| e.to_string())?;
        let annotations = [
            (names::BOOTSTRAP_TOKEN, token.id().as_str().to_owned()),
            (names::AGENT_ID, note.agent.to_string()),
            (names::AGENT_HOSTNAME, hostname.to_string()),
            (names::EXECUTOR_ID, note.executor.to_string()),
            (
                names::EXECUTOR_INFO,
                base64::engine::general_purpose::STANDARD.encode(&note.executor_info),
            ),
            (names::NODE_TASK_ID, note.task.to_string()),
            (names::FRAMEWORK_ID, context.framework_id.to_string()),
        ];
        let record = nodes::NodeRecord {
            name,
            labels: all,
            annotations: annotations.map(|(k, v)| (k.to_owned(), v)).into(),
            taints: Vec::new(),
            provider_id: format!("mesos://{}", note.agent),
        };
        patiently(|| nodes::ensure(&context.client, &record))
            .await
            .map_err(|e| e.to_string())?;
        let expires = Timestamp::now() + bootstrap::LIFETIME;
        patiently(|| bootstrap::create(&context.client, &token, node.as_str(), expires))
            .await
            .map_err(|e| e.to_string())?;
        context
            .tokens
            .add(node.as_str(), token.id().clone(), Some(ip));
        Ok::<Token, String>(Token(token.reveal()))
    }
    .await;
    let event = match outcome {
        Ok(token) => Event::NodePrepared { node, life, token },
        Err(error) => Event::PrepareFailed { node, life, error },
    };
    let _ = context.events.send(event).await;
    Ok(())
}

async fn bind(
    context: &Context,
    pod: &event::PodRef,
    node: &str,
    task: &TaskId,
    created: Time,
) -> Result<(), ApiError> {
    let target = reference(pod);
    let annotations: BTreeMap<String, String> = [
        (names::TASK_ID.to_owned(), task.to_string()),
        (
            names::FRAMEWORK_ID.to_owned(),
            context.framework_id.to_string(),
        ),
    ]
    .into();
    let began = Instant::now();
    let bound = patiently(|| binding::bind(&context.client, &target, node, &annotations)).await;
    let outcome = match &bound {
        Ok(Bound::Now) => {
            context.metrics.bind(began.elapsed());
            let wall = SystemTime::now().duration_since(UNIX_EPOCH);
            let age = wall
                .unwrap_or_default()
                .saturating_sub(Duration::from_millis(created.0));
            context.metrics.placed(age);
            context.recorder.publish(Note {
                subject: Subject::Pod(target.clone()),
                kind: Kind::Normal,
                reason: "Scheduled".to_owned(),
                message: format!("Successfully assigned {target} to {node}"),
            });
            BindOutcome::Created
        }
        Ok(Bound::Before) => BindOutcome::Created,
        Ok(Bound::Elsewhere { node }) => {
            BindOutcome::Refused(format!("it is bound to node {node}"))
        }
        Ok(Bound::Gone) => BindOutcome::Refused("the pod is gone".to_owned()),
        Err(error) if error.retry() == Retry::Later => BindOutcome::Failed(error.to_string()),
        Err(error) => BindOutcome::Refused(error.to_string()),
    };
    let event = Event::Bound {
        pod: pod.uid.clone(),
        task: task.clone(),
        outcome,
    };
    let _ = context.events.send(event).await;
    Ok(())
}

async fn annotate(context: &Context, pod: &event::PodRef, task: &str) -> Result<(), ApiError> {
    let target = reference(pod);
    let annotations: BTreeMap<String, String> = [
        (names::TASK_ID.to_owned(), task.to_owned()),
        (
            names::FRAMEWORK_ID.to_owned(),
            context.framework_id.to_string(),
        ),
    ]
    .into();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &target.namespace);
    // The uid is a precondition: a later pod of the same name is another one.
    let patch = serde_json::json!({
        "metadata": {"uid": target.uid, "annotations": annotations},
    });
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let patched = patiently(|| {
        call(
            || format!("annotate pod {target}"),
            api.patch(&target.name, &params, &patch),
        )
    })
    .await;
    match patched {
        Ok(_) | Err(ApiError::NotFound { .. } | ApiError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn read(context: &Context, pod: &PodRef) -> Result<Option<Pod>, ApiError> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &pod.namespace);
    let what = || format!("read pod {pod}");
    let read = call(what, api.get(&pod.name)).await;
    let found = unless_missing(read)?;
    Ok(found.filter(|p| p.metadata.uid.as_deref() == Some(&pod.uid)))
}

async fn fail_pod(context: &Context, pod: &event::PodRef, message: String) -> Result<(), ApiError> {
    let target = reference(pod);
    let why = Disruption {
        reason: "ExecutorTerminated".to_owned(),
        message,
    };
    patiently(|| async {
        match read(context, &target).await? {
            Some(current) => pods::fail_and_delete(&context.client, &target, &current, &why)
                .await
                .map(drop),
            None => Ok(()),
        }
    })
    .await
}

async fn evict(context: &Context, pod: &event::PodRef, message: String) -> Result<(), ApiError> {
    let target = reference(pod);
    context.recorder.publish(Note {
        subject: Subject::Pod(target.clone()),
        kind: Kind::Warning,
        reason: "Evicted".to_owned(),
        message,
    });
    // Not the eviction API: a disruption budget does not entitle a pod to resources that nobody granted.
    patiently(|| pods::delete(&context.client, &target, None))
        .await
        .map(drop)
}

async fn preempt(
    context: &Context,
    pod: &event::PodRef,
    by: &event::PodRef,
    node: &str,
) -> Result<(), ApiError> {
    let target = reference(pod);
    let why = Disruption {
        reason: "PreemptionByScheduler".to_owned(),
        message: "Preempted in order to admit a pod of higher priority".to_owned(),
    };
    let ended = patiently(|| async {
        match read(context, &target).await? {
            Some(current) if current.metadata.deletion_timestamp.is_none() => {
                pods::disrupt_and_delete(&context.client, &target, &current, &why).await
            }
            _ => Ok(false),
        }
    })
    .await?;
    if ended {
        context.recorder.publish(Note {
            subject: Subject::Pod(target),
            kind: Kind::Normal,
            reason: "Preempted".to_owned(),
            message: format!("Preempted by pod {} on node {node}", by.uid),
        });
    }
    Ok(())
}

async fn nominate(
    context: &Context,
    pod: &event::PodRef,
    node: Option<&crate::core::ids::NodeName>,
) -> Result<(), ApiError> {
    let target = reference(pod);
    let node = node.map(|name| name.as_str());
    patiently(|| pods::nominate(&context.client, &target, node)).await
}

/// Through the eviction API. What a budget refuses is asked for again by the core.
async fn evict_by_budget(
    context: &Context,
    pod: &event::PodRef,
    message: String,
) -> Result<(), ApiError> {
    let target = reference(pod);
    let note = |kind, reason: &str, message| Note {
        subject: Subject::Pod(target.clone()),
        kind,
        reason: reason.to_owned(),
        message,
    };
    match patiently(|| pods::evict(&context.client, &target, None)).await? {
        Evicted::Yes => {
            context
                .recorder
                .publish(note(Kind::Normal, "Evicted", message));
        }
        Evicted::Gone => {}
        Evicted::NotNow {
            message: budget, ..
        } => {
            let message = format!("{message}. The pod is not evicted now: {budget}");
            context
                .recorder
                .publish(note(Kind::Warning, "EvictionBlocked", message));
            let _ = context
                .events
                .send(Event::EvictionHeld(pod.uid.clone()))
                .await;
        }
    }
    Ok(())
}

async fn unschedulable(
    context: &Context,
    pod: &event::PodRef,
    message: String,
) -> Result<(), ApiError> {
    let target = reference(pod);
    context.recorder.publish(Note {
        subject: Subject::Pod(target.clone()),
        kind: Kind::Warning,
        reason: "FailedScheduling".to_owned(),
        message: message.clone(),
    });
    patiently(|| async {
        match read(context, &target).await? {
            Some(current) => {
                let reason = WaitReason::Unschedulable;
                pods::mark_waiting(&context.client, &target, &current, reason, &message).await
            }
            None => Ok(()),
        }
    })
    .await
}
