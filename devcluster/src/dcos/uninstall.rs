//! How Cosmos removes a service: one that follows the protocol of DC/OS' SDK is asked to remove
//! itself and deleted when it says that it has; of any other the app is deleted and the framework
//! of its name torn down.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Dcos;
use super::error::Failure;
use super::marathon::{label, puttable};
use super::router;

/// How long a service may take to remove itself. Cosmos gives up after a while too.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Removes an app of a package; what comes back is an entry of the answer.
pub(super) async fn remove(dcos: &Arc<Dcos>, package: &str, app: Value) -> Result<Value, Failure> {
    let id = app["id"].as_str().unwrap_or_default().to_owned();
    let mut result = json!({
        "packageName": package,
        "appId": id,
        "packageVersion": label(&app, "DCOS_PACKAGE_VERSION"),
    });
    let definition = packaging::cosmos::definition_of(&app);
    if let Some(notes) = definition
        .as_ref()
        .and_then(|d| d.text("postUninstallNotes"))
    {
        result["postUninstallNotes"] = notes.into();
    }
    if label(&app, "DCOS_COMMONS_UNINSTALL").is_some() {
        by_itself(dcos, id, app).await?;
    } else if let Some(framework) = by_us(dcos, package, &id, &app).await? {
        result["frameworkId"] = framework.into();
    }
    Ok(result)
}

/// Deletes the app, and the framework that its label names.
async fn by_us(
    dcos: &Dcos,
    package: &str,
    id: &str,
    app: &Value,
) -> Result<Option<String>, Failure> {
    dcos.marathon.delete(id).await?;
    let Some(name) = label(app, "DCOS_PACKAGE_FRAMEWORK_NAME") else {
        return Ok(None);
    };
    let ids = frameworks(dcos, name).await?;
    match ids.as_slice() {
        [] => Ok(None),
        [one] => {
            let url = format!("{}/master/teardown", dcos.mesos);
            let request = dcos.http.post(url).body(format!("frameworkId={one}"));
            let answer = dcos.accounts.authorize(request).send().await;
            match answer {
                Ok(answer) if answer.status().is_success() => Ok(Some(one.clone())),
                Ok(answer) => Err(Failure::upstream(
                    "Mesos does not end the framework",
                    &answer.status().to_string(),
                )),
                Err(e) => Err(Failure::upstream(
                    "Mesos does not answer",
                    &e.without_url().to_string(),
                )),
            }
        }
        several => Err(Failure::new(
            "MultipleFrameworkIds",
            format!(
                "Uninstalled package [{package}]\nUnable to shutdown [{package}] service framework with name [{name}] because there are multiple framework ids matching this name: [{}]",
                several.join(", ")
            ),
        )),
    }
}

/// Ids of the frameworks of a name.
async fn frameworks(dcos: &Dcos, name: &str) -> Result<Vec<String>, Failure> {
    let failed = |reason: String| {
        Failure::new(
            "IncompleteUninstall",
            format!("Incomplete uninstall due to Mesos unavailability: {reason}"),
        )
        .status(StatusCode::SERVICE_UNAVAILABLE)
    };
    let request = dcos.http.get(format!("{}/master/frameworks", dcos.mesos));
    let answer = dcos
        .accounts
        .authorize(request)
        .send()
        .await
        .map_err(|e| failed(e.without_url().to_string()))?;
    let value: Value = answer
        .json()
        .await
        .map_err(|e| failed(e.without_url().to_string()))?;
    let all = value["frameworks"].as_array().into_iter().flatten();
    Ok(all
        .filter(|f| f["name"] == name)
        .filter_map(|f| f["id"].as_str().map(str::to_owned))
        .collect())
}

/// Tells the service to remove itself, and sees to the rest in the background.
async fn by_itself(dcos: &Arc<Dcos>, id: String, app: Value) -> Result<(), Failure> {
    let version = label(&app, "DCOS_COMMONS_API_VERSION")
        .unwrap_or("v1")
        .to_owned();
    let before = framework_ids(dcos, &id, &version).await;
    let mut app = puttable(app);
    if !app["env"].is_object() {
        app["env"] = json!({});
    }
    app["env"]["SDK_UNINSTALL"] = "true".into();
    let deployment = dcos.marathon.replace(&id, &app).await?;
    let dcos = Arc::clone(dcos);
    tokio::spawn(async move {
        let watch = watch(&dcos, &id, &version, &deployment, before);
        tokio::select! {
            () = dcos.stop.cancelled() => {}
            done = tokio::time::timeout(PATIENCE, watch) => match done {
                Ok(Ok(())) => tracing::info!("{id} has removed itself and is deleted"),
                Ok(Err(failure)) => tracing::error!("{id} has removed itself, but stays: {failure}"),
                Err(_) => tracing::error!("{id} has not removed itself in time"),
            },
        }
    });
    Ok(())
}

async fn watch(
    dcos: &Dcos,
    id: &str,
    version: &str,
    deployment: &str,
    before: Option<Vec<String>>,
) -> Result<(), Failure> {
    loop {
        tokio::time::sleep(dcos.poll).await;
        // Whoever does not answer is asked again.
        if dcos.marathon.deploys(deployment).await.unwrap_or(true) {
            continue;
        }
        let now = framework_ids(dcos, id, version).await;
        // Another framework than before: a new service, which nobody asked to remove.
        if let (Some(before), Some(now)) = (&before, &now)
            && now.iter().any(|n| !before.contains(n))
        {
            continue;
        }
        if ask(dcos, id, &format!("{version}/plans/deploy"))
            .await
            .is_some_and(|(status, _)| status == StatusCode::OK)
        {
            return dcos.marathon.delete(id).await;
        }
    }
}

/// The ids that the service says it has; `None` when it does not say.
async fn framework_ids(dcos: &Dcos, id: &str, version: &str) -> Option<Vec<String>> {
    let (status, text) = ask(dcos, id, &format!("{version}/state/frameworkId")).await?;
    (status == StatusCode::OK).then(|| serde_json::from_str(&text).ok())?
}

/// Asks the service by the admin router's way, which is its app's id.
async fn ask(dcos: &Dcos, id: &str, path: &str) -> Option<(StatusCode, String)> {
    let base = router::address(dcos, id).await.ok()??;
    let request = dcos.http.get(format!("{base}/{path}"));
    let answer = dcos.accounts.authorize(request).send().await.ok()?;
    Some((answer.status(), answer.text().await.ok()?))
}
