//! Which agents a pod may run on: Kubernetes' filters over Mesos offers.
//!
//! Pure. [`filter`] judges one [`Candidate`], which is a node that exists or an agent that would
//! become one; [`diagnosis`] turns the rejections into the sentence that people know from
//! `kubectl describe pod`; [`attributes`] and [`names`] say how an agent looks as a node;
//! [`unconsidered`] lists what a pod asks for and this scheduler does not look at yet.

pub mod attributes;
pub mod diagnosis;
pub mod filter;
pub mod names;
pub mod selector;
pub mod syntax;
pub mod toleration;
pub mod unconsidered;

pub use diagnosis::Diagnosis;
pub use filter::{Candidate, Capacity, Fit, Free, PodRequirements, Rejection, filter, fits};
pub use unconsidered::{Unconsidered, unconsidered};
