//! The loop of a scheduler client: carries out what the machine decides.

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Command, SchedulerConfig, SchedulerEvent, Session};
use crate::http::Client;

pub(super) struct Io {
    pub(super) config: SchedulerConfig,
    pub(super) client: Client,
    pub(super) session: watch::Sender<Option<Session>>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<SchedulerEvent>,
    pub(super) stop: CancellationToken,
}

pub(super) async fn run(io: Io) {
    let Io { .. } = io;
}
