//! The scheduler API, for frameworks.
//!
//! [`spawn`] keeps one subscription alive: it finds the leading master, subscribes, notices
//! when the master is gone or another one leads, and subscribes again with back-off. What it
//! decides is in the pure [`machine`]; here is what surrounds it.
//!
//! ```no_run
//! use mesos::http::ClientConfig;
//! use mesos::master::MasterUrl;
//! use mesos::pb;
//! use mesos::scheduler::{self, SchedulerConfig, SchedulerEvent};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let framework = pb::FrameworkInfo {
//!     user: "root".to_owned(),
//!     name: "example".to_owned(),
//!     roles: vec!["example".to_owned()],
//!     ..Default::default()
//! };
//! let master = MasterUrl::parse("zk://zk1:2181,zk2:2181/mesos")?;
//! let config = SchedulerConfig::new(master, framework, ClientConfig::default());
//! let (handle, mut events) = scheduler::spawn(config)?;
//! while let Some(event) = events.recv().await {
//!     match event {
//!         SchedulerEvent::Event(event) => println!("{:?}", event.r#type()),
//!         SchedulerEvent::Fatal { error } => return Err(error.into()),
//!         SchedulerEvent::Connected { .. } | SchedulerEvent::Disconnected { .. } => {}
//!     }
//! }
//! handle.shutdown();
//! # Ok(())
//! # }
//! ```

pub mod machine;
mod registration;
mod run;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::codec::Encoding;
use crate::error::Error;
use crate::http::{Client, ClientConfig, ConfigError, Request, StreamId};
use crate::master::{MasterAddress, MasterUrl};
use crate::pb;
use pb::scheduler::call::Type;

pub use registration::Registration;

/// Where the scheduler API is, below a master's base URL.
pub const ENDPOINT: &str = "/api/v1/scheduler";

/// What a scheduler client is told.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Where the masters are.
    pub master: MasterUrl,
    /// Who subscribes. With `id` it is a framework that the master may know: it goes on where
    /// it was, in place of any other scheduler with this id.
    pub framework: pb::FrameworkInfo,
    /// Roles that are to get no offers from the beginning.
    pub suppressed_roles: Vec<String>,
    /// Restricts which agents' offers come.
    pub offer_constraints: Option<pb::scheduler::OfferConstraints>,
    /// How messages are written. Default: protobuf.
    pub encoding: Encoding,
    /// TLS, authentication, time limits.
    pub client: ClientConfig,
    /// Times of the subscription.
    pub timing: machine::Timing,
    /// Longest event that is accepted, in bytes. Default: 128 MiB (one OFFERS event can carry
    /// the offers of all agents).
    pub max_event_bytes: usize,
    /// How many events wait for a slow receiver before no more are read. Default: 256.
    pub buffered_events: usize,
}

impl SchedulerConfig {
    /// With defaults for all the rest.
    pub fn new(master: MasterUrl, framework: pb::FrameworkInfo, client: ClientConfig) -> Self {
        Self {
            master,
            framework,
            suppressed_roles: Vec::new(),
            offer_constraints: None,
            encoding: Encoding::default(),
            client,
            timing: machine::Timing::default(),
            max_event_bytes: 128 << 20,
            buffered_events: 256,
        }
    }
}

/// What a scheduler hears.
#[derive(Debug)]
pub enum SchedulerEvent {
    /// A subscription is established; SUBSCRIBED follows. Offers of an earlier one are void.
    Connected {
        /// The master's address.
        master: String,
    },
    /// An event from the master, SUBSCRIBED included, HEARTBEAT left out.
    Event(Box<pb::scheduler::Event>),
    /// There is no subscription (any more). Another attempt follows by itself.
    Disconnected {
        /// Why.
        error: Error,
        /// How long until the next attempt; zero if it waits for a master to lead.
        retry_in: Duration,
    },
    /// The subscription is over and no other attempt is made. Last event.
    Fatal {
        /// Why: [`Error::Refused`] says what the master meant.
        error: Error,
    },
}

/// Where calls go at the moment.
#[derive(Debug, Clone)]
struct Session {
    master: MasterAddress,
    stream_id: Option<StreamId>,
    framework_id: pb::FrameworkId,
}

/// Sends calls. Clones share the subscription.
#[derive(Debug, Clone)]
pub struct SchedulerHandle {
    client: Client,
    encoding: Encoding,
    session: watch::Receiver<Option<Session>>,
    registration: Arc<watch::Sender<Registration>>,
    hints: mpsc::Sender<Option<StreamId>>,
    stop: CancellationToken,
}

/// Starts a scheduler client on the present tokio runtime. It ends when the receiver is
/// dropped, at [`SchedulerHandle::shutdown`], or after [`SchedulerEvent::Fatal`]. Ending never
/// tears the framework down.
pub fn spawn(
    config: SchedulerConfig,
) -> Result<(SchedulerHandle, mpsc::Receiver<SchedulerEvent>), ConfigError> {
    let client = Client::new(&config.client)?;
    let (session_sender, session) = watch::channel(None);
    // One hint that the subscription is not one is enough.
    let (hints, hint_receiver) = mpsc::channel(1);
    let registration = Registration::new(pb::scheduler::call::Subscribe {
        framework_info: config.framework.clone(),
        suppressed_roles: config.suppressed_roles.clone(),
        offer_constraints: config.offer_constraints.clone(),
    });
    let registration = Arc::new(watch::Sender::new(registration));
    let (events, event_receiver) = mpsc::channel(config.buffered_events.max(1));
    let stop = CancellationToken::new();
    let handle = SchedulerHandle {
        client: client.clone(),
        encoding: config.encoding,
        session,
        registration: Arc::clone(&registration),
        hints,
        stop: stop.clone(),
    };
    tokio::spawn(run::run(run::Io {
        config,
        client,
        session: session_sender,
        registration,
        hints: hint_receiver,
        events,
        stop,
    }));
    Ok((handle, event_receiver))
}

impl SchedulerHandle {
    /// Sends a call, with the framework's id filled in. `Ok` means that the master took it
    /// (202), not that it had the wanted effect: that is told by events.
    ///
    /// Calls that are awaited one after the other arrive in that order; calls of concurrent
    /// tasks arrive in any order. SUBSCRIBE is refused: the client does that itself. After
    /// TEARDOWN the master ends the stream; [`Self::shutdown`] is the next thing to do.
    /// What SUPPRESS, REVIVE and UPDATE_FRAMEWORK change also holds for later subscriptions.
    pub async fn call(&self, mut call: pb::scheduler::Call) -> Result<(), Error> {
        if matches!(call.r#type(), Type::Unknown | Type::Subscribe) {
            return Err(Error::InvalidCall {
                reason: format!("{} cannot be sent", call.r#type().as_str_name()),
            });
        }
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        let session = self.session.borrow().clone().ok_or(Error::NotSubscribed)?;
        call.framework_id = Some(session.framework_id);
        let url = session.master.endpoint(ENDPOINT);
        let request = Request {
            attempt: call.r#type().as_str_name(),
            url: &url,
            encoding: self.encoding,
            stream_id: session.stream_id.as_ref(),
        };
        let body = self.encoding.encode(&call);
        let result = self.client.post(request, body).await;
        if result.is_ok() && changes_registration(&call) {
            self.registration.send_modify(|r| r.accepted(call));
        }
        if let Err(error) = &result
            && error.says_not_subscribed()
        {
            // A full queue already holds such a hint.
            let _ = self.hints.try_send(session.stream_id);
        }
        result.map(drop)
    }

    /// Changes FrameworkInfo: sends UPDATE_FRAMEWORK and subscribes with it from now on.
    /// `user`, `checkpoint` and `principal` cannot be changed. The id is filled in; roles that
    /// are suppressed stay so.
    pub async fn update_framework(&self, info: pb::FrameworkInfo) -> Result<(), Error> {
        let call = self.registration.borrow().update_call(info);
        self.call(call).await
    }

    /// The id under which the framework is subscribed at the moment.
    pub fn framework_id(&self) -> Option<pb::FrameworkId> {
        Some(self.session.borrow().as_ref()?.framework_id.clone())
    }

    /// Closes the event stream and ends the client. The framework stays registered for its
    /// failover timeout: tear it down with a call of that type if it is to end.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }
}

/// Whether a call changes what the next SUBSCRIBE has to say.
fn changes_registration(call: &pb::scheduler::Call) -> bool {
    matches!(
        call.r#type(),
        Type::Suppress | Type::Revive | Type::UpdateFramework
    )
}
