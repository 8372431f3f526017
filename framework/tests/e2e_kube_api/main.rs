//! The framework's effects against a real kube-apiserver and etcd, as the least-privileged
//! identity that it has in production.
//!
//! `K8SM_UPSTREAM_BIN` names the directory with the upstream binaries (`etcd`, `kube-apiserver`,
//! `kube-controller-manager`); without it each test says that it is skipped. No root is needed.

mod certificates;
mod cluster;
mod identity;
mod nodes;
mod pki;
mod pods;
