//! The guard: a small process that outlives the executor by the time it takes to clean up.

pub mod manifest;
