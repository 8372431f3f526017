//! The control plane as Marathon apps: their model ([`app`]), what they depend on besides the
//! options ([`facts`]), how they are made ([`render()`]), and a check of what Marathon would refuse
//! or silently get wrong ([`lint()`]).
//!
//! | app | what | instances |
//! |---|---|---|
//! | `/<name>-cp/etcd-0` ... | one etcd member each, pinned to an agent | 1 each |
//! | `/<name>-cp/apiserver` | API server and konnectivity server | `apiserver.instances` |
//! | `/<name>-cp/controller-manager` | controller manager | `controller_manager.instances` |
//! | `/<name>` | framework; under DC/OS the only app that Cosmos posts | 1 |
//! | `/<name>-cp/proxy` | front door | `proxy.instances` |
//!
//! An app and a group cannot share a path in Marathon, and DC/OS' admin router and uninstall
//! protocol want the framework's app to be called as the framework: hence the `-cp`.

pub mod app;
mod checks;
mod container;
pub mod facts;
mod framework;
mod lint;
mod parts;
mod render;

pub use app::{App, AppId, BadAppId};
pub use facts::{AgentHost, Artifact, EtcdStorage, Facts, KeptBy, PkiDelivery};
pub use lint::{Finding, lint};
pub(crate) use parts::literal;
pub use render::{
    COMPONENT_LABEL, KUBERNETES_LABEL, PKI_LABEL, RenderError, VERSION_LABEL, app_id,
    containerizer, framework_run, image, image_name, pki_secret, programs, render,
};

#[cfg(test)]
mod tests;
