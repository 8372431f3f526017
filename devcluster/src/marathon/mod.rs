//! Marathon: apps that are kept running on Mesos, with groups, deployments, health checks and
//! persistent volumes, behind the REST API of Marathon 1.11.
//!
//! It is a Mesos framework like any other and runs on a real Mesos as well as on the
//! [`master`](crate::master) of this crate. [`core::Core`] decides: a pure state machine of API
//! requests, Mesos' events and the results of checks, without a socket and without a clock.
//! [`run`] is the loop around it: HTTP, the subscription, health checks, and the file in which
//! the state outlives the process.

pub mod api;
pub mod cli;
pub mod core;
pub mod error;
pub mod ids;
pub mod model;
mod probe;
mod run;
mod server;
mod store;
pub mod validate;

pub use run::{Marathon, MarathonConfig, MarathonError, start};

/// The version whose behaviour is implemented, as `/v2/info` says.
pub const VERSION: &str = "1.11.24";
