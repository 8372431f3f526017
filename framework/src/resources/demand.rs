//! A pod's demand, added up as upstream's scheduler and kubelet add it up.
//!
//! Containers run together, so they add up. Init containers run one after the other, so the
//! greatest counts; those that stay (sidecars) count with everything that runs after them.
//! Pod-level resources replace the sum for the resources they name; overhead comes on top.
//! Requests decide where a pod fits. Limits hold only if every container has one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::MIB;
use super::ports::{HostPort, PortError, host_ports, is_sidecar};
use super::quantity::{Quantity, QuantityError};

/// Resource name of CPU.
pub const CPU: &str = "cpu";
/// Resource name of memory.
pub const MEMORY: &str = "memory";
/// Resource name of ephemeral storage.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// Resource name of the only extended resource that Mesos knows, as `gpus`.
pub const GPU: &str = "nvidia.com/gpu";

/// What accounting needs to know besides the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounting {
    /// Thousandths of a CPU that a pod's task gets when the pod requests none.
    /// Mesos calls less than 10 too little.
    pub default_cpu_millis: u64,
    /// Bytes of memory that a pod's task gets when the pod requests none.
    /// Mesos calls less than 32 MiB too little.
    pub default_memory_bytes: u64,
    /// Bytes of memory added to each task for the pod's shim and sandbox.
    pub pod_overhead_bytes: u64,
}

impl Default for Accounting {
    fn default() -> Self {
        Self {
            default_cpu_millis: 10,
            default_memory_bytes: 32 * MIB,
            // A containerd shim and a pause container; 3.3 MB per shim were measured with four.
            pod_overhead_bytes: 6 * MIB,
        }
    }
}

/// What a pod needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodDemand {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory, the shim's included.
    pub memory_bytes: u64,
    /// Bytes of ephemeral storage.
    pub disk_bytes: u64,
    /// Devices of `nvidia.com/gpu`.
    pub gpus: u32,
    /// Ports of the host.
    pub host_ports: Vec<HostPort>,
    /// Everything else that the pod requests, by name and in whole units: huge pages and
    /// extended resources. Mesos does not know them, the node may (device plugins).
    pub other: BTreeMap<String, u64>,
    /// What the pod may use at most.
    pub limits: PodLimits,
}

/// What a pod may use at most; `None` where some container has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// Thousandths of a CPU. Never below the request.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory, the shim's included. Never below the request.
    pub memory_bytes: Option<u64>,
}

/// A pod that cannot be accounted for. Trying again helps only when the pod changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// A quantity cannot be read.
    #[error("{place}: resource `{resource}`: {source}")]
    Quantity {
        /// The container, or the pod.
        place: String,
        /// Name of the resource.
        resource: String,
        /// What is wrong.
        source: QuantityError,
    },
    /// A quantity is below zero.
    #[error("{place}: resource `{resource}` is below zero")]
    Negative {
        /// The container, or the pod.
        place: String,
        /// Name of the resource.
        resource: String,
    },
    /// GPUs are whole devices.
    #[error("the pod asks for a fraction of a GPU, or for more than {max}; `{GPU}` counts whole devices", max = u32::MAX)]
    Gpus,
    /// A host port cannot be read.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The API server sent a pod without a spec.
    #[error("the pod has no spec")]
    NoSpec,
}

/// Quantities by resource name.
type Amounts = BTreeMap<String, Quantity>;
/// Quantities as the API has them.
type ApiAmounts = Option<BTreeMap<String, ApiQuantity>>;

impl PodDemand {
    /// Adds a pod up.
    pub fn of(pod: &Pod, accounting: &Accounting) -> Result<Self, DemandError> {
        let spec = pod.spec.as_ref().ok_or(DemandError::NoSpec)?;
        Self::of_spec(spec, accounting)
    }

    /// Adds a pod's spec up.
    pub fn of_spec(spec: &PodSpec, accounting: &Accounting) -> Result<Self, DemandError> {
        let overhead = amounts(&spec.overhead, || "overhead".to_owned())?;
        let pod_level = spec.resources.as_ref();
        let pod_requests = pod_level_amounts(pod_level, |r| &r.requests)?;
        let pod_limits = pod_level_amounts(pod_level, |r| &r.limits)?;

        let mut requests = aggregate(spec, |r| &r.requests)?;
        replace(&mut requests, pod_requests);
        add(&mut requests, &overhead);

        let mut limits = aggregate(spec, |r| &r.limits)?;
        let limited = |name: &str| {
            pod_limits.get(name).is_some_and(|q| !q.is_zero()) || every_container_limits(spec, name)
        };
        let (cpu_limited, memory_limited) = (limited(CPU), limited(MEMORY));
        replace(&mut limits, pod_limits);
        for (name, quantity) in &overhead {
            if let Some(limit) = limits.get_mut(name).filter(|q| !q.is_zero()) {
                *limit = limit.plus(*quantity);
            }
        }

        let take = |from: &mut Amounts, name: &str| from.remove(name).unwrap_or_default();
        let cpu_millis = match take(&mut requests, CPU).millis() {
            0 => accounting.default_cpu_millis,
            millis => millis,
        };
        let memory = match take(&mut requests, MEMORY).units() {
            0 => accounting.default_memory_bytes,
            bytes => bytes,
        };
        let memory_bytes = memory.saturating_add(accounting.pod_overhead_bytes);
        let disk_bytes = take(&mut requests, EPHEMERAL_STORAGE).units();
        let gpus = take(&mut requests, GPU).whole();
        let gpus = gpus
            .and_then(|g| u32::try_from(g).ok())
            .ok_or(DemandError::Gpus)?;

        let cpu_limit = take(&mut limits, CPU).millis();
        let memory_limit = take(&mut limits, MEMORY)
            .units()
            .saturating_add(accounting.pod_overhead_bytes);
        Ok(Self {
            cpu_millis,
            memory_bytes,
            disk_bytes,
            gpus,
            host_ports: host_ports(spec)?,
            other: requests
                .into_iter()
                .filter(|(_, quantity)| !quantity.is_zero())
                .map(|(name, quantity)| (name, quantity.units()))
                .collect(),
            limits: PodLimits {
                cpu_millis: cpu_limited.then(|| cpu_limit.max(cpu_millis)),
                memory_bytes: memory_limited.then(|| memory_limit.max(memory_bytes)),
            },
        })
    }

    /// `cpus` of the Mesos task. Mesos keeps three decimals, which thousandths are.
    pub fn mesos_cpus(&self) -> f64 {
        mesos_cpus(self.cpu_millis)
    }

    /// `mem` of the Mesos task in MiB, rounded up.
    pub fn mesos_mem(&self) -> f64 {
        mesos_mib(self.memory_bytes)
    }

    /// `disk` of the Mesos task in MiB, rounded up.
    pub fn mesos_disk(&self) -> f64 {
        mesos_mib(self.disk_bytes)
    }

    /// The distinct port numbers. Mesos counts numbers: one port open for TCP and for UDP, or on
    /// two addresses, is one.
    pub fn port_numbers(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.host_ports.iter().map(|p| p.port).collect();
        ports.dedup();
        ports
    }
}

/// Thousandths of a CPU as Mesos' scalar.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53 thousandths")]
pub fn mesos_cpus(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

/// Bytes as Mesos' scalar of MiB, rounded up.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53 MiB")]
pub fn mesos_mib(bytes: u64) -> f64 {
    bytes.div_ceil(MIB) as f64
}

/// A Mesos scalar in thousandths. Mesos rounds scalars to three decimals, and so do we.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded below by zero; `as` saturates above"
)]
pub fn millis_of(scalar: f64) -> u64 {
    (scalar * 1_000.0).round().max(0.0) as u64
}

/// A Mesos scalar of MiB in bytes, rounded down to what is surely there.
pub fn bytes_of_mib(scalar: f64) -> u64 {
    let thousandths = u128::from(millis_of(scalar)) * u128::from(MIB) / 1_000;
    u64::try_from(thousandths).unwrap_or(u64::MAX)
}

/// Whether a resource may be set for the pod as a whole.
fn is_pod_level(name: &str) -> bool {
    name == CPU || name == MEMORY || name.starts_with("hugepages-")
}

fn pod_level_amounts(
    resources: Option<&ResourceRequirements>,
    which: fn(&ResourceRequirements) -> &ApiAmounts,
) -> Result<Amounts, DemandError> {
    let Some(resources) = resources else {
        return Ok(Amounts::new());
    };
    let mut amounts = amounts(which(resources), || "resources of the pod".to_owned())?;
    amounts.retain(|name, _| is_pod_level(name));
    Ok(amounts)
}

fn amounts(api: &ApiAmounts, place: impl Fn() -> String) -> Result<Amounts, DemandError> {
    let mut amounts = Amounts::new();
    for (name, quantity) in api.iter().flatten() {
        let read = Quantity::try_from(quantity).map_err(|source| DemandError::Quantity {
            place: place(),
            resource: name.clone(),
            source,
        })?;
        if read.is_negative() {
            return Err(DemandError::Negative {
                place: place(),
                resource: name.clone(),
            });
        }
        amounts.insert(name.clone(), read);
    }
    Ok(amounts)
}

fn of_container(
    container: &Container,
    which: fn(&ResourceRequirements) -> &ApiAmounts,
) -> Result<Amounts, DemandError> {
    match &container.resources {
        Some(resources) => amounts(which(resources), || {
            format!("container `{}`", container.name)
        }),
        None => Ok(Amounts::new()),
    }
}

/// The sum over containers, or what the initialisation needs if that is more.
fn aggregate(
    spec: &PodSpec,
    which: fn(&ResourceRequirements) -> &ApiAmounts,
) -> Result<Amounts, DemandError> {
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add(&mut sum, &of_container(container, which)?);
    }
    let mut sidecars = Amounts::new();
    let mut init = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container, which)?;
        if is_sidecar(container) {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut init, &sidecars);
        } else {
            let mut while_it_runs = own;
            add(&mut while_it_runs, &sidecars);
            raise(&mut init, &while_it_runs);
        }
    }
    raise(&mut sum, &init);
    Ok(sum)
}

/// kubelet limits a pod's cgroup only if every container, init containers included, has a limit.
fn every_container_limits(spec: &PodSpec, name: &str) -> bool {
    let limited = |container: &Container| {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        let quantity = limits.and_then(|l| l.get(name));
        quantity.is_some_and(|q| Quantity::try_from(q).is_ok_and(|q| !q.is_zero()))
    };
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).all(limited)
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.plus(*quantity);
    }
}

fn raise(to: &mut Amounts, floor: &Amounts) {
    for (name, quantity) in floor {
        let value = to.entry(name.clone()).or_default();
        *value = (*value).max(*quantity);
    }
}

fn replace(to: &mut Amounts, by: Amounts) {
    to.extend(by);
}

#[cfg(test)]
#[path = "demand_tests.rs"]
mod tests;
