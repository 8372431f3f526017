//! Marathon's core on a simulated Mesos.

use std::time::Duration;

use mesos::pb;
use serde_json::Value;

use crate::clock::Time;
use crate::marathon::api::{Body, Request};
use crate::marathon::core::{
    Core, Durable, Effect, Event, Instance, Notice, Probe, ProbeId, ProbeResult, Settings,
};
use crate::marathon::ids::PathId;
use crate::master::Answer;
use crate::sim::{SchedulerId, Sim, SimConfig};

type Answers = Box<dyn FnMut(&Probe) -> ProbeResult>;

pub struct World {
    pub sim: Sim,
    pub core: Core,
    scheduler: SchedulerId,
    /// What is on disk.
    pub saved: Durable,
    pub notices: Vec<Notice>,
    /// What probes find.
    pub answers: Answers,
    pub probes: Vec<Probe>,
    settings: Settings,
    seed: u64,
    /// Whether Marathon's process runs.
    up: bool,
}

/// The answer of the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    pub status: u16,
    pub json: Value,
}

fn framework_info(core: &Core) -> pb::FrameworkInfo {
    use pb::framework_info::capability::Type;
    let kinds = [
        Type::MultiRole,
        Type::PartitionAware,
        Type::ReservationRefinement,
    ];
    pb::FrameworkInfo {
        user: "root".to_owned(),
        name: "marathon".to_owned(),
        id: core
            .durable()
            .framework_id
            .clone()
            .map(|value| pb::FrameworkId { value }),
        failover_timeout: Some(604_800.0),
        checkpoint: Some(true),
        roles: vec![core.settings().role.clone()],
        principal: core.settings().principal.clone(),
        capabilities: kinds
            .map(|kind| pb::framework_info::Capability {
                r#type: Some(kind as i32),
            })
            .into(),
        ..Default::default()
    }
}

impl World {
    pub fn new(config: SimConfig) -> Self {
        let settings = Settings {
            role: "apps".to_owned(),
            principal: Some("marathon".to_owned()),
            features: ["secrets".to_owned()].into(),
            ..Settings::default()
        };
        Self::with_settings(config, settings)
    }

    pub fn with_settings(config: SimConfig, settings: Settings) -> Self {
        let seed = config.seed;
        let mut sim = Sim::new(config);
        sim.run_for(Duration::from_millis(100));
        let core = Core::new(settings.clone(), Durable::default(), sim.now(), seed);
        let scheduler = sim.subscribe(framework_info(&core));
        let mut world = Self {
            saved: core.durable().clone(),
            sim,
            core,
            scheduler,
            notices: Vec::new(),
            answers: Box::new(|_| ProbeResult::Http {
                status: 200,
                content_type: String::new(),
                body: String::new(),
            }),
            probes: Vec::new(),
            settings,
            seed,
            up: true,
        };
        world.connected();
        world.pump();
        world
    }

    fn connected(&mut self) {
        let master = "http://master:5050".to_owned();
        self.event(Event::Connected { master });
    }

    /// Hands the master's events over.
    fn pump(&mut self) {
        loop {
            let events = self.sim.events(self.scheduler);
            if events.is_empty() || !self.up {
                return;
            }
            for event in events {
                if event.r#type() == pb::scheduler::event::Type::Error {
                    let text = event.error.map(|e| e.message).unwrap_or_default();
                    panic!("the master says: {text}");
                }
                self.event(Event::Mesos(Box::new(event)));
            }
        }
    }

    /// Does what an event leads to.
    fn event(&mut self, event: Event) -> Option<Answered> {
        let outcome = self.core.handle(self.sim.now(), event);
        let mut probes: Vec<(ProbeId, Probe)> = Vec::new();
        let mut saved = false;
        for effect in outcome.effects {
            match effect {
                Effect::Save => {
                    saved = true;
                    self.saved = self.core.durable().clone();
                }
                Effect::Call(call) => {
                    let kind = call.r#type();
                    let answer = self.sim.call(self.scheduler, *call);
                    if let Answer::Error { status, text } = answer {
                        // Between a disconnection and the notice of it.
                        assert!(
                            !self.sim.connected(self.scheduler),
                            "{kind:?}: {status} {text}"
                        );
                    }
                }
                Effect::Probe(id, probe) => probes.push((id, probe)),
                Effect::Notify(notice) => self.notices.push(notice),
                Effect::Resubscribe | Effect::Abdicate => panic!("not expected here"),
            }
        }
        assert!(
            saved || self.saved == *self.core.durable(),
            "a change was not kept"
        );
        for (probe, question) in probes {
            let result = (self.answers)(&question);
            self.probes.push(question);
            self.event(Event::Probed { probe, result });
        }
        outcome.answer.map(|answer| Answered {
            status: answer.status,
            json: match answer.body {
                Body::Json(json) => json,
                Body::Text(text) => text.into(),
                Body::Empty => Value::Null,
            },
        })
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.sim.now() + duration);
    }

    pub fn seconds(&mut self, seconds: u64) {
        self.run_for(Duration::from_secs(seconds));
    }

    fn run_until(&mut self, end: Time) {
        loop {
            let own = if self.up {
                self.core.next_deadline()
            } else {
                Time::NEVER
            };
            let next = own.min(self.sim.next_deadline());
            if next > end {
                break;
            }
            if self.sim.next_deadline() <= own {
                self.sim.step();
            } else {
                self.sim.run_until(own.max(self.sim.now()));
                self.event(Event::Tick);
            }
            self.pump();
        }
        self.sim.run_until(end);
        self.pump();
    }

    pub fn call(&mut self, method: &str, path: &str, body: Value) -> Answered {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: crate::http::query::pairs(query),
            body: if body.is_null() {
                Vec::new()
            } else {
                body.to_string().into_bytes()
            },
            client: "test".to_owned(),
        };
        let answer = self.event(Event::Api(Box::new(request)));
        self.pump();
        answer.expect("every request is answered")
    }

    pub fn get(&mut self, path: &str) -> Value {
        let answer = self.call("GET", path, Value::Null);
        assert_eq!(answer.status, 200, "{path}: {}", answer.json);
        answer.json
    }

    /// A call that must succeed.
    pub fn ok(&mut self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, body);
        assert!(answer.status < 300, "{method} {path}: {}", answer.json);
        answer.json
    }

    /// Deployments at work.
    pub fn deployments(&mut self) -> Vec<Value> {
        self.get("/v2/deployments").as_array().unwrap().clone()
    }

    pub fn instances(&self, app: &str) -> Vec<Instance> {
        let app = PathId::parse(app, &PathId::root()).unwrap();
        self.core.durable().instances_of(&app).cloned().collect()
    }

    /// Instances of an app that run.
    pub fn running(&self, app: &str) -> Vec<Instance> {
        let all = self.instances(app);
        all.into_iter().filter(Instance::runs).collect()
    }

    /// Ids of the tasks that the master holds and that have not ended.
    pub fn tasks_of_master(&mut self) -> Vec<String> {
        let call = pb::master::Call {
            r#type: Some(pb::master::call::Type::GetTasks as i32),
            ..Default::default()
        };
        let Answer::Response(response) = self.sim.operator(call) else {
            panic!("no answer to GET_TASKS");
        };
        let tasks = response.get_tasks.unwrap().tasks;
        let mut ids: Vec<String> = tasks
            .into_iter()
            .filter(|t| !crate::master::is_terminal(t.state))
            .map(|t| t.task_id.value)
            .collect();
        ids.sort();
        ids
    }

    pub fn notices_of(&self, kind: &str) -> Vec<&Notice> {
        self.notices.iter().filter(|n| n.kind == kind).collect()
    }

    /// Marathon's process dies.
    pub fn kill_marathon(&mut self) {
        self.up = false;
        self.sim.disconnect(self.scheduler);
    }

    /// It starts again, with what is on disk.
    pub fn start_marathon(&mut self) {
        self.seed += 1;
        self.core = Core::new(
            self.settings.clone(),
            self.saved.clone(),
            self.sim.now(),
            self.seed,
        );
        self.up = true;
        self.resubscribe();
    }

    /// The master fails over.
    pub fn restart_master(&mut self) {
        self.sim.restart_master();
        if self.up {
            self.event(Event::Disconnected);
            self.resubscribe();
        }
    }

    fn resubscribe(&mut self) {
        self.sim.events(self.scheduler);
        self.sim.resubscribe(self.scheduler);
        self.connected();
        self.pump();
    }
}
