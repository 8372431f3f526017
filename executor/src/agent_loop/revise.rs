//! Fetches what another revision of the node needs, and starts the node half again for it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use seam::node::{Artifact, NodeConfig, Revision};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::replace::{CHECK_HANDOVER, own_program};
use super::{Internal, Loop, NODE_EVENTS};
use crate::core::{self, Event};
use crate::layout::Paths;
use crate::payload::{self, Payload};

/// How long a new program may take to say whether it can go on from here.
const CHECK_DEADLINE: Duration = Duration::from_secs(30);
/// How long the node half may take to end before the next one starts.
const END_DEADLINE: Duration = Duration::from_secs(30);

/// What a revision needs.
pub struct Fetched {
    payload: Payload,
    program: Option<PathBuf>,
}

/// Why a new program for the executor cannot be had.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error("{action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Fetch(#[from] payload::PayloadError),
    #[error("the new executor refuses to go on from this one: {0}")]
    Refused(String),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProgramError {
    let path = path.to_owned();
    move |source| ProgramError::Io {
        action,
        path,
        source,
    }
}

impl Loop {
    pub(super) fn fetch_revision(&self, revision: Revision) {
        let internal = self.internal.clone();
        let paths = self.paths.clone();
        let state = self.core.hand_over().map_err(|error| error.to_string());
        tokio::spawn(async move {
            let fetched = async {
                let payload = payload::provide(&paths, &revision.payload)
                    .await
                    .map_err(|error| error.to_string())?;
                let program = match &revision.executor {
                    Some(artifact) => program(&paths, artifact, &state?)
                        .await
                        .map_err(|error| format!("the executor's program: {error}"))?,
                    None => None,
                };
                Ok(Fetched { payload, program })
            };
            let _ = internal.send(Internal::Fetched(fetched.await)).await;
        });
    }

    pub(super) fn revision_fetched(&mut self, outcome: Result<Fetched, String>) {
        let outcome = outcome.map(|Fetched { payload, program }| {
            self.payloads.push(payload);
            let program_differs = program.is_some();
            self.program = program;
            core::Fetched { program_differs }
        });
        self.event(Event::Fetched(outcome));
    }

    /// Ends the node half; what it started runs on, and the next one takes over what did not
    /// change.
    pub(super) fn restart_node(&mut self, config: NodeConfig) {
        // What the former one still says must not be taken for the next one's word.
        (self.node_events, self.node_rx) = mpsc::channel(NODE_EVENTS);
        let half = self
            .runtime
            .as_mut()
            .and_then(super::Runtime::end_node_half);
        let internal = self.internal.clone();
        tokio::spawn(async move {
            if let Some(mut half) = half
                && tokio::time::timeout(END_DEADLINE, &mut half).await.is_err()
            {
                tracing::error!("the node half does not end; it is cut off");
                half.abort();
            }
            let _ = internal.send(Internal::StartNode(Box::new(config))).await;
        });
    }

    pub(super) fn forget_former(&mut self) {
        self.payloads.clear();
        self.program = None;
        if let Some(config) = self.core.node_config() {
            payload::remove_unused(&self.paths, &config.payload.sha256);
        }
    }
}

/// Fetches the program that the executor shall be, if it is another one, and has it say whether it
/// can go on from `state`.
async fn program(
    paths: &Paths,
    artifact: &Artifact,
    state: &[u8],
) -> Result<Option<PathBuf>, ProgramError> {
    let own = tokio::task::spawn_blocking(own_digest)
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(io_error("reading", Path::new("/proc/self/exe")))?;
    if own == artifact.sha256 {
        return Ok(None);
    }
    let place = own_program().map_err(io_error("finding", Path::new("/proc/self/exe")))?;
    let mut new = place.into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    payload::fetch_file(paths, artifact, &new).await?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
        .map_err(io_error("setting the mode of", &new))?;
    check(&new, state).await?;
    Ok(Some(new))
}

async fn check(program: &Path, state: &[u8]) -> Result<(), ProgramError> {
    let mut child = tokio::process::Command::new(program)
        .arg(CHECK_HANDOVER)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io_error("starting", program))?;
    let mut stdin = child.stdin.take();
    let asked = async {
        if let Some(stdin) = &mut stdin {
            // One that does not read to the end shows it by its status.
            let _ = stdin.write_all(state).await;
        }
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(CHECK_DEADLINE, asked)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(io_error("asking", program))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim().lines().last().unwrap_or_default();
    Err(ProgramError::Refused(format!(
        "{} ({words})",
        output.status
    )))
}

/// SHA-256 of this program, as it runs.
fn own_digest() -> io::Result<String> {
    let mut file = fs::File::open("/proc/self/exe")?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
