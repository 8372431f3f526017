//! Pods: bound, waiting, evicted, ended; and events.

use std::collections::BTreeMap;

use framework::kube::Retry;
use framework::kube::binding::{Bound, PodRef, bind};
use framework::kube::events::{self, Kind, Note, Subject};
use framework::kube::nodes;
use framework::kube::pods::{self, Disruption, Evicted, WaitReason};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{self, Cluster, eventually};
use crate::nodes::record;

async fn make_pod(cluster: &Cluster, name: &str, more: Value) -> (PodRef, Pod) {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "example.com/none"}]},
    });
    for (member, value) in more.as_object().into_iter().flatten() {
        for (key, value) in value.as_object().into_iter().flatten() {
            object[member][key] = value.clone();
        }
    }
    let pod: Pod = serde_json::from_value(cluster.create(&object).await).unwrap();
    (PodRef::of(&pod).unwrap(), pod)
}

fn api(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.admin.clone(), "default")
}

fn task() -> BTreeMap<String, String> {
    [(seam::names::TASK_ID.to_owned(), "u.0000beef".to_owned())].into()
}

async fn set_running(cluster: &Cluster, pod: &PodRef) {
    let patch = json!({"status": {"phase": "Running"}});
    let params = PatchParams::default();
    api(cluster)
        .patch_status(&pod.name, &params, &Patch::Merge(&patch))
        .await
        .unwrap();
}

async fn a_pod_is_bound_once_and_carries_its_task(cluster: &Cluster) {
    let client = &cluster.framework;
    nodes::ensure(client, &record("n1")).await.unwrap();
    let (pod, _) = make_pod(cluster, "bound", json!({})).await;

    assert_eq!(bind(client, &pod, "n1", &task()).await.unwrap(), Bound::Now);
    let stored = api(cluster).get("bound").await.unwrap();
    assert_eq!(stored.spec.unwrap().node_name.as_deref(), Some("n1"));
    assert_eq!(
        stored.metadata.annotations.unwrap()[seam::names::TASK_ID],
        "u.0000beef"
    );

    assert_eq!(
        bind(client, &pod, "n1", &task()).await.unwrap(),
        Bound::Before
    );
    let elsewhere = Bound::Elsewhere { node: "n1".into() };
    assert_eq!(bind(client, &pod, "n2", &task()).await.unwrap(), elsewhere);
    let earlier = PodRef {
        uid: "00000000-0000-0000-0000-000000000000".into(),
        ..pod.clone()
    };
    assert_eq!(
        bind(client, &earlier, "n1", &task()).await.unwrap(),
        Bound::Gone
    );
    let missing = PodRef {
        name: "missing".into(),
        ..pod
    };
    assert_eq!(
        bind(client, &missing, "n1", &task()).await.unwrap(),
        Bound::Gone
    );

    let gated = json!({"spec": {"schedulingGates": [{"name": "example.com/wait"}]}});
    let (gated, _) = make_pod(cluster, "gated", gated).await;
    let error = bind(client, &gated, "n1", &task()).await.unwrap_err();
    assert_ne!(error.retry(), Retry::Later, "{error}");
}

async fn a_pod_waits_with_a_reason_that_people_know(cluster: &Cluster) {
    let client = &cluster.framework;
    let (reference, pod) = make_pod(cluster, "waiting", json!({})).await;
    let message = "0/1 nodes are available: 1 Insufficient cpu.";
    pods::mark_waiting(client, &reference, &pod, WaitReason::Unschedulable, message)
        .await
        .unwrap();
    let stored = api(cluster).get("waiting").await.unwrap();
    let conditions = stored.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let scheduled = conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled")
        .unwrap();
    assert_eq!(scheduled.reason.as_deref(), Some("Unschedulable"));
    assert_eq!(scheduled.message.as_deref(), Some(message));

    let (recorder, writer) = events::spawn(client.clone(), "default-scheduler", "instance-1");
    for _ in 0..3 {
        recorder.publish(Note {
            subject: Subject::Pod(reference.clone()),
            kind: Kind::Warning,
            reason: "FailedScheduling".into(),
            message: message.into(),
        });
    }
    recorder.publish(Note {
        subject: Subject::Node {
            name: "n1".into(),
            uid: None,
        },
        kind: Kind::Normal,
        reason: "NodeStarting".into(),
        message: "The node starts.".into(),
    });
    drop(recorder);
    tokio::time::timeout(cluster::DEADLINE, writer)
        .await
        .unwrap()
        .unwrap();
    let events: Api<Event> = Api::namespaced(cluster.admin.clone(), "default");
    // As `kubectl describe pod` looks for them.
    let selector = format!(
        "involvedObject.name=waiting,involvedObject.uid={}",
        reference.uid
    );
    let found = events
        .list(&ListParams::default().fields(&selector))
        .await
        .unwrap()
        .items;
    let [event] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(
        (event.count, event.message.as_deref()),
        (Some(3), Some(message))
    );
    let selector = "involvedObject.kind=Node,involvedObject.uid=n1";
    assert_eq!(
        events
            .list(&ListParams::default().fields(selector))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

async fn evictions_keep_to_the_budget_and_dead_pods_are_failed_before_they_go(cluster: &Cluster) {
    let client = &cluster.framework;
    nodes::ensure(client, &record("n1")).await.unwrap();

    let (kept, _) = make_pod(cluster, "kept", json!({})).await;
    bind(client, &kept, "n1", &task()).await.unwrap();
    set_running(cluster, &kept).await;
    cluster
        .create(&json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "kept", "namespace": "default"},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "kept"}}},
        }))
        .await;
    // The API server learns of the budget by its own watch.
    let refused = eventually("the budget refuses", async || {
        match pods::evict(client, &kept, None).await.unwrap() {
            Evicted::NotNow { message, .. } => Some(message),
            _ => None,
        }
    })
    .await;
    assert!(refused.contains("disruption budget"), "{refused}");
    assert!(
        api(cluster)
            .get("kept")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_none()
    );

    let (moved, _) = make_pod(cluster, "moved", json!({})).await;
    let earlier = PodRef {
        uid: "another".into(),
        ..moved.clone()
    };
    assert_eq!(
        pods::evict(client, &earlier, Some(0)).await.unwrap(),
        Evicted::Gone
    );
    assert_eq!(
        pods::evict(client, &moved, Some(0)).await.unwrap(),
        Evicted::Yes
    );
    assert_eq!(
        pods::evict(client, &moved, Some(0)).await.unwrap(),
        Evicted::Gone
    );

    // A finalizer keeps the object, so that its last state can be seen.
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let (dead, _) = make_pod(cluster, "dead", held).await;
    bind(client, &dead, "n1", &task()).await.unwrap();
    set_running(cluster, &dead).await;
    let current = api(cluster).get("dead").await.unwrap();
    let why = Disruption {
        reason: "ExecutorTerminated".into(),
        message: "The executor of node n1 has terminated.".into(),
    };
    let impostor = PodRef {
        uid: "another".into(),
        ..dead.clone()
    };
    assert!(
        !pods::fail_and_delete(client, &impostor, &current, &why)
            .await
            .unwrap()
    );
    assert!(
        pods::fail_and_delete(client, &dead, &current, &why)
            .await
            .unwrap()
    );
    let last = api(cluster).get("dead").await.unwrap();
    assert!(last.metadata.deletion_timestamp.is_some());
    let status = last.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let target = status
        .conditions
        .unwrap()
        .into_iter()
        .find(|c| c.type_ == "DisruptionTarget")
        .unwrap();
    assert_eq!(
        (target.status.as_str(), target.reason.as_deref()),
        ("True", Some("ExecutorTerminated"))
    );
}

#[tokio::test]
async fn pods_are_bound_explained_evicted_and_ended() {
    let Some(cluster) = cluster::start().await else {
        return;
    };
    a_pod_is_bound_once_and_carries_its_task(&cluster).await;
    a_pod_waits_with_a_reason_that_people_know(&cluster).await;
    evictions_keep_to_the_budget_and_dead_pods_are_failed_before_they_go(&cluster).await;
}
