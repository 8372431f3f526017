//! A master among several: it listens at once, redirects to the leader until it is elected, serves
//! then, and ends when it leads no longer, as Mesos' masters do; whoever started it starts it
//! again.
//!
//! Masters of one cluster share a work directory, which stands for Mesos' replicated log. The
//! leader holds a lock on it, so that one that was only slow cannot write beside its successor.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use mesos::master::ZooKeeperUrl;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::election::{Standing, contend};
use super::server::{Master, MasterConfig, MasterError, Serving, master_info};
use crate::http;

/// Between looks at a lock that an earlier leader still holds.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// What requests are answered by.
enum Role {
    /// Another one leads, at this `host:port` if that is known.
    Standby(Option<String>),
    Leader(Box<Master>),
}

type Shared = Arc<RwLock<Role>>;

/// Runs a master that stands for election below `url` until `shutdown`.
pub async fn run_elected(
    config: MasterConfig,
    url: ZooKeeperUrl,
    shutdown: CancellationToken,
) -> Result<(), MasterError> {
    let address = config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| MasterError::Listen { address, source })?;
    let address = listener.local_addr().map_err(MasterError::Serve)?;
    let info = master_info(&config, address)?;
    let role: Shared = Arc::new(RwLock::new(Role::Standby(None)));
    let app = Router::new().fallback(handle).with_state(Arc::clone(&role));
    let mut serving = Serving::begin(listener, app);
    let (sender, mut standing) = watch::channel(Standing::Unknown);
    let contending = tokio::spawn(contend(url, info, sender));
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = lead(config, address, &role, &mut standing) => Err(error),
        ended = serving.ended() => return ended,
    };
    // Its session ends with the connection, and the next one leads at once.
    drop(standing);
    contending.abort();
    if let Role::Leader(master) = &*role.read().unwrap_or_else(PoisonError::into_inner) {
        master.close_streams();
    }
    serving.shut_down().await;
    ended
}

/// Waits for the election, then leads until that is over; says why.
async fn lead(
    config: MasterConfig,
    address: SocketAddr,
    role: &Shared,
    standing: &mut watch::Receiver<Standing>,
) -> MasterError {
    let become_ = |new: Role| *role.write().unwrap_or_else(PoisonError::into_inner) = new;
    loop {
        let now = standing.borrow_and_update().clone();
        match now {
            Standing::Leads => break,
            Standing::Follows(leader) => become_(Role::Standby(leader)),
            Standing::Unknown => become_(Role::Standby(None)),
        }
        if standing.changed().await.is_err() {
            return MasterError::LostLeadership;
        }
    }
    let work = async {
        let _lock = lock(&config.work_dir).await?;
        let master = Master::new(config, address)?;
        tracing::info!(%address, id = master.id(), "the master leads");
        become_(Role::Leader(Box::new(master.clone())));
        Err::<std::convert::Infallible, _>(master.keep_time().await)
    };
    tokio::select! {
        Err(error) = work => error,
        _ = standing.wait_for(|s| *s != Standing::Leads) => MasterError::LostLeadership,
    }
}

/// Waits for an earlier leader of the same work directory to end.
async fn lock(work_dir: &Path) -> Result<File, MasterError> {
    let path: PathBuf = work_dir.join("leader.lock");
    let io = |source| MasterError::Lock {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(work_dir).map_err(io)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io)?;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(io(source)),
            Err(TryLockError::WouldBlock) => {
                if !said {
                    tracing::warn!(path = %path.display(), "an earlier leader has not ended yet");
                    said = true;
                }
                tokio::time::sleep(LOCK_POLL).await;
            }
        }
    }
}

async fn handle(
    State(role): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // Answers are made without waiting, so the lock is held for a moment only.
    match &*role.read().unwrap_or_else(PoisonError::into_inner) {
        Role::Leader(master) => master.respond(peer.ip(), &method, &uri, &headers, body),
        Role::Standby(leader) => standby(leader.as_deref(), &uri),
    }
}

/// What a master answers that does not lead: its own health, else where the leader is.
fn standby(leader: Option<&str>, uri: &Uri) -> Response {
    let path = uri.path().trim_end_matches('/');
    let path = path.strip_prefix("/master").unwrap_or(path);
    if path == "/health" {
        return http::empty(200);
    }
    let Some(leader) = leader else {
        return http::error(503, "No leader elected");
    };
    // Mesos leaves the scheme to the client; `/redirect` leads to the leader's root.
    let rest = match path {
        "/redirect" => "",
        _ => uri.path_and_query().map_or("", |p| p.as_str()),
    };
    match HeaderValue::from_str(&format!("//{leader}{rest}")) {
        Ok(place) => {
            let mut response = http::empty(307);
            response.headers_mut().insert(header::LOCATION, place);
            response
        }
        Err(_) => http::error(503, "the leader's entry in ZooKeeper has no usable address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(leader: Option<&str>, uri: &str) -> (u16, Option<String>) {
        let response = standby(leader, &uri.parse().unwrap());
        let place = response.headers().get(header::LOCATION);
        (
            response.status().as_u16(),
            place.map(|it| it.to_str().unwrap().to_owned()),
        )
    }

    #[test]
    fn a_master_that_does_not_lead_says_who_does() {
        let leader = Some("192.0.2.7:5050");
        let to = |rest: &str| (307, Some(format!("//192.0.2.7:5050{rest}")));
        assert_eq!(answer(leader, "/api/v1/scheduler"), to("/api/v1/scheduler"));
        assert_eq!(answer(leader, "/master/state?a=b"), to("/master/state?a=b"));
        assert_eq!(answer(leader, "/redirect"), to(""));
        assert_eq!(answer(leader, "/master/redirect"), to(""));
        assert_eq!(answer(None, "/state"), (503, None));
        assert_eq!(answer(None, "/health"), (200, None));
        assert_eq!(answer(Some("a\nb"), "/state"), (503, None));
    }
}
