//! Watches this node's pods.

use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::view::{self, TrimmedPod};
use crate::credentials::api::{ApiAccess, PENDING_EVENTS, follow};
use crate::report::{NodeEvent, PodObservation};

/// Watches the pods that are bound to `node` until `stop` and sends what happens, in order.
pub async fn watch(
    access: &ApiAccess,
    node: &str,
    events: &mpsc::Sender<NodeEvent>,
    stop: &CancellationToken,
) {
    let resource = view::pod_resource();
    let scope = |client: Client| Api::<TrimmedPod>::all_with(client, &resource);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut translate = Translate::default();
    let (tx, mut rx) = mpsc::channel(PENDING_EVENTS);
    let handle = async {
        while let Some(event) = rx.recv().await {
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
