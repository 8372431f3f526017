//! The Mesos framework id, kept in a ConfigMap and written before it is used first.
//!
//! Mesos accepts any well-formed unknown framework id as new, so the id is chosen here, stored,
//! and only then subscribed with: there is no moment at which it could be lost.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use seam::names::SYSTEM_NAMESPACE;
use serde_json::json;

use super::api::{ApiError, call, unless_missing};

/// Key in the ConfigMap.
const KEY: &str = "framework-id";
/// How often to start over when others write meanwhile.
const ATTEMPTS: usize = 5;

/// Name of the ConfigMap and of the Lease of a framework.
pub fn object_name(framework_name: &str) -> String {
    format!("k8sm-{framework_name}")
}

/// What is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The framework id.
    pub id: String,
    /// Whether it was stored just now, so that Mesos cannot know it yet.
    pub new: bool,
}

/// The stored framework id, or a new one, stored. When several call at once, all get the same.
pub async fn load_or_store(
    client: &Client,
    framework_name: &str,
    generate: impl Fn() -> String,
) -> Result<Stored, ApiError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let map = read(client, framework_name).await?;
        if let Some(id) = map.as_ref().and_then(id_of) {
            return Ok(Stored { id, new: false });
        }
        let id = generate();
        match write(client, framework_name, map.as_ref(), &id).await {
            Ok(()) => return Ok(Stored { id, new: true }),
            Err(error @ (ApiError::Exists { .. } | ApiError::Conflict { .. })) => {
                last = Some(error)
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| too_busy(framework_name)))
}

/// What a replacement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaced {
    /// The new id is stored.
    Yes,
    /// Something else was stored than expected, and stays.
    Not {
        /// What is stored.
        current: Option<String>,
    },
}

/// Replaces the id, but only the expected one: after Mesos has removed the framework for good,
/// the id is of no use any more, and only one of several instances may choose the next.
pub async fn replace(
    client: &Client,
    framework_name: &str,
    expected: &str,
    new: &str,
) -> Result<Replaced, ApiError> {
    for _ in 0..ATTEMPTS {
        let map = read(client, framework_name).await?;
        let current = map.as_ref().and_then(id_of);
        if current.as_deref() != Some(expected) {
            return Ok(Replaced::Not { current });
        }
        match write(client, framework_name, map.as_ref(), new).await {
            Ok(()) => return Ok(Replaced::Yes),
            Err(ApiError::Exists { .. } | ApiError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(too_busy(framework_name))
}

fn too_busy(framework_name: &str) -> ApiError {
    ApiError::Conflict {
        attempted: format!("store the id of framework {framework_name}"),
        message: "others write it all the time".to_owned(),
    }
}

fn id_of(map: &ConfigMap) -> Option<String> {
    let id = map.data.as_ref()?.get(KEY)?.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

async fn read(client: &Client, framework_name: &str) -> Result<Option<ConfigMap>, ApiError> {
    let name = object_name(framework_name);
    let what = || format!("read the id of framework {framework_name}");
    unless_missing(call(what, maps(client).get(&name)).await)
}

async fn write(
    client: &Client,
    framework_name: &str,
    over: Option<&ConfigMap>,
    id: &str,
) -> Result<(), ApiError> {
    let name = object_name(framework_name);
    let what = || format!("store the id of framework {framework_name}");
    let Some(over) = over else {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name),
                ..ObjectMeta::default()
            },
            data: Some([(KEY.to_owned(), id.to_owned())].into()),
            ..ConfigMap::default()
        };
        let params = PostParams::default();
        return call(what, maps(client).create(&params, &map))
            .await
            .map(drop);
    };
    // The version makes it a compare-and-set.
    let patch = json!({
        "metadata": {"resourceVersion": over.metadata.resource_version},
        "data": {KEY: id},
    });
    let params = PatchParams::default();
    call(
        what,
        maps(client).patch(&name, &params, &Patch::Merge(&patch)),
    )
    .await
    .map(drop)
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
}
