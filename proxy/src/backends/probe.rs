//! Asks each API server's `/readyz` over TLS, on a connection that is kept: a server that dies is
//! noticed by the end of that connection, not by the next question.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rand::Rng;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::pool::{Backend, Probe};
use super::{Backends, connect_to};
use crate::tls::{self, ClientTls};

/// How long one question may take, connecting included.
const DEADLINE: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read: it names the checks that failed.
const ANSWER_LIMIT: usize = 16 * 1024;
/// After the end of its connection a server is asked again this soon.
const AGAIN: Duration = Duration::from_millis(50);

/// Probes every listed server until `stop`, each on its own.
pub async fn run(
    backends: Backends,
    tls: Arc<ClientTls>,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut list = backends.watch();
    let mut probers: HashMap<Backend, AbortHandle> = HashMap::new();
    loop {
        let wanted = list.borrow_and_update().clone();
        probers.retain(|backend, task| {
            let keep = wanted.contains(backend);
            if !keep {
                task.abort();
            }
            keep
        });
        for backend in wanted {
            probers.entry(backend.clone()).or_insert_with(|| {
                let (backends, tls) = (backends.clone(), Arc::clone(&tls));
                tokio::spawn(probe_one(backends, tls, backend, interval)).abort_handle()
            });
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = list.changed() => if changed.is_err() { break },
        }
    }
    probers.values().for_each(AbortHandle::abort);
}

async fn probe_one(
    backends: Backends,
    tls: Arc<ClientTls>,
    backend: Backend,
    interval: Duration,
) -> Infallible {
    let mut connection = None;
    loop {
        let asked = tokio::time::timeout(DEADLINE, ask(&tls, &backend, &mut connection)).await;
        let probe = asked.unwrap_or_else(|_| {
            connection = None;
            Probe::Unreachable(format!("no answer within {} s", DEADLINE.as_secs()))
        });
        backends.probed(&backend, probe);
        // Jitter, so that several front doors do not ask in step.
        let pause = interval.mul_f64(rand::rng().random_range(0.9..1.1));
        match &mut connection {
            None => tokio::time::sleep(pause).await,
            Some(Connection { ended, .. }) => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = ended => {
                        connection = None;
                        tokio::time::sleep(AGAIN.min(interval)).await;
                    }
                }
            }
        }
    }
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// Resolves when the connection is over.
    ended: oneshot::Receiver<()>,
}

async fn ask(tls: &ClientTls, backend: &Backend, kept: &mut Option<Connection>) -> Probe {
    // Taken: an error must not leave a broken one behind.
    let mut connection = match kept.take() {
        Some(connection) if connection.sender.is_ready() => connection,
        _ => match open(tls, backend).await {
            Ok(connection) => connection,
            Err(probe) => return probe,
        },
    };
    let request = Request::get("/readyz")
        .header(header::HOST, "kubernetes.default.svc")
        .header(header::USER_AGENT, "k8sm-proxy")
        .body(Empty::new());
    let Ok(request) = request else {
        return Probe::Unreachable("the request could not be written".to_owned());
    };
    let answer = match connection.sender.send_request(request).await {
        Ok(answer) => answer,
        Err(error) => return Probe::Unreachable(error.to_string()),
    };
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT);
    let text = match body.collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => return Probe::Unreachable(error.to_string()),
    };
    *kept = Some(connection);
    if status == StatusCode::OK {
        return Probe::Ready;
    }
    Probe::NotReady(format!("/readyz answers {status}{}", failed_checks(&text)))
}

/// The checks that failed, as `/readyz` lists them: `[-]shutdown failed: reason withheld`.
fn failed_checks(answer: &str) -> String {
    let failed: Vec<&str> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("[-]"))
        .filter_map(|line| line.split(' ').next())
        .take(8)
        .collect();
    if failed.is_empty() {
        String::new()
    } else {
        format!(" ({})", failed.join(", "))
    }
}

async fn open(tls: &ClientTls, backend: &Backend) -> Result<Connection, Probe> {
    let unreachable = |error: &dyn std::fmt::Display| Probe::Unreachable(error.to_string());
    let stream = connect_to(backend).await.map_err(|e| unreachable(&e))?;
    let stream = TlsConnector::from(tls.config())
        .connect(tls.server_name(), stream)
        .await
        .map_err(|error| {
            if tls::is_untrusted(&error) {
                Probe::Untrusted(error.to_string())
            } else {
                unreachable(&error)
            }
        })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable(&e))?;
    let (over, ended) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "probing connection");
        }
        let _ = over.send(());
    });
    Ok(Connection { sender, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_that_failed_are_named() {
        let answer = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]shutdown failed: reason withheld\nreadyz check failed\n";
        assert_eq!(failed_checks(answer), " (etcd, shutdown)");
        assert_eq!(failed_checks("ok"), "");
    }
}
