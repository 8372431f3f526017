//! Marathon, Mesos and what is there of a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use packaging::install::judge::{Seen, World};
use packaging::install::plan::{Part, group};
use packaging::install::preflight::Situation;
use serde_json::Value;

use super::Error;
use super::mesos_view::MesosView;
use crate::marathon::{self, AppState, Client, Credentials, Info, Queued};

/// Where a cluster lives.
#[derive(Debug, Clone)]
pub struct Site {
    /// Marathon.
    pub marathon: Client,
    /// What it says about itself.
    pub info: Info,
    /// Mesos' masters.
    pub mesos: MesosView,
    /// Their address as Marathon's apps use it.
    pub master: String,
}

impl Site {
    /// Finds Marathon, and by its word Mesos unless `mesos` names it.
    pub async fn connect(
        url: &str,
        ca: Option<PathBuf>,
        mesos: Option<&str>,
    ) -> Result<Self, Error> {
        Self::connect_as(url, ca, mesos, Credentials::from_env()).await
    }

    /// The same for one who is known to Marathon by these credentials.
    pub async fn connect_as(
        url: &str,
        ca: Option<PathBuf>,
        mesos: Option<&str>,
        credentials: Credentials,
    ) -> Result<Self, Error> {
        let marathon = Client::new(&marathon::Config {
            url: url.to_owned(),
            ca,
            credentials: credentials.clone(),
        })?;
        let info = marathon.info().await?;
        let said = info.marathon_config.master.clone().unwrap_or_default();
        let address = mesos.map_or_else(|| said.clone(), str::to_owned);
        if address.is_empty() {
            return Err(Error::Usage(
                "this Marathon does not say where its Mesos is: name the masters with --mesos"
                    .to_owned(),
            ));
        }
        Ok(Self {
            mesos: MesosView::new(&address, &credentials)?,
            marathon,
            info,
            master: if said.is_empty() { address } else { said },
        })
    }

    /// The cluster's apps with their tasks.
    pub async fn apps(&self, name: &str) -> Result<Vec<AppState>, Error> {
        let (framework, below) = (format!("/{name}"), group(name));
        Ok(self.marathon.apps_below(&[&framework, &below]).await?)
    }

    /// What decides about the cluster's apps.
    pub async fn world(&self, name: &str) -> Result<World, Error> {
        let apps = self.apps(name).await?;
        let mut queue = Vec::new();
        if apps.iter().any(|app| app.running < app.instances) {
            queue = self.marathon.queue().await?;
        }
        let waits: BTreeMap<&str, &Queued> = queue.iter().map(|q| (q.app.as_str(), q)).collect();
        Ok(World {
            apps: apps
                .into_iter()
                .filter(|app| Part::of(name, &app.id).is_some())
                .map(|app| {
                    let waits = waits.get(app.id.as_str()).map(|q| q.why());
                    (app.id.clone(), seen(app, waits))
                })
                .collect(),
        })
    }

    /// Everything that an installation has to know.
    pub async fn situation(&self, name: &str) -> Result<Situation, Error> {
        let role = self
            .info
            .marathon_config
            .mesos_role
            .clone()
            .filter(|r| !r.is_empty() && r != "*");
        let mut principal = self.info.marathon_config.mesos_principal.clone();
        if let (None, Some(id)) = (&principal, &self.info.framework_id) {
            principal = self.mesos.principal(id).await?;
        }
        let below = group(name);
        let in_the_way = self.marathon.app(&below).await?.map(|app| app.id);
        Ok(Situation {
            marathon_version: self.info.version.clone(),
            marathon_principal: principal,
            marathon_secrets: self.info.has("secrets"),
            mesos_version: self.mesos.version().await?,
            agents: self.mesos.agents(role.as_deref()).await?,
            marathon_role: role,
            frameworks: self.mesos.frameworks().await?,
            world: self.world(name).await?,
            in_the_way: in_the_way.into_iter().collect(),
        })
    }
}

/// What decides about an app.
fn seen(app: AppState, waits: Option<String>) -> Seen {
    // Tasks of a Mesos health check that has not answered yet count neither as healthy nor as
    // unhealthy; without checks whatever runs is fine.
    let healthy = match app.has_health_checks() {
        true => app.healthy,
        false => app.running,
    };
    Seen {
        instances: app.instances,
        staged: app.staged,
        running: app.running,
        healthy,
        unhealthy: app.unhealthy,
        deployments: app.deployments.into_iter().map(|d| d.id).collect(),
        version: app.version,
        last_failure: app.last_failure.map(|f| {
            (
                f.version,
                format!("{} on {}: {}", f.state, f.host, f.message),
            )
        }),
        waits,
        hosts: app.tasks.into_iter().map(|t| t.host).collect(),
        definition: without_state(app.definition),
    }
}

/// The definition alone, so that a record of it is short.
fn without_state(mut app: Value) -> Value {
    if let Some(members) = app.as_object_mut() {
        for name in [
            "tasks",
            "lastTaskFailure",
            "versionInfo",
            "tasksStaged",
            "tasksRunning",
        ] {
            members.remove(name);
        }
    }
    app
}
