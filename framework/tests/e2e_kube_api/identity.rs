//! The framework id, the election, and the framework's credentials.

use std::time::Duration;

use framework::kube::client::following;
use framework::kube::framework_id::{Replaced, Stored, load_or_store, replace};
use framework::kube::lease::{Leadership, Timing, campaign};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Cluster, DEADLINE};

async fn all_instances_get_the_same_framework_id_and_only_the_expected_one_is_replaced(
    cluster: &Cluster,
) {
    let client = &cluster.framework;
    let instances = (0..8).map(|number| async move {
        load_or_store(client, "kubernetes", || format!("id-{number}"))
            .await
            .unwrap()
    });
    let stored = futures::future::join_all(instances).await;
    let id = stored[0].id.clone();
    assert!(stored.iter().all(|s| s.id == id), "{stored:?}");
    assert_eq!(stored.iter().filter(|s| s.new).count(), 1);

    let again = load_or_store(client, "kubernetes", || unreachable!())
        .await
        .unwrap();
    assert_eq!(
        again,
        Stored {
            id: id.clone(),
            new: false
        }
    );

    let current = Some(id.clone());
    let refused = replace(client, "kubernetes", "stale", "id-x")
        .await
        .unwrap();
    assert_eq!(refused, Replaced::Not { current });
    assert_eq!(
        replace(client, "kubernetes", &id, "id-y").await.unwrap(),
        Replaced::Yes
    );
    let now = load_or_store(client, "kubernetes", || unreachable!())
        .await
        .unwrap();
    assert_eq!(now.id, "id-y");
}

async fn wait_for(listen: &mut watch::Receiver<Leadership>, wanted: impl Fn(&Leadership) -> bool) {
    let reached = listen.wait_for(|now| wanted(now));
    drop(
        tokio::time::timeout(DEADLINE, reached)
            .await
            .unwrap()
            .unwrap(),
    );
}

async fn one_instance_leads_and_a_successor_need_not_wait_for_one_that_ends(cluster: &Cluster) {
    // Long enough that only a lease that was given back is taken within the deadline.
    let timing = Timing {
        duration: DEADLINE * 2,
        renew_deadline: DEADLINE,
        retry_period: Duration::from_millis(100),
    };
    let start = |identity: &str, stop: &CancellationToken| {
        let client = cluster.framework.clone();
        campaign(
            client,
            "k8sm-kubernetes".into(),
            identity.into(),
            timing,
            stop.clone(),
        )
    };
    let (stop_a, stop_b) = (CancellationToken::new(), CancellationToken::new());
    let (mut a, task_a) = start("a", &stop_a);
    wait_for(&mut a, |now| *now == Leadership::Leading).await;
    let (mut b, task_b) = start("b", &stop_b);
    wait_for(&mut b, |now| {
        *now == Leadership::Standby {
            leader: Some("a".into()),
        }
    })
    .await;

    stop_a.cancel();
    wait_for(&mut a, |now| *now == Leadership::Lost).await;
    wait_for(&mut b, |now| *now == Leadership::Leading).await;
    stop_b.cancel();
    for task in [task_a, task_b] {
        tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
    }
}

async fn renewed_credentials_are_picked_up_from_their_files(cluster: &Cluster) {
    let files = cluster.user_files("renewed", "before");
    let client = following(&files.kubeconfig, None, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(user_of(&client).await, "before");

    // A certificate without its key: the old ones stay in use.
    let after = cluster.issue("after");
    std::fs::write(&files.certificate, &after.certificate).unwrap();
    assert_eq!(user_of(&client).await, "before");

    std::fs::write(&files.key, &after.key).unwrap();
    assert_eq!(user_of(&client).await, "after");
}

async fn user_of(client: &Client) -> String {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&review).unwrap())
        .unwrap();
    let answer: Value = client.request(request).await.unwrap();
    answer["status"]["userInfo"]["username"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn the_framework_has_one_id_one_leader_and_current_credentials() {
    let Some(cluster) = cluster::start().await else {
        return;
    };
    all_instances_get_the_same_framework_id_and_only_the_expected_one_is_replaced(&cluster).await;
    one_instance_leads_and_a_successor_need_not_wait_for_one_that_ends(&cluster).await;
    renewed_credentials_are_picked_up_from_their_files(&cluster).await;
}
