//! A client for the Apache Mesos v1 HTTP APIs: scheduler, executor and operator.
//!
//! | module | what |
//! |---|---|
//! | [`pb`], [`codec`] | the messages and their two encodings |
//! | [`recordio`] | the framing of event streams |
//! | [`master`] | how masters are named and the leading one is found |
//! | [`http`] | the HTTP client: TLS and authentication |
//! | [`scheduler`] | for frameworks |
//! | [`executor`] | for executors |
//! | [`operator`] | for tools |
//! | [`error`] | what can go wrong |
//!
//! Everything runs on a tokio runtime. No process-wide state is touched: the TLS provider is
//! chosen per client, nothing reads the environment save [`executor::ExecutorConfig::from_env`].

pub mod codec;
mod connection;
pub mod error;
pub mod executor;
pub mod http;
pub mod master;
pub mod operator;
pub mod pb;
pub mod recordio;
pub mod scheduler;

pub use error::{Error, Refusal};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
