//! The Kubernetes side: what the framework writes to the API server, one function per effect.
//!
//! Every function says in its error what was attempted and whether to try again, ends within
//! [`api::DEADLINE`], and may be repeated: an object that is there already, or gone already, is
//! an outcome and no error. What decides is pure and beside its effect: [`csr::decide`],
//! [`lease::Elector`], [`events::Correlator`], [`nodes::patch_for`].

pub mod api;
pub mod approver;
pub mod binding;
pub mod bootstrap;
pub mod client;
pub mod csr;
pub mod events;
pub mod framework_id;
pub mod lease;
pub mod nodes;
pub mod pods;
mod recent;
pub mod rolling;
pub mod slim;

pub use api::{ApiError, Retry};
