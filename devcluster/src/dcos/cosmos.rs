//! Cosmos' calls: `POST`s of JSON, each with a type of its own ([`super::media`]).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use packaging::cosmos::{self, Package, definition_of, options_of};
use packaging::options::merge;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Dcos;
use super::error::Failure;
use super::marathon::label;
use super::media::Call;
use super::repositories::Repository;
use super::uninstall;

pub(super) fn routes() -> Router<Arc<Dcos>> {
    Router::new()
        .route("/capabilities", get(capabilities))
        .route("/package/describe", post(describe))
        .route("/package/render", post(render))
        .route("/package/install", post(install))
        .route("/package/uninstall", post(uninstall))
        .route("/package/list", post(list))
        .route("/package/list-versions", post(list_versions))
        .route("/package/search", post(search))
        .route("/package/repository/list", post(repository_list))
        .route("/package/repository/add", post(repository_add))
        .route("/package/repository/delete", post(repository_delete))
        .route("/cosmos/service/describe", post(service_describe))
        .route("/cosmos/service/update", post(service_update))
}

type Answer = Result<Response, Failure>;

/// A call that was understood.
struct Asked<T> {
    call: Call,
    version: u32,
    body: T,
}

impl<T: DeserializeOwned> Asked<T> {
    fn read(call: Call, headers: &HeaderMap, body: &Bytes) -> Result<Self, Failure> {
        let version = call.negotiate(headers)?;
        let body = serde_json::from_slice(body).map_err(|e| {
            Failure::new(
                "not_parsed",
                format!("the request is not as it has to be: {e}"),
            )
        })?;
        Ok(Self {
            call,
            version,
            body,
        })
    }

    fn answer(&self, value: &Value) -> Response {
        let kind = self.call.of_version(self.version);
        ([(header::CONTENT_TYPE, kind)], value.to_string()).into_response()
    }
}

async fn capabilities() -> Response {
    let kind = "application/vnd.dcos.capabilities+json;charset=utf-8;version=v1";
    let names = [
        "PACKAGE_MANAGEMENT",
        "SUPPORT_CLUSTER_REPORT",
        "METRONOME",
        "LOGGING",
    ];
    let list: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    let body = json!({"capabilities": list}).to_string();
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Which package.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    package_name: String,
    package_version: Option<String>,
    options: Option<Value>,
    app_id: Option<String>,
    manager_id: Option<String>,
}

impl Named {
    fn here(&self) -> Result<(), Failure> {
        match self.manager_id.as_deref() {
            None | Some("") => Ok(()),
            Some(other) => Err(Failure::new(
                "CustomPackageManagerNotFound",
                format!("this Cosmos knows no other package managers, such as {other}"),
            )),
        }
    }
}

async fn describe(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Named> = Asked::read(Call::package("describe", &[3, 2]), &headers, &body)?;
    let packages = dcos.repositories.packages().await?;
    let named = &asked.body;
    let (package, _) = packages.get(&named.package_name, named.package_version.as_deref())?;
    Ok(asked.answer(&match asked.version {
        2 => described_v2(package),
        _ => json!({"package": package.document()}),
    }))
}

/// A package as older commands read it: its files apart.
fn described_v2(package: &Package) -> Value {
    let mut files = package.document().clone();
    let mut old = json!({});
    if let Some(members) = files.as_object_mut() {
        for member in ["config", "resource", "marathon"] {
            if let Some(value) = members.remove(member) {
                old[member] = value;
            }
        }
    }
    old["package"] = files;
    old
}

async fn render(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Named> = Asked::read(Call::package("render", &[1]), &headers, &body)?;
    let (_, app) = rendered(&dcos, &asked.body).await?;
    Ok(asked.answer(&json!({"marathonJson": app})))
}

async fn rendered(dcos: &Dcos, named: &Named) -> Result<(Package, Value), Failure> {
    named.here()?;
    let packages = dcos.repositories.packages().await?;
    let (package, source) = packages.get(&named.package_name, named.package_version.as_deref())?;
    let app = cosmos::render(
        package,
        source,
        named.options.as_ref(),
        named.app_id.as_deref(),
    )?;
    Ok((package.clone(), app))
}

async fn install(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Named> = Asked::read(Call::package("install", &[2, 1]), &headers, &body)?;
    let (package, app) = rendered(&dcos, &asked.body).await?;
    // It does not wait for the app to run.
    let made = dcos.marathon.create(&app).await?;
    let mut answer = json!({
        "packageName": package.name(),
        "packageVersion": package.version(),
        "appId": made["id"],
    });
    if asked.version == 2 {
        for (member, value) in [
            (
                "postInstallNotes",
                package.document().get("postInstallNotes"),
            ),
            ("cli", package.resource().and_then(|r| r.get("cli"))),
        ] {
            if let Some(value) = value {
                answer[member] = value.clone();
            }
        }
    }
    Ok(asked.answer(&answer))
}

/// What to remove.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remove {
    package_name: String,
    app_id: Option<String>,
    all: Option<bool>,
}

async fn uninstall(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Remove> = Asked::read(Call::package("uninstall", &[1]), &headers, &body)?;
    let Remove {
        package_name,
        app_id,
        all,
    } = &asked.body;
    let apps = match app_id {
        Some(id) => match dcos.marathon.app(id).await? {
            Some(app) => vec![app],
            None => {
                let message = format!("Package [{package_name}] with id [{id}] is not installed");
                return Err(Failure::new("UninstallNonExistentAppForPackage", message)
                    .data(json!({"packageName": package_name, "appId": id})));
            }
        },
        None => dcos.marathon.apps().await?,
    };
    let apps: Vec<Value> = apps
        .into_iter()
        .filter(|app| label(app, "DCOS_PACKAGE_NAME") == Some(package_name))
        .collect();
    if apps.is_empty() {
        return Err(Failure::not_installed(package_name));
    }
    if apps.len() > 1 && *all != Some(true) {
        let ids: Vec<&Value> = apps.iter().map(|a| &a["id"]).collect();
        let list: Vec<&str> = ids.iter().filter_map(|id| id.as_str()).collect();
        let message = format!(
            "Multiple apps named [{package_name}] are installed: [{}]",
            list.join(", ")
        );
        return Err(Failure::new("AmbiguousAppId", message)
            .data(json!({"packageName": package_name, "appIds": ids})));
    }
    let mut results = Vec::new();
    for app in apps {
        results.push(uninstall::remove(&dcos, package_name, app).await?);
    }
    Ok(asked.answer(&json!({"results": results})))
}

/// Which apps.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    package_name: Option<String>,
    app_id: Option<String>,
}

async fn list(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Listed> = Asked::read(Call::package("list", &[1]), &headers, &body)?;
    let wanted = |app: &Value| {
        let name = label(app, "DCOS_PACKAGE_NAME");
        let id = app["id"].as_str().unwrap_or_default();
        name.is_some()
            && asked
                .body
                .package_name
                .as_deref()
                .is_none_or(|n| name == Some(n))
            && asked
                .body
                .app_id
                .as_deref()
                .is_none_or(|i| i.trim_matches('/') == id.trim_matches('/'))
    };
    let apps = dcos.marathon.apps().await?;
    let mut found: Vec<Value> = apps
        .iter()
        .filter(|app| wanted(app))
        .filter_map(|app| {
            let mut definition = definition_of(app)?.document().clone();
            if let Some(members) = definition.as_object_mut() {
                for member in ["config", "marathon"] {
                    members.remove(member);
                }
            }
            let information = json!({"packageDefinition": definition});
            Some(json!({"appId": app["id"], "packageInformation": information}))
        })
        .collect();
    found.sort_by_key(|f| f["appId"].to_string());
    Ok(asked.answer(&json!({"packages": found})))
}

/// One package.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    package_name: String,
}

async fn list_versions(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Versions> =
        Asked::read(Call::package("list-versions", &[1]), &headers, &body)?;
    let packages = dcos.repositories.packages().await?;
    let versions = packages.versions(&asked.body.package_name)?;
    Ok(asked.answer(&json!({"results": versions})))
}

/// A search.
#[derive(Debug, Deserialize)]
struct Search {
    query: Option<String>,
}

async fn search(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Search> = Asked::read(Call::package("search", &[1]), &headers, &body)?;
    let found = dcos
        .repositories
        .packages()
        .await?
        .search(asked.body.query.as_deref());
    Ok(asked.answer(&json!({"packages": found})))
}

/// A repository that is added, or one that is removed.
#[derive(Debug, Deserialize)]
struct Place {
    name: Option<String>,
    uri: Option<String>,
    index: Option<usize>,
}

async fn repository_list(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Value> = Asked::read(Call::package("repository.list", &[1]), &headers, &body)?;
    Ok(asked.answer(&json!({"repositories": dcos.repositories.list().await})))
}

async fn repository_add(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Place> = Asked::read(Call::package("repository.add", &[1]), &headers, &body)?;
    let (Some(name), Some(uri)) = (asked.body.name.clone(), asked.body.uri.clone()) else {
        return Err(Failure::new(
            "RepoNameOrUriMissing",
            "Must specify the name and URI of the repository",
        ));
    };
    let list = dcos
        .repositories
        .add(Repository { name, uri }, asked.body.index)
        .await?;
    Ok(asked.answer(&json!({"repositories": list})))
}

async fn repository_delete(
    State(dcos): State<Arc<Dcos>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let asked: Asked<Place> =
        Asked::read(Call::package("repository.delete", &[1]), &headers, &body)?;
    let (name, uri) = (asked.body.name.as_deref(), asked.body.uri.as_deref());
    let list = dcos.repositories.remove(name, uri).await?;
    Ok(asked.answer(&json!({"repositories": list})))
}

/// A service, and how it is to change.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    app_id: String,
    package_version: Option<String>,
    options: Option<Value>,
    #[serde(default)]
    replace: bool,
}

/// The app of a service, the package that it was made of, and that package's repository.
async fn installed(dcos: &Dcos, id: &str) -> Result<(Value, Package, String), Failure> {
    let app = dcos.marathon.app(id).await?;
    let app = app.ok_or_else(|| Failure::no_app(id))?;
    let source = label(&app, "DCOS_PACKAGE_SOURCE")
        .unwrap_or_default()
        .to_owned();
    if let Some(package) = definition_of(&app) {
        return Ok((app, package, source));
    }
    let name = label(&app, "DCOS_PACKAGE_NAME")
        .unwrap_or_default()
        .to_owned();
    let version = label(&app, "DCOS_PACKAGE_VERSION").map(str::to_owned);
    let packages = dcos.repositories.packages().await?;
    let (package, uri) = packages.get(&name, version.as_deref())?;
    Ok((app, package.clone(), uri.to_owned()))
}

async fn service_describe(
    State(dcos): State<Arc<Dcos>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let asked: Asked<Service> = Asked::read(Call::service("describe"), &headers, &body)?;
    let (app, package, _) = installed(&dcos, &asked.body.app_id).await?;
    let packages = dcos.repositories.packages().await?;
    let mut answer = json!({
        "package": package.document(),
        "upgradesTo": packages.upgrades_to(package.name(), package.version()),
        "downgradesTo": packages.downgrades_to(&package),
    });
    if let Some(options) = options_of(&app) {
        answer["resolvedOptions"] = cosmos::merged(&package, Some(&options));
        answer["userProvidedOptions"] = options;
    }
    Ok(asked.answer(&answer))
}

async fn service_update(State(dcos): State<Arc<Dcos>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked<Service> = Asked::read(Call::service("update"), &headers, &body)?;
    let request = &asked.body;
    let (app, package, source) = installed(&dcos, &request.app_id).await?;
    if request
        .package_version
        .as_deref()
        .is_some_and(|v| v != package.version())
    {
        return Err(Failure::new(
            "VersionUpgradeNotSupportedInOpen",
            "Version Upgrades are an Enterprise DC/OS feature only",
        ));
    }
    let options = updated(options_of(&app), request.options.clone(), request.replace)?;
    let new = cosmos::render(&package, &source, options.as_ref(), None)?;
    let same = |a: &Value| a.as_str().map(|id| id.trim_matches('/').to_owned());
    if same(&new["id"]) != Some(request.app_id.trim_matches('/').to_owned()) {
        return Err(Failure::new(
            "AppIdChanged",
            format!(
                "The new appId {} must be equal to the old appId {}",
                new["id"], request.app_id
            ),
        ));
    }
    let deployment = dcos.marathon.replace(&request.app_id, &new).await?;
    Ok(asked.answer(&json!({
        "package": package.document(),
        "resolvedOptions": cosmos::merged(&package, options.as_ref()),
        "marathonDeploymentId": deployment,
    })))
}

/// The options that a service has had with those that it is to get.
fn updated(
    stored: Option<Value>,
    given: Option<Value>,
    replace: bool,
) -> Result<Option<Value>, Failure> {
    match (replace, stored, given) {
        (true, _, given) => Ok(given),
        (false, None, _) => Err(Failure::new(
            "OptionsNotStored",
            "The options of the current service were not stored",
        )),
        (false, stored, None) => Ok(stored),
        (false, Some(mut stored), Some(given)) => {
            merge(&mut stored, given);
            Ok(Some(stored))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_merged_or_replaced() {
        let (stored, given) = (
            json!({"a": {"x": 1}, "l": [1]}),
            json!({"a": {"y": 2}, "l": []}),
        );
        let merged = updated(Some(stored.clone()), Some(given.clone()), false).unwrap();
        assert_eq!(merged, Some(json!({"a": {"x": 1, "y": 2}, "l": []})));
        assert_eq!(
            updated(Some(stored.clone()), Some(given.clone()), true).unwrap(),
            Some(given.clone())
        );
        assert_eq!(
            updated(Some(stored.clone()), None, false).unwrap(),
            Some(stored)
        );
        assert_eq!(
            updated(None, Some(given), false).unwrap_err().kind(),
            "OptionsNotStored"
        );
    }
}
