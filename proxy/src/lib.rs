//! The front door of the API servers: one address in front of several that come and go.
//!
//! | side | what it does |
//! |---|---|
//! | TLS ([`relay`]) | passes bytes through to an API server that is ready; knows nothing of TLS, adds no credential |
//! | HTTP ([`http`]) | for DC/OS' admin router: forwards requests with bearer tokens, strips everything that claims an identity |
//! | `localhost` ([`legacy`]) | loopback only, with a limited identity of its own; speaks v1beta1 besides ([`v1beta1`]) |
//! | status ([`status`]) | `/healthz`, `/readyz`, `/metrics` |
//!
//! Which API server a connection goes to is decided in [`backends::pool`], a value without
//! sockets or clocks; [`backends`] feeds it with what probes and connections find.
//! [`balancer`] is for others: the smaller way to the API servers that nodes and the control plane's
//! own clients use.
//! The page for users is `docs/front-door.md`.

pub mod backends;
pub mod balancer;
pub mod config;
pub mod http;
pub mod legacy;
pub mod limit;
pub mod metrics;
pub mod relay;
pub mod run;
pub mod status;
pub mod tcp;
pub mod tls;
pub mod v1beta1;
