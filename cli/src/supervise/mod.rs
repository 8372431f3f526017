//! The supervisor of `k8sm up`: one process, detached from the terminal, that keeps the control
//! plane, Mesos and the framework running.
//!
//! [`spec`] says what shall run, [`machine`] decides, [`run()`] does. Processes survive their
//! supervisor: their output goes to files, and the next supervisor adopts them by pid and start
//! time ([`record`]), or, had there been no time to write that down, by the mark in their
//! environment. So the supervisor itself may be killed and started at any time.

pub mod client;
pub mod logs;
pub mod machine;
pub mod probe;
pub mod record;
pub mod run;
pub mod spec;

pub use client::{Status, Supervisor};
pub use machine::{Report, Stage};
pub use run::run;
pub use spec::{ProcessSpec, Spec};
