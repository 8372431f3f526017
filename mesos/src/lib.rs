//! A client for the Apache Mesos v1 HTTP APIs: scheduler, executor and operator.
//!
//! Start at [`pb`] for the messages and [`codec`] for their two encodings.

pub mod codec;
pub mod pb;
