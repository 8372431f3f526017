//! Containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::probe::{self, Written};
use super::types::{
    Capabilities, Container, EnvSource, EnvVar, FieldSelector, Port, SeLinux, SecurityContext,
    VolumeMount,
};
use super::{Refused, VERSION, quantity, said, some};

/// Pull policies: v1beta1's and v1's.
const PULL_POLICIES: [(&str, &str); 3] = [
    ("PullAlways", "Always"),
    ("PullNever", "Never"),
    ("PullIfNotPresent", "IfNotPresent"),
];
/// Fields of a pod that a variable may come from: v1beta1's and v1's.
const FIELD_PATHS: [(&str, &str); 4] = [
    ("name", "metadata.name"),
    ("id", "metadata.name"),
    ("namespace", "metadata.namespace"),
    ("currentState.podIP", "status.podIP"),
];

/// A container as v1.
pub fn to_v1(
    path: &str,
    container: &Container,
    written: &mut Written,
) -> Result<v1::Container, Refused> {
    let name = said(container.name.as_ref()).unwrap_or_default();
    let ports: Vec<v1::ContainerPort> = container.ports.iter().flatten().map(port_to_v1).collect();
    let mut probe = |field: &str, probe: &Option<super::types::LivenessProbe>| match probe {
        Some(probe) => probe::to_v1(
            &format!("{path}.{field}"),
            &format!("{name} {field}"),
            probe,
            &ports,
            written,
        ),
        None => Ok(None),
    };
    let liveness_probe = probe("livenessProbe", &container.liveness_probe)?;
    let readiness_probe = probe("readinessProbe", &container.readiness_probe)?;
    let lifecycle = match &container.lifecycle {
        Some(lifecycle) => probe::lifecycle_to_v1(&format!("{path}.lifecycle"), lifecycle, &ports)?,
        None => None,
    };
    let image = said(container.image.as_ref());
    Ok(v1::Container {
        image_pull_policy: Some(pull_policy(path, container, image.as_deref())?),
        image,
        command: container.entrypoint.clone().and_then(some),
        args: container.command.clone().and_then(some),
        working_dir: said(container.working_dir.as_ref()),
        env: some(env_to_v1(path, container)?),
        resources: resources_to_v1(path, container)?,
        volume_mounts: some(mounts_to_v1(path, container)?),
        liveness_probe,
        readiness_probe,
        lifecycle,
        termination_message_path: said(container.termination_message_path.as_ref()),
        security_context: security_to_v1(path, container)?,
        ports: some(ports),
        name,
        ..v1::Container::default()
    })
}

/// v1beta1's default: always for the tag `latest` that is written, else if it is not there.
fn pull_policy(path: &str, container: &Container, image: Option<&str>) -> Result<String, Refused> {
    match said(container.image_pull_policy.as_ref()) {
        Some(policy) => PULL_POLICIES
            .iter()
            .find(|(old, _)| *old == policy)
            .map(|(_, new)| (*new).to_owned())
            .ok_or_else(|| {
                Refused::at(
                    format!("{path}.imagePullPolicy"),
                    format!("{policy:?} is none of PullAlways, PullNever, PullIfNotPresent"),
                )
            }),
        None if image.is_some_and(|i| i.ends_with(":latest")) => Ok("Always".to_owned()),
        None => Ok("IfNotPresent".to_owned()),
    }
}

fn port_to_v1(port: &Port) -> v1::ContainerPort {
    v1::ContainerPort {
        name: said(port.name.as_ref()),
        container_port: port.container_port.unwrap_or_default(),
        // 0 meant none.
        host_port: port.host_port.filter(|p| *p != 0),
        host_ip: said(port.host_ip.as_ref()),
        protocol: Some(said(port.protocol.as_ref()).unwrap_or_else(|| "TCP".to_owned())),
    }
}

fn env_to_v1(path: &str, container: &Container) -> Result<Vec<v1::EnvVar>, Refused> {
    let all = container.env.iter().flatten().enumerate();
    all.map(|(at, var)| {
        let path = format!("{path}.env[{at}]");
        let value_from = match var.value_from.as_ref().and_then(|f| f.field_ref.as_ref()) {
            Some(field) => Some(v1::EnvVarSource {
                field_ref: Some(field_to_v1(&format!("{path}.valueFrom.fieldRef"), field)?),
                ..v1::EnvVarSource::default()
            }),
            None => None,
        };
        Ok(v1::EnvVar {
            name: said(var.name.as_ref())
                .or_else(|| said(var.key.as_ref()))
                .unwrap_or_default(),
            value: said(var.value.as_ref()),
            value_from,
        })
    })
    .collect()
}

fn field_to_v1(path: &str, field: &FieldSelector) -> Result<v1::ObjectFieldSelector, Refused> {
    let version = said(field.api_version.as_ref()).unwrap_or_else(|| VERSION.to_owned());
    let wanted = said(field.field_path.as_ref()).unwrap_or_default();
    let field_path = match version.as_str() {
        "v1" => wanted,
        VERSION => FIELD_PATHS
            .iter()
            .find(|(old, _)| *old == wanted)
            .map(|(_, new)| (*new).to_owned())
            .ok_or_else(|| {
                Refused::at(
                    format!("{path}.fieldPath"),
                    format!("{wanted:?} is none of name, namespace and currentState.podIP; say apiVersion v1 for others"),
                )
            })?,
        _ => {
            return Err(Refused::at(
                format!("{path}.apiVersion"),
                format!("{version:?} is neither v1beta1 nor v1"),
            ));
        }
    };
    Ok(v1::ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path,
    })
}

fn mounts_to_v1(path: &str, container: &Container) -> Result<Vec<v1::VolumeMount>, Refused> {
    let all = container.volume_mounts.iter().flatten().enumerate();
    all.map(|(at, mount)| {
        if mount.mount_type.as_deref() == Some("HOST") {
            return Err(Refused::at(
                format!("{path}.volumeMounts[{at}].mountType"),
                "HOST is no kind of mount any more; declare a volume with source.hostDir",
            ));
        }
        Ok(v1::VolumeMount {
            name: said(mount.name.as_ref()).unwrap_or_default(),
            mount_path: said(mount.mount_path.as_ref())
                .or_else(|| said(mount.path.as_ref()))
                .unwrap_or_default(),
            read_only: mount.read_only.filter(|r| *r),
            ..v1::VolumeMount::default()
        })
    })
    .collect()
}

fn resources_to_v1(
    path: &str,
    container: &Container,
) -> Result<Option<v1::ResourceRequirements>, Refused> {
    let both = container.resources.clone().unwrap_or_default();
    let list = |name: &str, list: &Option<_>| match list {
        Some(list) => quantity::to_v1(&format!("{path}.resources.{name}"), list),
        None => Ok(BTreeMap::new()),
    };
    let mut limits = list("limits", &both.limits)?;
    let requests = list("requests", &both.requests)?;
    let short = [
        ("cpu", container.cpu.map(i128::from), 1),
        ("memory", container.memory.map(i128::from), 1000),
    ];
    for (name, number, factor) in short {
        // 0 meant none.
        let Some(number) = number.filter(|n| *n != 0) else {
            continue;
        };
        let path = format!("{path}.{name}");
        if number < 0 {
            return Err(Refused::at(path, format!("{number} is less than nothing")));
        }
        let quantity = Quantity(quantity::from_milli(number * factor));
        match limits.insert(name.to_owned(), quantity.clone()) {
            Some(other) if other != quantity => {
                return Err(Refused::at(
                    path,
                    format!("{number} here, but {} in resources.limits", other.0),
                ));
            }
            _ => {}
        }
    }
    let list = |list: BTreeMap<String, Quantity>| (!list.is_empty()).then_some(list);
    let out = v1::ResourceRequirements {
        limits: list(limits),
        requests: list(requests),
        ..v1::ResourceRequirements::default()
    };
    Ok((out != v1::ResourceRequirements::default()).then_some(out))
}

fn security_to_v1(
    path: &str,
    container: &Container,
) -> Result<Option<v1::SecurityContext>, Refused> {
    let context = container.security_context.clone().unwrap_or_default();
    let capabilities_to_v1 = |c: &Capabilities| {
        let out = v1::Capabilities {
            add: c.add.clone().and_then(some),
            drop: c.drop.clone().and_then(some),
        };
        (out != v1::Capabilities::default()).then_some(out)
    };
    let old = container.capabilities.as_ref().and_then(capabilities_to_v1);
    let new = context.capabilities.as_ref().and_then(capabilities_to_v1);
    let capabilities = agree(path, "capabilities", old, new)?;
    // False meant nothing said.
    let privileged = agree(
        path,
        "privileged",
        container.privileged.filter(|p| *p),
        context.privileged.filter(|p| *p),
    )?;
    let out = v1::SecurityContext {
        capabilities,
        privileged,
        run_as_user: context.run_as_user,
        se_linux_options: context.se_linux_options.map(|o| v1::SELinuxOptions {
            user: said(o.user.as_ref()),
            role: said(o.role.as_ref()),
            type_: said(o.kind.as_ref()),
            level: said(o.level.as_ref()),
        }),
        ..v1::SecurityContext::default()
    };
    Ok((out != v1::SecurityContext::default()).then_some(out))
}

/// One of two places that mean the same.
fn agree<T: PartialEq>(
    path: &str,
    field: &str,
    old: Option<T>,
    new: Option<T>,
) -> Result<Option<T>, Refused> {
    match (old, new) {
        (Some(old), Some(new)) if old != new => Err(Refused::at(
            format!("{path}.{field}"),
            format!("it says something else than securityContext.{field}"),
        )),
        (old, new) => Ok(new.or(old)),
    }
}

/// A container as v1beta1. `shown` are the volumes that v1beta1 can say.
pub fn from_v1(container: &v1::Container, shown: &[String], written: &Written) -> Container {
    let ports = container.ports.as_deref().unwrap_or_default();
    let probe = |field: &str, probe: &Option<v1::Probe>| {
        let key = format!("{} {field}", container.name);
        probe::from_v1(&key, probe.as_ref()?, ports, written)
    };
    let limit = |name: &str| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        limits.get(name).map(|q| q.0.as_str())
    };
    let context = container.security_context.as_ref();
    let capabilities = context
        .and_then(|c| c.capabilities.as_ref())
        .map(|c| Capabilities {
            add: c.add.clone(),
            drop: c.drop.clone(),
        });
    Container {
        name: Some(container.name.clone()),
        image: container.image.clone(),
        entrypoint: container.command.clone(),
        command: container.args.clone(),
        working_dir: container.working_dir.clone(),
        ports: some(ports.iter().map(port_from_v1).collect()),
        env: some(
            container
                .env
                .iter()
                .flatten()
                .filter_map(env_from_v1)
                .collect(),
        ),
        resources: container
            .resources
            .as_ref()
            .and_then(|r| quantity::resources(r.limits.as_ref(), r.requests.as_ref())),
        cpu: limit("cpu")
            .and_then(quantity::milli)
            .and_then(|m| i64::try_from(m).ok()),
        memory: limit("memory").and_then(quantity::units),
        volume_mounts: some(
            container
                .volume_mounts
                .iter()
                .flatten()
                .filter(|m| shown.contains(&m.name))
                .map(mount_from_v1)
                .collect(),
        ),
        liveness_probe: probe("livenessProbe", &container.liveness_probe),
        readiness_probe: probe("readinessProbe", &container.readiness_probe),
        lifecycle: container
            .lifecycle
            .as_ref()
            .and_then(probe::lifecycle_from_v1),
        termination_message_path: container.termination_message_path.clone(),
        privileged: context.and_then(|c| c.privileged).filter(|p| *p),
        image_pull_policy: PULL_POLICIES
            .iter()
            .find(|(_, new)| container.image_pull_policy.as_deref() == Some(new))
            .map(|(old, _)| (*old).to_owned()),
        capabilities: capabilities.clone(),
        security_context: context.and_then(|c| security_from_v1(c, capabilities)),
    }
}

fn port_from_v1(port: &v1::ContainerPort) -> Port {
    Port {
        name: port.name.clone(),
        host_port: port.host_port,
        container_port: Some(port.container_port),
        protocol: port.protocol.clone(),
        host_ip: port.host_ip.clone(),
    }
}

/// Variables from Secrets, ConfigMaps and the like are none of v1beta1's.
fn env_from_v1(var: &v1::EnvVar) -> Option<EnvVar> {
    let value_from = match &var.value_from {
        None => None,
        Some(from) => {
            let field = from.field_ref.as_ref()?;
            Some(EnvSource {
                field_ref: Some(FieldSelector {
                    api_version: field.api_version.clone(),
                    field_path: Some(field.field_path.clone()),
                }),
            })
        }
    };
    Some(EnvVar {
        name: Some(var.name.clone()),
        key: Some(var.name.clone()),
        value: var.value.clone(),
        value_from,
    })
}

fn mount_from_v1(mount: &v1::VolumeMount) -> VolumeMount {
    VolumeMount {
        name: Some(mount.name.clone()),
        read_only: mount.read_only.filter(|r| *r),
        mount_path: Some(mount.mount_path.clone()),
        path: Some(mount.mount_path.clone()),
        mount_type: None,
    }
}

fn security_from_v1(
    context: &v1::SecurityContext,
    capabilities: Option<Capabilities>,
) -> Option<SecurityContext> {
    let out = SecurityContext {
        capabilities,
        privileged: context.privileged.filter(|p| *p),
        se_linux_options: context.se_linux_options.as_ref().map(|o| SeLinux {
            user: o.user.clone(),
            role: o.role.clone(),
            kind: o.type_.clone(),
            level: o.level.clone(),
        }),
        run_as_user: context.run_as_user,
    };
    (out != SecurityContext::default()).then_some(out)
}
