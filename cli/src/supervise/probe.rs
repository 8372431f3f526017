//! Asks processes whether they are ready.

use std::path::Path;
use std::time::Duration;

use packaging::control_plane::Readiness;

/// A probe's time.
const DEADLINE: Duration = Duration::from_secs(3);

/// Probes once. `Err` says, for a person, why it is not ready.
pub async fn probe(readiness: &Readiness) -> Result<(), String> {
    match readiness {
        Readiness::Running => Ok(()),
        Readiness::Http { address, path } => get(&format!("http://{address}{path}"), None).await,
        Readiness::Https {
            address,
            path,
            authority,
        } => get(&format!("https://{address}{path}"), Some(authority)).await,
    }
}

async fn get(url: &str, authority: Option<&Path>) -> Result<(), String> {
    let client = crate::http::client(authority, DEADLINE).map_err(|e| e.to_string())?;
    let response = client
        .get(url)
        .send()
        .await
        .map_err(|e| crate::error::chain(&e.without_url()))?;
    let status = response.status();
    if status == reqwest::StatusCode::OK {
        return Ok(());
    }
    let body = response.text().await.unwrap_or_default();
    // The API server lists its checks, the failing ones with `[-]`.
    let failing: Vec<&str> = body
        .lines()
        .filter(|l| l.starts_with("[-]"))
        .take(5)
        .collect();
    Err(if failing.is_empty() {
        format!("{status}")
    } else {
        format!("{status}: {}", failing.join(", "))
    })
}
