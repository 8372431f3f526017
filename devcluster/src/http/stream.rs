//! Response bodies that go on: RecordIO frames through a queue with a bound in bytes. A reader
//! that is too slow loses its stream; so does the sender notice one that goes away.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

/// Bytes that may wait for a slow reader.
pub const MAX_QUEUED_BYTES: usize = 64 << 20;

/// Frames a record: its length in decimal, a line feed, the bytes.
pub fn frame(record: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(record.len() + 12);
    out.extend_from_slice(record.len().to_string().as_bytes());
    out.push(b'\n');
    out.extend_from_slice(record);
    out.into()
}

/// The sending end. Dropping it ends the body after what was sent.
#[derive(Debug)]
pub struct Sender {
    queue: mpsc::UnboundedSender<Bytes>,
    queued: Arc<AtomicUsize>,
}

/// The stream is over: the reader is gone or too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader of a stream is gone or too slow")]
pub struct Gone;

impl Sender {
    /// Frames and queues a record.
    pub fn send(&self, record: &[u8]) -> Result<(), Gone> {
        let frame = frame(record);
        let before = self.queued.fetch_add(frame.len(), Ordering::Relaxed);
        if before + frame.len() > MAX_QUEUED_BYTES {
            return Err(Gone);
        }
        self.queue.send(frame).map_err(|_| Gone)
    }
}

/// The receiving end, a response body. `on_end` runs when it is dropped: read to its end, or
/// given up by the client.
struct Receiver<F: FnOnce()> {
    queue: mpsc::UnboundedReceiver<Bytes>,
    queued: Arc<AtomicUsize>,
    on_end: Option<F>,
}

impl<F: FnOnce() + Unpin> Stream for Receiver<F> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.queue.poll_recv(cx);
        if let Poll::Ready(Some(frame)) = &next {
            self.queued.fetch_sub(frame.len(), Ordering::Relaxed);
        }
        next.map(|frame| frame.map(Ok))
    }
}

impl<F: FnOnce()> Drop for Receiver<F> {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end();
        }
    }
}

/// A stream: its sending end and its body.
pub fn channel(on_end: impl FnOnce() + Send + Unpin + 'static) -> (Sender, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let body = Body::from_stream(Receiver {
        queue: receiver,
        queued: Arc::clone(&queued),
        on_end: Some(on_end),
    });
    let sender = Sender {
        queue: sender,
        queued,
    };
    (sender, body)
}
