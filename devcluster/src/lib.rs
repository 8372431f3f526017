//! A Mesos master, Mesos agents and Marathon for one machine, for tests, and for
//! simulations of scale, faithful to the recorded traffic of a real Mesos 1.12 within what they
//! implement. For production use a real Mesos.
//!
//! Decisions are pure state machines without sockets or clocks ([`master`]'s core); thin loops
//! connect them to HTTP. [`protocol`] is what master and agents say to each other,
//! [`resources`] the arithmetic that both share.

pub mod agent;
pub mod allocator;
pub mod cli;
mod client;
pub mod clock;
pub mod dcos;
pub mod http;
pub mod ids;
pub mod jwt;
pub mod marathon;
pub mod master;
pub mod netns;
pub mod protocol;
pub mod resources;
pub mod sim;
