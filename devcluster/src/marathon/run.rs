//! The loop around Marathon's core: the subscription, calls, probes, the file, HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use mesos::Refusal;
use mesos::http::ClientConfig;
use mesos::master::MasterUrl;
use mesos::pb;
use mesos::scheduler::{self, SchedulerConfig, SchedulerEvent, SchedulerHandle};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::Response;
use super::core::{Core, Effect, Event, Notice, Outcome, Settings};
use super::probe;
use super::server::{self, Access, Asked, Shared};
use super::store::{Store, StoreError};
use crate::clock::Time;

/// How many requests wait for the core.
const MAX_REQUESTS: usize = 256;
/// How many calls wait for the master.
const MAX_CALLS: usize = 4096;
/// How many results of probes wait for the core.
const MAX_RESULTS: usize = 1024;
/// How many probes are under way at a time.
const MAX_PROBES: usize = 256;
/// How many events a slow listener may be behind.
const MAX_NOTICES: usize = 1024;
/// How many events are handled before their changes are written together.
const BATCH: usize = 64;
/// How long connections may take to end at a shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// How Marathon is started.
#[derive(Debug, Clone)]
pub struct MarathonConfig {
    /// Where it listens; port 0: any free one.
    pub listen: SocketAddr,
    /// Where others reach it, `host:port`; where it listens if nothing is said.
    pub advertise: Option<String>,
    /// Directory of its state.
    pub work_dir: PathBuf,
    /// Where the masters are.
    pub master: MasterUrl,
    /// How it speaks with them.
    pub client: ClientConfig,
    /// Who may ask; anybody if nothing is said.
    pub access: Option<Access>,
    /// How it behaves; `address` is filled in.
    pub settings: Settings,
}

/// Why Marathon could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum MarathonError {
    /// The address cannot be had. Worth a retry when another process is about to leave it.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The state cannot be kept or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The masters cannot be spoken with like this.
    #[error("connection to the Mesos master: {0}")]
    Config(#[from] mesos::http::ConfigError),
    /// A client for health checks cannot be made.
    #[error("cannot make a client for health checks: {0}")]
    Probes(#[source] reqwest::Error),
    /// The master does not want this framework. Not worth a retry with the same settings.
    #[error("the Mesos master refused this framework: {0}")]
    Refused(#[source] mesos::Error),
}

/// A Marathon that runs.
#[derive(Debug)]
pub struct Marathon {
    address: SocketAddr,
    stop: CancellationToken,
    work: JoinHandle<Result<(), MarathonError>>,
}

impl Marathon {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for its end, which comes by `stop` or by an error that it cannot mend.
    pub async fn wait(self) -> Result<(), MarathonError> {
        match self.work.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        }
    }

    /// Ends it. Tasks go on; a later one takes them up again.
    pub async fn stop(self) -> Result<(), MarathonError> {
        self.stop.cancel();
        self.wait().await
    }
}

/// Starts Marathon on the present tokio runtime. Cancelling `stop` ends it without touching
/// tasks.
pub async fn start(
    config: MarathonConfig,
    stop: CancellationToken,
) -> Result<Marathon, MarathonError> {
    let store = Store::open(&config.work_dir)?;
    let durable = store.load()?;
    let listen = |source| MarathonError::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let advertised = config
        .advertise
        .clone()
        .unwrap_or_else(|| address.to_string());
    let settings = Settings {
        address: advertised.clone(),
        ..config.settings.clone()
    };
    let core = Core::new(settings, durable, Time::now(), rand::random());
    // The framework's id is on disk before the master hears of it.
    store.save(core.durable())?;
    let probes = probe::client().map_err(MarathonError::Probes)?;
    let (asked, requests) = mpsc::channel(MAX_REQUESTS);
    let notices = broadcast::Sender::new(MAX_NOTICES);
    let shared = Shared {
        asked,
        notices: notices.clone(),
        access: config.access.clone(),
        leader: HeaderValue::from_str(&format!("http://{advertised}"))
            .unwrap_or(HeaderValue::from_static("")),
        stop: stop.clone(),
    };
    let (results, results_receiver) = mpsc::channel(MAX_RESULTS);
    let subscription = Subscription::begin(&config, &core)?;
    let work = Work {
        core,
        store,
        config,
        notices,
        requests,
        results,
        results_receiver,
        probes,
        slots: Arc::new(Semaphore::new(MAX_PROBES)),
        subscription,
        stop: stop.clone(),
    };
    let serving = serve(listener, shared, stop.clone());
    let ended = stop.clone();
    let work = tokio::spawn(async move {
        let serving = tokio::spawn(serving);
        let result = work.run().await;
        ended.cancel();
        // The server ends by itself; what it still holds does not matter any more.
        let _ = serving.await;
        result
    });
    tracing::info!(%address, "Marathon listens");
    Ok(Marathon {
        address,
        stop,
        work,
    })
}

async fn serve(listener: TcpListener, shared: Shared, stop: CancellationToken) {
    let app = server::router(shared).into_make_service_with_connect_info::<SocketAddr>();
    let signal = stop.clone();
    let graceful =
        axum::serve(listener, app).with_graceful_shutdown(async move { signal.cancelled().await });
    tokio::select! {
        result = graceful => {
            if let Err(error) = result {
                tracing::error!(%error, "the HTTP server ended");
            }
        }
        () = async { stop.cancelled().await; tokio::time::sleep(SHUTDOWN_GRACE).await } => {}
    }
}

/// A subscription and the calls that go to it, in order.
struct Subscription {
    handle: SchedulerHandle,
    events: mpsc::Receiver<SchedulerEvent>,
    calls: mpsc::Sender<Box<pb::scheduler::Call>>,
    failed: mpsc::Receiver<Box<pb::scheduler::Call>>,
}

impl Subscription {
    fn begin(config: &MarathonConfig, core: &Core) -> Result<Self, MarathonError> {
        let framework = framework_info(core);
        let config = SchedulerConfig::new(config.master.clone(), framework, config.client.clone());
        let (handle, events) = scheduler::spawn(config)?;
        let (calls, mut queue) = mpsc::channel::<Box<pb::scheduler::Call>>(MAX_CALLS);
        let (failed_sender, failed) = mpsc::channel(MAX_CALLS);
        let sender = handle.clone();
        tokio::spawn(async move {
            while let Some(call) = queue.recv().await {
                if let Err(error) = sender.call((*call).clone()).await {
                    tracing::warn!(call = call.r#type().as_str_name(), %error, "call failed");
                    // Whoever is so far behind asks the master about all tasks anyway.
                    let _ = failed_sender.try_send(call);
                }
            }
        });
        Ok(Self {
            handle,
            events,
            calls,
            failed,
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

fn framework_info(core: &Core) -> pb::FrameworkInfo {
    use pb::framework_info::capability::Type;
    let settings = core.settings();
    let mut capabilities = vec![
        Type::MultiRole,
        Type::PartitionAware,
        Type::RegionAware,
        Type::ReservationRefinement,
        Type::TaskKillingState,
    ];
    if settings.features.contains("gpu_resources") {
        capabilities.push(Type::GpuResources);
    }
    pb::FrameworkInfo {
        user: settings.user.clone(),
        name: settings.framework_name.clone(),
        id: core
            .durable()
            .framework_id
            .clone()
            .map(|value| pb::FrameworkId { value }),
        failover_timeout: Some(settings.failover_timeout.as_secs_f64()),
        checkpoint: Some(true),
        roles: vec![settings.role.clone()],
        principal: settings.principal.clone(),
        webui_url: Some(format!("http://{}", settings.address)),
        hostname: settings
            .address
            .rsplit_once(':')
            .map(|(host, _)| host.to_owned()),
        capabilities: capabilities
            .into_iter()
            .map(|kind| pb::framework_info::Capability {
                r#type: Some(kind as i32),
            })
            .collect(),
        ..Default::default()
    }
}

struct Work {
    core: Core,
    store: Store,
    config: MarathonConfig,
    notices: broadcast::Sender<Notice>,
    requests: mpsc::Receiver<Asked>,
    results: mpsc::Sender<Event>,
    results_receiver: mpsc::Receiver<Event>,
    probes: reqwest::Client,
    slots: Arc<Semaphore>,
    subscription: Subscription,
    stop: CancellationToken,
}

/// An event and who waits for its answer.
type Input = (Event, Option<oneshot::Sender<Response>>);

impl Work {
    async fn run(mut self) -> Result<(), MarathonError> {
        loop {
            let Some(first) = self.next().await? else {
                return Ok(());
            };
            let mut batch = vec![self.handle(first)];
            while batch.len() < BATCH
                && let Some(more) = self.next_at_once()?
            {
                batch.push(self.handle(more));
            }
            self.carry_out(batch)?;
        }
    }

    /// The next event; nothing when it is time to end.
    async fn next(&mut self) -> Result<Option<Input>, MarathonError> {
        let deadline = self.core.next_deadline().since(Time::now());
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Ok(None),
            event = self.subscription.events.recv() => self.input_of(event).map(Some),
            Some(call) = self.subscription.failed.recv() => Ok(Some((Event::CallFailed(call), None))),
            Some(result) = self.results_receiver.recv() => Ok(Some((result, None))),
            Some((request, answer)) = self.requests.recv() => Ok(Some((Event::Api(request), Some(answer)))),
            () = tokio::time::sleep(deadline) => Ok(Some((Event::Tick, None))),
        }
    }

    fn next_at_once(&mut self) -> Result<Option<Input>, MarathonError> {
        if let Ok(event) = self.subscription.events.try_recv() {
            return self.input_of(Some(event)).map(Some);
        }
        if let Ok(result) = self.results_receiver.try_recv() {
            return Ok(Some((result, None)));
        }
        let request = self.requests.try_recv().ok();
        Ok(request.map(|(request, answer)| (Event::Api(request), Some(answer))))
    }

    fn input_of(&mut self, event: Option<SchedulerEvent>) -> Result<Input, MarathonError> {
        let event = match event {
            Some(SchedulerEvent::Connected { master }) => Event::Connected { master },
            Some(SchedulerEvent::Event(event)) => Event::Mesos(event),
            Some(SchedulerEvent::Disconnected { error, retry_in }) => {
                tracing::warn!(%error, ?retry_in, "not subscribed");
                Event::Disconnected
            }
            Some(SchedulerEvent::Fatal { error }) => match error {
                mesos::Error::Refused {
                    refusal: Refusal::Removed,
                    ..
                } => Event::Removed,
                error => return Err(MarathonError::Refused(error)),
            },
            // Only after Fatal or a shutdown, which are handled above.
            None => return Err(MarathonError::Refused(mesos::Error::Stopped)),
        };
        Ok((event, None))
    }

    fn handle(&mut self, (event, asker): Input) -> (Outcome, Option<oneshot::Sender<Response>>) {
        (self.core.handle(Time::now(), event), asker)
    }

    /// Writes once, then does all that follows, in order.
    fn carry_out(
        &mut self,
        batch: Vec<(Outcome, Option<oneshot::Sender<Response>>)>,
    ) -> Result<(), MarathonError> {
        let saves =
            |(outcome, _): &(Outcome, _)| outcome.effects.iter().any(|e| matches!(e, Effect::Save));
        if batch.iter().any(saves) {
            self.store.save(self.core.durable())?;
        }
        let mut again = false;
        for (outcome, asker) in batch {
            for effect in outcome.effects {
                match effect {
                    Effect::Save => {}
                    Effect::Call(call) => self.send(call),
                    Effect::Probe(id, probe) => self.probe(id, probe),
                    // Nobody may listen.
                    Effect::Notify(notice) => drop(self.notices.send(notice)),
                    Effect::Resubscribe => again = true,
                    Effect::Abdicate => {
                        tracing::info!("leadership is given up: beginning again");
                        let settings = self.core.settings().clone();
                        let durable = self.core.durable().clone();
                        self.core = Core::new(settings, durable, Time::now(), rand::random());
                        again = true;
                    }
                }
            }
            if let (Some(answer), Some(asker)) = (outcome.answer, asker) {
                // Whoever asked may be gone.
                let _ = asker.send(answer);
            }
        }
        if again {
            self.subscription = Subscription::begin(&self.config, &self.core)?;
        }
        Ok(())
    }

    fn send(&self, call: Box<pb::scheduler::Call>) {
        if let Err(error) = self.subscription.calls.try_send(call) {
            // The master has not taken a call for long: what is lost is found by reconciliation.
            tracing::warn!(%error, "a call is dropped");
        }
    }

    fn probe(&self, id: super::core::ProbeId, probe: super::core::Probe) {
        let (client, results) = (self.probes.clone(), self.results.clone());
        let slots = Arc::clone(&self.slots);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let Ok(_slot) = slots.acquire().await else {
                return;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                result = probe::run(&client, probe) => {
                    // At the end nobody wants to know any more.
                    let _ = results.send(Event::Probed { probe: id, result }).await;
                }
            }
        });
    }
}
