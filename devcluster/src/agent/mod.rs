//! A Mesos agent: registers with a master, offers what it has, starts executors in containers,
//! and sees to it that what they report arrives.
//!
//! [`core`] decides, [`run()`] works. The container side is in [`container`], [`cgroups`],
//! [`fetcher`] and [`sandbox`], the memory on disk in [`store`].

pub mod cgroups;
pub mod command_executor;
pub mod config;
pub mod container;
pub mod core;
pub mod disk;
pub mod duration;
mod environment;
pub mod fetcher;
mod http;
mod link;
pub mod paths;
mod run;
pub mod sandbox;
mod store;
mod watch;

pub use config::{AgentConfig, BadFlag, Isolation, Launcher};
pub use run::{Agent, AgentError, run};
