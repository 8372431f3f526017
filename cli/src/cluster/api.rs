//! The Kubernetes API, as far as `k8sm` itself uses it: objects without types, applied
//! server-side.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind};
use kube::{Client, Config};
use packaging::addons::FIELD_MANAGER;
use serde_json::Value;

use super::Error;

/// One call's time. The API server of a machine under load answers late.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// A client of the instance's API server.
pub struct Cluster {
    client: Client,
    kinds: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>,
}

/// Kubelets renew their leases every 10 s, and the controller manager takes a node for lost after
/// 50 s of silence. Who was heard within this time lives.
pub const LEASE_AGE: Duration = Duration::from_secs(40);

impl Cluster {
    /// Connects with a kubeconfig. Must be called within a runtime; opens no connection yet.
    pub async fn connect(kubeconfig: &Path) -> Result<Self, Error> {
        let action = || format!("read {}", kubeconfig.display());
        let file = Kubeconfig::read_from(kubeconfig).map_err(|e| Error::api(action(), &e))?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|e| Error::api(action(), &e))?;
        // To loopback: never through a proxy of the environment.
        config.proxy_url = None;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(CALL_DEADLINE);
        let client =
            Client::try_from(config).map_err(|e| Error::api("set up a Kubernetes client", &e))?;
        Ok(Self {
            client,
            kinds: HashMap::new(),
        })
    }

    /// The client itself.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Applies objects in order, with a few tries each: a kind's API may only just be coming up.
    pub async fn apply(&mut self, objects: &[Value], deadline: Instant) -> Result<(), Error> {
        for object in objects {
            let mut pause = Duration::from_millis(100);
            while let Err(error) = self.apply_one(object).await {
                if Instant::now() + pause >= deadline {
                    return Err(error);
                }
                tracing::debug!("{error}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
        Ok(())
    }

    async fn apply_one(&mut self, object: &Value) -> Result<(), Error> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&object["metadata"]["name"]);
        let what = format!("apply {} {name}", text(&object["kind"]));
        let (resource, scope) = self.kind(object, &what).await?;
        let api: Api<DynamicObject> = match (scope, object["metadata"]["namespace"].as_str()) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            (Scope::Namespaced, None) => {
                Api::default_namespaced_with(self.client.clone(), &resource)
            }
            (Scope::Cluster, _) => Api::all_with(self.client.clone(), &resource),
        };
        // `force`: fields that somebody else has changed since are ours again.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(object))
            .await
            .map_err(|e| Error::api(what, &e))?;
        Ok(())
    }

    async fn kind(&mut self, object: &Value, what: &str) -> Result<(ApiResource, Scope), Error> {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = object["kind"].as_str().unwrap_or_default();
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) = match self.kinds.get(&gvk) {
            Some(known) => known.clone(),
            None => {
                let found = pinned_kind(&self.client, &gvk)
                    .await
                    .map_err(|e| Error::api(what, &e))?;
                self.kinds.insert(gvk, found.clone());
                found
            }
        };
        Ok((resource, capabilities.scope))
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let list = api.list(&ListParams::default()).await;
        Ok(list.map_err(|e| Error::api("list nodes", &e))?.items)
    }

    /// Nodes that are ready and have been heard since a moment: a Node object keeps saying "ready"
    /// for a while after its kubelet has ended.
    pub async fn nodes_alive_since(&self, moment: SystemTime) -> Result<Vec<Alive>, Error> {
        let heard = self.nodes_heard_since(moment).await?;
        let nodes = self.nodes().await?;
        Ok(nodes
            .into_iter()
            .filter(node_is_ready)
            .filter_map(|node| {
                Some(Alive {
                    has_said_so: has_reported_since(&node, moment),
                    name: node.metadata.name?,
                })
            })
            .filter(|node| heard.contains(&node.name))
            .collect())
    }

    /// Names of nodes whose kubelets have renewed their leases since a moment.
    pub async fn nodes_heard_since(&self, moment: SystemTime) -> Result<Vec<String>, Error> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let leases = leases.list(&ListParams::default()).await;
        let leases = leases.map_err(|e| Error::api("list the nodes' leases", &e))?;
        Ok(leases
            .items
            .into_iter()
            .filter(|lease| {
                lease
                    .spec
                    .as_ref()
                    .and_then(|s| s.renew_time.as_ref())
                    .is_some_and(|time| SystemTime::from(time.0) > moment)
            })
            .filter_map(|lease| lease.metadata.name)
            .collect())
    }

    /// Pods of one namespace or of all, optionally with a label selector.
    pub async fn pods(
        &self,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<Pod>, Error> {
        let api: Api<Pod> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut params = ListParams::default();
        if let Some(labels) = labels {
            params = params.labels(labels);
        }
        let list = api.list(&params).await;
        Ok(list.map_err(|e| Error::api("list pods", &e))?.items)
    }

    /// A deployment, if there is one of that name.
    pub async fn deployment(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Deployment>, Error> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name)
            .await
            .map_err(|e| Error::api(format!("read deployment {name}"), &e))
    }

    /// The newest warning about a pod: `reason: message`.
    pub async fn last_warning(&self, namespace: &str, pod: &str) -> Result<Option<String>, Error> {
        let api = Api::namespaced(self.client.clone(), namespace);
        let newest = newest_warning(api, &format!("involvedObject.name={pod}")).await?;
        Ok(newest.map(|e| said(&e)))
    }

    /// The newest warnings about anything: when, what about, and the text.
    pub async fn warnings(&self, most: usize) -> Result<Vec<Value>, Error> {
        let api: Api<Event> = Api::all(self.client.clone());
        let params = ListParams::default().fields("type=Warning").limit(1000);
        let list = api.list(&params).await;
        let mut events = list.map_err(|e| Error::api("list events", &e))?.items;
        events.sort_by_key(|event| std::cmp::Reverse(when(event)));
        Ok(events.iter().take(most).map(warning).collect())
    }

    /// The newest warning about a pod that no node has taken: `pod: reason: message`.
    pub async fn last_failed_scheduling(&self) -> Result<Option<String>, Error> {
        let api = Api::all(self.client.clone());
        let newest = newest_warning(api, "reason=FailedScheduling").await?;
        Ok(newest.map(|e| {
            let pod = e.involved_object.name.clone().unwrap_or_default();
            format!("{pod}: {}", said(&e))
        }))
    }
}

/// Of at most 50 that are asked for.
async fn newest_warning(api: Api<Event>, fields: &str) -> Result<Option<Event>, Error> {
    let params = ListParams::default()
        .fields(&format!("{fields},type=Warning"))
        .limit(50);
    let list = api.list(&params).await;
    let events = list.map_err(|e| Error::api("list events", &e))?.items;
    Ok(events.into_iter().max_by_key(when))
}

/// When an event was seen last.
fn when(event: &Event) -> Option<SystemTime> {
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    last.or_else(|| event.event_time.as_ref().map(|t| t.0))
        .map(SystemTime::from)
}

fn warning(event: &Event) -> Value {
    let about = &event.involved_object;
    serde_json::json!({
        "last": event.last_timestamp.as_ref().map(|t| t.0.to_string()),
        "count": event.count,
        "kind": about.kind,
        "namespace": about.namespace,
        "name": about.name,
        "text": said(event),
    })
}

fn said(event: &Event) -> String {
    format!(
        "{}: {}",
        event.reason.as_deref().unwrap_or_default(),
        event.message.as_deref().unwrap_or_default()
    )
}

/// A node that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// Its name.
    pub name: String,
    /// Whether its kubelet has reported its state since the moment that was asked for. One that
    /// just started renews its lease before that, and one that goes on reports every five minutes.
    pub has_said_so: bool,
}

fn has_reported_since(node: &Node, moment: SystemTime) -> bool {
    // Times of conditions have whole seconds.
    let moment = moment - std::time::Duration::from_secs(1);
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| {
        let heard = c.last_heartbeat_time.as_ref();
        c.type_ == "Ready" && heard.is_some_and(|time| SystemTime::from(time.0) > moment)
    })
}

/// Whether a node says that it is ready.
pub fn node_is_ready(node: &Node) -> bool {
    node.status
        .as_ref()
        .and_then(|s| s.conditions.as_ref())
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
        })
}

/// A node's InternalIP.
pub fn node_address(node: &Node) -> Option<String> {
    node.status
        .as_ref()?
        .addresses
        .as_ref()?
        .iter()
        .find(|a| a.type_ == "InternalIP")
        .map(|a| a.address.clone())
}

/// Whether a pod says that it is ready.
pub fn pod_is_ready(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .and_then(|s| s.conditions.as_ref())
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
        })
}

/// Why a pod is not ready, in a few words: what kubectl shows in STATUS.
pub fn pod_status(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "Unknown".to_owned();
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    let waiting = containers
        .filter_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .find(|reason| reason != "PodInitializing");
    waiting
        .or_else(|| status.reason.clone())
        .or_else(|| status.phase.clone())
        .unwrap_or_else(|| "Unknown".to_owned())
}
