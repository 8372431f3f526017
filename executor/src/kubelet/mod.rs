//! kubelet's inputs: what the machine has and what is kept from pods ([`capacity`]), its
//! configuration ([`config`]), kubeconfigs ([`kubeconfig`]) and the pods' resolver file ([`resolv`]).

pub mod capacity;
pub mod config;
pub mod kubeconfig;
pub mod resolv;
