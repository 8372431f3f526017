//! Marathon over HTTP, on a real master and a real agent of this crate.

#[allow(
    dead_code,
    reason = "shared with the agent's own tests, which use all of it"
)]
#[path = "../agent/support.rs"]
mod support;

mod api;
mod dcos;
mod life;
mod world;
