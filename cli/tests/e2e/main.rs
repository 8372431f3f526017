//! Whole clusters on real processes: devcluster's Mesos, upstream's control plane, our framework
//! and executor, upstream's kubelet and containerd. Run by `make e2e`, as root, one at a time.

mod apps;
mod commands;
mod disk;
mod existing_mesos;
mod extension;
mod faults;
mod front_door;
mod install;
mod life;
mod one_agent;
mod support;
mod three_agents;
mod upgrade;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../../../mesos/tests/support/zookeeper.rs"]
mod zookeeper;
