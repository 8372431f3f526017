//! `k8sm`: runs a Kubernetes cluster on Mesos on one machine, shows what it does, and removes it.
//!
//! | part | modules |
//! |---|---|
//! | the command line | [`args`], [`commands`], [`error`] (exit codes), [`progress`] |
//! | one cluster on this machine: directories, settings, locks | [`instance`] |
//! | is the machine fit? | [`preflight`] |
//! | certificates, images, processes, what goes through the Kubernetes API | [`cluster`] |
//! | keeps the processes running | [`supervise`] |
//! | removes everything again | [`clean`] |
//! | upstream programs, and where all programs are | [`upstream`], [`catalog`] |

pub mod args;
pub mod catalog;
pub mod clean;
pub mod cluster;
pub mod commands;
pub mod error;
pub mod http;
pub mod instance;
pub mod preflight;
pub mod procfs;
pub mod progress;
pub mod renewal;
pub mod supervise;
pub mod upstream;
