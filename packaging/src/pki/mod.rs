//! The cluster's certificates: which exist ([`plan`]), and how they get onto a disk and stay
//! good there ([`store`]).
//!
//! Three authorities, so that a certificate of one kind is worthless elsewhere: the cluster's
//! (clients and servers of the Kubernetes API, kubelets), etcd's, and the front proxy's (whoever
//! holds one of its certificates may name any user to an aggregated API server). Every program
//! has a certificate of its own, for exactly what it does. Only `super-admin` is in
//! `system:masters`, which no authorizer can restrict; it applies the first RBAC objects and is
//! not given to a user. All keys are ECDSA P-256, which every component accepts, service
//! account tokens (ES256) included.

pub mod bundle;
pub mod component;
mod issue;
pub mod plan;
pub mod store;

pub use bundle::{Bundle, BundleError};
pub use component::Component;
pub use issue::MakeError;
pub use plan::{Authority, Certificate, Name, Plan, Usage};
pub use store::{Change, Error, Expiry, Pki};
