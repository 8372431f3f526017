//! The k8sm-framework: the Mesos scheduler that places Kubernetes pods on offers.
//!
//! Start at [`placement`] and [`resources`] for what decides; the loops around them come with
//! `core` and `driver`.

pub mod config;
pub mod core;
pub mod driver;
pub mod http;
pub mod kube;
pub mod metrics;
pub mod placement;
pub mod resources;
pub mod sim;
pub mod wire;
