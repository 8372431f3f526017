//! The few calls of the Container Runtime Interface (`runtime.v1`) that the executor makes
//! itself: whether the runtime answers, and when kubelet has been stopped which containers run,
//! and to end one with its own stop signal and grace. gRPC is HTTP/2 with frames of five bytes and a message, so this is all of it.

mod end;
mod messages;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use prost::Message;

pub use end::end_all;
pub use messages::{Container, ContainerState};

/// Longer answers are refused; a container's entry has some kilobytes.
const ANSWER_MAX: usize = 16 << 20;
/// Longest time for anything but the end of a container.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why the runtime did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// No connection.
    #[error("connecting to the container runtime at {}: {source}", socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("{method}: {source}")]
    Http {
        /// The call.
        method: &'static str,
        /// Why.
        source: h2::Error,
    },
    /// The runtime refused.
    #[error("{method}: status {status}: {message}")]
    Refused {
        /// The call.
        method: &'static str,
        /// gRPC's number.
        status: String,
        /// The runtime's words.
        message: String,
    },
    /// No answer in time.
    #[error("{method}: no answer within {} s", after.as_secs())]
    Timeout {
        /// The call.
        method: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// An answer that is none.
    #[error("{method}: {reason}")]
    BadAnswer {
        /// The call.
        method: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// A connection to the container runtime. Clones share it.
#[derive(Clone)]
pub struct Cri {
    requests: SendRequest<Bytes>,
}

impl Cri {
    /// Connects.
    pub async fn connect(socket: &Path) -> Result<Self, CriError> {
        const METHOD: &str = "connecting";
        let connecting = async {
            let stream = tokio::net::UnixStream::connect(socket)
                .await
                .map_err(|source| CriError::Connect {
                    socket: socket.to_owned(),
                    source,
                })?;
            h2::client::handshake(stream)
                .await
                .map_err(|source| CriError::Http {
                    method: METHOD,
                    source,
                })
        };
        let (requests, connection) = within(METHOD, DEADLINE, connecting).await?;
        // Ends with the last clone; its error is the requests' error, too.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { requests })
    }

    /// Asks for its version: that it answers shows that it works.
    pub async fn version(&self) -> Result<(), CriError> {
        let _: messages::VersionResponse = self
            .call("Version", &messages::VersionRequest {}, DEADLINE)
            .await?;
        Ok(())
    }

    /// The containers that run.
    pub async fn running(&self) -> Result<Vec<Container>, CriError> {
        let request = messages::ListContainersRequest {
            filter: Some(messages::ContainerFilter {
                state: Some(messages::ContainerStateValue {
                    state: ContainerState::Running as i32,
                }),
            }),
        };
        let answer: messages::ListContainersResponse =
            self.call("ListContainers", &request, DEADLINE).await?;
        Ok(answer.containers)
    }

    /// Sends the container its stop signal, kills it after `grace`, and returns when it has ended.
    pub async fn stop(&self, container_id: &str, grace: Duration) -> Result<(), CriError> {
        let request = messages::StopContainerRequest {
            container_id: container_id.to_owned(),
            timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        };
        let deadline = grace.saturating_add(DEADLINE);
        let _: messages::StopContainerResponse =
            self.call("StopContainer", &request, deadline).await?;
        Ok(())
    }

    async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
        deadline: Duration,
    ) -> Result<A, CriError> {
        within(method, deadline, self.exchange(method, request)).await
    }

    async fn exchange<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<A, CriError> {
        let http = |source| CriError::Http { method, source };
        let bad = |reason: String| CriError::BadAnswer { method, reason };
        let head = http::Request::post(format!(
            "http://localhost/runtime.v1.RuntimeService/{method}"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|e| bad(e.to_string()))?;
        let mut requests = self.requests.clone().ready().await.map_err(http)?;
        let (answer, mut body) = requests.send_request(head, false).map_err(http)?;
        body.send_data(frame(request), true).map_err(http)?;
        let answer = answer.await.map_err(http)?;
        // A refusal may come without a body, its status among the headers.
        refusal(method, answer.headers())?;
        let mut stream = answer.into_body();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.map_err(http)?;
            // Frees the window; an error would show at the next read.
            let _ = stream.flow_control().release_capacity(chunk.len());
            if bytes.len() + chunk.len() > ANSWER_MAX {
                return Err(bad(format!("an answer of more than {ANSWER_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if let Some(trailers) = stream.trailers().await.map_err(http)? {
            refusal(method, &trailers)?;
        }
        let message = unframe(&bytes).ok_or_else(|| bad("a broken frame".to_owned()))?;
        A::decode(message).map_err(|e| bad(e.to_string()))
    }
}

async fn within<T>(
    method: &'static str,
    after: Duration,
    call: impl Future<Output = Result<T, CriError>>,
) -> Result<T, CriError> {
    tokio::time::timeout(after, call)
        .await
        .unwrap_or(Err(CriError::Timeout { method, after }))
}

fn frame(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The one message of an answer; not compressed, since we do not say that we could read that.
fn unframe(bytes: &[u8]) -> Option<&[u8]> {
    let (head, message) = bytes.split_at_checked(5)?;
    let [0, a, b, c, d] = *head else { return None };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    (message.len() == length).then_some(message)
}

fn refusal(method: &'static str, headers: &http::HeaderMap) -> Result<(), CriError> {
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    match text("grpc-status") {
        Some(status) if status != "0" => Err(CriError::Refused {
            method,
            status,
            message: text("grpc-message").unwrap_or_default(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_cut_or_compressed_is_no_answer() {
        let request = messages::StopContainerRequest {
            container_id: "c".to_owned(),
            timeout: 30,
        };
        let whole = frame(&request);
        assert_eq!(unframe(&whole), Some(&request.encode_to_vec()[..]));
        for cut in 0..whole.len() {
            assert_eq!(unframe(&whole[..cut]), None);
        }
        let mut compressed = whole.to_vec();
        compressed[0] = 1;
        assert_eq!(unframe(&compressed), None);
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_an_error_that_names_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c.sock");
        let error = Cri::connect(&socket).await.err().unwrap().to_string();
        assert!(error.contains("c.sock"), "{error}");
    }
}
