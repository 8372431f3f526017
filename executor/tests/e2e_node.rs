//! A real node: upstream's containerd, kubelet and kube-proxy, brought up by `executor::node`
//! beside an upstream control plane, in namespaces of the test's own.

mod node_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use executor::cgroup::{self, CgroupSetup};
use executor::guard::clean;
use executor::guard::manifest::{Leftover, Manifest, Owner};
use executor::layout::Paths;
use executor::report::{
    NodeCommand, NodeContext, NodeEvent, PayloadDir, PodObservation, PodPhase, PodRef, Removal,
};
use executor::supervise::{LOG_BYTES, Settings, Supervisor};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use node_support::control_plane::{ControlPlane, TOKEN};
use node_support::{ADDRESS, eventually, free_port, isolated, payload, upstream};
use seam::node::{
    Allocatable, ClusterConfig, NodeConfig, NodeOptions, NodePorts, Overhead, Payload,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const PROGRAMS: [&str; 12] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "runc",
    "ctr",
    "ptp",
    "host-local",
    "portmap",
];
const MIB: u64 = 1 << 20;

/// A node under test. Its processes and cgroups end with it.
struct TestNode {
    context: NodeContext,
    commands: mpsc::Sender<NodeCommand>,
    events: mpsc::Receiver<NodeEvent>,
    seen: Vec<NodeEvent>,
    run: tokio::task::JoinHandle<()>,
    cgroups: Vec<Leftover>,
}

fn config(plane: &ControlPlane, name: &str, pod_cidr: String) -> NodeConfig {
    NodeConfig {
        node_name: name.to_owned(),
        node_ip: ADDRESS.parse().unwrap(),
        pod_cidr,
        cluster: ClusterConfig {
            name: "test".to_owned(),
            api_servers: vec![plane.api_server.clone()],
            ca: plane.ca.clone(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            dns_ip: [10, 96, 0, 10].into(),
            dns_domain: "cluster.local".to_owned(),
            vxlan_id: 77,
            vxlan_port: 8472,
        },
        bootstrap_token: TOKEN.to_owned(),
        ports: NodePorts {
            kubelet: free_port(),
            proxy_health: free_port(),
            proxy_metrics: free_port(),
            balancer: free_port(),
        },
        allocatable: Allocatable {
            cpu_millis: 1500,
            memory_bytes: 1500 * MIB,
            disk_bytes: 1000 * MIB,
            pods: 20,
            gpus: 0,
        },
        overhead: Overhead {
            cpu_millis: 100,
            memory_bytes: 512 * MIB,
            disk_bytes: 1000 * MIB,
            pod_memory_bytes: 8 * MIB,
        },
        payload: Payload {
            urls: Vec::new(),
            sha256: "0".repeat(64),
            size: 0,
            ca: String::new(),
        },
        options: NodeOptions::default(),
    }
}

impl TestNode {
    async fn start(config: NodeConfig, bin: &std::path::Path, dir: &std::path::Path) -> Self {
        let paths = Paths::new(dir.join("data"), dir.join("run")).node(&config.node_name);
        for made in [&paths.root, &paths.run, &paths.logs()] {
            std::fs::create_dir_all(made).unwrap();
        }
        let payload_dir = dir.join("payload");
        if !payload_dir.exists() {
            payload(bin, &payload_dir);
        }
        let container =
            format!("k8sm-test-{}", dir.file_name().unwrap().display()).replace(".", "");
        let cgroups: CgroupSetup = cgroup::discover().unwrap().plan(&container).unwrap();
        cgroups.make().unwrap();
        let (reports, _) = mpsc::channel(16);
        let supervisor = Supervisor::new(
            Settings {
                launcher: env!("CARGO_BIN_EXE_k8sm-executor").into(),
                cgroups: cgroups.dirs(&cgroups.node),
                logs: paths.logs(),
                records: paths.children(),
                log_bytes: LOG_BYTES,
            },
            reports,
        );
        let (events_tx, events) = mpsc::channel(256);
        let (commands, commands_rx) = mpsc::channel(16);
        let leftovers = cgroups.leftovers();
        let context = NodeContext {
            config,
            paths: paths.clone(),
            cgroups,
            payload: PayloadDir(payload_dir),
            supervisor,
            cleanup: Arc::new(
                Manifest::create(paths.root.join("cleanup"), &Owner::current().unwrap()).unwrap(),
            ),
            events: events_tx,
            stop: CancellationToken::new(),
            since: executor::node::life::life_start(),
            ready_within: executor::node::bring_up::READY_DEADLINE,
        };
        let run = tokio::spawn(executor::node::run(context.clone(), commands_rx));
        Self {
            context,
            commands,
            events,
            seen: Vec::new(),
            run,
            cgroups: leftovers,
        }
    }

    /// Waits for an event; everything that comes is kept.
    async fn wait(&mut self, what: &str, wanted: impl Fn(&NodeEvent) -> bool) -> NodeEvent {
        if let Some(event) = self.seen.iter().find(|e| wanted(e)) {
            return event.clone();
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(90);
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let Ok(Some(event)) = event else {
                panic!("no {what}; seen: {:#?}\n{}", self.seen, self.logs());
            };
            println!("event: {event:?}");
            if matches!(event, NodeEvent::Failed { .. }) && !wanted(&event) {
                panic!("{event:?}\n{}", self.logs());
            }
            self.seen.push(event.clone());
            if wanted(&event) {
                return event;
            }
        }
    }

    async fn wait_for_pod(
        &mut self,
        what: &str,
        name: &str,
        wanted: impl Fn(&PodObservation) -> bool,
    ) -> PodObservation {
        let matches = |p: &PodObservation| p.pod.name == name && wanted(p);
        let event = self
            .wait(what, |event| match event {
                NodeEvent::Pod(p) => matches(p),
                NodeEvent::Listed(all) => all.iter().any(matches),
                _ => false,
            })
            .await;
        match event {
            NodeEvent::Pod(p) => p,
            NodeEvent::Listed(all) => all.into_iter().find(matches).unwrap(),
            _ => unreachable!(),
        }
    }

    fn logs(&self) -> String {
        let mut all = String::new();
        for component in ["containerd", "kubelet", "kube-proxy"] {
            let log = self.context.supervisor.log_of(component);
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(25)..].join("\n");
            all.push_str(&format!("--- {component}\n{end}\n"));
        }
        all
    }

    /// Ends loops and components, as the process half does; pods live on.
    async fn stop(self) -> Vec<Leftover> {
        self.context.stop.cancel();
        self.run.await.unwrap();
        self.context.supervisor.stop_all().await;
        self.cgroups.clone()
    }
}

fn kill_cgroups(cgroups: &[Leftover]) {
    assert_eq!(clean::all(cgroups), Vec::<String>::new());
}

fn pod(name: &str, node: &str, command: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"name": name}},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "c", "image": "example.org/busybox:1", "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", command],
            }],
        },
    })
}

async fn create_pod(plane: &ControlPlane, pod: serde_json::Value) {
    // The service account comes a moment after its namespace.
    plane.create("/api/v1/namespaces/default/pods", pod).await;
}

/// The whole life of a node, in one test, because a control plane costs ten seconds of two CPUs.
#[test]
fn a_node_comes_up_runs_pods_and_starts_again_without_its_token() {
    const NAME: &str = "a_node_comes_up_runs_pods_and_starts_again_without_its_token";
    let Some(bin) = upstream(&PROGRAMS) else {
        return;
    };
    if !isolated(NAME) {
        return;
    }
    let mut dir = tempfile::Builder::new().prefix("k8sm").tempdir().unwrap();
    dir.disable_cleanup(std::env::var_os("K8SM_TEST_KEEP").is_some());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime.block_on(life(&bin, dir.path()));
}

async fn life(bin: &std::path::Path, dir: &std::path::Path) {
    let mut plane = ControlPlane::start(bin, &dir.join("plane")).await;
    let name = "node-1";
    let pod_cidr = plane.create_node(name).await;
    let config = config(&plane, name, pod_cidr);

    // Fresh.
    let began = Instant::now();
    let mut node = TestNode::start(config.clone(), bin, dir).await;
    node.wait("Ready", |e| *e == NodeEvent::Ready).await;
    println!("MEASURED fresh node Ready after {:?}", began.elapsed());
    let nodes: Api<Node> = Api::all(plane.client.clone());
    let status = nodes.get(name).await.unwrap().status.unwrap();
    let allocatable = status.allocatable.unwrap();
    let quantity = |key: &str| allocatable[key].0.clone();
    assert_eq!(quantity("cpu"), "1500m");
    assert_eq!(quantity("memory"), "1500Mi");
    assert_eq!(quantity("ephemeral-storage"), "1048576k");
    assert_eq!(quantity("pods"), "20");

    // A pod, its address, its end.
    let began = Instant::now();
    let web = "echo hello > /index.html; exec busybox httpd -f -p 80 -h /";
    let mut web = pod("web", name, web);
    web["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8099}]);
    web["metadata"]["labels"] = json!({"app": "web"});
    create_pod(&plane, web).await;
    let web = node.wait_for_pod("a ready pod", "web", |p| p.ready).await;
    println!("MEASURED pod ready after {:?}", began.elapsed());
    let ip = web.ip.unwrap();
    let get = async |url: String| {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        Some(client.get(url).send().await.ok()?.text().await.unwrap())
    };
    let hello = eventually("web", Duration::from_secs(10), async || {
        get(format!("http://{ip}/index.html")).await
    });
    assert_eq!(hello.await, "hello\n");
    // Its host port answers on the node's address, and loopback's is left alone.
    let by_host_port = get(format!("http://{ADDRESS}:8099/index.html")).await;
    assert_eq!(by_host_port.as_deref(), Some("hello\n"));
    assert_eq!(
        get("http://127.0.0.1:8099/index.html".to_owned()).await,
        None
    );

    // A service reaches a pod of the same node from another one, with and without br_netfilter.
    plane
        .create(
            "/api/v1/namespaces/default/services",
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {
                    "type": "NodePort", "clusterIP": "10.96.0.80", "selector": {"app": "web"},
                    "ports": [{"port": 80, "nodePort": 30080}],
                },
            }),
        )
        .await;
    // Its node port answers on the node's address, and not on loopback's.
    let hello = eventually("the node port", Duration::from_secs(20), async || {
        get(format!("http://{ADDRESS}:30080/index.html")).await
    });
    assert_eq!(hello.await, "hello\n");
    let on_loopback = get("http://127.0.0.1:30080/index.html".to_owned()).await;
    assert_eq!(on_loopback, None);
    for bridge_filter in ["0", "1"] {
        let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if std::path::Path::new(path).exists() {
            std::fs::write(path, bridge_filter).unwrap();
        }
        let client = format!("client{bridge_filter}");
        // Debian's static busybox has a wget that crashes; nc is enough.
        let ask = format!(
            "ask() {{ printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 2 $1 80 | busybox grep hello; }}; \
             for i in 1 2 3 4 5 6 7 8 9 10; do ask 10.96.0.80 && ask {ip} && exit 0; busybox sleep 0.5; done; exit 1"
        );
        let mut ask = pod(&client, name, &ask);
        ask["spec"]["restartPolicy"] = json!("Never");
        create_pod(&plane, ask).await;
        let ended = node
            .wait_for_pod("an answer", &client, |p| {
                matches!(p.phase, PodPhase::Succeeded | PodPhase::Failed)
            })
            .await;
        assert_eq!(ended.phase, PodPhase::Succeeded, "{ended:?}");
    }

    // A pod reaches itself through its service.
    plane
        .create(
            "/api/v1/namespaces/default/services",
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "self", "namespace": "default"},
                "spec": {"clusterIP": "10.96.0.81", "selector": {"app": "self"}, "ports": [{"port": 80}]},
            }),
        )
        .await;
    let own = "echo hello > /index.html; busybox httpd -p 80 -h /; \
               for i in 1 2 3 4 5 6 7 8 9 10; do \
               printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 2 10.96.0.81 80 | busybox grep hello && exit 0; \
               busybox sleep 0.5; done; exit 1";
    let mut own = pod("self", name, own);
    own["metadata"]["labels"] = json!({"app": "self"});
    own["spec"]["restartPolicy"] = json!("Never");
    create_pod(&plane, own).await;
    let ended = node
        .wait_for_pod("an answer of its own", "self", |p| {
            matches!(p.phase, PodPhase::Succeeded | PodPhase::Failed)
        })
        .await;
    assert_eq!(ended.phase, PodPhase::Succeeded, "{ended:?}");

    // A log comes through the API server, which means a serving certificate of kubelet's.
    let pods: Api<Pod> = Api::namespaced(plane.client.clone(), "default");
    let log = eventually("a log", Duration::from_secs(20), async || {
        let log = pods.logs("client0", &Default::default()).await.ok()?;
        Some(log).filter(|log| !log.is_empty())
    });
    assert!(log.await.contains("hello"));

    // A drain's KILL asks the pod's disruption budget first.
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    plane.create(budgets, budget).await;
    node.commands
        .send(NodeCommand::RemovePod {
            pod: web.pod.clone(),
            removal: Removal::Evict,
            grace: Some(Duration::from_secs(2)),
        })
        .await
        .unwrap();
    node.wait(
        "the budget's refusal",
        |e| matches!(e, NodeEvent::EvictionHeld { uid, .. } if *uid == web.pod.uid),
    )
    .await;

    // Deleted for a KILL.
    let began = Instant::now();
    let wrong_uid = PodRef {
        uid: "0000".to_owned(),
        ..web.pod.clone()
    };
    for pod in [wrong_uid, web.pod.clone()] {
        let grace = Some(Duration::from_secs(2));
        node.commands
            .send(NodeCommand::RemovePod {
                pod,
                removal: Removal::Delete,
                grace,
            })
            .await
            .unwrap();
    }
    let uid = web.pod.uid.clone();
    node.wait("the end of the pod", |e| {
        *e == NodeEvent::PodGone { uid: uid.clone() }
    })
    .await;
    println!("MEASURED pod gone after {:?}", began.elapsed());

    // API servers that are started again are found again.
    plane.restart_api_server().await;
    let sleeper = "trap 'exit 0' TERM; while :; do busybox sleep 1 & wait; done";
    create_pod(&plane, pod("later", name, sleeper)).await;
    node.wait_for_pod("a pod after the API server's restart", "later", |p| p.ready)
        .await;

    // A successor takes the running pod over.
    let cgroups = node.stop().await;
    let began = Instant::now();
    let mut node = TestNode::start(config.clone(), bin, dir).await;
    node.wait("Ready again", |e| *e == NodeEvent::Ready).await;
    println!("MEASURED node Ready again after {:?}", began.elapsed());
    let restarts = async || -> Option<i32> {
        let pods: Api<Pod> = Api::namespaced(plane.client.clone(), "default");
        let status = pods.get("later").await.ok()?.status?;
        Some(status.container_statuses?.first()?.restart_count)
    };
    assert_eq!(restarts().await, Some(0));

    // Everything dies, and the next life has certificates and needs no token.
    node.stop().await;
    kill_cgroups(&cgroups);
    let mut again = config;
    again.bootstrap_token = "unused.0000000000000000".to_owned();
    again.ports.balancer = free_port();
    let began = Instant::now();
    let mut node = TestNode::start(again.clone(), bin, dir).await;
    node.wait("Ready without a token", |e| *e == NodeEvent::Ready)
        .await;
    println!(
        "MEASURED node Ready after everything died after {:?}",
        began.elapsed()
    );
    eventually(
        "a restarted container",
        Duration::from_secs(60),
        async || restarts().await.filter(|count| *count > 0),
    )
    .await;
    let cgroups = node.stop().await;
    kill_cgroups(&cgroups);

    // An agent that offers more than its machine has is refused before anything runs.
    again.allocatable.memory_bytes = 1 << 50;
    let mut node = TestNode::start(again, bin, dir).await;
    let failed = node
        .wait("a refusal", |e| matches!(e, NodeEvent::Failed { .. }))
        .await;
    let NodeEvent::Failed { component, message } = failed else {
        unreachable!()
    };
    assert_eq!(component, "kubelet");
    assert!(
        message.contains("offers more mem than the machine has"),
        "{message}"
    );
    kill_cgroups(&node.stop().await);
}
