//! Watches this node's pods.

use std::collections::{BTreeMap, BTreeSet};

use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::view::{self, TrimmedPod};
use crate::credentials::api::{ApiAccess, PENDING_EVENTS, follow};
use crate::network::loopback::LoopbackPort;
use crate::report::{NodeEvent, PodObservation};

/// Watches the pods that are bound to `node` until `stop` and sends what happens, in order, and
/// which ports of loopback addresses are theirs.
pub async fn watch(
    access: &ApiAccess,
    node: &str,
    events: &mpsc::Sender<NodeEvent>,
    loopback: &watch::Sender<Option<BTreeSet<LoopbackPort>>>,
    stop: &CancellationToken,
) {
    let resource = view::pod_resource();
    let scope = |client: Client| Api::<TrimmedPod>::all_with(client, &resource);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut translate = Translate::default();
    let mut ports = LoopbackPorts::default();
    let (tx, mut rx) = mpsc::channel(PENDING_EVENTS);
    let handle = async {
        while let Some(event) = rx.recv().await {
            let all = ports.event(&event);
            if all.is_some() {
                loopback.send_if_modified(|known| std::mem::replace(known, all.clone()) != all);
            }
            if let Some(event) = translate.event(event) {
                // No receiver: the executor ends.
                let _ = events.send(event).await;
            }
        }
    };
    tokio::join!(follow(access, scope, config, stop, tx), handle);
}

/// Turns watch events into ours: a list is one event.
#[derive(Default)]
struct Translate {
    listing: Vec<PodObservation>,
}

impl Translate {
    fn event(&mut self, event: watcher::Event<TrimmedPod>) -> Option<NodeEvent> {
        match event {
            watcher::Event::Init => {
                self.listing.clear();
                None
            }
            watcher::Event::InitApply(pod) => {
                self.listing.extend(view::observe(&pod));
                None
            }
            watcher::Event::InitDone => Some(NodeEvent::Listed(std::mem::take(&mut self.listing))),
            watcher::Event::Apply(pod) => view::observe(&pod).map(NodeEvent::Pod),
            watcher::Event::Delete(pod) => pod.metadata.uid.map(|uid| NodeEvent::PodGone { uid }),
        }
    }
}

/// Ports of loopback addresses, by pod. Few pods have any, so only those are kept.
#[derive(Default)]
struct LoopbackPorts {
    of: BTreeMap<String, Vec<LoopbackPort>>,
    listing: bool,
}

impl LoopbackPorts {
    /// All of them after an event; `None` while a list is incomplete, so that none is missed meanwhile.
    fn event(&mut self, event: &watcher::Event<TrimmedPod>) -> Option<BTreeSet<LoopbackPort>> {
        match event {
            watcher::Event::Init => {
                self.of.clear();
                self.listing = true;
            }
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let uid = pod.metadata.uid.clone()?;
                let ports = view::loopback_ports(pod);
                if ports.is_empty() {
                    self.of.remove(&uid);
                } else {
                    self.of.insert(uid, ports);
                }
            }
            watcher::Event::InitDone => self.listing = false,
            watcher::Event::Delete(pod) => {
                self.of.remove(pod.metadata.uid.as_ref()?);
            }
        }
        (!self.listing).then(|| self.of.values().flatten().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> TrimmedPod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns", "name": uid, "uid": uid}, "spec": {},
        }))
        .unwrap()
    }

    #[test]
    fn a_list_is_one_event_and_an_interrupted_one_is_forgotten() {
        let mut translate = Translate::default();
        let events = [
            watcher::Event::Init,
            watcher::Event::InitApply(pod("lost")),
            watcher::Event::Init,
            watcher::Event::InitApply(pod("a")),
            watcher::Event::InitApply(pod("b")),
            watcher::Event::InitDone,
            watcher::Event::Apply(pod("c")),
            watcher::Event::Delete(pod("a")),
        ];
        let out: Vec<NodeEvent> = events
            .into_iter()
            .filter_map(|e| translate.event(e))
            .collect();
        let names: Vec<String> = out
            .iter()
            .map(|e| match e {
                NodeEvent::Listed(all) => format!(
                    "listed {}",
                    all.iter()
                        .map(|p| p.pod.uid.as_str())
                        .collect::<Vec<_>>()
                        .join(" ")
                ),
                NodeEvent::Pod(p) => format!("pod {}", p.pod.uid),
                NodeEvent::PodGone { uid } => format!("gone {uid}"),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(names, ["listed a b", "pod c", "gone a"]);
    }
}
