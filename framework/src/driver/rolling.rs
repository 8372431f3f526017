//! Carries an operator's orders about the nodes' roll-out to the core, and how far it is back to whoever
//! waits for it. By asking every second: reading this one object is a right that the framework has
//! anyway, and watching it would be another.

use std::time::Duration;

use kube::Client;
use packaging::install::rolling::{Order, Progress};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::core::Event;
use crate::kube::rolling;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The longest pause after failures at the start.
const LONGEST: Duration = Duration::from_secs(15);

/// The order as it is at the start, before any node may be asked. `None` when told to stop.
pub async fn first(client: &Client, name: &str, stop: &CancellationToken) -> Option<Order> {
    let mut pause = EVERY;
    loop {
        match rolling::read(client, name).await {
            Ok(order) => return Some(order),
            Err(error) => tracing::warn!(%error, "trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))) => {}
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// Runs until `stop`, or until nobody listens. Which order it was last is `known`.
pub async fn run(
    client: Client,
    name: String,
    mut known: Order,
    mut progress: watch::Receiver<Option<Progress>>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let mut written: Option<Progress> = None;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let look = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => true,
            changed = progress.changed() => {
                if changed.is_err() {
                    return;
                }
                false
            }
        };
        if look {
            match rolling::read(&client, &name).await {
                Ok(order) if order != known => {
                    tracing::info!(?order, "an order about the nodes' roll-out");
                    known = order.clone();
                    if events.send(Event::Rollout(order)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                // What was known holds on.
                Err(error) => tracing::debug!(%error, "no news about the roll-out"),
            }
        }
        let now = progress.borrow_and_update().clone();
        if now == written {
            continue;
        }
        if let Some(progress) = &now {
            match rolling::write(&client, &name, progress).await {
                Ok(()) => written = now,
                Err(error) => tracing::debug!(%error, "tried again with the next look"),
            }
        }
    }
}
