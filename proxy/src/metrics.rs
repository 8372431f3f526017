//! What the front door counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A side of the front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs)]
pub enum Side {
    Tls,
    Http,
    Local,
}

/// Label of a side.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(missing_docs)]
pub struct SideLabel {
    pub side: Side,
}

/// Why a connection or a request was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Refusal {
    /// As many connections as there may be.
    Limit,
    /// As many connections from one address as there may be.
    AddressLimit,
    /// No API server took it.
    NoBackend,
    /// No bearer token.
    NoToken,
    /// From a foreign web page.
    Foreign,
}

/// Labels of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(missing_docs)]
pub struct RefusalLabel {
    pub side: Side,
    pub reason: Refusal,
}

/// Label of an API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(missing_docs)]
pub struct BackendLabel {
    pub backend: String,
}

/// Direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Label of a direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(missing_docs)]
pub struct DirectionLabel {
    pub direction: Direction,
}

/// Labels of a forwarded request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(missing_docs)]
pub struct RequestLabel {
    pub side: Side,
    pub code: u16,
}

/// All metrics; clones are the same ones.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Connections that are open.
    pub open: Family<SideLabel, Gauge>,
    /// Connections that were accepted.
    pub accepted: Family<SideLabel, Counter>,
    /// Connections and requests that were refused.
    pub refused: Family<RefusalLabel, Counter>,
    /// Bytes passed through by the TLS side.
    pub bytes: Family<DirectionLabel, Counter>,
    /// Requests answered by the HTTP sides.
    pub requests: Family<RequestLabel, Counter>,
    /// 1 when an API server is ready.
    pub backend_ready: Family<BackendLabel, Gauge>,
    /// Connections to an API server.
    pub backend_connections: Family<BackendLabel, Gauge>,
    /// Time to connect to an API server for a client.
    pub connect_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            open: Family::default(),
            accepted: Family::default(),
            refused: Family::default(),
            bytes: Family::default(),
            requests: Family::default(),
            backend_ready: Family::default(),
            backend_connections: Family::default(),
            // 0.1 ms to 3.3 s.
            connect_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
        }
    }
}

impl Metrics {
    /// The metrics and the registry that writes them.
    pub fn registered() -> (Self, Registry) {
        let m = Self::default();
        let mut r = Registry::with_prefix("k8sm_proxy");
        r.register(
            "connections_open",
            "Connections that are open",
            m.open.clone(),
        );
        r.register(
            "connections_accepted",
            "Connections that were accepted",
            m.accepted.clone(),
        );
        r.register(
            "refused",
            "Connections and requests that were refused",
            m.refused.clone(),
        );
        r.register(
            "relayed_bytes",
            "Bytes passed through by the TLS side",
            m.bytes.clone(),
        );
        r.register(
            "requests",
            "Requests answered by the HTTP sides",
            m.requests.clone(),
        );
        r.register(
            "backend_ready",
            "Whether an API server is ready",
            m.backend_ready.clone(),
        );
        r.register(
            "backend_connections",
            "Connections to an API server",
            m.backend_connections.clone(),
        );
        r.register_with_unit(
            "connect",
            "Time to connect to an API server for a client",
            Unit::Seconds,
            m.connect_seconds.clone(),
        );
        (m, r)
    }

    /// Counts a refusal.
    pub fn refuse(&self, side: Side, reason: Refusal) {
        self.refused
            .get_or_create(&RefusalLabel { side, reason })
            .inc();
    }
}
