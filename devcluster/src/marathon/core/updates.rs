//! Changes of apps and groups: from what is to be to a deployment.

use std::collections::BTreeSet;

use serde::Serialize;

use super::deploy::Deployment;
use super::plan::plan;
use super::{Core, settings::Settings};
use crate::marathon::error::ApiError;
use crate::marathon::ids::{DeploymentId, InstanceId, PathId, Version};
use crate::marathon::model::normalize::{Defaults, normalize};
use crate::marathon::model::{App, Root, VersionInfo};
use crate::marathon::validate::{self, Rules};

/// Why a task of an app ended, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFailure {
    /// Of which app.
    pub app_id: PathId,
    /// Where it ran.
    pub host: String,
    /// What Mesos said.
    pub message: String,
    /// The last state.
    pub state: String,
    /// Which task.
    pub task_id: String,
    /// When.
    pub timestamp: Version,
    /// Of which version.
    pub version: Version,
    /// On which agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slave_id: Option<String>,
}

/// A change that is asked for.
#[derive(Debug)]
pub(in crate::marathon) struct Change {
    /// What there is to be.
    pub target: Root,
    /// Which version changed apps get.
    pub version: Version,
    /// Whether deployments that are in the way are ended.
    pub force: bool,
    /// Apps that are restarted though nothing changed.
    pub restart: BTreeSet<PathId>,
    /// Apps that go back to a definition of before, with its version: tasks that have it are
    /// good as they are.
    pub reverted: BTreeSet<PathId>,
    /// Instances that scaling takes first.
    pub sentenced: Vec<InstanceId>,
}

impl Core {
    /// A change of a copy of what there is to be.
    pub(in crate::marathon) fn change(&self, force: bool) -> Change {
        Change {
            target: self.durable.root.clone(),
            version: self.new_version(),
            force,
            restart: BTreeSet::new(),
            reverted: BTreeSet::new(),
            sentenced: Vec::new(),
        }
    }

    /// What rules depend on.
    pub(in crate::marathon) fn rules(&self) -> Rules {
        Rules {
            features: self.settings.features.clone(),
            roles: [self.settings.role.clone()].into(),
        }
    }

    /// Fills in defaults and checks the app by itself.
    pub(in crate::marathon) fn complete(&self, app: &mut App) -> Result<(), ApiError> {
        let Settings {
            role,
            network_name,
            max_definition,
            ..
        } = &self.settings;
        let defaults = Defaults {
            role: role.clone(),
            network_name: network_name.clone(),
        };
        normalize(app, &defaults);
        validate::app(app, &self.rules(), *max_definition)
    }

    /// Gives changed apps their versions and ports and checks the whole. What results is what
    /// the deployment would lead to.
    pub(in crate::marathon) fn prepare(&self, change: &mut Change) -> Result<(), ApiError> {
        let old = &self.durable.root;
        let version = change.version;
        for (id, app) in &mut change.target.apps {
            if change.reverted.contains(id) {
                continue;
            }
            let before = old.apps.get(id);
            let Some(before) = before else {
                app.version = Some(version);
                app.version_info = Some(VersionInfo {
                    last_scaling_at: version,
                    last_config_change_at: version,
                });
                continue;
            };
            // A definition that leaves its ports open keeps the numbers that it has.
            keep_service_ports(app, before, self.settings.service_ports);
            let restart = change.restart.contains(id);
            let upgrade = app.is_upgrade_from(before);
            if !upgrade && !restart && app.instances == before.instances {
                *app = before.clone();
                continue;
            }
            validate::app(app, &self.rules(), self.settings.max_definition)?;
            validate::resident_update(before, app, change.force)?;
            let known = before.version_info.unwrap_or(VersionInfo {
                last_scaling_at: before.version(),
                last_config_change_at: before.version(),
            });
            app.version = Some(version);
            app.version_info = Some(if upgrade || restart {
                VersionInfo {
                    last_scaling_at: version,
                    last_config_change_at: version,
                }
            } else {
                VersionInfo {
                    last_scaling_at: version,
                    ..known
                }
            });
        }
        self.assign_service_ports(&mut change.target)?;
        validate::root(&change.target)
    }

    fn assign_service_ports(&self, target: &mut Root) -> Result<(), ApiError> {
        let (first, last) = self.settings.service_ports;
        let all = self.durable.root.apps.values().chain(target.apps.values());
        let mut used: BTreeSet<u16> = all.flat_map(App::service_ports).collect();
        let mut next = first;
        for app in target.apps.values_mut() {
            for port in open_service_ports(app) {
                while used.contains(&next) && next < last {
                    next += 1;
                }
                if used.contains(&next) {
                    return Err(ApiError::Unprocessable(format!(
                        "All ports in the range [{first}-{last}) are already in use"
                    )));
                }
                used.insert(next);
                *port = next;
            }
        }
        Ok(())
    }

    /// Begins the deployment of a prepared change.
    pub(in crate::marathon) fn deploy(
        &mut self,
        change: Change,
    ) -> Result<(DeploymentId, Version), ApiError> {
        let original = self.durable.root.clone();
        let steps = plan(&original, &change.target);
        let id = DeploymentId::new(self.new_uuid());
        let deployment = Deployment {
            id: id.clone(),
            original,
            target: change.target,
            steps,
            version: change.version,
            current: 0,
            begun: false,
            restarts: Default::default(),
            scaled_up: Vec::new(),
            sentenced: change.sentenced,
        };
        let affected: BTreeSet<PathId> = deployment.affected().cloned().collect();
        let in_the_way: Vec<DeploymentId> = self
            .deployments_of(|app| affected.contains(app))
            .map(|d| d.id.clone())
            .collect();
        if !in_the_way.is_empty() && !change.force {
            return Err(ApiError::Locked(in_the_way));
        }
        let others = self.durable.deployments.len() - in_the_way.len();
        if others >= self.settings.max_deployments {
            return Err(ApiError::TooManyDeployments(self.settings.max_deployments));
        }
        for old in in_the_way {
            self.cancel(&old, "a forced deployment takes its place");
        }
        for app in &affected {
            if let Some(app) = deployment.target.apps.get(app).cloned() {
                self.durable.remember(&app, self.settings.max_versions);
            }
        }
        self.durable.last_version = change.version;
        self.durable.root = deployment.target.clone();
        let root = self.durable.root.clone();
        self.durable.group_history.push_back((change.version, root));
        while self.durable.group_history.len() > self.settings.max_versions {
            self.durable.group_history.pop_front();
        }
        tracing::info!(deployment = %id, apps = affected.len(), "deployment begins");
        self.durable.deployments.push(deployment);
        self.touch();
        Ok((id, change.version))
    }
}

/// Places of service ports that are to be chosen.
fn open_service_ports(app: &mut App) -> Vec<&mut u16> {
    let mapped = !app.port_mappings().is_empty();
    let required = app.require_ports;
    let ports: Vec<&mut u16> = if mapped {
        let container = app.container.iter_mut();
        let mappings = container.flat_map(|c| c.port_mappings.iter_mut().flatten());
        mappings.map(|m| &mut m.service_port).collect()
    } else {
        let definitions = app.port_definitions.iter_mut().flatten();
        definitions.map(|d| &mut d.port).collect()
    };
    // With requirePorts they are ports of the host, and 0 is any.
    let open = ports
        .into_iter()
        .filter(|p| **p == 0 && (mapped || !required));
    open.collect()
}

fn keep_service_ports(app: &mut App, before: &App, (first, last): (u16, u16)) {
    let named = app.service_ports();
    let mut free = before
        .service_ports()
        .into_iter()
        .filter(|p| (first..last).contains(p) && !named.contains(p));
    for port in open_service_ports(app) {
        match free.next() {
            Some(number) => *port = number,
            None => return,
        }
    }
}
