//! What a pod asks for and this scheduler does not look at yet, to be said in the pod's event.

use std::fmt;

use k8s_openapi::api::core::v1::PodSpec;

/// Something that is not considered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unconsidered {
    /// `spec.affinity.podAffinity`.
    PodAffinity,
    /// `spec.affinity.podAntiAffinity`.
    PodAntiAffinity,
    /// `spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution`.
    PreferredNodeAffinity,
    /// `spec.topologySpreadConstraints`.
    TopologySpread,
    /// Where the pod's persistent volumes can be reached.
    VolumeTopology,
    /// `spec.resourceClaims`.
    ResourceClaims,
}

impl fmt::Display for Unconsidered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodAffinity => "pod affinity",
            Self::PodAntiAffinity => "pod anti-affinity",
            Self::PreferredNodeAffinity => "preferred node affinity",
            Self::TopologySpread => "topology spread constraints",
            Self::VolumeTopology => "the topology of persistent volumes",
            Self::ResourceClaims => "resource claims",
        })
    }
}

/// What of the pod's wishes is not considered, in the order of the enum.
pub fn unconsidered(spec: &PodSpec) -> Vec<Unconsidered> {
    let affinity = spec.affinity.as_ref();
    let pods = affinity.and_then(|a| a.pod_affinity.as_ref());
    let anti = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let nodes = affinity.and_then(|a| a.node_affinity.as_ref());
    let some = |list: Option<usize>| list.is_some_and(|length| length > 0);
    let claims_volume = |v: &k8s_openapi::api::core::v1::Volume| {
        v.persistent_volume_claim.is_some() || v.ephemeral.is_some()
    };
    [
        (
            Unconsidered::PodAffinity,
            pods.is_some_and(|a| {
                some(
                    a.required_during_scheduling_ignored_during_execution
                        .as_ref()
                        .map(Vec::len),
                ) || some(
                    a.preferred_during_scheduling_ignored_during_execution
                        .as_ref()
                        .map(Vec::len),
                )
            }),
        ),
        (
            Unconsidered::PodAntiAffinity,
            anti.is_some_and(|a| {
                some(
                    a.required_during_scheduling_ignored_during_execution
                        .as_ref()
                        .map(Vec::len),
                ) || some(
                    a.preferred_during_scheduling_ignored_during_execution
                        .as_ref()
                        .map(Vec::len),
                )
            }),
        ),
        (
            Unconsidered::PreferredNodeAffinity,
            nodes.is_some_and(|a| {
                some(
                    a.preferred_during_scheduling_ignored_during_execution
                        .as_ref()
                        .map(Vec::len),
                )
            }),
        ),
        (
            Unconsidered::TopologySpread,
            some(spec.topology_spread_constraints.as_ref().map(Vec::len)),
        ),
        (
            Unconsidered::VolumeTopology,
            spec.volumes.iter().flatten().any(claims_volume),
        ),
        (
            Unconsidered::ResourceClaims,
            some(spec.resource_claims.as_ref().map(Vec::len)),
        ),
    ]
    .into_iter()
    .filter_map(|(what, used)| used.then_some(what))
    .collect()
}

/// The sentence for an event; `None` where everything is considered.
pub fn sentence(list: &[Unconsidered]) -> Option<String> {
    let names: Vec<String> = list.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| format!("Not considered yet: {}.", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_pod_uses_is_named() {
        let plain: PodSpec =
            serde_json::from_value(json!({"containers": [], "affinity": {"podAffinity": {}}}))
                .unwrap();
        assert_eq!(sentence(&unconsidered(&plain)), None);
        let rich: PodSpec = serde_json::from_value(json!({
            "containers": [],
            "affinity": {
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]},
                "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]},
            },
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        }))
        .unwrap();
        assert_eq!(
            sentence(&unconsidered(&rich)).unwrap(),
            "Not considered yet: pod anti-affinity, preferred node affinity, topology spread constraints, \
             the topology of persistent volumes."
        );
    }
}
