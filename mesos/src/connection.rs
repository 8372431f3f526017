//! What the loops of scheduler and executor share: the one connection of a subscription.

use std::future::Future;
use std::pin::Pin;

use tokio::time::Instant;

use crate::error::Error;
use crate::http::EventStream;

/// An attempt to open an event stream.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<EventStream, Error>> + Send>>;

/// Nothing, an attempt, or a stream.
pub(crate) enum Connection {
    None,
    Opening(Opening),
    Open(Box<EventStream>),
}

/// What a wait for a connection brings.
pub(crate) enum Arrival<E> {
    Opened(Box<EventStream>),
    Event(Box<E>),
    Failed(Error),
}

impl Connection {
    /// Waits for the next news. Cancel-safe: an attempt goes on where it was, a stream loses
    /// nothing. After `Opened` and `Failed` the caller replaces the connection.
    pub(crate) async fn arrival<E>(&mut self) -> Arrival<E>
    where
        E: prost_reflect::ReflectMessage + prost::Message + Default,
    {
        match self {
            Self::None => std::future::pending().await,
            Self::Opening(opening) => match opening.await {
                Ok(stream) => Arrival::Opened(Box::new(stream)),
                Err(error) => Arrival::Failed(error),
            },
            Self::Open(stream) => match stream.next().await {
                Ok(event) => Arrival::Event(Box::new(event)),
                Err(error) => Arrival::Failed(error),
            },
        }
    }
}

/// Waits until a moment; without one, for ever.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
