//! `k8sm`: Kubernetes on Mesos, on one machine or installed by way of Marathon: makes clusters,
//! shows what they do, changes and removes them.
//!
//! | part | modules |
//! |---|---|
//! | the command line | [`args`], [`commands`], [`error`] (exit codes), [`progress`] |
//! | one cluster on this machine: directories, settings, locks | [`instance`] |
//! | is the machine fit? | [`preflight`] |
//! | certificates, images, processes, what goes through the Kubernetes API | [`cluster`] |
//! | keeps the processes running | [`supervise`] |
//! | removes everything again | [`clean`] |
//! | the command of every Marathon app | [`run`] |
//! | what agents and apps fetch | [`artifacts`], [`download`] |
//! | images of the programs, and registries | [`images`] |
//! | Marathon's REST API | [`marathon`] |
//! | clusters on a Mesos with Marathon | [`install`] |
//! | the DC/OS package: built, checked, rendered, served | [`package`] |
//! | the one app of the DC/OS package, service accounts | [`siblings`], [`service_account`], [`dcos_plugin`] |
//! | upstream programs, and where all programs are | [`upstream`], [`catalog`] |

pub mod args;
pub mod artifacts;
pub mod catalog;
pub mod clean;
pub mod cluster;
pub mod commands;
pub mod dcos_plugin;
pub mod download;
pub mod error;
pub mod http;
pub mod images;
pub mod install;
pub mod instance;
pub mod marathon;
pub mod package;
pub mod preflight;
pub mod procfs;
pub mod progress;
pub mod renewal;
pub mod run;
mod runtime;
pub mod service_account;
pub mod serving;
pub mod siblings;
pub mod supervise;
pub mod upstream;
