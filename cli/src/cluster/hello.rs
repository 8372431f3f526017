//! The example: applied as any user would, and waited for until it answers.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::api::{Cluster, node_address, node_is_ready, pod_is_ready, pod_status};
use super::{Error, prepare};

/// The manifests, as they lie in `examples/hello`.
pub const MANIFESTS: &str = include_str!("../../../examples/hello/hello.yaml");
/// The example's name: of its Deployment and its Service.
pub const NAME: &str = "hello";
/// The port at which every node serves it.
pub const NODE_PORT: u16 = 30080;

/// The example's objects.
pub fn objects() -> Result<Vec<Value>, Error> {
    serde_yaml::Deserializer::from_str(MANIFESTS)
        .map(Value::deserialize)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::api("read examples/hello/hello.yaml", &e))
}

/// What is known about the example while one waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not yet, and why.
    Waiting(String),
    /// It answered.
    Answered {
        /// Where.
        url: String,
        /// The first line of what it said.
        text: String,
    },
}

/// Looks once.
pub async fn look(cluster: &Cluster) -> Result<Progress, Error> {
    let Some(deployment) = cluster.deployment("default", NAME).await? else {
        return Ok(Progress::Waiting(
            "the Deployment is not there yet".to_owned(),
        ));
    };
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let ready = deployment
        .status
        .as_ref()
        .and_then(|s| s.ready_replicas)
        .unwrap_or(0);
    if ready < wanted {
        return Ok(Progress::Waiting(
            why_not_ready(cluster, ready, wanted).await?,
        ));
    }
    let nodes = cluster.nodes().await?;
    let Some(address) = nodes
        .iter()
        .filter(|n| node_is_ready(n))
        .find_map(node_address)
    else {
        return Ok(Progress::Waiting("no node is ready".to_owned()));
    };
    let url = format!("http://{address}:{NODE_PORT}/");
    Ok(match fetch(&url).await {
        Ok(text) => Progress::Answered { url, text },
        Err(reason) => Progress::Waiting(format!("{url} does not answer yet: {reason}")),
    })
}

async fn why_not_ready(cluster: &Cluster, ready: i32, wanted: i32) -> Result<String, Error> {
    let pods = cluster.pods(Some("default"), Some("app=hello")).await?;
    let mut text = format!("{ready} of {wanted} pods are ready");
    let first = pods.iter().find(|p| !pod_is_ready(p));
    if let Some(pod) = first {
        let name = pod.metadata.name.clone().unwrap_or_default();
        text.push_str(&format!("; {name} is {}", pod_status(pod)));
        if let Some(warning) = cluster.last_warning("default", &name).await? {
            text.push_str(&format!(" ({warning})"));
        }
    }
    Ok(text)
}

async fn fetch(url: &str) -> Result<String, String> {
    let client = crate::http::client(None, Duration::from_secs(3)).map_err(|e| e.to_string())?;
    let response = client
        .get(url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|e| crate::error::chain(&e.without_url()))?;
    let body = response.text().await.map_err(|e| crate::error::chain(&e))?;
    Ok(body.lines().next().unwrap_or_default().to_owned())
}

/// Waits until the example answers. `on_wait` hears why it does not yet.
pub async fn wait(
    cluster: &Cluster,
    deadline: Instant,
    mut on_wait: impl FnMut(&str),
) -> Result<Result<(String, String), String>, Error> {
    loop {
        let (reason, error) = match look(cluster).await {
            Ok(Progress::Answered { url, text }) => return Ok(Ok((url, text))),
            Ok(Progress::Waiting(reason)) => (reason, None),
            Err(error) => (error.to_string(), Some(error)),
        };
        on_wait(&reason);
        if Instant::now() >= deadline {
            return match error {
                Some(error) => Err(error),
                None => Ok(Err(reason)),
            };
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Whether the manifests name the image that is built.
pub fn names_the_built_image() -> bool {
    MANIFESTS.contains(prepare::HELLO_IMAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_deployment_and_a_service_of_the_image_that_is_built() {
        let objects = objects().unwrap();
        let kinds: Vec<_> = objects
            .iter()
            .map(|o| o["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["Deployment", "Service"]);
        assert!(names_the_built_image());
        assert_eq!(objects[1]["spec"]["ports"][0]["nodePort"], NODE_PORT);
        assert!(objects.iter().all(|o| o["metadata"]["name"] == NAME));
    }
}
