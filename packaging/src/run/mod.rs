//! What an app's task does: the configuration of `k8sm run <component>`, one JSON document in the
//! environment variable [`RUN_ENV`]. It holds no secret. Keys come apart from it, as a
//! [`crate::pki::Bundle`], from the first of: the file that [`PKI_FILE_ENV`] names, the file
//! [`PKI_FILE`] in the sandbox, the variable [`PKI_ENV`].
//!
//! A document is read by the program of the same version; unknown members are refused, so that
//! nothing that was asked for is silently left out.

mod spec;

pub use spec::{
    ApiServerRun, ControllerManagerRun, EtcdRun, FrameworkRun, KonnectivityPorts, Member,
    MemberState, ProxyRun, Run,
};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Environment variable with the [`RunSpec`].
pub const RUN_ENV: &str = "K8SM_RUN";
/// Environment variable with the keys.
pub const PKI_ENV: &str = "K8SM_PKI";
/// Environment variable with the path of a file with the keys.
pub const PKI_FILE_ENV: &str = "K8SM_PKI_FILE";
/// Name of a fetched file with the keys, in the sandbox.
pub const PKI_FILE: &str = "k8sm-pki.json";
/// Name of a fetched etcd snapshot in the sandbox, for [`MemberState::Restore`].
pub const SNAPSHOT_FILE: &str = "k8sm-snapshot.db";
/// Environment variable with the secret of the framework's Mesos principal.
pub const MESOS_SECRET_ENV: &str = "K8SM_MESOS_SECRET";
/// Version of the format.
pub const RUN_VERSION: u32 = 1;

/// What a task does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// [`RUN_VERSION`].
    pub version: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// The installation's id: what tells this cluster from an earlier one of the same name.
    pub install: String,
    /// What our own programs log: `info`.
    pub log_level: String,
    /// SHA-256 of the programs beside `k8sm` in the sandbox, by name, in hexadecimal; checked
    /// before they start. Empty when they come in an image.
    #[serde(default)]
    pub programs: BTreeMap<String, String>,
    /// What it runs.
    pub run: Run,
}

/// Why a [`RunSpec`] cannot be used. No retry helps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not of this form.
    #[error("read {RUN_ENV}: {0}; it is written by k8sm for the program of its own version")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version.
    #[error(
        "{RUN_ENV} is of version {0}, this program knows {RUN_VERSION}: use the k8sm that wrote it"
    )]
    Version(u64),
    /// It is another component's.
    #[error("{RUN_ENV} is for `k8sm run {found}`, not for `k8sm run {wanted}`")]
    Component {
        /// Whose it is.
        found: &'static str,
        /// Whose it should be.
        wanted: String,
    },
}

impl RunSpec {
    /// Reads a document. `component` is what the command line named.
    pub fn parse(text: &str, component: &str) -> Result<Self, Error> {
        // The version first: what else a later one says may be unknown here.
        let value: serde_json::Value = serde_json::from_str(text)?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if let Some(version) = version.filter(|v| *v != u64::from(RUN_VERSION)) {
            return Err(Error::Version(version));
        }
        let spec: Self = serde_json::from_value(value)?;
        if spec.run.component() != component {
            return Err(Error::Component {
                found: spec.run.component(),
                wanted: component.to_owned(),
            });
        }
        Ok(spec)
    }

    /// The document.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and lists have a JSON form")
    }
}

#[cfg(test)]
mod tests;
