//! The node's private containerd: its configuration and the images that the payload brings.
//!
//! It runs beside any other containerd or Docker of the machine, so it shares nothing with them:
//! root, state, socket, plugins' directories and CNI configuration are all the node's own.

pub mod collect;
pub mod config;
pub mod images;
pub mod outside;

/// containerd's namespace of everything that kubelet starts.
pub const NAMESPACE: &str = "k8s.io";
