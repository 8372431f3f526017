//! The agent's connection to its master: subscribes, subscribes again after every break with
//! back-off and jitter, and keeps what the agent says in order.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use mesos::http::Scheme;
use mesos::master::{DetectError, Detector, MasterAddress, MasterUrl};
use mesos::recordio::Decoder;
use prost::Message;
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::protocol::{
    CALL_PATH, FromAgent, MAX_MESSAGE_BYTES, MEDIA_TYPE, STREAM_ID, SUBSCRIBE_PATH, Subscribe,
    ToAgent, to_agent,
};

/// First pause before subscribing again. Agents of one machine come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause; a master that comes back is found within it.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long a connection or an answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which the master is taken for gone, before it has said its own number.
const DEFAULT_SILENCE: Duration = Duration::from_secs(75);
/// What the agent may have to say before the master has taken it. More than that and the
/// connection is given up; updates are repeated after the next subscription.
const OUTGOING: usize = 4096;
/// Pause before a call is repeated that the master could not take just now.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What the link tells the agent.
#[derive(Debug)]
pub enum LinkEvent {
    /// The link wants to subscribe.
    Introduce {
        /// What is the agent's introduction now?
        reply: oneshot::Sender<Subscribe>,
        /// What is put here reaches the master in order, once it has taken the introduction:
        /// an executor that ends meanwhile was introduced as one that runs.
        outgoing: mpsc::Sender<FromAgent>,
    },
    /// A message.
    Message(Box<to_agent::Message>),
    /// The connection is over.
    Lost,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("the master answered {status}: {text}")]
    Status {
        status: reqwest::StatusCode,
        text: String,
    },
    #[error("{0}")]
    Frame(#[from] mesos::recordio::RecordIoError),
    #[error("a message cannot be read: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the master was silent for {0:?}")]
    Silent(Duration),
    #[error("the master ended the stream")]
    Ended,
    #[error("another master leads now")]
    OtherLeader,
    #[error(transparent)]
    Detect(#[from] DetectError),
    #[error("the agent ends")]
    Stopped,
}

/// Keeps the agent subscribed with the leading master until `shutdown`, or until a master refuses
/// it for good (which the agent hears as [`to_agent::Message::Refused`]).
pub async fn run(master: MasterUrl, events: mpsc::Sender<LinkEvent>, shutdown: CancellationToken) {
    let client = match crate::client::builder()
        .connect_timeout(CALL_TIMEOUT)
        .build()
    {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "no HTTP client: the agent stays alone");
            return;
        }
    };
    let mut detector = Detector::spawn(&master, Scheme::Http);
    let mut attempt = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        let started = tokio::time::Instant::now();
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = leading(&client, &mut detector, attempt, &events) => ended,
        };
        attempt += 1;
        if let Err(error) = &ended {
            tracing::warn!(%master, %error, "not connected to the master");
        }
        if events.send(LinkEvent::Lost).await.is_err() || matches!(ended, Err(LinkError::Stopped)) {
            return;
        }
        if started.elapsed() > MAX_PAUSE {
            pause = FIRST_PAUSE;
        }
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(jittered) => {}
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// One connection with the leading master, or with the next of several that may lead; it ends
/// when another one leads.
async fn leading(
    client: &reqwest::Client,
    detector: &mut Detector,
    attempt: usize,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), LinkError> {
    let candidates = detector.candidates(CALL_TIMEOUT).await?;
    let master = candidates
        .get(attempt % candidates.len().max(1))
        .ok_or(LinkError::Stopped)?
        .clone();
    let changed = async {
        while detector.current().candidates.is_empty()
            || detector.current().candidates == candidates
        {
            // Nobody may lead for a moment; the connection itself shows whether it lives.
            detector.changed().await;
        }
    };
    tokio::select! {
        ended = connection(client, &master, events) => ended,
        () = changed => Err(LinkError::OtherLeader),
    }
}

async fn connection(
    client: &reqwest::Client,
    master: &MasterAddress,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), LinkError> {
    let (reply, introduction) = oneshot::channel();
    let (outgoing, mut to_send) = mpsc::channel::<FromAgent>(OUTGOING);
    tell(events, LinkEvent::Introduce { reply, outgoing }).await?;
    let subscribe = introduction.await.map_err(|_| LinkError::Stopped)?;
    let request = client
        .post(master.endpoint(SUBSCRIBE_PATH))
        .header("Content-Type", MEDIA_TYPE)
        .body(subscribe.encode_to_vec())
        .send();
    let response = within(CALL_TIMEOUT, request).await?;
    let response = checked(response).await?;
    let stream_id = response
        .headers()
        .get(STREAM_ID)
        .map_or_else(Bytes::new, |v| Bytes::copy_from_slice(v.as_bytes()));

    let receive = receive(response, events);
    let send = async {
        while let Some(message) = to_send.recv().await {
            call(client, master, &stream_id, &message).await?;
        }
        // The agent drops its end only to start anew.
        Err(LinkError::Stopped)
    };
    tokio::select! {
        ended = receive => ended,
        ended = send => ended,
    }
}

async fn receive(
    response: reqwest::Response,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), LinkError> {
    let mut body = response.bytes_stream();
    let mut decoder = Decoder::new(MAX_MESSAGE_BYTES);
    let mut silence = DEFAULT_SILENCE;
    loop {
        while let Some(frame) = decoder.next_frame()? {
            // A kind that this version does not know.
            let Some(message) = ToAgent::decode(frame)?.message else {
                continue;
            };
            if let to_agent::Message::Registered(registered) = &message
                && registered.ping_timeout_nanos > 0
            {
                silence = Duration::from_nanos(registered.ping_timeout_nanos);
            }
            tell(events, LinkEvent::Message(Box::new(message))).await?;
        }
        match timeout(silence, body.next()).await {
            Err(_) => return Err(LinkError::Silent(silence)),
            Ok(None) => return Err(LinkError::Ended),
            Ok(Some(chunk)) => decoder.push(&chunk?),
        }
    }
}

async fn call(
    client: &reqwest::Client,
    master: &MasterAddress,
    stream_id: &Bytes,
    message: &FromAgent,
) -> Result<(), LinkError> {
    let body = Bytes::from(message.encode_to_vec());
    let deadline = tokio::time::Instant::now() + CALL_TIMEOUT;
    loop {
        let request = client
            .post(master.endpoint(CALL_PATH))
            .header("Content-Type", MEDIA_TYPE)
            .header(STREAM_ID, stream_id.as_ref())
            .body(body.clone())
            .send();
        let response = within(CALL_TIMEOUT, request).await?;
        match response.status() {
            reqwest::StatusCode::BAD_REQUEST => {
                // Not to be repeated: it would never be taken.
                let text = response.text().await.unwrap_or_default();
                tracing::error!(text, "the master does not understand this agent");
                return Ok(());
            }
            reqwest::StatusCode::SERVICE_UNAVAILABLE if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            _ => return checked(response).await.map(drop),
        }
    }
}

async fn checked(response: reqwest::Response) -> Result<reqwest::Response, LinkError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = timeout(CALL_TIMEOUT, response.text()).await;
    let text = text.ok().and_then(Result::ok).unwrap_or_default();
    Err(LinkError::Status {
        status,
        text: text.chars().take(500).collect(),
    })
}

async fn within<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, LinkError> {
    Ok(timeout(limit, request)
        .await
        .map_err(|_| LinkError::Timeout(limit))??)
}

async fn tell(events: &mpsc::Sender<LinkEvent>, event: LinkEvent) -> Result<(), LinkError> {
    events.send(event).await.map_err(|_| LinkError::Stopped)
}

#[cfg(test)]
mod tests {
    use std::future::IntoFuture as _;
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::State;
    use axum::routing::post;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::protocol::{ExitedExecutor, from_agent};

    /// A master that takes an introduction when it is allowed to.
    #[derive(Clone)]
    struct Master {
        may_answer: Arc<Semaphore>,
        calls: mpsc::Sender<FromAgent>,
    }

    async fn subscribe(State(master): State<Master>) -> ([(&'static str, &'static str); 1], Body) {
        master.may_answer.acquire().await.unwrap().forget();
        let silent = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        ([(STREAM_ID, "1")], Body::from_stream(silent))
    }

    async fn called(State(master): State<Master>, body: Bytes) {
        let message = FromAgent::decode(body).unwrap();
        master.calls.send(message).await.unwrap();
    }

    #[tokio::test]
    async fn what_happens_while_the_agent_introduces_itself_reaches_the_master_afterwards() {
        let (calls, mut heard) = mpsc::channel(4);
        let may_answer = Arc::new(Semaphore::new(0));
        let router = Router::new()
            .route(SUBSCRIBE_PATH, post(subscribe))
            .route(CALL_PATH, post(called))
            .with_state(Master {
                may_answer: Arc::clone(&may_answer),
                calls,
            });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let master = MasterUrl::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let server = tokio::spawn(axum::serve(listener, router).into_future());
        let (events, mut link) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(master, events, stop.clone()));

        let Some(LinkEvent::Introduce { reply, outgoing }) = link.recv().await else {
            panic!("the link introduces the agent first");
        };
        reply.send(Subscribe::default()).unwrap();
        let exited = from_agent::Message::ExitedExecutor(ExitedExecutor {
            framework_id: mesos::pb::FrameworkId { value: "f".into() },
            executor_id: mesos::pb::ExecutorId { value: "e".into() },
            status: 0,
        });
        outgoing
            .try_send(FromAgent::from(exited.clone()))
            .expect("there is room");
        assert!(heard.try_recv().is_err(), "the master knows no agent yet");
        may_answer.add_permits(1);
        let message = heard.recv().await.unwrap();
        assert_eq!(message.message, Some(exited));
        stop.cancel();
        running.await.unwrap();
        server.abort();
    }
}
