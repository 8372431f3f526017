//! The operator API of masters and agents, for tools.
//!
//! ```no_run
//! use mesos::http::ClientConfig;
//! use mesos::master::MasterUrl;
//! use mesos::operator::OperatorClient;
//! use mesos::pb::master;
//!
//! # async fn example() -> Result<(), mesos::Error> {
//! let url = MasterUrl::parse("127.0.0.1:5050").expect("a constant");
//! let client = OperatorClient::new(&url, &ClientConfig::default())?;
//! let call = master::Call {
//!     r#type: Some(master::call::Type::GetAgents.into()),
//!     ..Default::default()
//! };
//! let agents = client.call(&call).await?.get_agents.unwrap_or_default();
//! println!("{} agents", agents.agents.len());
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use prost_reflect::ReflectMessage;
use tokio::sync::Mutex;

use crate::codec::Encoding;
use crate::error::Error;
use crate::http::{Answer, Client, ClientConfig, EventStream, Request};
use crate::master::{Detector, MasterAddress, MasterUrl};
use crate::pb;

/// Where the operator API is, below a base URL.
pub const ENDPOINT: &str = "/api/v1";

/// How often a call is passed on from one master to the next. A cluster that has just elected a
/// leader needs one.
const MAX_REDIRECTS: usize = 4;

/// A call of an operator API: [`pb::master::Call`] or [`pb::agent::Call`].
pub trait OperatorCall: ReflectMessage + prost::Message {
    /// What answers it. The default value stands for an empty answer.
    type Response: ReflectMessage + prost::Message + Default;
    /// What its event streams carry.
    type Event: ReflectMessage + prost::Message + Default;
    /// The name of the call, for errors.
    fn attempt(&self) -> &'static str;
    /// SUBSCRIBE, where it exists.
    fn subscribe() -> Option<Self>
    where
        Self: Sized;
}

impl OperatorCall for pb::master::Call {
    type Response = pb::master::Response;
    type Event = pb::master::Event;

    fn attempt(&self) -> &'static str {
        self.r#type().as_str_name()
    }

    fn subscribe() -> Option<Self> {
        Some(Self {
            r#type: Some(pb::master::call::Type::Subscribe.into()),
            ..Default::default()
        })
    }
}

impl OperatorCall for pb::agent::Call {
    type Response = pb::agent::Response;
    type Event = pb::agent::ProcessIo;

    fn attempt(&self) -> &'static str {
        self.r#type().as_str_name()
    }

    fn subscribe() -> Option<Self> {
        None
    }
}

/// A client for operator calls, to the leading master or to one agent. Clones share
/// connections.
#[derive(Debug, Clone)]
pub struct OperatorClient {
    client: Client,
    encoding: Encoding,
    target: Target,
    detect_timeout: Duration,
    max_event_bytes: usize,
}

#[derive(Debug, Clone)]
enum Target {
    Agent(MasterAddress),
    Master(Arc<Mutex<Leader>>),
}

/// The master to ask first.
#[derive(Debug)]
struct Leader {
    detector: Detector,
    /// The one that answered last, unless the detector has said otherwise since.
    answered: Option<MasterAddress>,
}

impl OperatorClient {
    /// A client for the leading master. Must be called on a tokio runtime.
    pub fn new(master: &MasterUrl, config: &ClientConfig) -> Result<Self, Error> {
        let client = Client::new(config)?;
        let detector = Detector::spawn(master, client.scheme());
        let leader = Leader {
            detector,
            answered: None,
        };
        let target = Target::Master(Arc::new(Mutex::new(leader)));
        Ok(Self::with_target(client, target, config))
    }

    /// A client for one agent (or for one master, leading or not).
    pub fn direct(address: MasterAddress, config: &ClientConfig) -> Result<Self, Error> {
        let client = Client::new(config)?;
        Ok(Self::with_target(client, Target::Agent(address), config))
    }

    fn with_target(client: Client, target: Target, config: &ClientConfig) -> Self {
        Self {
            client,
            encoding: Encoding::default(),
            target,
            detect_timeout: config.call_timeout,
            max_event_bytes: config.max_answer_bytes,
        }
    }

    /// Uses another encoding than protobuf.
    #[must_use]
    pub fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Sends a call and reads its answer.
    ///
    /// Not for calls that are answered with a stream, see [`Self::stream`], and not for those
    /// whose request is one (`ATTACH_CONTAINER_INPUT`), which this client does not offer.
    pub async fn call<C: OperatorCall>(&self, call: &C) -> Result<C::Response, Error> {
        let body = self.encoding.encode(call);
        let mut answered = None;
        let candidates = self.candidates().await?;
        let result = self
            .attempt(candidates, &mut answered, |url| {
                let body = body.clone();
                let client = &self.client;
                let encoding = self.encoding;
                async move {
                    let request = Request {
                        attempt: call.attempt(),
                        url: &url,
                        encoding,
                        stream_id: None,
                    };
                    let answer = client.post(request, body).await?;
                    read::<C::Response>(request, &answer)
                }
            })
            .await;
        self.remember(answered).await;
        result
    }

    /// Follows what happens in the cluster: tasks, agents and frameworks that come, change and
    /// go. The first event is SUBSCRIBED with the whole state. The caller subscribes again when
    /// the stream ends; a HEARTBEAT comes every 15 s.
    pub async fn subscribe(&self) -> Result<Subscription<pb::master::Event>, Error> {
        match pb::master::Call::subscribe() {
            Some(call) => self.stream(&call).await,
            // It always has one.
            None => Err(Error::Stopped),
        }
    }

    /// Sends a call that is answered with an event stream: SUBSCRIBE to a master,
    /// `ATTACH_CONTAINER_OUTPUT` or `LAUNCH_NESTED_CONTAINER_SESSION` to an agent.
    pub async fn stream<C: OperatorCall>(&self, call: &C) -> Result<Subscription<C::Event>, Error> {
        let body = self.encoding.encode(call);
        let mut answered = None;
        let candidates = self.candidates().await?;
        let result = self
            .attempt(candidates, &mut answered, |url| {
                let body = body.clone();
                let client = &self.client;
                let encoding = self.encoding;
                let limit = self.max_event_bytes;
                async move {
                    let request = Request {
                        attempt: call.attempt(),
                        url: &url,
                        encoding,
                        stream_id: None,
                    };
                    client.open_stream(request, body, limit).await
                }
            })
            .await;
        self.remember(answered).await;
        result.map(|stream| Subscription {
            stream,
            event: std::marker::PhantomData,
        })
    }

    async fn candidates(&self) -> Result<Vec<MasterAddress>, Error> {
        match &self.target {
            Target::Agent(address) => Ok(vec![address.clone()]),
            Target::Master(leader) => {
                let mut leader = leader.lock().await;
                let mut candidates = leader.detector.candidates(self.detect_timeout).await?;
                if let Some(answered) = leader.answered.clone() {
                    candidates.retain(|candidate| *candidate != answered);
                    candidates.insert(0, answered);
                }
                Ok(candidates)
            }
        }
    }

    async fn remember(&self, answered: Option<MasterAddress>) {
        if let Target::Master(leader) = &self.target {
            leader.lock().await.answered = answered;
        }
    }

    /// Tries candidate after candidate, following redirects, until one answers.
    async fn attempt<T, F>(
        &self,
        candidates: Vec<MasterAddress>,
        answered: &mut Option<MasterAddress>,
        send: impl Fn(url::Url) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = Error::NotSubscribed;
        for candidate in candidates {
            let mut address = candidate;
            let mut redirects = 0;
            loop {
                match send(address.endpoint(ENDPOINT)).await {
                    Ok(value) => {
                        *answered = Some(address);
                        return Ok(value);
                    }
                    Err(error) => {
                        if let Error::Redirect { location, .. } = &error
                            && redirects < MAX_REDIRECTS
                            && let Some(next) = address.redirected(ENDPOINT, location)
                        {
                            redirects += 1;
                            address = next;
                            continue;
                        }
                        // Another master may answer where this one cannot be reached; none
                        // will take a call that this one refuses.
                        let elsewhere =
                            matches!(error, Error::Transport { .. } | Error::Redirect { .. });
                        last = error;
                        if !elsewhere {
                            return Err(last);
                        }
                        break;
                    }
                }
            }
        }
        Err(last)
    }
}

fn read<M: ReflectMessage + prost::Message + Default>(
    request: Request<'_>,
    answer: &Answer,
) -> Result<M, Error> {
    if answer.body.is_empty() {
        return Ok(M::default());
    }
    let encoding = answer
        .encoding
        .ok_or_else(|| request.protocol("the answer is no message of Mesos"))?;
    Ok(encoding.decode(&answer.body)?)
}

/// Events of one stream. Dropping it closes the stream.
#[derive(Debug)]
pub struct Subscription<E> {
    stream: EventStream,
    event: std::marker::PhantomData<fn() -> E>,
}

impl<E: ReflectMessage + prost::Message + Default> Subscription<E> {
    /// The next event; [`Error::StreamEnded`] at the end. Nothing is lost when the future is
    /// dropped before it is done.
    pub async fn next(&mut self) -> Result<E, Error> {
        self.stream.next().await
    }
}
