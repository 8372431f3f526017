//! Deployments: their steps, one after the other, each until it is done.
//!
//! What a step has to do is found anew after each event by comparing instances with the target,
//! so that nothing depends on having seen every event, and a restart of Marathon goes on where
//! it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::durable::{Condition, Goal, Instance};
use super::plan::{Action, ActionKind, Step};
use super::{Core, Notice};
use crate::marathon::ids::{DeploymentId, InstanceId, PathId, Version};
use crate::marathon::model::{App, Root};

/// A change at work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// What it was before.
    pub original: Root,
    /// What it is to be.
    pub target: Root,
    /// How.
    pub steps: Vec<Step>,
    /// When it began.
    pub version: Version,
    /// Which step it is at, from 0.
    pub current: usize,
    /// Whether the present step has begun.
    pub begun: bool,
    /// What replacing tasks keeps in mind, for the present step.
    pub restarts: BTreeMap<PathId, Restart>,
    /// Apps of the present step that got new instances, which are waited for.
    pub scaled_up: Vec<PathId>,
    /// Instances that scaling is to take first.
    pub sentenced: Vec<InstanceId>,
}

/// How far a replacement of tasks may go, found when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// How many old instances are too many anyway.
    pub extra: usize,
    /// How many old and new ones there may be.
    pub capacity: usize,
    /// How many are healthy at any time.
    pub keep_healthy: usize,
    /// How many old ones were told to go.
    pub killed: usize,
}

impl Deployment {
    /// Paths of the apps that it changes.
    pub fn affected(&self) -> impl Iterator<Item = &PathId> {
        self.steps.iter().flat_map(|s| &s.actions).map(|a| &a.app)
    }

    /// Whether it changes this app.
    pub fn affects(&self, app: &PathId) -> bool {
        self.affected().any(|id| id == app)
    }

    /// The plan, as events show it.
    pub fn plan_document(&self) -> Value {
        let steps: Vec<_> = self.steps.iter().map(Step::document).collect();
        json!({"id": self.id, "steps": steps, "version": self.version})
    }

    fn step_document(&self) -> Value {
        self.steps
            .get(self.current)
            .map_or_else(|| json!({"actions": []}), Step::document)
    }
}

impl Restart {
    /// From the new definition and how many instances there are. Where both bounds are the
    /// same nothing could ever be replaced: then there may be one more or, of instances that
    /// cannot be elsewhere, one healthy less.
    fn new(app: &App, existing: usize) -> Self {
        let strategy = app.upgrade();
        let part = |part: f64| f64::from(app.instances) * part;
        let mut keep_healthy = part(strategy.minimum_health_capacity).ceil() as usize;
        let mut capacity = part(1.0 + strategy.maximum_over_capacity) as usize;
        if keep_healthy >= capacity {
            if app.is_resident() {
                keep_healthy = capacity.saturating_sub(1);
            } else {
                capacity += 1;
            }
        }
        Self {
            extra: existing.saturating_sub(app.instances as usize),
            capacity,
            keep_healthy,
            killed: 0,
        }
    }

    /// Whether an old instance may go, with so many new ones ready and so many healthy ones
    /// of both kinds: one for each that is ready, and as many as are not needed.
    const fn may_kill(&self, is_healthy: bool, ready: usize, healthy: usize) -> bool {
        self.killed < self.extra + ready || healthy >= self.keep_healthy + is_healthy as usize
    }
}

impl Core {
    /// Does what the present steps still need. Says whether a deployment went on to another
    /// step or ended, so that there may be more to do.
    pub(super) fn advance_deployments(&mut self) -> bool {
        let mut advanced = false;
        let ids: Vec<_> = self
            .durable
            .deployments
            .iter()
            .map(|d| d.id.clone())
            .collect();
        for id in ids {
            advanced |= self.advance(&id);
        }
        advanced
    }

    fn advance(&mut self, id: &DeploymentId) -> bool {
        let Some(at) = self.durable.deployments.iter().position(|d| d.id == *id) else {
            return false;
        };
        // Taken out while it works on the rest of the state.
        let mut deployment = self.durable.deployments.remove(at);
        let advanced = self.advance_taken(&mut deployment);
        if deployment.current < deployment.steps.len() {
            self.durable.deployments.insert(at, deployment);
        } else {
            self.finish(&deployment);
        }
        advanced
    }

    fn advance_taken(&mut self, deployment: &mut Deployment) -> bool {
        let Some(step) = deployment.steps.get(deployment.current).cloned() else {
            return true;
        };
        if !deployment.begun {
            deployment.begun = true;
            self.touch();
            let info = Notice::deployment("deployment_info", deployment);
            self.notify(info);
        }
        let mut done = true;
        for action in &step.actions {
            done &= self.act(deployment, action);
        }
        if !done {
            return false;
        }
        let success = Notice::deployment("deployment_step_success", deployment);
        self.notify(success);
        deployment.current += 1;
        deployment.begun = false;
        deployment.restarts.clear();
        deployment.scaled_up.clear();
        self.touch();
        true
    }

    fn finish(&mut self, deployment: &Deployment) {
        tracing::info!(deployment = %deployment.id, "deployment is done");
        let mut ended = Notice::deployment("deployment_success", deployment);
        ended.data["id"] = json!(deployment.id);
        self.notify(ended);
        let version = deployment.version.to_string();
        self.notify(Notice::new(
            "group_change_success",
            json!({"groupId": "/", "version": version}),
        ));
        self.touch();
    }

    /// Does what an action still needs and says whether that was nothing.
    fn act(&mut self, deployment: &mut Deployment, action: &Action) -> bool {
        if action.kind == ActionKind::StopApplication {
            return self.stop_app(&action.app);
        }
        let Some(app) = deployment.target.apps.get(&action.app).cloned() else {
            return true;
        };
        match action.kind {
            ActionKind::StartApplication | ActionKind::StopApplication => true,
            ActionKind::ScaleApplication => self.scale_app(deployment, &app),
            ActionKind::RestartApplication => self.restart_app(deployment, &app),
        }
    }

    fn stop_app(&mut self, id: &PathId) -> bool {
        let active: Vec<_> = self
            .durable
            .instances_of(id)
            .filter(|i| i.goal != Goal::Decommissioned)
            .map(|i| i.id.clone())
            .collect();
        for instance in active {
            self.give_up(&instance, Goal::Decommissioned);
        }
        if self.durable.instances_of(id).next().is_some() {
            return false;
        }
        self.durable.instances.remove(id);
        self.durable.history.remove(id);
        self.queue.reset(id);
        self.failures.remove(id);
        self.notify(Notice::new("app_terminated_event", json!({"appId": id})));
        true
    }

    fn scale_app(&mut self, deployment: &mut Deployment, app: &App) -> bool {
        let sentenced: Vec<_> = deployment
            .sentenced
            .iter()
            .filter(|id| self.durable.instance(id).is_some_and(|i| i.app == app.id))
            .cloned()
            .collect();
        deployment.sentenced.retain(|id| !sentenced.contains(id));
        for instance in &sentenced {
            self.give_up(instance, gone_goal(app));
        }
        if self.keep_count(app, app.instances as usize) > 0
            && !deployment.scaled_up.contains(&app.id)
        {
            deployment.scaled_up.push(app.id.clone());
            self.touch();
        }
        let leaving = self.durable.instances_of(&app.id).any(leaves);
        let ready = self
            .durable
            .instances_of(&app.id)
            .filter(|i| self.is_ready(i, app))
            .count();
        let waited_for = deployment.scaled_up.contains(&app.id);
        !leaving && (!waited_for || ready >= app.instances as usize)
    }

    fn restart_app(&mut self, deployment: &mut Deployment, app: &App) -> bool {
        let wanted = app.instances as usize;
        // One that has stopped and keeps its reservation is neither old nor new.
        let is_old = |i: &&Instance| {
            i.version != app.version() && (i.goal == Goal::Running || i.condition.has_task())
        };
        let is_new = |i: &Instance| i.version == app.version();
        if !deployment.restarts.contains_key(&app.id) {
            let all = self.durable.instances_of(&app.id);
            let existing = all.filter(|i| i.goal == Goal::Running).count();
            let restart = Restart::new(app, existing);
            deployment.restarts.insert(app.id.clone(), restart);
            self.queue.reset(&app.id);
            self.touch();
        }
        let Some(mut restart) = deployment.restarts.get(&app.id).copied() else {
            return false;
        };
        // Old instances without a task only wait for one that is not wanted any more.
        let waiting: Vec<_> = self
            .durable
            .instances_of(&app.id)
            .filter(is_old)
            .filter(|i| !i.condition.has_task() && i.goal == Goal::Running)
            .map(|i| i.id.clone())
            .collect();
        for id in waiting {
            self.replace_waiting(&id, app);
        }
        let count = |core: &Self, which: &dyn Fn(&Instance) -> bool| {
            core.durable
                .instances_of(&app.id)
                .filter(|i| which(i))
                .count()
        };
        let ready = count(self, &|i| is_new(i) && self.is_ready(i, app));
        let mut healthy = ready + count(self, &|i| is_old(&i) && self.counts_as_healthy(i));
        let mut old: Vec<(bool, InstanceId)> = self
            .durable
            .instances_of(&app.id)
            .filter(is_old)
            .filter(|i| i.goal == Goal::Running)
            .map(|i| (self.counts_as_healthy(i), i.id.clone()))
            .collect();
        old.sort();
        for (is_healthy, id) in old {
            if !restart.may_kill(is_healthy, ready, healthy) && ready < wanted {
                break;
            }
            self.give_up(&id, gone_goal(app));
            restart.killed += 1;
            healthy -= usize::from(is_healthy);
            self.touch();
        }
        deployment.restarts.insert(app.id.clone(), restart);
        // Counted last: a resident instance that has ended starts again as a new one.
        let old = count(self, &|i| is_old(&i));
        let started = count(self, &|i| is_new(i) && i.is_active());
        let room = restart.capacity.saturating_sub(old + started);
        for _ in 0..room.min(wanted.saturating_sub(started)) {
            self.schedule(app);
        }
        let surplus = count(self, &|i| is_new(i) && i.is_active()).saturating_sub(wanted);
        if surplus > 0 {
            self.keep_count(app, wanted);
        }
        let ready = count(self, &|i| is_new(i) && self.is_ready(i, app));
        ready >= wanted && count(self, &|i| is_old(&i)) == 0
    }

    /// Whether an instance of a deployment's target is good enough: it runs, its health checks
    /// succeed, its readiness checks did.
    pub(super) fn is_ready(&self, instance: &Instance, app: &App) -> bool {
        instance.runs()
            && (app.health_checks.is_empty() || instance.healthy == Some(true))
            && self.readiness_done(instance, app)
    }

    /// Whether an instance counts for `minimumHealthCapacity`.
    fn counts_as_healthy(&self, instance: &Instance) -> bool {
        if instance.goal != Goal::Running || instance.condition == Condition::Scheduled {
            return false;
        }
        let app = self.durable.app_version(&instance.app, instance.version);
        match app {
            Some(app) if !app.health_checks.is_empty() => instance.healthy == Some(true),
            Some(app) => instance.runs() && self.readiness_done(instance, app),
            None => instance.runs(),
        }
    }

    /// Apps that no deployment works on keep their number of instances.
    pub(super) fn keep_counts(&mut self) {
        let apps: Vec<App> = self
            .durable
            .root
            .apps
            .values()
            .filter(|a| !self.durable.deployments.iter().any(|d| d.affects(&a.id)))
            .filter(|a| {
                let active = self.durable.instances_of(&a.id).filter(|i| i.is_active());
                active.count() != a.instances as usize
            })
            .cloned()
            .collect();
        for app in apps {
            self.keep_count(&app, app.instances as usize);
        }
        // Left over by a deployment that was cut short.
        let orphans: Vec<PathId> = self
            .durable
            .instances
            .keys()
            .filter(|id| !self.durable.root.apps.contains_key(*id))
            .filter(|id| !self.durable.deployments.iter().any(|d| d.affects(id)))
            .cloned()
            .collect();
        for app in orphans {
            self.stop_app(&app);
        }
    }

    /// Schedules or gives up instances until there are `wanted`. Says how many were scheduled.
    fn keep_count(&mut self, app: &App, wanted: usize) -> usize {
        let active = self.durable.instances_of(&app.id).filter(|i| i.is_active());
        let active = active.count();
        for id in self.surplus(app, active.saturating_sub(wanted)) {
            self.give_up(&id, gone_goal(app));
        }
        let missing = wanted.saturating_sub(active);
        for _ in 0..missing {
            self.schedule(app);
        }
        missing
    }

    /// The deployments that work on any of these apps.
    pub(in crate::marathon) fn deployments_of<'a>(
        &'a self,
        apps: impl Fn(&PathId) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Deployment> {
        let deployments = self.durable.deployments.iter();
        deployments.filter(move |d| d.affected().any(&apps))
    }

    /// Ends a deployment without undoing what it did.
    pub(in crate::marathon) fn cancel(&mut self, id: &DeploymentId, reason: &str) {
        let Some(at) = self.durable.deployments.iter().position(|d| d.id == *id) else {
            return;
        };
        let deployment = self.durable.deployments.remove(at);
        tracing::info!(deployment = %id, reason, "deployment is cancelled");
        let mut failed = Notice::deployment("deployment_failed", &deployment);
        failed.data["id"] = json!(id);
        failed.data["reason"] = json!(reason);
        self.notify(failed);
        self.touch();
    }
}

/// Instances of apps with persistent volumes keep them.
fn gone_goal(app: &App) -> Goal {
    if app.is_resident() {
        Goal::Stopped
    } else {
        Goal::Decommissioned
    }
}

/// Whether an instance is on its way out and not there yet.
fn leaves(instance: &Instance) -> bool {
    instance.goal != Goal::Running && instance.condition.has_task()
}

impl Notice {
    fn deployment(kind: &'static str, deployment: &Deployment) -> Self {
        Self::new(
            kind,
            json!({"plan": deployment.plan_document(), "currentStep": deployment.step_document()}),
        )
    }
}
