//! A cluster with a Marathon, and a client of its API.

use std::path::Path;
use std::time::Duration;

use devcluster::marathon::core::Settings;
use devcluster::marathon::{Marathon, MarathonConfig, start};
use mesos::http::ClientConfig;
use mesos::master::MasterUrl;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::support::{Cluster, PATIENCE, client};

pub struct World {
    pub cluster: Cluster,
    pub marathon: Option<Marathon>,
    pub base: String,
    pub client: reqwest::Client,
    role: String,
}

/// An answer: its status and its document.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
    pub deployment: Option<String>,
}

impl Answer {
    /// The document of an answer that must be a success.
    pub fn ok(self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            self.json
        );
        self.json
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with_role("*").await
    }

    pub async fn with_role(role: &str) -> Self {
        let cluster = Cluster::start_with(|dir| {
            let secrets = dir.join("secrets");
            vec![
                "--hostname=127.0.0.1".to_owned(),
                format!("--secrets-dir={}", secrets.display()),
            ]
        })
        .await;
        let mut world = Self {
            cluster,
            marathon: None,
            base: String::new(),
            client: client(),
            role: role.to_owned(),
        };
        world.start_marathon().await;
        world
    }

    pub async fn start_marathon(&mut self) {
        let root = nix::unistd::geteuid().is_root();
        let user = if root {
            "root".to_owned()
        } else {
            String::new()
        };
        let config = MarathonConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            work_dir: self.work_dir().to_owned(),
            master: MasterUrl::parse(&self.cluster.master.to_string()).unwrap(),
            client: ClientConfig::default(),
            access: None,
            settings: Settings {
                role: self.role.clone(),
                principal: Some("marathon".to_owned()),
                user,
                features: ["secrets".to_owned()].into(),
                ..Settings::default()
            },
        };
        let marathon = start(config, CancellationToken::new()).await.unwrap();
        self.base = format!("http://{}", marathon.address());
        self.marathon = Some(marathon);
    }

    pub fn work_dir(&self) -> std::path::PathBuf {
        Path::new(self.cluster.dir.path()).join("marathon")
    }

    pub async fn stop_marathon(&mut self) {
        self.marathon.take().unwrap().stop().await.unwrap();
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let deployment = answer.headers().get("marathon-deployment-id");
        let deployment = deployment.map(|v| v.to_str().unwrap().to_owned());
        Answer {
            status: answer.status().as_u16(),
            deployment,
            json: serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null),
        }
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, None).await.ok()
    }

    /// Posts an app and waits until its deployment is done.
    pub async fn run(&self, app: Value) {
        let posted = self.call("POST", "/v2/apps", Some(app)).await;
        posted.ok();
        self.settled().await;
    }

    /// Waits until no deployment is at work.
    pub async fn settled(&self) {
        self.until("deployments to end", async || {
            let deployments = self.get("/v2/deployments").await;
            (deployments == serde_json::json!([])).then_some(())
        })
        .await;
    }

    /// Asks again and again until there is an answer.
    pub async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            if Instant::now() >= deadline {
                let queue = self.get("/v2/queue").await;
                let tasks = self.get("/v2/tasks").await;
                panic!("no {what} within {PATIENCE:?}\nqueue: {queue:#}\ntasks: {tasks:#}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The tasks of an app.
    pub async fn tasks(&self, app: &str) -> Vec<Value> {
        let tasks = self.get(&format!("/v2/apps{app}/tasks")).await;
        tasks["tasks"].as_array().unwrap().clone()
    }

    /// Task ids of an app, once so many run.
    pub async fn running(&self, app: &str, count: usize) -> Vec<String> {
        self.until("running tasks", async || {
            let tasks = self.tasks(app).await;
            let running: Vec<String> = tasks
                .iter()
                .filter(|t| t["state"] == "TASK_RUNNING")
                .map(|t| t["id"].as_str().unwrap().to_owned())
                .collect();
            (running.len() == count && tasks.len() == count).then_some(running)
        })
        .await
    }

    /// The text of a file in a persistent volume of the agent.
    pub fn volume_file(&self, name: &str) -> Option<String> {
        let volumes = self.cluster.work_dir().join("work/volumes");
        let path = find(&volumes, &|p| p.ends_with(name))?;
        std::fs::read_to_string(path).ok()
    }

    /// CPUs that are reserved for Marathon's role, as the master sees it.
    pub async fn reserved_cpus(&self) -> f64 {
        let slave = self.slave().await;
        slave["reserved_resources"][&self.role]["cpus"]
            .as_f64()
            .unwrap_or(0.0)
    }

    /// CPUs that the agent's tasks use, as the master sees it.
    pub async fn used_cpus(&self) -> f64 {
        self.slave().await["used_resources"]["cpus"]
            .as_f64()
            .unwrap()
    }

    async fn slave(&self) -> Value {
        let url = format!("http://{}/slaves", self.cluster.master);
        let answer = self.client.get(url).send().await.unwrap();
        let slaves: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        slaves["slaves"][0].clone()
    }

    /// What a task wrote to its standard output so far.
    pub async fn stdout(&self, task: &str) -> String {
        let found = find(&self.cluster.work_dir(), &|p| {
            p.ends_with("stdout") && p.to_string_lossy().contains(task)
        });
        std::fs::read_to_string(found.unwrap_or_default()).unwrap_or_default()
    }
}

/// The first file below a directory that is wanted.
fn find(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if let Some(found) = find(&path, wanted) {
                return Some(found);
            }
        } else if wanted(&path) {
            return Some(path);
        }
    }
    None
}
