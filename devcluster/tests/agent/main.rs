//! The agent as a process of its own, with the master in this one, over real HTTP.
//!
//! As root the containers are in cgroups; tests that need it say so and do nothing otherwise.

mod containers;
mod images;
mod life;
mod namespaces;
mod recovery;
mod support;
