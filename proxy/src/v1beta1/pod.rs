//! Pods, and the part of them that templates share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1;

use super::meta::{self, Meta};
use super::probe::Written;
use super::types::{
    ContainerState, ContainerStatus, Empty, LocalReference, Manifest, Pod, PodCondition, PodState,
    RestartPolicy, Running, Terminated, Waiting, Words,
};
use super::{Refused, Resource, VERSION, container, said, some, volume};

/// A pod as v1. What is the server's, `currentState` and all of `desiredState` but its manifest
/// and host, is not looked at.
pub fn to_v1(pod: &Pod, namespace: Option<&str>) -> Result<v1::Pod, Refused> {
    let mut metadata = meta::to_v1(Resource::Pods, pod, namespace)?;
    let mut written = Written::default();
    let mut spec = spec_to_v1(
        "desiredState",
        &pod.desired_state,
        pod.service_account.as_ref(),
        pod.node_selector.as_ref(),
        &mut written,
    )?;
    spec.node_name = said(pod.desired_state.host.as_ref());
    written.write(&mut metadata.annotations);
    Ok(v1::Pod {
        metadata,
        spec: Some(spec),
        status: None,
    })
}

/// What containers, volumes and policies say.
pub fn spec_to_v1(
    path: &str,
    state: &PodState,
    service_account: Option<&String>,
    node_selector: Option<&Words>,
    written: &mut Written,
) -> Result<v1::PodSpec, Refused> {
    let manifest = &state.manifest;
    let path = format!("{path}.manifest");
    if !["", VERSION, "v1beta2"].contains(&manifest.version.as_str()) {
        return Err(Refused::at(
            format!("{path}.version"),
            format!("{:?} is not {VERSION}", manifest.version),
        ));
    }
    let volumes = manifest.volumes.iter().flatten().enumerate();
    let containers = manifest.containers.iter().flatten().enumerate();
    let pull_secrets = manifest.image_pull_secrets.iter().flatten();
    Ok(v1::PodSpec {
        volumes: some(
            volumes
                .map(|(at, v)| volume::to_v1(&format!("{path}.volumes[{at}]"), v))
                .collect::<Result<_, _>>()?,
        ),
        containers: containers
            .map(|(at, c)| container::to_v1(&format!("{path}.containers[{at}]"), c, written))
            .collect::<Result<_, _>>()?,
        restart_policy: Some(restart_policy(&path, manifest)?.to_owned()),
        termination_grace_period_seconds: manifest.termination_grace_period_seconds,
        active_deadline_seconds: manifest.active_deadline_seconds,
        dns_policy: Some(
            said(manifest.dns_policy.as_ref()).unwrap_or_else(|| "ClusterFirst".to_owned()),
        ),
        host_network: manifest.host_network.filter(|h| *h),
        image_pull_secrets: some(
            pull_secrets
                .map(|s| v1::LocalObjectReference {
                    name: s.name.clone().unwrap_or_default(),
                })
                .collect(),
        ),
        service_account_name: said(service_account),
        node_selector: node_selector.filter(|s| !s.is_empty()).cloned(),
        ..v1::PodSpec::default()
    })
}

fn restart_policy(path: &str, manifest: &Manifest) -> Result<&'static str, Refused> {
    let policy = manifest.restart_policy.clone().unwrap_or_default();
    match (policy.always, policy.on_failure, policy.never) {
        (_, None, None) => Ok("Always"),
        (None, Some(_), None) => Ok("OnFailure"),
        (None, None, Some(_)) => Ok("Never"),
        _ => Err(Refused::at(
            format!("{path}.restartPolicy"),
            "it should hold one of always, onFailure and never",
        )),
    }
}

/// A pod as v1beta1.
pub fn from_v1(pod: &v1::Pod) -> Pod {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let written = Written::read(pod.metadata.annotations.as_ref());
    let host = said(spec.node_name.as_ref());
    let mut out = Pod {
        desired_state: PodState {
            manifest: manifest_from_v1(&spec, pod.metadata.name.as_deref(), &written),
            host: host.clone(),
            ..PodState::default()
        },
        current_state: PodState {
            // Always there, always empty: what runs is `info`.
            manifest: Manifest::default(),
            status: status.phase.as_deref().map(phase),
            conditions: some(
                status
                    .conditions
                    .iter()
                    .flatten()
                    .filter(|c| c.type_ == "Ready")
                    .map(|c| PodCondition {
                        kind: Some(c.type_.clone()),
                        status: Some(condition(&c.status)),
                    })
                    .collect(),
            ),
            message: said(status.message.as_ref()),
            host,
            host_ip: said(status.host_ip.as_ref()),
            pod_ip: said(status.pod_ip.as_ref()),
            info: info(status.container_statuses.as_deref().unwrap_or_default()),
        },
        service_account: spec.service_account_name.clone(),
        node_selector: spec.node_selector.clone().filter(|s| !s.is_empty()),
        ..Pod::default()
    };
    out.set_meta(meta::from_v1(Resource::Pods, &pod.metadata));
    out
}

/// What v1beta1 can say of a pod's specification. `id` is the pod's name.
pub fn manifest_from_v1(spec: &v1::PodSpec, id: Option<&str>, written: &Written) -> Manifest {
    let volumes: Vec<_> = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(volume::from_v1)
        .collect();
    let shown: Vec<String> = volumes.iter().filter_map(|v| v.name.clone()).collect();
    Manifest {
        version: VERSION.to_owned(),
        id: id.unwrap_or_default().to_owned(),
        uuid: None,
        volumes: some(volumes),
        containers: some(
            spec.containers
                .iter()
                .map(|c| container::from_v1(c, &shown, written))
                .collect(),
        ),
        restart_policy: spec.restart_policy.as_deref().map(|policy| {
            let is = |name| (policy == name).then_some(Empty {});
            RestartPolicy {
                always: is("Always"),
                on_failure: is("OnFailure"),
                never: is("Never"),
            }
        }),
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        active_deadline_seconds: spec.active_deadline_seconds,
        // Others than these two were none.
        dns_policy: spec
            .dns_policy
            .clone()
            .filter(|p| ["ClusterFirst", "Default"].contains(&p.as_str())),
        host_network: spec.host_network.filter(|h| *h),
        image_pull_secrets: some(
            spec.image_pull_secrets
                .iter()
                .flatten()
                .map(|s| LocalReference {
                    name: Some(s.name.clone()),
                })
                .collect(),
        ),
    }
}

/// A pod's phase in v1beta1's words.
pub fn phase(phase: &str) -> String {
    match phase {
        "Pending" => "Waiting",
        "Failed" => "Terminated",
        same => same,
    }
    .to_owned()
}

/// A condition's status in v1beta1's words.
pub fn condition(status: &str) -> String {
    match status {
        "True" => "Full",
        "False" => "None",
        same => same,
    }
    .to_owned()
}

fn info(statuses: &[v1::ContainerStatus]) -> Option<BTreeMap<String, ContainerStatus>> {
    let info: BTreeMap<_, _> = statuses
        .iter()
        .map(|s| {
            let status = ContainerStatus {
                state: state(s.state.as_ref()),
                last_state: state(s.last_state.as_ref()),
                ready: s.ready,
                restart_count: s.restart_count,
                image: s.image.clone(),
                image_id: s.image_id.clone(),
                container_id: said(s.container_id.as_ref()),
            };
            (s.name.clone(), status)
        })
        .collect();
    (!info.is_empty()).then_some(info)
}

fn state(state: Option<&v1::ContainerState>) -> ContainerState {
    let Some(state) = state else {
        return ContainerState::default();
    };
    ContainerState {
        waiting: state.waiting.as_ref().map(|w| Waiting {
            reason: w.reason.clone(),
        }),
        running: state.running.as_ref().map(|r| Running {
            started_at: r.started_at.as_ref().and_then(meta::time),
        }),
        termination: state.terminated.as_ref().map(|t| Terminated {
            exit_code: Some(t.exit_code),
            signal: t.signal,
            reason: t.reason.clone(),
            message: t.message.clone(),
            started_at: t.started_at.as_ref().and_then(meta::time),
            finished_at: t.finished_at.as_ref().and_then(meta::time),
            container_id: t.container_id.clone(),
        }),
    }
}
