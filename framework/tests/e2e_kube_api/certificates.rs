//! A node's way to its certificates, with a real authority.

use std::sync::Arc;
use std::time::Duration;

use framework::kube::bootstrap::{self, BootstrapToken};
use framework::kube::csr::{
    CLIENT, Decision, KUBELET_CLIENT, KUBELET_SERVING, KnownNode, KnownNodes,
};
use framework::kube::{approver, nodes};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use seam::names::PROXY_GROUP;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, DEADLINE, eventually};
use crate::nodes::record;
use crate::pki::{Pair, Request, request};

async fn ask(client: &Client, name: &str, signer: &str, request: &Request) {
    let purpose = if signer == KUBELET_SERVING {
        "server auth"
    } else {
        "client auth"
    };
    let csr: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "request": k8s_openapi::ByteString(request.pem.clone().into_bytes()),
            "signerName": signer,
            "usages": ["digital signature", purpose],
        },
    }))
    .unwrap();
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    api.create(&PostParams::default(), &csr).await.unwrap();
}

async fn issued(client: &Client, name: &str, request: Request) -> Pair {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let certificate = eventually(name, async || {
        api.get(name).await.unwrap().status?.certificate
    })
    .await;
    Pair {
        certificate: String::from_utf8(certificate.0).unwrap(),
        key: request.key,
    }
}

async fn denial(client: &Client, name: &str) -> String {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    eventually(name, async || {
        let conditions = api.get(name).await.unwrap().status?.conditions?;
        let denied = conditions.into_iter().find(|c| c.type_ == "Denied")?;
        denied.message
    })
    .await
}

#[tokio::test]
async fn a_new_node_gets_its_certificates_and_no_others() {
    let Some(mut cluster) = cluster::start().await else {
        return;
    };
    cluster.start_signer();
    let framework = cluster.framework.clone();

    // The framework's part: nodes, tokens, and the approver.
    let mut known = KnownNodes::new();
    let mut tokens = Vec::new();
    for (name, address) in [("n1", "10.0.0.1"), ("n2", "10.0.0.2")] {
        let token = BootstrapToken::generate().unwrap();
        let mut record = record(name);
        let id = token.id().as_str().to_owned();
        record
            .annotations
            .insert(seam::names::BOOTSTRAP_TOKEN.to_owned(), id);
        let (_, node) = nodes::ensure(&framework, &record).await.unwrap();
        assert_eq!(bootstrap::token_of(&node).as_ref(), Some(token.id()));
        let expires = Timestamp::now() + Duration::from_secs(600);
        bootstrap::create(&framework, &token, name, expires)
            .await
            .unwrap();
        let node = KnownNode {
            addresses: [address.parse().unwrap()].into(),
            tokens: [token.id().clone()].into(),
        };
        known.insert(name.to_owned(), node);
        tokens.push(token);
    }
    let (tell_nodes, hear_nodes) = watch::channel(Arc::<KnownNodes>::default());
    let (tell, mut written) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let loop_task = tokio::spawn(approver::run(
        framework.clone(),
        hear_nodes,
        tell,
        stop.clone(),
    ));

    // A node asks before the framework knows it: nothing is lost.
    let starting = cluster.client_with_token(&tokens[0].reveal());
    let wanted = request("system:node:n1", "system:nodes", &[]);
    eventually("the token is accepted", async || {
        let api: Api<CertificateSigningRequest> = Api::all(starting.clone());
        api.list(&kube::api::ListParams::default())
            .await
            .ok()
            .map(drop)
    })
    .await;
    ask(&starting, "n1-client", KUBELET_CLIENT, &wanted).await;
    tell_nodes.send_replace(Arc::new(known));
    let first = tokio::time::timeout(DEADLINE, written.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.request, "n1-client");
    assert!(matches!(first.decision, Decision::Approve { ref node, .. } if node == "n1"));
    let pair = issued(&starting, "n1-client", wanted).await;

    let wanted = request("system:kube-proxy:n1", PROXY_GROUP, &[]);
    ask(&starting, "n1-proxy", CLIENT, &wanted).await;
    let proxy = issued(&starting, "n1-proxy", wanted).await;

    // The kubelet, with its new identity.
    let kubelet = cluster.client_with("kubelet-n1", &pair).await;
    let wanted = request("system:node:n1", "system:nodes", &["n1", "10.0.0.1"]);
    ask(&kubelet, "n1-serving", KUBELET_SERVING, &wanted).await;
    issued(&kubelet, "n1-serving", wanted).await;
    let stolen = request("system:node:n1", "system:nodes", &["10.0.0.2"]);
    ask(&kubelet, "n1-stolen", KUBELET_SERVING, &stolen).await;
    assert_eq!(
        denial(&kubelet, "n1-stolen").await,
        "Denied: the address 10.0.0.2 is not the node's."
    );

    // kube-proxy renews with its own identity.
    let proxy = cluster.client_with("proxy-n1", &proxy).await;
    let wanted = request("system:kube-proxy:n1", PROXY_GROUP, &[]);
    ask(&proxy, "n1-proxy-again", CLIENT, &wanted).await;
    issued(&proxy, "n1-proxy-again", wanted).await;

    // A token of one node is of no use for another.
    ask(
        &starting,
        "n2-stolen",
        KUBELET_CLIENT,
        &request("system:node:n2", "system:nodes", &[]),
    )
    .await;
    let why = denial(&starting, "n2-stolen").await;
    assert!(why.contains("expected `system:node:n1`"), "{why}");

    // Used tokens are worthless, and deleting one twice is no error.
    bootstrap::delete(&framework, tokens[0].id()).await.unwrap();
    bootstrap::delete(&framework, tokens[0].id()).await.unwrap();
    eventually("the token is refused", async || {
        let api: Api<CertificateSigningRequest> = Api::all(starting.clone());
        api.get("n1-client").await.is_err().then_some(())
    })
    .await;
    let secrets: Api<Secret> = Api::namespaced(framework, "kube-system");
    assert!(
        secrets
            .list(&kube::api::ListParams::default())
            .await
            .is_err(),
        "the framework reads no secrets"
    );

    stop.cancel();
    tokio::time::timeout(DEADLINE, loop_task)
        .await
        .unwrap()
        .unwrap();
}
