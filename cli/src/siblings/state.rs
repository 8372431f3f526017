//! What outlives the package's app: the record of the installation and its keys. DC/OS has no place
//! for it that every edition has, so it lies where the apps' keys are anyway: in Marathon, as the
//! environment of an app without tasks, `/<name>-cp/state`. Who may read the control plane's apps
//! may read it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use packaging::files::{SECRET, make_dir, write_atomic};
use packaging::install::INSTALL_LABEL;
use packaging::install::plan::group;
use packaging::marathon::COMPONENT_LABEL;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::install::{self, Home, Record, Site};

/// The variable.
const VARIABLE: &str = "K8SM_STATE";
/// Version of its content.
const VERSION: u32 = 1;
/// Largest content, unpacked, bytes.
const LARGEST: u64 = 4 << 20;
/// Largest packed: what Marathon keeps in ZooKeeper by default, with room for the rest.
const LARGEST_PACKED: usize = 700 << 10;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is damaged.
    #[error(
        "the state of the cluster in Marathon's app {app} is damaged: {reason}; put an earlier version of that app back (`GET /v2/apps/{app}/versions`)"
    )]
    Damaged { app: String, reason: String },
    /// It has become too large.
    #[error("the state of the cluster has {0} bytes, where Marathon takes {LARGEST_PACKED}")]
    Large(usize),
    /// Marathon.
    #[error(transparent)]
    Marathon(#[from] crate::marathon::Error),
    /// The disk.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// The disk.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Content {
    version: u32,
    record: Record,
    /// Files of the keys' directory by name.
    keys: BTreeMap<String, String>,
    /// The kubeconfig for people, once there is one.
    #[serde(default)]
    kubeconfig: Option<String>,
}

/// Path of the app.
pub(crate) fn app_id(name: &str) -> String {
    format!("{}/state", group(name))
}

/// Reads the state into a directory; `None` when there is none.
pub(crate) async fn load(site: &Site, home: &Home, name: &str) -> Result<Option<Record>, Error> {
    let app = app_id(name);
    let Some(found) = site.marathon.app(&app).await? else {
        return Ok(None);
    };
    let damaged = |reason: String| Error::Damaged {
        app: app.clone(),
        reason,
    };
    let packed = found.definition["env"][VARIABLE]
        .as_str()
        .unwrap_or_default();
    let content = unpack(packed).map_err(damaged)?;
    home.create()?;
    for (file, text) in &content.keys {
        write_atomic(&home.pki().join(file), text.as_bytes(), SECRET)?;
    }
    if let Some(text) = &content.kubeconfig {
        write_atomic(&home.kubeconfig(), text.as_bytes(), SECRET)?;
    }
    home.write(&content.record)?;
    Ok(Some(content.record))
}

/// Keeps the state.
pub(crate) async fn save(site: &Site, home: &Home, record: &Record) -> Result<(), Error> {
    let content = Content {
        version: VERSION,
        record: record.clone(),
        keys: keys(&home.pki())?,
        kubeconfig: packaging::files::read_optional(&home.kubeconfig())?
            .and_then(|bytes| String::from_utf8(bytes).ok()),
    };
    let packed = pack(&content);
    if packed.len() > LARGEST_PACKED {
        return Err(Error::Large(packed.len()));
    }
    let id = app_id(&record.name);
    let app = definition(&id, &record.id, packed);
    if let Some(there) = site.marathon.app(&id).await?
        && there.definition["env"] == app["env"]
    {
        return Ok(());
    }
    site.marathon.put(&id, &app, true).await?;
    Ok(())
}

/// The kubeconfig for people, out of the app that keeps the state; `None` as long as there is none.
pub(crate) fn kubeconfig_of(app: &Value) -> Result<Option<String>, String> {
    let packed = app["env"][VARIABLE].as_str().unwrap_or_default();
    Ok(unpack(packed)?.kubeconfig)
}

fn definition(id: &str, install: &str, packed: String) -> Value {
    json!({
        "id": id,
        "cmd": "exit 1",
        "instances": 0,
        "cpus": 0.01,
        "mem": 32,
        "networks": [{"mode": "host"}],
        "portDefinitions": [],
        "env": {VARIABLE: packed},
        "labels": {INSTALL_LABEL: install, COMPONENT_LABEL: "state"},
    })
}

/// The files of the keys' directory, which has no directories in it.
fn keys(dir: &Path) -> Result<BTreeMap<String, String>, Error> {
    make_dir(dir, 0o700)?;
    let mut keys = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(install::Error::io("read", dir))? {
        let path = entry.map_err(install::Error::io("read", dir))?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        // Files in the making begin with a dot.
        if name.is_empty() || name.starts_with('.') || !path.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(install::Error::io("read", &path))?;
        keys.insert(name.to_owned(), text);
    }
    Ok(keys)
}

fn pack(content: &Content) -> String {
    let json = serde_json::to_vec(content).expect("texts and numbers have a JSON form");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = encoder
        .write_all(&json)
        .and_then(|()| encoder.finish())
        .expect("writing into memory does not fail");
    STANDARD.encode(packed)
}

fn unpack(packed: &str) -> Result<Content, String> {
    let packed = STANDARD.decode(packed).map_err(|e| e.to_string())?;
    let mut json = Vec::new();
    GzDecoder::new(packed.as_slice())
        .take(LARGEST)
        .read_to_end(&mut json)
        .map_err(|e| e.to_string())?;
    let value: Value = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
    match value["version"].as_u64() {
        Some(version) if version > u64::from(VERSION) => {
            return Err(format!(
                "it was written by a newer k8sm (version {version})"
            ));
        }
        _ => {}
    }
    let content: Content = serde_json::from_value(value).map_err(|e| e.to_string())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match content
        .keys
        .keys()
        .find(|k| k.starts_with('.') || !k.chars().all(plain))
    {
        Some(name) => Err(format!("`{name}` is no name of a file")),
        None => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        serde_json::from_value(json!({
            "version": 1, "id": "i-1", "name": "k", "phase": "installing",
            "marathon": "http://m", "options": {},
            "choice": {"etcd_hosts": [], "etcd_storage": "host_path", "api_hosts": [], "pki": "env", "why": []},
            "first_start_until": 0, "artifacts_url": "http://a",
            "artifacts": {"version": 1, "files": {}, "components": {}},
        }))
        .unwrap()
    }

    fn content() -> Content {
        Content {
            version: VERSION,
            record: record(),
            keys: [("ca.key".to_owned(), "secret".to_owned())].into(),
            kubeconfig: Some("apiVersion: v1".to_owned()),
        }
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let packed = pack(&content());
        assert_eq!(unpack(&packed).unwrap(), content());
        let app = definition("/k-cp/state", "i-1", packed);
        assert_eq!(app["instances"], 0);
        assert!(!app.to_string().contains("secret"));
        assert_eq!(
            kubeconfig_of(&app).unwrap().as_deref(),
            Some("apiVersion: v1")
        );
    }

    #[test]
    fn what_is_damaged_newer_or_climbs_out_is_refused() {
        assert!(unpack("").is_err());
        assert!(unpack("!").is_err());
        let packed = pack(&content());
        assert!(unpack(&packed[..packed.len() / 2]).is_err());
        let newer = Content {
            version: 2,
            ..content()
        };
        assert!(unpack(&pack(&newer)).unwrap_err().contains("newer"));
        let out = Content {
            keys: [("../x".to_owned(), String::new())].into(),
            ..content()
        };
        assert!(unpack(&pack(&out)).unwrap_err().contains("no name"));
    }
}
