//! Turns options into what a cluster is made of: certificates, configuration files and argument
//! lists, manifests, container images, the nodes' payload. No network, no clock, no processes;
//! what touches a disk says so ([`pki::store`], [`files`], [`payload`]).

pub mod addons;
pub mod cidr;
pub mod control_plane;
pub mod cosmos;
pub mod files;
pub mod image;
pub mod install;
pub mod kubeconfig;
pub mod marathon;
pub mod mustache;
pub mod options;
pub mod payload;
pub mod pki;
pub mod rbac;
pub mod run;
pub mod universe;

/// Renders plain data as YAML, members in the order given.
pub(crate) fn yaml(value: &serde_json::Value) -> String {
    serde_yaml::to_string(value).expect("plain data has a YAML form")
}
