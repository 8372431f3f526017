//! What users write and read: apps, groups, and what they are made of, as JSON names them.

pub mod app;
pub mod container;
pub mod health;
pub mod normalize;
pub mod read;
pub mod root;

pub use app::{App, EnvValue, UnreachableStrategy, UpgradeStrategy, VersionInfo};
pub use container::{Container, Network, NetworkMode, PortDefinition, PortMapping, Volume};
pub use health::{HealthCheck, Protocol, ReadinessCheck};
pub use root::{Group, Root};
