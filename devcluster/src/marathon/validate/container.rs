//! Rules of containers and volumes.

use regex::Regex;

use super::{Check, Rules};
use crate::marathon::model::container::{
    Container, ContainerType, DiskType, Mode, Persistent, Volume,
};
use crate::marathon::model::{App, NetworkMode};

pub(super) fn container(check: &mut Check, app: &App, container: &Container, rules: &Rules) {
    let docker = container.docker.as_ref();
    if container.r#type == ContainerType::Docker {
        check.that(docker.is_some(), "/container/docker", "not defined");
    }
    if let Some(docker) = docker {
        check.that(
            !docker.image.is_empty(),
            "/container/docker/image",
            "must not be empty",
        );
        check.that(
            docker.credential.is_none(),
            "/container/docker/credential",
            "must be empty",
        );
        if container.r#type == ContainerType::Mesos {
            check.that(
                !docker.is_docker_only(),
                "/container/docker",
                "parameters and privileged are not supported with the Mesos containerizer",
            );
        }
        if let Some(pull) = &docker.pull_config {
            let path = "/container/docker/pullConfig";
            if container.r#type == ContainerType::Docker {
                let text = "pullConfig is not supported with Docker containerizer";
                check.that(false, path, text);
            } else {
                check.feature(rules, "secrets", path);
                check.that(
                    app.secrets.contains_key(&pull.secret),
                    path,
                    "pullConfig.secret must refer to an existing secret",
                );
            }
        }
    }
    mappings(check, app, container);
    for (index, one) in container.volumes.iter().enumerate() {
        let path = format!("/container/volumes({index})");
        volume(check, app, one, rules, &path);
    }
}

fn mappings(check: &mut Check, app: &App, container: &Container) {
    let mappings = container.port_mappings.as_deref().unwrap_or(&[]);
    let names: Vec<_> = mappings.iter().filter_map(|m| m.name.as_ref()).collect();
    let mut distinct = names.clone();
    distinct.sort();
    distinct.dedup();
    check.that(
        names.len() == distinct.len(),
        "/container/portMappings",
        "Port names must be unique.",
    );
    let networks = app.networks.iter();
    let of_containers = networks
        .filter(|n| n.mode == NetworkMode::Container)
        .count();
    for (index, mapping) in mappings.iter().enumerate() {
        let path = format!("/container/portMappings({index})");
        check.that(
            of_containers < 2 || mapping.host_port.is_none() || mapping.network_names.len() == 1,
            &path,
            "networkNames must be a single item list when hostPort is specified and more than 1 container network is defined",
        );
        for name in &mapping.network_names {
            let known: Vec<_> = app
                .networks
                .iter()
                .filter_map(|n| n.name.as_deref())
                .collect();
            check.that(
                known.contains(&name.as_str()),
                &format!("{path}/networkNames"),
                format!("is not one of ({})", known.join(",")),
            );
        }
    }
}

fn volume(check: &mut Check, app: &App, volume: &Volume, rules: &Rules, path: &str) {
    let kinds = [
        volume.host_path.is_some(),
        volume.persistent.is_some(),
        volume.secret.is_some(),
        volume.external.is_some(),
    ];
    check.that(
        kinds.iter().filter(|k| **k).count() == 1,
        path,
        "Unknown app volume type",
    );
    let at = format!("{path}/containerPath");
    check.that(!volume.container_path.is_empty(), &at, "must not be empty");
    if let Some(host) = &volume.host_path {
        let text = "must not be empty";
        check.that(!host.is_empty(), &format!("{path}/hostPath"), text);
    }
    if let Some(info) = &volume.persistent {
        check.that(
            ![".", ".."].contains(&volume.container_path.as_str()),
            &at,
            "can not be one of (.,..)",
        );
        check.that(
            !volume.container_path.contains('/'),
            &at,
            "value must not contain \"/\"",
        );
        check.that(
            volume.mode != Some(Mode::Ro),
            &format!("{path}/mode"),
            "got Ro, expected Rw",
        );
        persistent(check, info, &format!("{path}/persistent"));
    }
    if let Some(secret) = &volume.secret {
        check.feature(rules, "secrets", "/container/volumes");
        check.that(
            app.secrets.contains_key(secret),
            path,
            "volume.secret must refer to an existing secret",
        );
    }
    if volume.external.is_some() {
        check.feature(rules, "external_volumes", path);
        check.that(
            !rules.features.contains("external_volumes"),
            path,
            "this Marathon has no provider of external volumes",
        );
    }
}

fn persistent(check: &mut Check, info: &Persistent, path: &str) {
    check.that(
        info.size > 0,
        &format!("{path}/size"),
        format!("got {}, expected more than 0", info.size),
    );
    check.that(
        info.max_size.is_none() || info.r#type == DiskType::Mount,
        path,
        "Only mount volumes can have maxSize",
    );
    check.that(
        info.max_size.is_none_or(|max| max > info.size),
        path,
        "Max size must be larger than size",
    );
    check.that(
        info.constraints.is_empty() || info.r#type != DiskType::Root,
        path,
        "Constraints on root volumes are not supported",
    );
    for constraint in &info.constraints {
        let path = format!("{path}/constraints");
        match constraint.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["path", "LIKE" | "UNLIKE", value] => {
                let text = "Invalid regular expression";
                check.that(Regex::new(value).is_ok(), &path, text);
            }
            ["path", _, _] => check.that(false, &path, "Operator must be one of LIKE, UNLIKE"),
            _ => check.that(
                false,
                &path,
                format!("Unsupported constraint {}", constraint.join(",")),
            ),
        }
    }
}
