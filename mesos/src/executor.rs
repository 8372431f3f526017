//! The executor API, for the processes that agents start to run tasks.
//!
//! [`spawn`] keeps the subscription with the agent: an agent that restarts kills every executor
//! that is not back within seconds, so after a disconnection it subscribes again every 250 ms,
//! carrying what [`ExecutorHandle::set_unacknowledged`] was given last.

mod config;
mod ledger;
pub mod machine;
mod run;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::codec::Encoding;
use crate::error::Error;
use crate::http::{Client, ConfigError, Request};
use crate::pb;
use pb::executor::call::Type;

pub use config::ExecutorConfig;
pub use ledger::{Ledger, new_update};

/// Where the executor API is, below an agent's base URL.
pub const ENDPOINT: &str = "/api/v1/executor";

/// Longest time for a connection to the agent.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// What an executor hears.
#[derive(Debug)]
pub enum ExecutorEvent {
    /// An event from the agent, SUBSCRIBED included, HEARTBEAT left out.
    Event(Box<pb::executor::Event>),
    /// The agent is away. Attempts to subscribe again go on by themselves.
    Disconnected {
        /// Why.
        error: Error,
    },
    /// The agent gave this executor up: it was away for longer than the recovery timeout, or
    /// went away and the framework does not checkpoint, or it is back and says that it does not
    /// know this executor (`Disconnected` before this tells which). Last event; the executor
    /// has to end its tasks and itself.
    RecoveryTimeout,
}

/// Sends calls. Clones share the subscription.
#[derive(Debug, Clone)]
pub struct ExecutorHandle {
    client: Client,
    config: std::sync::Arc<ExecutorConfig>,
    subscribed: watch::Receiver<bool>,
    unacknowledged: watch::Sender<pb::executor::call::Subscribe>,
    hints: mpsc::Sender<()>,
    stop: CancellationToken,
}

/// Starts an executor client on the present tokio runtime. It ends when the receiver is
/// dropped, at [`ExecutorHandle::shutdown`], or after [`ExecutorEvent::RecoveryTimeout`].
pub fn spawn(
    config: ExecutorConfig,
) -> Result<(ExecutorHandle, mpsc::Receiver<ExecutorEvent>), ConfigError> {
    let mut config = config;
    // The agent is on this machine: a connection that takes longer is none, and an agent that
    // recovers does not wait for it.
    config.client.connect_timeout = config.client.connect_timeout.min(CONNECT_TIMEOUT);
    let client = Client::new(&config.client)?;
    let config = std::sync::Arc::new(config);
    let (subscribed_sender, subscribed) = watch::channel(false);
    let (unacknowledged, unacknowledged_receiver) = watch::channel(config.unacknowledged.clone());
    let (hints, hint_receiver) = mpsc::channel(1);
    let (events, event_receiver) = mpsc::channel(config.buffered_events.max(1));
    let stop = CancellationToken::new();
    let handle = ExecutorHandle {
        client: client.clone(),
        config: std::sync::Arc::clone(&config),
        subscribed,
        unacknowledged,
        hints,
        stop: stop.clone(),
    };
    tokio::spawn(run::run(run::Io {
        config,
        client,
        subscribed: subscribed_sender,
        unacknowledged: unacknowledged_receiver,
        hints: hint_receiver,
        events,
        stop,
    }));
    Ok((handle, event_receiver))
}

impl ExecutorHandle {
    /// Sends a call, with the ids of executor and framework filled in. `Ok` means that the
    /// agent took it; that an update is stored is told by ACKNOWLEDGED.
    ///
    /// SUBSCRIBE is refused: the client does that itself. An update needs a status with a UUID
    /// of version 1 to 5, [`new_update`] makes one.
    pub async fn call(&self, mut call: pb::executor::Call) -> Result<(), Error> {
        if matches!(call.r#type(), Type::Unknown | Type::Subscribe) {
            return Err(Error::InvalidCall {
                reason: format!("{} cannot be sent", call.r#type().as_str_name()),
            });
        }
        if call.r#type() == Type::Update {
            ledger::check_update(call.update.as_ref())?;
        }
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        if !*self.subscribed.borrow() {
            return Err(Error::NotSubscribed);
        }
        call.executor_id = self.config.executor_id.clone();
        call.framework_id = self.config.framework_id.clone();
        let url = self.config.agent.endpoint(ENDPOINT);
        let request = Request {
            attempt: call.r#type().as_str_name(),
            url: &url,
            encoding: self.encoding(),
            stream_id: None,
        };
        let body = self.encoding().encode(&call);
        let result = self.client.post(request, body).await;
        if let Err(error) = &result
            && error.says_not_subscribed()
        {
            // A full queue already holds such a hint.
            let _ = self.hints.try_send(());
        }
        result.map(drop)
    }

    /// What the next SUBSCRIBE carries: tasks whose launch this executor has received and of
    /// which no update was acknowledged, and updates that were not acknowledged. Without it,
    /// the agent answers such tasks with TASK_DROPPED after it has restarted. [`Ledger`] keeps
    /// this account.
    ///
    /// An update that came about while a SUBSCRIBE was on its way is in neither of the two: send
    /// what is unacknowledged again after each SUBSCRIBED. Agents know updates by their UUIDs
    /// and take the second one for the first.
    pub fn set_unacknowledged(
        &self,
        tasks: Vec<pb::TaskInfo>,
        updates: Vec<pb::executor::call::Update>,
    ) {
        self.unacknowledged
            .send_replace(pb::executor::call::Subscribe {
                unacknowledged_tasks: tasks,
                unacknowledged_updates: updates,
            });
    }

    /// Ends the client. The agent takes a closed stream for no more than that: it waits for the
    /// executor to subscribe again or to exit.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    fn encoding(&self) -> Encoding {
        self.config.encoding
    }
}
