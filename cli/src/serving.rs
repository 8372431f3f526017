//! A server of this program's own: what `k8sm` serves while a command or an app runs.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

/// Serves a router until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Serves on a socket that listens. Must be called on a tokio runtime. `what` names what is
    /// served, for the log.
    pub fn on(listener: TcpListener, router: Router, what: &'static str) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!("serving {what} ended: {error}");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it ends, which it does not by itself.
    pub async fn wait(mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
