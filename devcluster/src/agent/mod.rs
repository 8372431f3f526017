//! A Mesos agent: registers with a master, offers what it has, starts executors in containers,
//! and sees to it that what they report arrives.
//!
//! [`core`] decides, [`run()`] works. The container side is in [`container`], [`cgroups`],
//! [`fetcher`] and [`sandbox`], the memory on disk in `store`.
//!
//! Recorded traffic of a real agent is the judge of what it says; where it does less than a
//! real one, it says so:
//!
//! | what | here |
//! |---|---|
//! | container networks, the default executor, nested and standalone containers | refused: the launch fails with the reason, calls are answered with 501 |
//! | images | Docker's and OCI's, see [`images`]; volumes of the agent's directories for containers with an image only |
//! | isolators | `posix/cpu`, `posix/mem`, `cgroups/cpu`, `cgroups/mem`, and for images `filesystem/linux`, `docker/runtime`, `volume/host_path`; others are refused at the start |
//! | users | those of `/etc/passwd`; supplementary groups are dropped |
//! | sandbox logs | bounded: cut at 10 MB, what they held is kept once as `stdout.1`, `stderr.1` |
//! | sandboxes | removed a week after their end (`--gc-delay`), earlier the fuller the disk is (`--gc-disk-headroom`); usage is as `df` says, without the blocks that are kept for root |
//! | disk quotas, resource providers, draining, authentication, TLS, pressure counters | none |
//! | an agent that comes back with other resources, attributes or host name | refused, as with Mesos' policy `equal`; another port is fine |

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
pub mod images;
mod link;
mod local;
pub mod paths;
mod run;
pub mod sandbox;
pub mod secrets;
mod start;
mod store;
mod subscriptions;
pub mod volumes;
mod watch;

pub use config::{AgentConfig, BadFlag, Isolation, Launcher};
pub use local::LocalAgent;
pub use start::{Agent, AgentError, run};
