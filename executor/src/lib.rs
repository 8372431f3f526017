//! The executor: one per Mesos agent and Kubernetes cluster. It turns Mesos tasks into pods of an
//! upstream kubelet.
//!
//! | part | modules |
//! |---|---|
//! | decides what happens, without sockets or clocks | [`core`] |
//! | talks to the Mesos agent and carries out what `core` decided | [`agent_loop`] |
//! | the node itself (containerd, kubelet, kube-proxy, network, credentials) | [`node`] and its neighbours |
//! | keeps the node's processes running | [`supervise`], [`component`] |
//! | resource limits | [`cgroup`] |
//! | cleans up after a dead executor | [`guard`] at once, [`sweep`] at the next start |
//! | fetches the node's programs | [`payload`] |
//! | goes back to the agent's file system from a container image | [`image`] |
//!
//! The two halves meet in plain data: [`report::NodeContext`] goes in, [`report::NodeEvent`]s come
//! out, [`report::NodeCommand`]s may be sent meanwhile.

pub mod agent_loop;
pub mod balancer;
pub mod cgroup;
pub mod component;
pub mod containerd;
pub mod core;
pub mod credentials;
pub mod cri;
pub mod guard;
pub mod image;
pub mod kubelet;
pub mod layout;
pub mod network;
pub mod node;
pub mod payload;
pub mod pidfd;
pub mod pods;
pub mod report;
pub mod slim;
pub mod supervise;
pub mod sweep;
