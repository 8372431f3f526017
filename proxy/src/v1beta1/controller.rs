//! Replication controllers.

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::meta::{self, Meta};
use super::probe::Written;
use super::types::{ControllerState, PodState, PodTemplate, ReplicationController};
use super::{Refused, Resource, pod};

/// A replication controller as v1.
pub fn to_v1(
    controller: &ReplicationController,
    namespace: Option<&str>,
) -> Result<v1::ReplicationController, Refused> {
    let metadata = meta::to_v1(Resource::ReplicationControllers, controller, namespace)?;
    let state = &controller.desired_state;
    let template = &state.pod_template;
    let mut written = Written::default();
    let spec = pod::spec_to_v1(
        "desiredState.podTemplate.desiredState",
        &template.desired_state,
        template.service_account.as_ref(),
        template.node_selector.as_ref(),
        &mut written,
    )?;
    let mut annotations = meta::annotations_to_v1(template.annotations.as_ref());
    written.write(&mut annotations);
    Ok(v1::ReplicationController {
        metadata,
        spec: Some(v1::ReplicationControllerSpec {
            // None when not said was 0; in v1 it would be 1.
            replicas: Some(state.replicas),
            selector: state.replica_selector.clone().filter(|s| !s.is_empty()),
            template: Some(v1::PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: template.labels.clone().filter(|l| !l.is_empty()),
                    annotations,
                    ..ObjectMeta::default()
                }),
                spec: Some(spec),
            }),
            min_ready_seconds: None,
        }),
        status: None,
    })
}

/// A replication controller as v1beta1.
pub fn from_v1(controller: &v1::ReplicationController) -> ReplicationController {
    let spec = controller.spec.clone().unwrap_or_default();
    let template = spec.template.unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    let pods = template.spec.unwrap_or_default();
    let written = Written::read(metadata.annotations.as_ref());
    let mut out = ReplicationController {
        desired_state: ControllerState {
            replicas: spec.replicas.unwrap_or(1),
            replica_selector: spec.selector.filter(|s| !s.is_empty()),
            pod_template: PodTemplate {
                desired_state: PodState {
                    manifest: pod::manifest_from_v1(&pods, None, &written),
                    ..PodState::default()
                },
                service_account: pods.service_account_name.clone(),
                node_selector: pods.node_selector.clone().filter(|s| !s.is_empty()),
                labels: metadata.labels.filter(|l| !l.is_empty()),
                annotations: meta::annotations_to_v1(metadata.annotations.as_ref()),
            },
        },
        current_state: ControllerState {
            replicas: controller.status.as_ref().map_or(0, |s| s.replicas),
            ..ControllerState::default()
        },
        ..ReplicationController::default()
    };
    out.set_meta(meta::from_v1(
        Resource::ReplicationControllers,
        &controller.metadata,
    ));
    out
}
