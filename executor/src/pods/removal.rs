//! Ends a pod for a KILL of its task: evicts it, or deletes it.

use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use serde_json::json;

use super::view::{self, TrimmedPod};
use crate::credentials::api::{ApiAccess, ApiError, request};
use crate::report::{PodRef, Removal};

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The API server took it; the pod goes once kubelet has stopped it.
    Accepted,
    /// There is no such pod (any more), or another one has its name.
    Gone,
    /// A disruption budget does not let the pod go now.
    Held {
        /// The API server's words.
        message: String,
    },
}

/// Ends exactly this pod. `grace` of `None` is the pod's own; below a second it is rounded up,
/// because zero would remove the object without waiting for kubelet.
pub async fn remove(
    access: &ApiAccess,
    pod: &PodRef,
    removal: Removal,
    grace: Option<Duration>,
) -> Result<Outcome, ApiError> {
    let client = access.client()?;
    let resource = view::pod_resource();
    let pods = Api::<TrimmedPod>::namespaced_with(client, &pod.namespace, &resource);
    let params = delete_params(pod, grace);
    let named = format!("pod {}/{}", pod.namespace, pod.name);
    match removal {
        Removal::Delete => {
            let call = async { pods.delete(&pod.name, &params).await.map(drop) };
            outcome(request(&format!("deleting {named}"), call).await)
        }
        Removal::Evict => {
            let eviction = json!({
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": pod.name, "namespace": pod.namespace},
                "deleteOptions": params,
            });
            let none = PostParams::default();
            let call = async {
                pods.create_subresource::<_, serde_json::Value>(
                    "eviction", &pod.name, &none, &eviction,
                )
                .await
                .map(drop)
            };
            outcome(request(&format!("evicting {named}"), call).await)
        }
    }
}

fn delete_params(pod: &PodRef, grace: Option<Duration>) -> DeleteParams {
    DeleteParams {
        grace_period_seconds: grace.map(seconds),
        preconditions: Some(Preconditions {
            uid: Some(pod.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

fn outcome(answer: Result<(), ApiError>) -> Result<Outcome, ApiError> {
    let source = match answer {
        Ok(()) => return Ok(Outcome::Accepted),
        Err(ApiError::Request { action, source }) => (action, source),
        Err(error) => return Err(error),
    };
    match source {
        (_, source) if is_gone(&source) => Ok(Outcome::Gone),
        (action, source) => match *source {
            // Also said while the API server does not know the budget's state yet.
            kube::Error::Api(status) if status.code == 429 => Ok(Outcome::Held {
                message: status.message.clone(),
            }),
            error => Err(ApiError::Request {
                action,
                source: Box::new(error),
            }),
        },
    }
}

fn seconds(grace: Duration) -> u32 {
    let whole = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

/// Not found, or a conflict: the uid is another one's.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> Result<(), ApiError> {
        let status = kube::core::Status {
            code,
            message: "the budget web needs 2 healthy pods".to_owned(),
            ..Default::default()
        };
        Err(ApiError::Request {
            action: "evicting pod ns/web".to_owned(),
            source: Box::new(kube::Error::Api(Box::new(status))),
        })
    }

    #[test]
    fn a_grace_is_never_zero() {
        assert_eq!(seconds(Duration::ZERO), 1);
        assert_eq!(seconds(Duration::from_millis(1500)), 2);
        assert_eq!(seconds(Duration::from_secs(30)), 30);
    }

    #[test]
    fn a_budgets_refusal_is_an_answer_and_an_overload_is_none() {
        let held = outcome(refused(429)).unwrap();
        assert!(matches!(held, Outcome::Held { message } if message.contains("budget web")));
        assert_eq!(outcome(refused(404)).unwrap(), Outcome::Gone);
        assert_eq!(outcome(refused(409)).unwrap(), Outcome::Gone);
        assert!(outcome(refused(503)).is_err());
    }

    #[test]
    fn an_eviction_names_exactly_one_pod_and_its_grace() {
        let pod = PodRef {
            namespace: "ns".to_owned(),
            name: "web".to_owned(),
            uid: "u1".to_owned(),
        };
        let params = delete_params(&pod, Some(Duration::from_secs(7)));
        assert_eq!(
            serde_json::to_value(params).unwrap(),
            json!({"gracePeriodSeconds": 7, "preconditions": {"uid": "u1"}})
        );
        let own = delete_params(&pod, None);
        assert_eq!(
            serde_json::to_value(own).unwrap(),
            json!({"preconditions": {"uid": "u1"}})
        );
    }
}
