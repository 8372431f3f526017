//! The Mesos master.
//!
//! [`MasterState`] is the whole of it as a pure state machine: [`Event`]s go in, [`Effect`]s and
//! [`Answer`]s come out, time is handed in. It opens no socket, reads no clock and draws no
//! random number but from its seed, so that thousands of agents can be simulated in one
//! process and a fault found there can be replayed. [`run`] is the loop around it: HTTP, the
//! clock, the registry file.
//!
//! It behaves as recorded traffic of a real Mesos 1.12 shows. Not implemented, and refused with
//! a clear error: growing and shrinking of volumes, disks of storage providers,
//! regular expressions in offer constraints, authentication of agents.

mod agents;
mod audit;
pub mod auth;
mod drain;
mod elected;
mod election;
mod event;
mod frameworks;
mod launch;
pub(crate) mod legacy;
mod loss;
mod maintenance;
mod offers;
mod operations;
mod operator;
mod quota;
mod registry;
mod scheduler;
mod server;
mod state;
mod updates;
pub mod validate;
mod view;

pub use elected::run_elected;
pub use event::{Answer, Effect, Event, Outcome, StreamId};
pub(crate) use operations::volume_key;
pub use registry::{Registry, RegistryError};
pub use server::{Master, MasterConfig, MasterError, run, run_on};
pub(crate) use state::is_terminal;
pub use state::{HEARTBEAT, MasterState, Settings, VERSION};
