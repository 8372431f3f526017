//! What outlives the package's app: the record of the installation and its keys. Where the keys
//! travel as secrets it is a secret of DC/OS' store, too, and an app without tasks,
//! `/<name>-cp/state`, says where, and has the record. Where DC/OS has no store, that app has the
//! keys as well: who may read the control plane's apps may read them.
//!
//! The secret is written before the app that points to it, and everything before anything that is
//! made with it, so whoever is killed in between finds a state that fits what is there.

use std::collections::BTreeMap;
use std::path::Path;

use packaging::files::{SECRET, make_dir, write_atomic};
use packaging::install::INSTALL_LABEL;
use packaging::install::plan::group;
use packaging::marathon::COMPONENT_LABEL;
use serde_json::{Value, json};

use super::content::{Content, VERSION, pack, unpack};
use super::store::{self, Store};
use super::way::Way;
use crate::install::{self, Home, Record, Site};

/// The variable.
const VARIABLE: &str = "K8SM_STATE";
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
    /// The secret is damaged.
    #[error(
        "the state of the cluster in the secret {secret} is damaged: {reason}; put back what was there, it holds the keys of the cluster"
    )]
    DamagedSecret { secret: String, reason: String },
    /// The secret is gone.
    #[error(
        "the secret {0} with the keys of the cluster is gone; put it back. Without it nothing can be changed, only removed: `dcos package uninstall`"
    )]
    Lost(String),
    /// Nobody can read the secret.
    #[error(
        "the keys of the cluster are in the secret {0} of DC/OS' store, which only a service account can read: set service.secret_name to what it was"
    )]
    NoAccount(String),
    /// It has become too large.
    #[error("the state of the cluster has {0} bytes, where Marathon takes {LARGEST_PACKED}")]
    Large(usize),
    /// Marathon.
    #[error(transparent)]
    Marathon(#[from] crate::marathon::Error),
    /// The secret store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The disk.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// The disk.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
}

/// A state that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub record: Record,
    /// Where its keys are.
    pub way: Way,
}

/// Path of the app.
pub(crate) fn app_id(name: &str) -> String {
    format!("{}/state", group(name))
}

/// What the app says; `None` when there is none.
async fn app(site: &Site, name: &str) -> Result<Option<Content>, Error> {
    let id = app_id(name);
    let Some(found) = site.marathon.app(&id).await? else {
        return Ok(None);
    };
    let packed = found.definition["env"][VARIABLE]
        .as_str()
        .unwrap_or_default();
    match unpack(packed) {
        Ok(content) => Ok(Some(content)),
        Err(reason) => Err(Error::Damaged { app: id, reason }),
    }
}

async fn secret(store: &Store, path: &str) -> Result<Option<Content>, Error> {
    let damaged = |reason| Error::DamagedSecret {
        secret: path.to_owned(),
        reason,
    };
    let packed = store.get(path).await?;
    packed.map(|p| unpack(&p).map_err(damaged)).transpose()
}

/// Puts a state into a directory.
fn place(home: &Home, content: &Content) -> Result<(), Error> {
    home.create()?;
    for (file, text) in &content.keys {
        write_atomic(&home.pki().join(file), text.as_bytes(), SECRET)?;
    }
    if let Some(text) = &content.kubeconfig {
        write_atomic(&home.kubeconfig(), text.as_bytes(), SECRET)?;
    }
    Ok(home.write(&content.record)?)
}

/// Reads the state into a directory; `None` when there is none.
pub(super) async fn load(
    site: &Site,
    store: Option<&Store>,
    wanted: Way,
    home: &Home,
    name: &str,
) -> Result<Option<Found>, Error> {
    let (content, way) = match (app(site, name).await?, store) {
        (Some(content), store) => match (&content.secret, store) {
            (None, _) => (content, Way::Env),
            (Some(path), None) => return Err(Error::NoAccount(path.clone())),
            (Some(path), Some(store)) => match secret(store, path).await? {
                Some(content) => (content, Way::Store),
                None => return Err(Error::Lost(path.clone())),
            },
        },
        // It may have been killed before it could say that there is a secret.
        (None, Some(store)) if wanted == Way::Store => {
            match secret(store, &store::state(name)).await? {
                Some(content) if is_in_use(site, &content.record).await? => (content, Way::Store),
                _ => return Ok(None),
            }
        }
        (None, _) => return Ok(None),
    };
    place(home, &content)?;
    Ok(Some(Found {
        record: content.record,
        way,
    }))
}

/// Whether apps of this very installation are there. A secret that an earlier one has left behind
/// is nothing to go on with.
async fn is_in_use(site: &Site, record: &Record) -> Result<bool, Error> {
    let world = site.world(&record.name).await?;
    Ok(world
        .apps
        .values()
        .any(|seen| seen.install_id() == Some(record.id.as_str())))
}

/// Reads the state of a cluster that is being removed, as far as it still is there: without its
/// keys a cluster can be removed, too.
pub(super) async fn load_to_remove(
    site: &Site,
    store: Option<&Store>,
    home: &Home,
    name: &str,
) -> Result<Option<Found>, Error> {
    let Some(pointer) = app(site, name).await? else {
        return Ok(None);
    };
    let (content, way) = match (&pointer.secret, store) {
        (None, _) => (pointer, Way::Env),
        (Some(path), None) => return Err(Error::NoAccount(path.clone())),
        (Some(path), Some(store)) => {
            let whole = secret(store, path).await?;
            if whole.is_none() {
                tracing::warn!("the secret {path} is gone: pods end with their nodes");
            }
            (whole.unwrap_or(pointer), Way::Store)
        }
    };
    place(home, &content)?;
    Ok(Some(Found {
        record: content.record,
        way,
    }))
}

/// Removes from the store what a cluster has there that does not use it, or not any more; with
/// `id` only what is of that installation. Secrets that are not ours are left alone.
pub(super) async fn forget(store: &Store, name: &str, id: Option<&str>) -> Result<(), Error> {
    match secret(store, &store::state(name)).await {
        Ok(Some(content)) if id.is_none_or(|id| content.record.id == id) => {
            Ok(store.clear().await?)
        }
        Ok(_) | Err(Error::DamagedSecret { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Keeps the state; with a store, there.
pub(super) async fn save(
    site: &Site,
    store: Option<&Store>,
    home: &Home,
    record: &Record,
) -> Result<(), Error> {
    let whole = Content {
        version: VERSION,
        record: record.clone(),
        keys: keys(&home.pki())?,
        kubeconfig: packaging::files::read_optional(&home.kubeconfig())?
            .and_then(|bytes| String::from_utf8(bytes).ok()),
        secret: None,
    };
    let public = match store {
        None => whole,
        Some(store) => {
            let path = store::state(&record.name);
            store.put(&path, &pack(&whole)).await?;
            if let Some(text) = &whole.kubeconfig {
                store.put(&store::kubeconfig(&record.name), text).await?;
            }
            whole.pointing_to(path)
        }
    };
    let packed = pack(&public);
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

/// Where the administrators' kubeconfig is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kubeconfig {
    /// Here; none as long as the API is not served.
    Here(Option<String>),
    /// In this secret of DC/OS' store.
    Secret(String),
}

/// What the app that keeps the state, or points to it, says of the kubeconfig for people.
pub(crate) fn kubeconfig_of(app: &Value) -> Result<Kubeconfig, String> {
    let packed = app["env"][VARIABLE].as_str().unwrap_or_default();
    let content = unpack(packed)?;
    Ok(match content.secret {
        Some(_) => Kubeconfig::Secret(store::kubeconfig(&content.record.name)),
        None => Kubeconfig::Here(content.kubeconfig),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let record = json!({
            "version": 1, "id": "i-1", "name": "k", "phase": "installed",
            "marathon": "http://m", "options": {},
            "choice": {"etcd_hosts": [], "etcd_storage": "host_path", "api_hosts": [], "pki": "env", "why": []},
            "first_start_until": 0, "artifacts_url": "http://a",
            "artifacts": {"version": 1, "files": {}, "components": {}},
        });
        Content {
            version: VERSION,
            record: serde_json::from_value(record).unwrap(),
            keys: [("ca.key".to_owned(), "secret-of-the-authority".to_owned())].into(),
            kubeconfig: Some("secret-of-people".to_owned()),
            secret: None,
        }
    }

    #[test]
    fn the_app_runs_nothing_and_says_whose_it_is() {
        let app = definition(&app_id("k"), "i-1", pack(&content()));
        assert_eq!(app["id"], "/k-cp/state");
        assert_eq!(app["instances"], 0);
        assert_eq!(app["labels"][INSTALL_LABEL], "i-1");
    }

    #[test]
    fn the_kubeconfig_is_in_the_app_or_in_the_secret_that_it_points_to() {
        let app = |content: &Content| definition(&app_id("k"), "i-1", pack(content));
        let here = kubeconfig_of(&app(&content())).unwrap();
        assert_eq!(here, Kubeconfig::Here(Some("secret-of-people".to_owned())));
        let elsewhere = content().pointing_to("k/k8sm-state".to_owned());
        let elsewhere = kubeconfig_of(&app(&elsewhere)).unwrap();
        assert_eq!(
            elsewhere,
            Kubeconfig::Secret("k/k8sm-kubeconfig".to_owned())
        );
        let mut damaged = app(&content());
        damaged["env"][VARIABLE] = json!("nothing of ours");
        assert!(kubeconfig_of(&damaged).is_err());
    }

    #[test]
    fn an_app_that_points_to_a_secret_has_none_of_it() {
        let packed = pack(&content().pointing_to("k/k8sm-state".to_owned()));
        let read = unpack(&packed).unwrap();
        assert_eq!((read.keys.len(), read.kubeconfig), (0, None));
    }
}
