//! Apps that run `k8sm run ...` on several agents at once for a moment: each task does something
//! there, tells about it over HTTP, and waits until the app is deleted.

use std::collections::BTreeMap;

use super::INSTALL_LABEL;
use super::plan::group;
use crate::marathon::app::{App, AppId, BadAppId, Fetch, PortDefinition, UpgradeStrategy};
use crate::marathon::{Artifact, VERSION_LABEL};
use crate::options::Options;

/// What differs between them.
pub(super) struct Helper<'a> {
    /// Name of the app and of what `k8sm run` runs.
    pub name: &'static str,
    /// The variable that says what to do.
    pub variable: &'static str,
    /// What it says, JSON.
    pub spec: String,
    /// The installation.
    pub install_id: &'a str,
    /// Version of our programs.
    pub version: &'a str,
    /// On how many agents, one task each.
    pub agents: u32,
}

impl Helper<'_> {
    /// The app, without its command.
    pub fn app(&self, options: &Options) -> Result<App, BadAppId> {
        let id = AppId::new(format!("{}/{}", group(&options.service.name), self.name))?;
        let mut app = App::new(id, 0.1, 64.0, 0.0);
        app.instances = self.agents;
        app.constraints = vec![vec!["hostname".to_owned(), "UNIQUE".to_owned()]];
        app.port_definitions = Some(vec![PortDefinition {
            port: 0,
            name: Some(self.name.to_owned()),
            protocol: "tcp".to_owned(),
            labels: BTreeMap::new(),
        }]);
        app.env = [(self.variable.to_owned(), self.spec.clone().into())].into();
        app.labels = [
            (INSTALL_LABEL, self.install_id),
            (VERSION_LABEL, self.version),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        app.user = some(&options.service.user);
        app.role = some(&options.marathon.role);
        let roles = &options.marathon.resource_roles;
        app.accepted_resource_roles = (!roles.is_empty()).then(|| roles.clone());
        app.backoff_seconds = Some(1);
        app.max_launch_delay_seconds = Some(5);
        app.upgrade_strategy = Some(UpgradeStrategy {
            minimum_health_capacity: 0.0,
            maximum_over_capacity: 0.0,
        });
        app.task_kill_grace_period_seconds = Some(1);
        Ok(app)
    }

    /// Runs `program`, which is `k8sm`, as a plain artifact.
    pub fn plain(&self, options: &Options, program: Option<&Artifact>, app: &mut App) {
        app.cmd = Some(format!("exec ./k8sm run {}", self.name));
        app.fetch.extend(program.map(|program| Fetch {
            uri: program.uri.clone(),
            extract: false,
            executable: true,
            cache: options.artifacts.cache,
            dest_path: Some("k8sm".to_owned()),
        }));
    }
}
