//! `k8sm run probe`: says over HTTP what a task sees on its agent. Runs for a few seconds on every
//! agent before an installation ([`packaging::install::probe`]).

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use packaging::install::probe::{CgroupVersion, FLAGS, PROBE_ENV, PROBE_PATH, Probe, Report};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::Error;
use crate::preflight::offered::Machine;
use crate::preflight::{Cgroups, facts};

/// How long a place may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks, and answers until it is ended.
pub async fn run() -> Result<ExitCode, Error> {
    let (probe, port) = super::told::<Probe>(PROBE_ENV)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let report = Arc::new(look(&probe).await);
    tracing::info!("{report:?}");
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .map_err(|source| Error::Listen { port, source })?;
    let router = Router::new()
        .route(PROBE_PATH, get(answer))
        .with_state(report);
    tokio::select! {
        served = axum::serve(listener, router) => {
            served.map_err(|source| Error::Listen { port, source })?;
        }
        _ = terminate.recv() => {}
        () = tokio::time::sleep(Duration::from_secs(probe.life_seconds)) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The clock is that of the answer.
async fn answer(State(report): State<Arc<Report>>) -> Json<Report> {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64());
    Json(Report {
        clock,
        ..(*report).clone()
    })
}

async fn look(probe: &Probe) -> Report {
    let (cgroups, missing) = match facts::cgroups() {
        Cgroups::None => (CgroupVersion::None, Vec::new()),
        Cgroups::V1 { missing } => (CgroupVersion::V1, missing),
        Cgroups::V2 { missing } => (CgroupVersion::V2, missing),
    };
    let asks = probe.reach.iter().map(|place| async move {
        let why = reach(place).await.err()?;
        Some((place.clone(), why))
    });
    let (unreachable, flags) = tokio::join!(futures::future::join_all(asks), flags());
    let machine = Machine::read(probe.data_dir.as_ref());
    Report {
        cpus: machine.cpus,
        mem: machine.memory,
        root: rustix::process::geteuid().is_root(),
        kernel: facts::kernel_release(),
        cgroups,
        missing_controllers: missing,
        overlay: facts::overlayfs(),
        missing_tools: facts::missing_tools()
            .map(|(tool, package)| (tool.to_owned(), package.to_owned()))
            .collect(),
        space_free: facts::space_free(probe.data_dir.as_ref()),
        clock: 0.0,
        unreachable: unreachable.into_iter().flatten().collect(),
        flags,
    }
}

/// Whether a place accepts connections. An API server's machine that refuses them is there: it may
/// not have been started yet.
async fn reach(place: &str) -> Result<(), String> {
    let (address, may_refuse) = match reqwest::Url::parse(place) {
        Ok(url) if url.has_host() => {
            let host = url.host_str().unwrap_or_default();
            let port = url.port_or_known_default().unwrap_or(80);
            (format!("{host}:{port}"), false)
        }
        _ => (place.to_owned(), true),
    };
    match tokio::time::timeout(PATIENCE, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) if may_refuse && e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The agent's flags that matter, where it says them without a password.
async fn flags() -> Option<BTreeMap<String, String>> {
    let endpoint = std::env::var("MESOS_AGENT_ENDPOINT").ok()?;
    let client = crate::http::client(None, PATIENCE).ok()?;
    let answer = client
        .get(format!("http://{endpoint}/flags"))
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .ok()?;
    let value: serde_json::Value = answer.json().await.ok()?;
    let flags = value["flags"].as_object()?;
    let known = |name: &&str| {
        let value = flags.get(*name)?.as_str()?;
        Some(((*name).to_owned(), value.to_owned()))
    };
    Some(FLAGS.iter().filter_map(known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_that_refuses_is_reached_only_where_an_api_server_is_yet_to_come() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        assert_eq!(reach(&format!("http://{open}/x")).await, Ok(()));
        assert_eq!(reach(&open.to_string()).await, Ok(()));
        drop(listener);
        assert_eq!(reach(&open.to_string()).await, Ok(()));
        let refused = reach(&format!("http://{open}/x")).await.unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
        assert!(reach("https://nowhere.invalid/v2/").await.is_err());
    }
}
