//! `k8sm ps`: what runs, seen from both sides: pods, and the Mesos tasks, agents and containers
//! that they are.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Serialize;

use super::{print, runtime, table};
use crate::args::{Format, Ps};
use crate::cluster::api::{Cluster, pod_is_ready, pod_status};
use crate::error::Error;
use crate::instance::Paths;

/// Pod annotation with its Mesos task. The names are a contract with users (seam::names).
const TASK_ID: &str = "k8s.mesosphere.io/task-id";
/// Node annotation with its Mesos agent.
const AGENT_ID: &str = "k8s.mesosphere.io/agent-id";
/// Node annotation with that agent's host.
const AGENT_HOSTNAME: &str = "k8s.mesosphere.io/agent-hostname";

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    namespace: String,
    pod: String,
    status: String,
    ready: bool,
    restarts: i32,
    task_id: Option<String>,
    node: Option<String>,
    agent_id: Option<String>,
    agent_hostname: Option<String>,
    /// Container ids, without the runtime's name.
    containers: Vec<String>,
}

/// Shows all pods.
pub fn run(paths: &Paths, args: &Ps) -> Result<(), Error> {
    super::settings(paths)?;
    let read = async {
        let cluster = Cluster::connect(&paths.kubeconfig()).await?;
        let pods = cluster.pods(args.namespace.as_deref(), None).await?;
        Ok::<_, crate::cluster::Error>((pods, cluster.nodes().await?))
    };
    let (pods, nodes) = runtime()?.block_on(read)?;
    let lines = lines(&pods, &nodes);
    print(&match args.output {
        Format::Json => format!("{:#}\n", serde_json::json!(lines)),
        Format::Text if lines.is_empty() => "no pods\n".to_owned(),
        Format::Text => text(&lines),
    })
}

fn lines(pods: &[Pod], nodes: &[Node]) -> Vec<Line> {
    let nodes: HashMap<&str, &Node> = nodes
        .iter()
        .filter_map(|n| Some((n.metadata.name.as_deref()?, n)))
        .collect();
    let mut lines: Vec<Line> = pods
        .iter()
        .map(|pod| {
            let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone());
            let annotation = |name: &str| {
                let node = nodes.get(node_name.as_deref()?)?;
                node.metadata.annotations.as_ref()?.get(name).cloned()
            };
            let statuses = pod
                .status
                .as_ref()
                .and_then(|s| s.container_statuses.as_deref())
                .unwrap_or_default();
            Line {
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                pod: pod.metadata.name.clone().unwrap_or_default(),
                status: pod_status(pod),
                ready: pod_is_ready(pod),
                restarts: statuses.iter().map(|s| s.restart_count).sum(),
                task_id: pod
                    .metadata
                    .annotations
                    .as_ref()
                    .and_then(|a| a.get(TASK_ID).cloned()),
                agent_id: annotation(AGENT_ID),
                agent_hostname: annotation(AGENT_HOSTNAME),
                node: node_name,
                containers: statuses
                    .iter()
                    .filter_map(|s| s.container_id.as_deref())
                    .map(|id| id.rsplit('/').next().unwrap_or(id).to_owned())
                    .collect(),
            }
        })
        .collect();
    lines.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
    lines
}

fn text(lines: &[Line]) -> String {
    /// What people copy; the whole is in the JSON.
    const SHORT_CONTAINER: usize = 12;
    let dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|l| {
            let containers: Vec<&str> = l
                .containers
                .iter()
                .map(|c| c.get(..SHORT_CONTAINER).unwrap_or(c))
                .collect();
            let agent = match (&l.agent_hostname, &l.agent_id) {
                (Some(host), Some(id)) => {
                    format!("{host} ({})", id.rsplit('-').next().unwrap_or(id))
                }
                (Some(one), None) | (None, Some(one)) => one.clone(),
                (None, None) => "-".to_owned(),
            };
            vec![
                l.namespace.clone(),
                l.pod.clone(),
                if l.ready { "yes" } else { "no" }.to_owned(),
                l.status.clone(),
                l.restarts.to_string(),
                dash(&l.task_id),
                dash(&l.node),
                agent,
                if containers.is_empty() {
                    "-".to_owned()
                } else {
                    containers.join(",")
                },
            ]
        })
        .collect();
    table(
        &[
            "NAMESPACE",
            "POD",
            "READY",
            "STATUS",
            "RESTARTS",
            "MESOS TASK",
            "NODE",
            "AGENT",
            "CONTAINERS",
        ],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_json<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn pods_are_shown_with_their_task_agent_and_containers() {
        let node: Node = from_json(serde_json::json!({
            "metadata": {"name": "agent-1", "annotations": {
                AGENT_ID: "0b6a8d3c-S0", AGENT_HOSTNAME: "agent-1.example.org",
            }},
        }));
        let running: Pod = from_json(serde_json::json!({
            "metadata": {
                "name": "hello-1", "namespace": "default",
                "annotations": {TASK_ID: "1f.0000beef"},
            },
            "spec": {"nodeName": "agent-1", "containers": []},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "hello", "image": "i", "imageID": "i", "ready": true,
                    "restartCount": 2, "containerID": "containerd://0123456789abcdef",
                }],
            },
        }));
        let pending: Pod = from_json(serde_json::json!({
            "metadata": {"name": "big", "namespace": "default"},
            "spec": {"containers": []},
            "status": {"phase": "Pending"},
        }));
        insta::assert_snapshot!(text(&lines(&[running, pending], &[node])));
    }
}
