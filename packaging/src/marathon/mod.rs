//! The control plane as Marathon apps: their model ([`app`]), and what they depend on besides the
//! options ([`facts`]).

pub mod app;
pub mod facts;

pub use app::{App, AppId, BadAppId};
pub use facts::{AgentHost, Artifact, EtcdStorage, Facts, PkiDelivery};
