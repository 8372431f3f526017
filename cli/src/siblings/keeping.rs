//! Tests of where the state and the keys are kept: against devcluster's DC/OS, and a Marathon that
//! only remembers apps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use packaging::files::{SECRET, write_atomic};
use serde_json::{Value, json};

use super::state::{self, Found};
use super::store::{self, Store};
use super::way::Way;
use crate::install::{Home, Record, Site};
use crate::marathon::Credentials;
use crate::service_account::tests::Dcos;
use crate::serving::Server;

type Apps = Arc<Mutex<BTreeMap<String, Value>>>;

/// A Marathon, a DC/OS and this task's directory.
struct World {
    apps: Apps,
    site: Site,
    dcos: Dcos,
    store: Store,
    dir: tempfile::TempDir,
    _marathon: Server,
}

const ALL: [&str; 2] = [
    "dcos:secrets:default:/k/* full",
    "dcos:secrets:default:/k-cp/* full",
];

impl World {
    async fn start(permissions: &[&str]) -> Self {
        let apps = Apps::default();
        let router = Router::new()
            .route(
                "/v2/info",
                get(|| async {
                    Json(
                        json!({"version": "1.11.0", "marathon_config": {"master": "127.0.0.1:1"},
                                "features": ["secrets"]}),
                    )
                }),
            )
            .route("/v2/apps", get(list))
            .route("/v2/queue", get(|| async { Json(json!({"queue": []})) }))
            .route("/v2/apps/{*id}", get(one).put(put))
            .with_state(Arc::clone(&apps));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let marathon = Server::on(listener, router, "Marathon").unwrap();
        let site = Site::connect_as(&url, None, None, Credentials::None);
        let site = site.await.unwrap();
        let dcos = Dcos::start(permissions, &url).await;
        let (account, token) = dcos.account().await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        write_atomic(&file, token.value.as_bytes(), SECRET).unwrap();
        let (base, uid) = (account.dcos().to_owned(), account.uid().to_owned());
        let store = Store::new(base, uid, file, None, "k").unwrap();
        Self {
            apps,
            site,
            dcos,
            store,
            dir,
            _marathon: marathon,
        }
    }

    /// A directory of a task, with a key in it or empty.
    fn home(&self, task: &str, key: Option<&str>) -> Home {
        let home = Home::new(Some(&self.dir.path().join(task)), "k").unwrap();
        home.create().unwrap();
        if let Some(key) = key {
            write_atomic(&home.pki().join("ca.key"), key.as_bytes(), SECRET).unwrap();
            write_atomic(&home.kubeconfig(), b"kubeconfig-of-k", SECRET).unwrap();
        }
        home
    }

    async fn load(&self, home: &Home) -> Result<Option<Found>, state::Error> {
        state::load(&self.site, Some(&self.store), Way::Store, home, "k").await
    }

    fn shown(&self) -> String {
        let apps = self.apps.lock().unwrap();
        let app = &apps["k-cp/state"]["env"]["K8SM_STATE"];
        let content = super::content::unpack(app.as_str().unwrap()).unwrap();
        serde_json::to_string(&content).unwrap()
    }

    fn secret(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.dcos.dir.path().join("secrets").join(path)).ok()
    }
}

async fn list(State(apps): State<Apps>) -> Json<Value> {
    let apps: Vec<Value> = apps.lock().unwrap().values().cloned().collect();
    Json(json!({"apps": apps}))
}

async fn one(State(apps): State<Apps>, Path(id): Path<String>) -> Result<Json<Value>, StatusCode> {
    let apps = apps.lock().unwrap();
    let app = apps.get(&id).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(json!({"app": app})))
}

async fn put(
    State(apps): State<Apps>,
    Path(id): Path<String>,
    Json(app): Json<Value>,
) -> Json<Value> {
    apps.lock().unwrap().insert(id, app);
    Json(json!({"version": "1", "deploymentId": "d"}))
}

fn record(id: &str) -> Record {
    serde_json::from_value(json!({
        "version": 1, "id": id, "name": "k", "phase": "installed",
        "marathon": "http://m", "options": {},
        "choice": {"etcd_hosts": [], "etcd_storage": "host_path", "api_hosts": [], "pki": "env", "why": []},
        "first_start_until": 0, "artifacts_url": "http://a",
        "artifacts": {"version": 1, "files": {}, "components": {}},
    }))
    .unwrap()
}

#[tokio::test]
async fn with_the_store_no_app_has_a_key_and_the_next_task_finds_them() {
    let world = World::start(&ALL).await;
    let home = world.home("first", Some("key-of-the-authority"));
    state::save(&world.site, Some(&world.store), &home, &record("i-1"))
        .await
        .unwrap();
    let shown = world.shown();
    assert!(shown.contains("i-1") && !shown.contains("-of-"), "{shown}");
    assert_eq!(
        world.secret("k/k8sm-kubeconfig").as_deref(),
        Some("kubeconfig-of-k")
    );
    let next = world.home("next", None);
    let found = world.load(&next).await.unwrap().unwrap();
    assert_eq!((found.record, found.way), (record("i-1"), Way::Store));
    let key = std::fs::read_to_string(next.pki().join("ca.key")).unwrap();
    assert_eq!(key, "key-of-the-authority");
}

#[tokio::test]
async fn keys_move_from_the_environment_to_the_store_and_back() {
    let world = World::start(&ALL).await;
    let home = world.home("task", Some("key-of-the-authority"));
    let (site, record) = (&world.site, record("i-1"));
    state::save(site, None, &home, &record).await.unwrap();
    assert!(world.shown().contains("key-of-the-authority"));
    let found = world.load(&home).await.unwrap().unwrap();
    assert_eq!(found.way, Way::Env);
    state::save(site, Some(&world.store), &home, &record)
        .await
        .unwrap();
    assert!(!world.shown().contains("key-of-the-authority"));
    let found = world.load(&home).await.unwrap().unwrap();
    assert_eq!(found.way, Way::Store);
    state::save(site, None, &home, &record).await.unwrap();
    state::forget(&world.store, "k", Some("another"))
        .await
        .unwrap();
    assert!(world.secret("k/k8sm-state").is_some(), "not that one's");
    state::forget(&world.store, "k", Some("i-1")).await.unwrap();
    assert!(world.secret("k/k8sm-state").is_none());
    assert!(world.secret("k/k8sm-kubeconfig").is_none());
    let found = world.load(&home).await.unwrap().unwrap();
    assert_eq!(found.way, Way::Env);
}

#[tokio::test]
async fn without_the_secret_a_cluster_is_not_changed_but_can_be_removed() {
    let world = World::start(&ALL).await;
    let home = world.home("task", Some("key"));
    let site = &world.site;
    state::save(site, Some(&world.store), &home, &record("i-1"))
        .await
        .unwrap();
    let without = state::load(site, None, Way::Env, &home, "k").await;
    let error = without.unwrap_err().to_string();
    assert!(error.contains("service.secret_name"), "{error}");
    world.store.clear().await.unwrap();
    let error = world.load(&home).await.unwrap_err().to_string();
    assert!(
        error.contains("k/k8sm-state") && error.contains("gone"),
        "{error}"
    );
    let found = state::load_to_remove(site, Some(&world.store), &home, "k").await;
    assert_eq!(found.unwrap().unwrap().record, record("i-1"));
}

#[tokio::test]
async fn a_secret_counts_without_its_app_only_as_long_as_there_are_apps_of_that_installation() {
    let world = World::start(&ALL).await;
    let home = world.home("task", Some("key"));
    state::save(&world.site, Some(&world.store), &home, &record("i-1"))
        .await
        .unwrap();
    world.apps.lock().unwrap().clear();
    assert!(world.load(&home).await.unwrap().is_none(), "left behind");
    let app =
        json!({"id": "/k-cp/apiserver", "instances": 0, "labels": {"K8SM_INSTALL_ID": "i-1"}});
    world
        .apps
        .lock()
        .unwrap()
        .insert("k-cp/apiserver".to_owned(), app);
    let found = world.load(&home).await.unwrap().unwrap();
    assert_eq!(found.record.id, "i-1");
}

#[tokio::test]
async fn who_may_not_use_the_store_is_told_what_is_missing() {
    let world = World::start(&ALL[..1]).await;
    world.store.put("k/k8sm-state", "x").await.unwrap();
    let error = world.store.put("k-cp/pki-etcd-0", "x").await.unwrap_err();
    assert!(matches!(error, store::Error::Forbidden { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(ALL[1]), "{text}");
}

#[tokio::test]
async fn a_secret_is_written_only_when_it_changes_and_clearing_finds_nothing_left() {
    let world = World::start(&ALL).await;
    let store = &world.store;
    assert!(store.put("k-cp/pki-etcd-0", "a").await.unwrap());
    assert!(!store.put("k-cp/pki-etcd-0", "a").await.unwrap());
    assert!(store.put("k-cp/pki-etcd-0", "b").await.unwrap());
    let found = store.get("k-cp/pki-etcd-0").await.unwrap();
    assert_eq!(found.as_deref(), Some("b"));
    let error = store.put("k/k8sm-state", &"x".repeat(1 << 20)).await;
    assert!(
        matches!(error, Err(store::Error::Large { .. })),
        "{error:?}"
    );
    store.clear().await.unwrap();
    assert_eq!(store.get("k-cp/pki-etcd-0").await.unwrap(), None);
    store.clear().await.unwrap();
}
