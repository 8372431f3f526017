//! Deletes a pod for a KILL of its task.

use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::view::{self, TrimmedPod};
use crate::credentials::api::{ApiAccess, ApiError, request};
use crate::report::PodRef;

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The API server took it; the pod goes once kubelet has stopped it.
    Accepted,
    /// There is no such pod (any more), or another one has its name.
    Gone,
}

/// Deletes exactly this pod. `grace` of `None` is the pod's own; below a second it is rounded up,
/// because zero would remove the object without waiting for kubelet.
pub async fn delete(
    access: &ApiAccess,
    pod: &PodRef,
    grace: Option<Duration>,
) -> Result<Deletion, ApiError> {
    let client = access.client()?;
    let resource = view::pod_resource();
    let pods = Api::<TrimmedPod>::namespaced_with(client, &pod.namespace, &resource);
    let params = DeleteParams {
        grace_period_seconds: grace.map(seconds),
        preconditions: Some(Preconditions {
            uid: Some(pod.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let action = format!("deleting pod {}/{}", pod.namespace, pod.name);
    match request(&action, pods.delete(&pod.name, &params)).await {
        Ok(_) => Ok(Deletion::Accepted),
        Err(ApiError::Request { source, .. }) if is_gone(&source) => Ok(Deletion::Gone),
        Err(error) => Err(error),
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

    #[test]
    fn a_grace_is_never_zero() {
        assert_eq!(seconds(Duration::ZERO), 1);
        assert_eq!(seconds(Duration::from_millis(1500)), 2);
        assert_eq!(seconds(Duration::from_secs(30)), 30);
    }
}
