//! The loop around [`super::csr`]: watches CertificateSigningRequests and writes decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::api::{ApiError, Retry, call};
use super::csr::{Decision, KnownNodes, decide};

/// How often undecided requests are looked at again without an event, for those whose decision
/// could not be written.
const AGAIN: Duration = Duration::from_secs(5);
/// Undecided requests that are remembered. More are dropped until the next listing.
const MAX_PENDING: usize = 4096;

/// A decision that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Name of the request.
    pub request: String,
    /// What was decided.
    pub decision: Decision,
}

/// Approves and denies until cancelled. `nodes` is the framework's view of its nodes; a change
/// makes the loop look again, so the order of watching requests and knowing nodes does not
/// matter. `written` hears of decisions; nobody needs to listen.
pub async fn run(
    client: Client,
    mut nodes: watch::Receiver<Arc<KnownNodes>>,
    written: mpsc::Sender<Written>,
    stop: CancellationToken,
) {
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let events = watcher(api.clone(), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut pending: BTreeMap<String, CertificateSigningRequest> = BTreeMap::new();
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut nodes_live = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => match event {
                Some(Ok(event)) => note(&mut pending, event),
                Some(Err(error)) => {
                    tracing::warn!(%error, "watch of certificate signing requests broke, trying again");
                    continue;
                }
                None => return,
            },
            changed = nodes.changed(), if nodes_live => nodes_live = changed.is_ok(),
            _ = again.tick() => {}
        }
        let known = nodes.borrow_and_update().clone();
        let round = decide_all(&api, &mut pending, &known, &written);
        tokio::select! {
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

fn note(
    pending: &mut BTreeMap<String, CertificateSigningRequest>,
    event: Event<CertificateSigningRequest>,
) {
    match event {
        Event::Apply(csr) | Event::InitApply(csr) => {
            let Some(name) = csr.metadata.name.clone() else {
                return;
            };
            let open = csr.status.as_ref().is_none_or(|status| {
                status.certificate.is_none() && status.conditions.iter().flatten().next().is_none()
            });
            if open && (pending.len() < MAX_PENDING || pending.contains_key(&name)) {
                pending.insert(name, csr);
            } else {
                pending.remove(&name);
            }
        }
        Event::Delete(csr) => {
            pending.remove(csr.metadata.name.as_deref().unwrap_or_default());
        }
        Event::Init => pending.clear(),
        Event::InitDone => {}
    }
}

async fn decide_all(
    api: &Api<CertificateSigningRequest>,
    pending: &mut BTreeMap<String, CertificateSigningRequest>,
    known: &KnownNodes,
    written: &mpsc::Sender<Written>,
) {
    let decisions: Vec<(String, Decision)> = pending
        .iter()
        .map(|(name, csr)| (name.clone(), decide(csr, known)))
        .filter(|(_, decision)| *decision != Decision::Ignore)
        .collect();
    for (name, decision) in decisions {
        let Some(csr) = pending.get(&name) else {
            continue;
        };
        match write(api, csr, &decision).await {
            Ok(()) => {
                tracing::info!(request = name, ?decision, "decided about a certificate");
                pending.remove(&name);
                // A full or closed channel loses a note, never a decision.
                let _ = written.try_send(Written {
                    request: name,
                    decision,
                });
            }
            Err(error) if error.retry() == Retry::Later => {
                tracing::warn!(%error, "could not write a decision, trying again");
            }
            Err(error) => {
                // Gone, or changed: the watch tells what it is now.
                tracing::debug!(%error, "a request changed before its decision was written");
                pending.remove(&name);
            }
        }
    }
}

async fn write(
    api: &Api<CertificateSigningRequest>,
    csr: &CertificateSigningRequest,
    decision: &Decision,
) -> Result<(), ApiError> {
    let name = csr.metadata.name.as_deref().unwrap_or_default();
    let Some(patch) = patch_for(csr, decision, Timestamp::now()) else {
        return Ok(());
    };
    let params = PatchParams::default();
    call(
        || format!("decide about the certificate signing request {name}"),
        api.patch_approval(name, &params, &Patch::Merge(&patch)),
    )
    .await
    .map(drop)
}

/// The patch of `/approval`. It carries the version that was decided about.
fn patch_for(
    csr: &CertificateSigningRequest,
    decision: &Decision,
    now: Timestamp,
) -> Option<Value> {
    let (kind, reason, message) = match decision {
        Decision::Approve { node, what } => (
            "Approved",
            "K8smNode",
            format!("This is {what} of node {node}, asked for by itself."),
        ),
        Decision::Deny { why } => ("Denied", "K8smNotThisNode", format!("Denied: {why}.")),
        Decision::Ignore => return None,
    };
    Some(json!({
        "metadata": {"resourceVersion": csr.metadata.resource_version},
        "status": {"conditions": [{
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastUpdateTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csr(name: &str, status: Value) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": name, "resourceVersion": "7"},
            "spec": {"request": "", "signerName": "example.com/s"},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn only_open_requests_are_remembered() {
        let mut pending = BTreeMap::new();
        let decided = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        note(&mut pending, Event::InitApply(csr("a", json!({}))));
        note(&mut pending, Event::Apply(csr("b", json!({}))));
        note(&mut pending, Event::Apply(csr("c", decided.clone())));
        assert_eq!(pending.keys().collect::<Vec<_>>(), ["a", "b"]);
        note(&mut pending, Event::Apply(csr("a", decided)));
        note(&mut pending, Event::Delete(csr("b", json!({}))));
        assert!(pending.is_empty());
    }

    #[test]
    fn a_listing_replaces_what_was_remembered() {
        let mut pending = BTreeMap::new();
        note(&mut pending, Event::Apply(csr("gone", json!({}))));
        note(&mut pending, Event::Init);
        note(&mut pending, Event::InitApply(csr("there", json!({}))));
        note(&mut pending, Event::InitDone);
        assert_eq!(pending.keys().collect::<Vec<_>>(), ["there"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut pending = BTreeMap::new();
        for number in 0..MAX_PENDING + 10 {
            note(
                &mut pending,
                Event::Apply(csr(&number.to_string(), json!({}))),
            );
        }
        assert_eq!(pending.len(), MAX_PENDING);
    }

    #[test]
    fn decisions_say_why_and_carry_the_version_that_was_decided_about() {
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        let request = csr("a", json!({}));
        let approve = Decision::Approve {
            node: "n1".into(),
            what: "kubelet's client certificate",
        };
        let deny = Decision::Deny {
            why: "usages are wrong".into(),
        };
        let texts = [approve, deny].map(|d| patch_for(&request, &d, now).unwrap().to_string());
        insta::assert_snapshot!(texts.join("\n"));
        assert_eq!(patch_for(&request, &Decision::Ignore, now), None);
    }
}
