//! Extends the Kubernetes API from inside a pod, in the two ways that there are: as a validating
//! webhook, which the API server asks before it stores an object, and as an aggregated API, to
//! which the API server hands a whole group of resources. Both need the API server to reach a pod,
//! which on Mesos it does through konnectivity.
//!
//! | path | what |
//! |---|---|
//! | `POST /validate` | an AdmissionReview: refuses objects labelled `k8s.mesosphere.io/forbidden` |
//! | `GET /apis/example.k8s.mesosphere.io/v1` | discovery of the one resource, `greetings` |
//! | `GET /apis/example.k8s.mesosphere.io/v1/greetings` | a list with one greeting, from this pod |
//! | `GET /healthz` | `ok` |
//!
//! It listens on `PORT` (8443) with the certificate in `TLS_DIR` (`/tls`: `tls.crt` and `tls.key`,
//! as a Secret of type `kubernetes.io/tls` has them) and ends at SIGTERM. Greetings are the same
//! for everybody, so it does not ask who wants them; an API with anything to protect must check
//! the front proxy's client certificate.

mod api;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::TcpListener;

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("PORT={0} is no port")]
    Port(String),
    #[error(transparent)]
    Serve(#[from] serve::Error),
    #[error("{action}: {source}")]
    Io {
        action: &'static str,
        source: std::io::Error,
    },
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("start the runtime"));
    match runtime.and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("extension: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let variable = |name: &str| std::env::var(name).ok();
    let port = match variable("PORT") {
        Some(text) => text.parse::<u16>().map_err(|_| Error::Port(text))?,
        None => 8443,
    };
    let dir = variable("TLS_DIR").map_or_else(|| PathBuf::from("/tls"), PathBuf::from);
    let acceptor = serve::acceptor(&dir)?;
    let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)))
        .await
        .map_err(io("listen"))?;
    println!(
        "listening on {}",
        listener.local_addr().map_err(io("listen"))?
    );
    let pod = variable("POD_NAME").unwrap_or_else(|| "nobody".to_owned());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(io("handle SIGTERM"))?;
    tokio::select! {
        () = serve::serve(listener, acceptor, api::router(&pod)) => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, source }
}
