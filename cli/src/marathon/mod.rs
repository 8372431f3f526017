//! A client of Marathon's REST API, as far as the installer uses it: apps, deployments, the queue
//! and what Marathon says about itself. It decides nothing: what to do with an answer is
//! `packaging::install`'s business.
//!
//! Marathon 1.5 and later are spoken to, real ones and the devcluster's. Reads are tried again for
//! a while where that may help; writes are not, because their callers look first and then decide.

mod client;
mod error;
mod model;

pub use client::{Client, Config, Credentials};
pub use error::{Detail, Error};
pub use model::{
    AppState, Deployment, DeploymentRef, HealthResult, Info, MarathonConfig, Queued, Submitted,
    Task, TaskFailure,
};
