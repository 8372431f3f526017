//! What the framework does to pods besides binding them: evicts them, ends those whose node is
//! proven dead, and says why one waits.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::api::{ApiError, call};
use super::binding::PodRef;

/// How long to wait after a disruption budget refused, where the API server does not say.
const BUDGET_WAIT: Duration = Duration::from_secs(10);

/// What became of an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evicted {
    /// The pod is being deleted with its grace.
    Yes,
    /// It was gone.
    Gone,
    /// A PodDisruptionBudget does not allow it now.
    NotNow {
        /// When to ask again.
        retry_after: Duration,
        /// The API server's words.
        message: String,
    },
}

/// Evicts a pod, as far as its disruption budgets allow. `grace` in seconds overrides the pod's.
pub async fn evict(client: &Client, pod: &PodRef, grace: Option<u32>) -> Result<Evicted, ApiError> {
    let mut options = json!({"preconditions": {"uid": pod.uid}});
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = seconds.into();
    }
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": options,
    });
    let api = pod.api(client);
    let params = PostParams::default();
    let request = api.create_subresource::<_, Status>("eviction", &pod.name, &params, &eviction);
    match call(|| format!("evict pod {pod}"), request).await {
        Ok(_) => Ok(Evicted::Yes),
        // A conflict is the precondition: a later pod has the name.
        Err(ApiError::NotFound { .. } | ApiError::Conflict { .. }) => Ok(Evicted::Gone),
        Err(ApiError::Busy {
            code: 429,
            message,
            retry_after,
            ..
        }) => Ok(Evicted::NotNow {
            retry_after: retry_after.unwrap_or(BUDGET_WAIT),
            message,
        }),
        Err(error) => Err(error),
    }
}

/// Why a pod is ended although its kubelet cannot confirm it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disruption {
    /// CamelCase, for the condition: `ExecutorTerminated`, `AgentRemoved`.
    pub reason: String,
    /// One sentence for a person.
    pub message: String,
}

/// Ends a pod whose node is proven dead, as upstream's pod garbage collector does: phase Failed
/// with the condition DisruptionTarget, so that controllers count and replace it, then deletion
/// without grace. **Only with proof**: a container that still runs would run twice.
/// Says whether the pod was still there.
pub async fn fail_and_delete(
    client: &Client,
    pod: &PodRef,
    current: &Pod,
    disruption: &Disruption,
) -> Result<bool, ApiError> {
    if let Some(patch) = failure_patch(pod, current, disruption, Timestamp::now())
        && !patch_status(client, pod, &patch, "mark as failed").await?
    {
        return Ok(false);
    }
    delete(client, pod, Some(0)).await
}

/// Ends a pod that has to make room, as upstream's scheduler does: the condition
/// DisruptionTarget, so that controllers know that it did not fail by itself, then deletion with
/// the pod's own grace. Says whether the pod was still there.
pub async fn disrupt_and_delete(
    client: &Client,
    pod: &PodRef,
    current: &Pod,
    disruption: &Disruption,
) -> Result<bool, ApiError> {
    let patch = json!({
        "metadata": {"uid": pod.uid},
        "status": {
            "observedGeneration": current.metadata.generation,
            "conditions": [disruption_condition(disruption, Timestamp::now())],
        },
    });
    if !patch_status(client, pod, &patch, "mark as disrupted").await? {
        return Ok(false);
    }
    delete(client, pod, None).await
}

/// Writes on which node a pod waits for others to make room, or that it waits on none.
/// A pod that is gone is no error.
pub async fn nominate(client: &Client, pod: &PodRef, node: Option<&str>) -> Result<(), ApiError> {
    // The uid in a status patch is a precondition; null takes the field away.
    let patch = json!({
        "metadata": {"uid": pod.uid},
        "status": {"nominatedNodeName": node},
    });
    patch_status(client, pod, &patch, "nominate a node for")
        .await
        .map(drop)
}

/// Patches a pod's status. False if the pod is gone, or another one has its name.
async fn patch_status(
    client: &Client,
    pod: &PodRef,
    patch: &Value,
    what: &str,
) -> Result<bool, ApiError> {
    let params = PatchParams::default();
    let api = pod.api(client);
    let patched = call(
        || format!("{what} pod {pod}"),
        api.patch_status(&pod.name, &params, &Patch::Strategic(patch)),
    )
    .await;
    match patched {
        Ok(_) => Ok(true),
        Err(ApiError::NotFound { .. } | ApiError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn disruption_condition(why: &Disruption, now: Timestamp) -> Value {
    json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": why.reason,
        "message": why.message,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

/// Deletes a pod: with grace 0 at once, with `None` with the pod's own grace.
/// Says whether it was still there.
pub async fn delete(client: &Client, pod: &PodRef, grace: Option<u32>) -> Result<bool, ApiError> {
    let params = DeleteParams {
        grace_period_seconds: grace,
        preconditions: Some(Preconditions {
            uid: Some(pod.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let api = pod.api(client);
    match call(
        || format!("delete pod {pod}"),
        api.delete(&pod.name, &params),
    )
    .await
    {
        Ok(_) => Ok(true),
        Err(ApiError::NotFound { .. } | ApiError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The status of a pod that ends with its node; `None` for one that has ended already.
fn failure_patch(pod: &PodRef, current: &Pod, why: &Disruption, now: Timestamp) -> Option<Value> {
    let phase = current.status.as_ref().and_then(|s| s.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    // The uid in a status patch is a precondition.
    Some(json!({
        "metadata": {"uid": pod.uid},
        "status": {
            "phase": "Failed",
            "observedGeneration": current.metadata.generation,
            "conditions": [disruption_condition(why, now)],
        },
    }))
}

/// Why a pod has no node yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// No candidate does.
    Unschedulable,
    /// The pod's scheduling gates are closed.
    SchedulingGated,
    /// The scheduler itself failed.
    SchedulerError,
}

impl WaitReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unschedulable => "Unschedulable",
            Self::SchedulingGated => "SchedulingGated",
            Self::SchedulerError => "SchedulerError",
        }
    }
}

/// Sets the condition PodScheduled to False, as upstream's scheduler does; autoscalers and
/// `kubectl` read it. Writes nothing where it says so already. Gone pods are no error.
pub async fn mark_waiting(
    client: &Client,
    pod: &PodRef,
    current: &Pod,
    reason: WaitReason,
    message: &str,
) -> Result<(), ApiError> {
    let Some(patch) = waiting_patch(pod, current, reason, message, Timestamp::now()) else {
        return Ok(());
    };
    patch_status(client, pod, &patch, "mark as waiting")
        .await
        .map(drop)
}

fn waiting_patch(
    pod: &PodRef,
    current: &Pod,
    reason: WaitReason,
    message: &str,
    now: Timestamp,
) -> Option<Value> {
    let conditions = current.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut scheduled = conditions.into_iter().flatten();
    let before = scheduled.find(|c: &&PodCondition| c.type_ == "PodScheduled");
    let same = |c: &PodCondition| {
        c.status == "False"
            && c.reason.as_deref() == Some(reason.as_str())
            && c.message.as_deref() == Some(message)
    };
    if before.is_some_and(same) {
        return None;
    }
    let since = before
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time.as_ref())
        .map_or(now, |t| t.0);
    Some(json!({
        "metadata": {"uid": pod.uid},
        "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": reason.as_str(),
            "message": message,
            "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    fn reference() -> PodRef {
        PodRef {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u1".into(),
        }
    }

    #[test]
    fn a_pod_that_has_ended_keeps_its_phase() {
        let why = Disruption {
            reason: "ExecutorTerminated".into(),
            message: "gone".into(),
        };
        let pod = |phase: &str| {
            serde_json::from_value::<Pod>(
                json!({"metadata": {"generation": 3}, "status": {"phase": phase}}),
            )
            .unwrap()
        };
        assert_eq!(
            failure_patch(&reference(), &pod("Succeeded"), &why, now()),
            None
        );
        let patch = failure_patch(&reference(), &pod("Running"), &why, now()).unwrap();
        insta::assert_snapshot!(patch.to_string(), @r#"{"metadata":{"uid":"u1"},"status":{"phase":"Failed","observedGeneration":3,"conditions":[{"type":"DisruptionTarget","status":"True","reason":"ExecutorTerminated","message":"gone","lastTransitionTime":"2026-11-21T10:00:00Z"}]}}"#);
    }

    #[test]
    fn the_same_reason_is_not_written_twice_and_a_new_message_keeps_the_time() {
        let pod: Pod = serde_json::from_value(json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes", "lastTransitionTime": "2026-11-21T09:00:00Z"}]}}))
        .unwrap();
        let patch = |message| {
            waiting_patch(
                &reference(),
                &pod,
                WaitReason::Unschedulable,
                message,
                now(),
            )
        };
        assert_eq!(patch("0/1 nodes"), None);
        let changed = patch("0/2 nodes").unwrap();
        assert_eq!(
            changed["status"]["conditions"][0]["lastTransitionTime"],
            "2026-11-21T09:00:00Z"
        );
    }
}
