//! The archive of `k8sm doctor --bundle`: everything that helps with a bug report, and no secret.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::Node;
use packaging::install::preflight::Finding;
use serde_json::{Value, json};

use super::super::status;
use crate::cluster::api::Cluster;
use crate::install::{self, Home, Record, Site};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that helps with a bug report; no key and no password.
pub(super) async fn write(
    home: &Home,
    record: &Record,
    site: &Site,
    findings: &[Finding],
    file: &Path,
) -> Result<(), install::Error> {
    let world = site.world(&record.name).await?;
    let apps: Vec<Value> = world
        .apps
        .values()
        .map(|s| redacted(s.definition.clone()))
        .collect();
    let status = status::gather(home, record, site).await?;
    // What programs say holds no secret; what they were told stands beside.
    const BYTES: u64 = 64 << 10;
    let failed = install::sandboxes::last_words(site, &record.name, BYTES).await;
    let running = install::sandboxes::words(site, &record.name, BYTES).await;
    let deployments = site.marathon.deployments().await?;
    let (nodes, warnings) = kubernetes(home).await;
    let parts = [
        ("k8sm.json", json!({"version": env!("CARGO_PKG_VERSION")})),
        ("findings.json", json!(findings)),
        ("status.json", json!(status)),
        ("apps.json", json!(apps)),
        ("deployments.json", json!(deployments)),
        (
            "marathon.json",
            json!({"version": site.info.version, "features": site.info.marathon_config.features}),
        ),
        ("said-by-failed.json", json!(failed)),
        ("said.json", json!(running)),
        ("nodes.json", nodes),
        ("warnings.json", warnings),
        ("options.json", record.options.clone()),
        ("choice.json", json!(record.choice)),
    ];
    let failed = |e| install::Error::io("write", file)(e);
    let out = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .map_err(failed)?;
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    for (name, value) in parts {
        let text = format!("{:#}\n", scrubbed(value));
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive
            .append_data(&mut header, format!("k8sm/{name}"), text.as_bytes())
            .map_err(failed)?;
    }
    archive
        .into_inner()
        .and_then(GzEncoder::finish)
        .and_then(|out| out.sync_all())
        .map_err(failed)
}

/// What the API says about nodes, and its latest warnings. Pods and their specifications stay out:
/// their environments may hold anything.
async fn kubernetes(home: &Home) -> (Value, Value) {
    /// So many warnings.
    const MOST: usize = 300;
    let asked = async {
        let cluster = Cluster::connect(&home.kubeconfig()).await?;
        Ok::<_, crate::cluster::Error>((cluster.nodes().await?, cluster.warnings(MOST).await?))
    };
    let (nodes, warnings) = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return (json!(error.to_string()), Value::Null),
        Err(_) => return (json!("the API does not answer"), Value::Null),
    };
    let nodes: Vec<Value> = nodes.into_iter().map(about_node).collect();
    (json!(nodes), json!(warnings))
}

/// A node without its annotations, one of which holds what its executor is launched with.
fn about_node(node: Node) -> Value {
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    json!({
        "name": node.metadata.name,
        "created": node.metadata.creation_timestamp,
        "labels": node.metadata.labels,
        "taints": spec.taints,
        "unschedulable": spec.unschedulable,
        "conditions": status.conditions,
        "allocatable": status.allocatable,
        "info": status.node_info,
    })
}

/// An app without what may be secret in its environment.
fn redacted(mut app: Value) -> Value {
    if let Some(env) = app["env"].as_object_mut() {
        for (name, value) in env {
            if name != "K8SM_RUN" && value.is_string() {
                *value = json!("<redacted>");
            }
        }
    }
    app
}

/// Texts without the users and passwords of addresses in them.
fn scrubbed(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_passwords(&text)),
        Value::Array(values) => values.into_iter().map(scrubbed).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, scrubbed(value)))
            .collect(),
        other => other,
    }
}

/// `zk://user:password@host` becomes `zk://<redacted>@host`, also within a text.
fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str("://");
        let end = part
            .find(|c: char| c == '/' || c == '"' || c.is_whitespace())
            .unwrap_or(part.len());
        match part[..end].rfind('@') {
            Some(at) => {
                clean.push_str("<redacted>");
                clean.push_str(&part[at..]);
            }
            None => clean.push_str(part),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_report_holds_no_environment_but_the_specification() {
        let app = json!({"env": {"K8SM_PKI": "geheim", "X": "y", "K8SM_RUN": "{}", "S": {"secret": "s"}}});
        let text = redacted(app).to_string();
        assert!(
            !text.contains("geheim") && !text.contains("\"y\""),
            "{text}"
        );
        assert!(text.contains(r#""K8SM_RUN":"{}""#), "{text}");
    }

    #[test]
    fn passwords_in_addresses_are_left_out_wherever_they_stand() {
        let value = json!({"a": ["--master=zk://me:geheim@h1,h2/mesos --x=http://u:p@h"], "b": "http://plain/x@y"});
        let text = scrubbed(value).to_string();
        assert!(!text.contains("geheim") && !text.contains("u:p"), "{text}");
        assert!(text.contains("zk://<redacted>@h1,h2/mesos"), "{text}");
        assert!(text.contains("http://plain/x@y"), "{text}");
    }
}
