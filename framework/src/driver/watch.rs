//! Watches of pods and nodes, as events for the core. No object is kept: each is turned into
//! the view that the core keeps itself.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tokens::Tokens;
use super::view::{self, Viewer};
use crate::core::Event;
use crate::core::ids::{NodeName, PodUid};
use crate::kube::bootstrap;
use crate::kube::slim::SlimPod;

/// Objects per page of a listing.
const PAGE: u32 = 500;

/// The receiver of events is gone: the framework stops.
struct Stopped;

/// Watches pods until `stop`, or until nobody listens.
pub async fn pods(
    client: Client,
    mut viewer: Viewer,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let config = watcher::Config::default().page_size(PAGE);
    let stream = watcher(Api::<SlimPod>::all(client), config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed: HashSet<PodUid> = HashSet::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = stream.try_next() => next,
        };
        let sent = match next {
            Ok(Some(event)) => pod_event(event, &mut viewer, &mut listed, &events).await,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "watch of pods broke, trying again");
                Ok(())
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn pod_event(
    event: watcher::Event<SlimPod>,
    viewer: &mut Viewer,
    listed: &mut HashSet<PodUid>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Stopped> {
    let event = match event {
        watcher::Event::Init => {
            listed.clear();
            return Ok(());
        }
        watcher::Event::InitApply(pod) => match viewer.pod(&pod) {
            Some(view) => {
                listed.insert(view.uid.clone());
                Event::Pod(view)
            }
            None => return Ok(()),
        },
        watcher::Event::InitDone => Event::PodsListed(std::mem::take(listed)),
        watcher::Event::Apply(pod) => match viewer.pod(&pod) {
            Some(view) => Event::Pod(view),
            None => return Ok(()),
        },
        watcher::Event::Delete(pod) => match pod.metadata.uid {
            Some(uid) => {
                let uid = PodUid::from(uid);
                viewer.forget(&uid);
                Event::PodGone(uid)
            }
            None => return Ok(()),
        },
    };
    events.send(event).await.map_err(|_| Stopped)
}

/// Watches nodes until `stop`, or until nobody listens.
pub async fn nodes(
    client: Client,
    tokens: Arc<Tokens>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let config = watcher::Config::default().page_size(PAGE);
    let stream = watcher(Api::<Node>::all(client), config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed: HashSet<NodeName> = HashSet::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = stream.next() => next,
        };
        let event = match next {
            Some(Ok(watcher::Event::Init)) => {
                listed.clear();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(node))) => view::node(&node).map(|view| {
                tokens.seen(view.name.as_str(), bootstrap::token_of(&node));
                listed.insert(view.name.clone());
                Event::Node(Box::new(view))
            }),
            Some(Ok(watcher::Event::InitDone)) => {
                Some(Event::NodesListed(std::mem::take(&mut listed)))
            }
            Some(Ok(watcher::Event::Apply(node))) => view::node(&node).map(|view| {
                tokens.seen(view.name.as_str(), bootstrap::token_of(&node));
                Event::Node(Box::new(view))
            }),
            Some(Ok(watcher::Event::Delete(node))) => node.metadata.name.map(|name| {
                tokens.gone(&name);
                Event::NodeGone(NodeName::from(name))
            }),
            Some(Err(error)) => {
                tracing::warn!(%error, "watch of nodes broke, trying again");
                None
            }
            None => return,
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}
