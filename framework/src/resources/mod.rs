//! What a pod costs: Kubernetes' resource accounting, and the same numbers as Mesos counts them.
//!
//! Pure: pods in, numbers out. [`quantity`] reads Kubernetes quantities, [`ports`] host ports,
//! [`demand`] adds a pod up as upstream's scheduler and kubelet do, and rounds for Mesos.

pub mod demand;
pub mod ports;
pub mod quantity;

pub use demand::{Accounting, DemandError, PodDemand, PodLimits};
pub use ports::{HostIp, HostPort, PortRange, PortSet, Protocol};
pub use quantity::{Quantity, QuantityError};

/// Bytes of one MiB, the unit of Mesos' `mem` and `disk`.
pub const MIB: u64 = 1 << 20;
