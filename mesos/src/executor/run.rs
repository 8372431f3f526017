//! The loop of an executor client: carries out what the machine decides.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{ExecutorConfig, ExecutorEvent};
use crate::http::Client;
use crate::pb;

pub(super) struct Io {
    pub(super) config: Arc<ExecutorConfig>,
    pub(super) client: Client,
    pub(super) subscribed: watch::Sender<bool>,
    pub(super) unacknowledged: watch::Receiver<pb::executor::call::Subscribe>,
    pub(super) hints: mpsc::Receiver<()>,
    pub(super) events: mpsc::Sender<ExecutorEvent>,
    pub(super) stop: CancellationToken,
}

pub(super) async fn run(io: Io) {
    let Io { .. } = io;
}
