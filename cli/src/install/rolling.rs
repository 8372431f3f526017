//! Tells the framework whether to bring its nodes to another revision, and reads how far it is: by way
//! of its ConfigMap ([`packaging::install::rolling`]).

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, Patch, PatchParams};
use packaging::install::rolling::{ORDER, Order, PROGRESS, Progress, Verdict, Watch};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::actions::{Outcome, super_client};
use super::work::Work;
use super::{Error, Home};
use crate::cluster;
use crate::cluster::api::Cluster;

/// How long the API server may take for one question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Most nodes whose conditions are asked for in one look.
const ASKED: usize = 5;

/// The nodes' roll-out of a cluster.
pub struct Rolling {
    cluster: Cluster,
    name: String,
}

impl Rolling {
    /// By the kubeconfig of an installation: the one for people, else the one for this program.
    pub async fn connect(home: &Home, name: &str) -> Result<Self, Error> {
        let mut last = None;
        for path in [home.kubeconfig(), home.super_kubeconfig()] {
            if !path.is_file() {
                continue;
            }
            let cluster = Cluster::connect(&path).await?;
            let rolling = Self {
                cluster,
                name: name.to_owned(),
            };
            match rolling.read().await {
                Ok(_) => return Ok(rolling),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::State("there is no kubeconfig yet".to_owned())))
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.client(), "kube-system")
    }

    fn map(&self) -> String {
        format!("k8sm-{}", self.name)
    }

    /// What was ordered last, and what the framework has said last.
    pub async fn read(&self) -> Result<(Order, Option<Progress>), Error> {
        let what = "read how far the nodes are";
        let name = self.map();
        let maps = self.maps();
        let found = answered(what, maps.get_opt(&name)).await?;
        let data = found.and_then(|map| map.data).unwrap_or_default();
        let order = data.get(ORDER).and_then(|t| serde_json::from_str(t).ok());
        let progress = data.get(PROGRESS).map(|text| serde_json::from_str(text));
        Ok((order.unwrap_or_default(), progress.and_then(Result::ok)))
    }

    /// Writes an order, and returns its id.
    pub async fn order(&self, pause: bool) -> Result<String, Error> {
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let order = Order {
            id: format!("{:016x}", rand::random::<u64>()),
            paused_since: pause.then(|| now.format(&Rfc3339).unwrap_or_default()),
        };
        let patch = Patch::Merge(json!({"data": {ORDER: json!(order).to_string()}}));
        let (name, maps, params) = (self.map(), self.maps(), PatchParams::default());
        let what = "tell the framework about its nodes";
        answered(what, maps.patch(&name, &params, &patch)).await?;
        Ok(order.id)
    }

    /// Lets the framework take no further node, and waits until those that it has taken are
    /// done. Returns how far it is; `say` hears what is waited for.
    pub async fn pause(
        &self,
        patience: Duration,
        mut say: impl FnMut(&str),
    ) -> Result<Progress, Error> {
        let id = self.order(true).await?;
        let begun = Instant::now();
        loop {
            let problem = match self.read().await {
                Ok((_, Some(progress))) if progress.order == id => {
                    if progress.working.is_empty() {
                        return Ok(progress);
                    }
                    format!(
                        "the framework is at work on {}",
                        progress.working.join(", ")
                    )
                }
                Ok(_) => "the framework has not answered yet".to_owned(),
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > patience {
                return Err(Error::State(format!(
                    "no further node is taken, but after {} s {problem}",
                    patience.as_secs()
                )));
            }
            say(&problem);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// What Kubernetes knows about a node that is not Ready.
    async fn trouble(&self, node: &str) -> Option<String> {
        let api: Api<Node> = Api::all(self.cluster.client());
        let found = tokio::time::timeout(PATIENCE, api.get_opt(node)).await;
        let Ok(Ok(found)) = found else {
            return None;
        };
        let Some(found) = found else {
            return Some("its Node object is gone".to_owned());
        };
        let conditions = found.status.and_then(|s| s.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|c| c.type_ == "Ready")?;
        (ready.status != "True").then(|| {
            let reason = ready.reason.unwrap_or_default();
            let message = ready.message.unwrap_or_default();
            format!("Ready is {}: {reason}, {message}", ready.status)
        })
    }
}

async fn answered<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(done) => Ok(done.map_err(|e| cluster::Error::api(what, &e))?),
        Err(_) => Err(Error::Cluster(cluster::Error::Api {
            action: what.to_owned(),
            reason: format!("no answer within {} s", PATIENCE.as_secs()),
        })),
    }
}

/// A roll-out that is waited for.
pub struct Follow {
    rolling: Rolling,
    watch: Watch,
}

/// One look at the nodes. The first one tells the framework to go on.
pub(super) async fn follow(work: &mut Work<'_>) -> Result<Outcome, Error> {
    if work.follow.is_none() {
        let Some(cluster) = super_client(work).await? else {
            return Ok(Outcome::NotYet("no API server answers".to_owned()));
        };
        let rolling = Rolling {
            cluster,
            name: work.record.name.clone(),
        };
        let watch = Watch::new(&rolling.order(false).await?);
        work.follow = Some(Follow { rolling, watch });
    }
    let Some(follow) = work.follow.as_mut() else {
        return Ok(Outcome::NotYet(String::new()));
    };
    let progress = match follow.rolling.read().await {
        Ok((_, progress)) => progress,
        Err(error) => {
            // That API server may be gone for good. The order stands.
            if let Some(cluster) = super_client(work).await?
                && let Some(follow) = work.follow.as_mut()
            {
                follow.rolling.cluster = cluster;
            }
            return Ok(Outcome::NotYet(error.to_string()));
        }
    };
    let waited_for = progress
        .iter()
        .flat_map(|p| p.working.iter().chain(&p.silent));
    let mut troubles = Vec::new();
    for node in waited_for.take(ASKED) {
        troubles.push((node.clone(), follow.rolling.trouble(node).await));
    }
    let trouble = |node: &str| {
        let found = troubles.iter().find(|(name, _)| name == node);
        found.and_then(|(_, trouble)| trouble.clone())
    };
    Ok(match follow.watch.judge(progress.as_ref(), trouble) {
        Verdict::Done(text) => Outcome::Done(text),
        Verdict::Wait(text) => Outcome::NotYet(text),
        Verdict::Moved(text) => Outcome::Moved(text),
        Verdict::Failed(text) => return Err(Error::Nodes(text)),
    })
}
