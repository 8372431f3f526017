//! Who the node is to the Kubernetes API.
//!
//! - kubelet makes its own key and asks for its own certificates, with the bootstrap token first
//!   and with the certificate that it has later; it keeps them in `kubelet-client-current.pem`.
//! - kube-proxy cannot do that, so the executor does it for it, in the same way: a key that never
//!   leaves the machine, a CertificateSigningRequest that the framework approves for exactly this
//!   node, renewal at two thirds of the certificate's life ([`proxy`]).
//!
//! Certificate and key are one file, replaced by renaming, so that nobody ever reads halves that
//! do not belong together; kube-proxy and [`api`] read it again when it changes. A node that
//! starts again on the same machine uses what it has, without any token ([`store`]).

pub mod api;
pub mod proxy;
pub mod store;
