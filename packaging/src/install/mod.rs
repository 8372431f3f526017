//! Installing, upgrading, stopping and removing a cluster, as values: what is there compared with
//! what should be there ([`diff`], [`judge`]), the steps from one to the other ([`plan`]), and a
//! machine that goes through steps and may be killed and started again at any of them
//! ([`machine`]). The loops that talk to Marathon, Mesos and Kubernetes are in `cli`.
//!
//! Nothing is remembered between two runs except who made the cluster: every step looks first, and
//! is done already where what it wants is there.

pub mod artifacts;
pub mod diff;
mod helper;
pub mod judge;
pub mod keep;
pub mod leftovers;
pub mod machine;
pub mod plan;
pub mod preflight;
pub mod probe;
pub mod rolling;

pub use diff::{Change, diff};
pub use judge::{Seen, Standing, World};
pub use machine::{Effect, Event, Machine};
pub use plan::{Action, Step};

/// Label of every app: which installation it belongs to. A cluster of the same name with another
/// one is somebody else's and is never touched.
pub const INSTALL_LABEL: &str = "K8SM_INSTALL_ID";
