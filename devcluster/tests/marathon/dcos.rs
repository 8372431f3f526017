//! DC/OS' API before a Marathon, spoken as the `dcos` command speaks it: a repository is added, a
//! package found, rendered, installed, changed and removed, the latter in both ways.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devcluster::dcos::auth::Accounts;
use devcluster::dcos::secrets::Secrets;
use devcluster::dcos::{Config, start};
use packaging::universe::repository::Format;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::world::World;

/// DC/OS before a Marathon.
struct Dcos {
    world: World,
    base: String,
    _stop: DropGuard,
}

impl Dcos {
    async fn start() -> Self {
        let world = World::start().await;
        let stop = CancellationToken::new();
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            marathon: world.base.clone(),
            mesos: format!("http://{}", world.cluster.master),
            release: "2.1".to_owned(),
            work_dir: world.work_dir().join("dcos"),
            accounts: Accounts::default(),
            secrets: Default::default(),
            poll: Duration::from_millis(100),
        };
        let running = start(config, stop.clone()).await.unwrap();
        Self {
            base: format!("http://{}", running.address()),
            world,
            _stop: stop.drop_guard(),
        }
    }

    /// A call of Cosmos': `package.install`, version 2 of the answer.
    async fn call(&self, name: &str, version: u32, body: Value) -> (u16, Value) {
        let (family, call) = name.split_once('.').unwrap();
        let path = match family {
            "service" => format!("/cosmos/service/{call}"),
            _ => format!("/package/{}", call.replace('.', "/")),
        };
        let kind = |what: &str, version: u32| {
            format!(
                "application/vnd.dcos.{family}.{call}-{what}+json;charset=utf-8;version=v{version}"
            )
        };
        let accept = kind("response", version);
        let answer = self
            .world
            .client
            .post(format!("{}{path}", self.base))
            .header("content-type", kind("request", 1))
            .header("accept", &accept)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let found = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        let error = "application/vnd.dcos.package.error+json;charset=utf-8;version=v1";
        assert_eq!(found, if status == 200 { &accept } else { error }, "{name}");
        (status, answer.json().await.unwrap())
    }

    async fn ok(&self, name: &str, version: u32, body: Value) -> Value {
        let (status, value) = self.call(name, version, body).await;
        assert_eq!(status, 200, "{name}: {value}");
        value
    }

    /// The error's name of a call that must fail.
    async fn error(&self, name: &str, version: u32, body: Value) -> (u16, String) {
        let (status, value) = self.call(name, version, body).await;
        (status, value["type"].as_str().unwrap().to_owned())
    }

    async fn gone(&self, app: &str) {
        self.world
            .until("removed app", async || {
                let answer = self
                    .world
                    .call("GET", &format!("/v2/apps{app}"), None)
                    .await;
                (answer.status == 404).then_some(())
            })
            .await;
    }
}

/// A package whose app sleeps.
fn package(name: &str, version: &str, release: u64, labels: Value) -> Value {
    let mut template = json!({
        "id": "/{{{service.name}}}", "cmd": "exec sleep 1000", "instances": 1, "mem": 32,
        "cpus": "CPUS", "portDefinitions": [{"port": 0}], "labels": labels,
        "upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0},
    })
    .to_string();
    template = template.replace("\"CPUS\"", "{{{service.cpus}}}");
    json!({
        "packagingVersion": "4.0", "name": name, "version": version, "releaseVersion": release,
        "maintainer": "m", "description": "Sleeps", "tags": ["sleep"], "upgradesFrom": ["1"],
        "postInstallNotes": "It sleeps.", "postUninstallNotes": "It is awake.",
        "config": {"type": "object", "properties": {"service": {"type": "object", "properties": {
            "name": {"type": "string", "default": name},
            "cpus": {"type": "number", "default": 0.1, "minimum": 0.01},
        }}}},
        "marathon": {"v2AppMustacheTemplate": STANDARD.encode(template)},
    })
}

/// A repository; its address.
async fn repository(packages: Vec<Value>) -> String {
    let body = json!({ "packages": packages }).to_string();
    let kind = (header::CONTENT_TYPE, Format::V4.media_type());
    let router = Router::new()
        .route("/repo", get(move || async move { ([kind], body) }))
        .route("/plain", get(|| async { "{\"packages\": []}" }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_is_found_installed_changed_and_removed() {
    let dcos = Dcos::start().await;
    let base = repository(vec![
        package("sleeper", "1", 1, json!({})),
        package("sleeper", "2", 2, json!({})),
    ])
    .await;
    let repo = json!({"name": "test", "uri": format!("{base}/repo")});

    let plain = json!({"name": "plain", "uri": format!("{base}/plain")});
    let refused = dcos.error("package.repository.add", 1, plain).await;
    assert_eq!(refused, (400, "UnsupportedContentType".to_owned()));
    let added = dcos.ok("package.repository.add", 1, repo.clone()).await;
    assert_eq!(added["repositories"], json!([repo]));
    let again = dcos.error("package.repository.add", 1, repo.clone()).await;
    assert_eq!(again.1, "RepositoryAlreadyPresent");
    assert_eq!(
        dcos.ok("package.repository.list", 1, json!({})).await["repositories"],
        json!([repo])
    );

    let found = dcos
        .ok("package.search", 1, json!({"query": "slee*"}))
        .await;
    assert_eq!(found["packages"][0]["currentVersion"], "2");
    let sleeper = json!({"packageName": "sleeper"});
    let versions = dcos.ok("package.list-versions", 1, sleeper.clone()).await;
    assert_eq!(versions["results"], json!({"2": "2", "1": "1"}));
    let described = dcos
        .ok(
            "package.describe",
            3,
            json!({"packageName": "sleeper", "packageVersion": "1"}),
        )
        .await;
    assert_eq!(described["package"]["version"], "1");
    let older = dcos.ok("package.describe", 2, sleeper.clone()).await;
    assert_eq!(
        (&older["package"]["version"], older["config"].is_object()),
        (&json!("2"), true)
    );
    assert_eq!(
        dcos.error("package.describe", 3, json!({"packageName": "no"}))
            .await
            .1,
        "PackageNotFound"
    );

    let wrong = json!({"packageName": "sleeper", "options": {"service": {"cpus": 0}}});
    assert_eq!(
        dcos.error("package.render", 1, wrong).await,
        (400, "JsonSchemaMismatch".to_owned())
    );
    let install = json!({"packageName": "sleeper", "packageVersion": "1", "options": {"service": {"cpus": 0.2}}});
    let rendered = dcos.ok("package.render", 1, install.clone()).await;
    assert_eq!(rendered["marathonJson"]["cpus"], 0.2);
    let installed = dcos.ok("package.install", 2, install.clone()).await;
    assert_eq!(installed["appId"], "/sleeper");
    assert_eq!(installed["postInstallNotes"], "It sleeps.");
    assert_eq!(
        dcos.error("package.install", 2, install).await,
        (409, "PackageAlreadyInstalled".to_owned())
    );
    dcos.world.running("/sleeper", 1).await;
    let listed = dcos.ok("package.list", 1, json!({})).await;
    let listed = &listed["packages"][0];
    assert_eq!(listed["appId"], "/sleeper");
    assert_eq!(
        listed["packageInformation"]["packageDefinition"]["version"],
        "1"
    );

    let service = json!({"appId": "/sleeper"});
    let described = dcos.ok("service.describe", 1, service).await;
    assert_eq!(described["upgradesTo"], json!(["2"]));
    assert_eq!(described["resolvedOptions"]["service"]["name"], "sleeper");
    dcos.world.settled().await;
    let other = json!({"appId": "/sleeper", "packageVersion": "2", "replace": false});
    assert_eq!(
        dcos.error("service.update", 1, other).await.1,
        "VersionUpgradeNotSupportedInOpen"
    );
    let renamed =
        json!({"appId": "/sleeper", "options": {"service": {"name": "x"}}, "replace": false});
    assert_eq!(
        dcos.error("service.update", 1, renamed).await.1,
        "AppIdChanged"
    );
    let change =
        json!({"appId": "/sleeper", "options": {"service": {"cpus": 0.3}}, "replace": false});
    let changed = dcos.ok("service.update", 1, change).await;
    assert!(changed["marathonDeploymentId"].is_string());
    dcos.world.settled().await;
    // By the admin router's way to Marathon.
    let url = format!("{}/marathon/v2/apps/sleeper", dcos.base);
    let app: Value = dcos
        .world
        .client
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(app["app"]["cpus"], 0.3);
    let url = format!("{}/mesos/version", dcos.base);
    assert_eq!(
        dcos.world.client.get(url).send().await.unwrap().status(),
        200
    );

    let removed = dcos.ok("package.uninstall", 1, sleeper.clone()).await;
    assert_eq!(removed["results"][0]["postUninstallNotes"], "It is awake.");
    dcos.gone("/sleeper").await;
    assert_eq!(
        dcos.error("package.uninstall", 1, sleeper).await.1,
        "PackageNotInstalled"
    );
    let left = dcos
        .ok("package.repository.delete", 1, json!({"name": "test"}))
        .await;
    assert_eq!(left["repositories"], json!([]));
}

/// What a service of DC/OS' SDK answers: the code of its plan.
async fn service(port: u16) -> Arc<AtomicU16> {
    let code = Arc::new(AtomicU16::new(202));
    let plan = |State(code): State<Arc<AtomicU16>>| async move {
        StatusCode::from_u16(code.load(Ordering::SeqCst)).unwrap()
    };
    let router = Router::new()
        .route("/v1/plans/deploy", get(plan))
        .route("/v1/state/frameworkId", get(|| async { "[]" }))
        .with_state(Arc::clone(&code));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_removes_itself_is_deleted_when_its_plan_is_complete() {
    let dcos = Dcos::start().await;
    let labels = json!({
        "DCOS_COMMONS_UNINSTALL": "true", "DCOS_COMMONS_API_VERSION": "v1",
        "DCOS_SERVICE_NAME": "{{{service.name}}}", "DCOS_SERVICE_SCHEME": "http", "DCOS_SERVICE_PORT_INDEX": "0",
    });
    let base = repository(vec![package("sdk", "1", 1, labels)]).await;
    let repo = json!({"name": "test", "uri": format!("{base}/repo"), "index": 0});
    dcos.ok("package.repository.add", 1, repo).await;
    dcos.ok("package.install", 1, json!({"packageName": "sdk"}))
        .await;
    dcos.world.running("/sdk", 1).await;
    dcos.world.settled().await;
    dcos.ok("package.uninstall", 1, json!({"packageName": "sdk"}))
        .await;
    dcos.world.settled().await;
    let app = dcos.world.get("/v2/apps/sdk").await;
    assert_eq!(app["app"]["env"]["SDK_UNINSTALL"], "true");
    dcos.world.running("/sdk", 1).await;
    // Its task sleeps; what it would answer on its port, this test answers.
    let task = dcos.world.tasks("/sdk").await.remove(0);
    let port = u16::try_from(task["ports"][0].as_u64().unwrap()).unwrap();
    let code = service(port).await;
    let asked = dcos
        .world
        .until("the way to the service", async || {
            let url = format!("{}/service/sdk/v1/plans/deploy", dcos.base);
            let answer = dcos.world.client.get(url).send().await.unwrap();
            (answer.status() == 202).then_some(())
        })
        .await;
    assert_eq!(asked, ());
    assert_eq!(
        dcos.world.call("GET", "/v2/apps/sdk", None).await.status,
        200
    );
    code.store(200, Ordering::SeqCst);
    dcos.gone("/sdk").await;
}

#[tokio::test]
async fn with_service_accounts_only_who_has_logged_in_comes_in() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let public = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf\n9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==\n-----END PUBLIC KEY-----\n";
    let accounts = BTreeMap::from([("kubernetes".to_owned(), public.to_owned())]);
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        marathon: "http://127.0.0.1:1".to_owned(),
        mesos: "http://127.0.0.1:1".to_owned(),
        release: "2.1".to_owned(),
        work_dir: dir.path().to_owned(),
        accounts: Accounts::new(&accounts, Duration::from_secs(60)).unwrap(),
        secrets: Secrets::new(Some(dir.path().join("secrets")), &BTreeMap::new()).unwrap(),
        poll: Duration::from_millis(100),
    };
    let running = start(config, stop.clone()).await.unwrap();
    let _stop = stop.drop_guard();
    let client = super::support::client();
    let url = |path: &str| format!("http://{}{path}", running.address());
    for path in ["/capabilities", "/secrets/v1/secret/default/kubernetes/sa"] {
        let asked = client.get(url(path)).send().await.unwrap();
        assert_eq!(asked.status(), 401, "{path}");
        let forged = client.get(url(path)).header("authorization", "token=a.b.c");
        assert_eq!(forged.send().await.unwrap().status(), 401, "{path}");
    }
    let answer = client.get(url("/capabilities")).send().await.unwrap();
    assert_eq!(answer.headers()["www-authenticate"], "acsjwt");
    let login = json!({"uid": "kubernetes", "token": "e30.e30.e30"}).to_string();
    let answer = client
        .post(url("/acs/api/v1/auth/login"))
        .body(login)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn open_dcos_has_no_secret_store() {
    let dcos = Dcos::start().await;
    let url = format!("{}/secrets/v1/secret/default/kubernetes/sa", dcos.base);
    let put = dcos.world.client.put(&url).body("{\"value\": \"x\"}");
    assert_eq!(put.send().await.unwrap().status(), 404);
    let get = dcos.world.client.get(&url).send().await.unwrap();
    assert_eq!(get.status(), 404);
}
