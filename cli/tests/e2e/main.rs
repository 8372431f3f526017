//! Whole clusters on real processes: devcluster's Mesos, upstream's control plane, our framework
//! and executor, upstream's kubelet and containerd. Run by `make e2e`, as root, one at a time.

mod faults;
mod one_agent;
mod support;
mod three_agents;
