//! The TLS side: passes bytes between a client and an API server and knows nothing of what they
//! mean, so client certificates, exec, attach, port-forward and watches work as they do without
//! it.
//!
//! A connection without traffic costs no buffer: bytes are read into a buffer of the thread and
//! written on at once; only what the other side does not take yet is kept. So a thousand idle
//! watches are a thousand sockets and little else.
//!
//! At its end the door closes connections, and it cannot see whether a request is under way on
//! one. So it closes each at a moment when the server spoke last and neither says anything, which
//! is what a connection between two requests looks like, and lets the server say goodbye.
//!
//! What is too much is refused in words that a TLS client shows: an alert record instead of a
//! handshake. When no API server is there, the connection is reset, which clients take as
//! "try again".

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backends::Backends;
use crate::config::Limits;
use crate::limit::{Gate, Slot};
use crate::metrics::{Direction, DirectionLabel, Metrics, Refusal, Side, SideLabel};
use crate::tcp;

/// Bytes read at once. A connection that is busy is worth the cache.
const BUFFER: usize = 256 * 1024;
/// After an error of `accept`, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection is between two requests when the server spoke last and nothing was said for this
/// long. Longer than the pieces of one answer are apart; a client that never rests so long is
/// busy with requests one after the other.
const AT_REST: Duration = Duration::from_millis(100);
/// It is, too, when nothing at all was said for this long: HTTP/2's clients acknowledge what they
/// got, and so speak last.
const SILENT: Duration = Duration::from_secs(2);
/// Refusals in words at a time; what is beyond is only closed.
const REFUSALS: usize = 256;
/// How long a refused client may take to say its first words.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(2);
/// TLS record: alert, version 3.1, two bytes: fatal, internal_error (RFC 8446, section 6).
const ALERT: [u8; 7] = [21, 3, 1, 0, 2, 2, 80];

/// The TLS side; clones are the same one.
#[derive(Clone)]
pub struct Relay {
    backends: Backends,
    metrics: Metrics,
    gate: Gate,
    refusals: Arc<Semaphore>,
}

impl Relay {
    /// With the servers it passes to and how many connections there may be.
    pub fn new(backends: Backends, metrics: Metrics, limits: Limits) -> Self {
        Self {
            backends,
            metrics,
            gate: Gate::new(limits),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        }
    }

    /// Accepts until `stop`; connections are in `tasks`, end when they are at rest once `leave` is
    /// there, and at the latest with `end`.
    pub async fn run(
        self,
        listener: TcpListener,
        tasks: TaskTracker,
        stop: CancellationToken,
        leave: CancellationToken,
        end: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((client, peer)) => self.accepted(client, peer, &tasks, (&leave, &end)),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accepted(
        &self,
        client: TcpStream,
        peer: SocketAddr,
        tasks: &TaskTracker,
        (leave, end): (&CancellationToken, &CancellationToken),
    ) {
        let side = SideLabel { side: Side::Tls };
        self.metrics.accepted.get_or_create(&side).inc();
        let slot = match self.gate.enter(peer.ip()) {
            Ok(slot) => slot,
            Err(reason) => return self.refuse(client, peer, reason, tasks),
        };
        let (relay, leave, end) = (self.clone(), leave.clone(), end.clone());
        tasks.spawn(async move {
            let open = relay.metrics.open.get_or_create_owned(&side);
            open.inc();
            tokio::select! {
                () = end.cancelled() => {}
                () = relay.serve(client, peer, slot, &leave) => {}
            }
            open.dec();
        });
    }

    fn refuse(&self, client: TcpStream, peer: SocketAddr, reason: Refusal, tasks: &TaskTracker) {
        self.metrics.refuse(Side::Tls, reason);
        tracing::debug!(%peer, ?reason, "connection refused");
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            tasks.spawn(async move {
                let _permit = permit;
                let _ = tokio::time::timeout(REFUSAL_DEADLINE, send_alert(client)).await;
            });
        }
    }

    async fn serve(
        &self,
        mut client: TcpStream,
        peer: SocketAddr,
        _slot: Slot,
        leave: &CancellationToken,
    ) {
        let (_lease, mut server) = match self.backends.connect().await {
            Ok(connected) => connected,
            Err(error) => {
                self.metrics.refuse(Side::Tls, Refusal::NoBackend);
                tracing::warn!(%peer, %error, "connection refused");
                tcp::reset_on_close(&client);
                return;
            }
        };
        tcp::tune(&client);
        let direction = |direction| {
            self.metrics
                .bytes
                .get_or_create_owned(&DirectionLabel { direction })
        };
        let (to_server, to_client) = (
            direction(Direction::ToServer),
            direction(Direction::ToClient),
        );
        let (client_read, mut client_write) = client.split();
        let (server_read, mut server_write) = server.split();
        let talk = Talk::default();
        let requests = async {
            let passed = tokio::select! {
                passed = pass(client_read, &mut server_write, |n| {
                    talk.said(true);
                    to_server.inc_by(n);
                }) => Some(passed),
                // Nothing of a request is on its way: all of it was answered.
                () = talk.rests(leave) => None,
            };
            match passed {
                Some(passed) => passed,
                None => server_write.shutdown().await,
            }
        };
        let answers = pass(server_read, &mut client_write, |n| {
            talk.said(false);
            to_client.inc_by(n);
        });
        let result = tokio::try_join!(requests, answers);
        if let Err(error) = result {
            tracing::debug!(%peer, %error, "connection ended");
            // The other side must not take a broken connection for one that came to its end.
            tcp::reset_on_close(&client);
            tcp::reset_on_close(&server);
        }
    }
}

/// Says no in TLS. Reads first: closing with unread bytes would reset the connection, and the
/// alert with it.
async fn send_alert(mut client: TcpStream) -> io::Result<()> {
    let mut hello = [0; 4096];
    if client.read(&mut hello).await? == 0 {
        return Ok(());
    }
    client.write_all(&ALERT).await?;
    client.shutdown().await?;
    while client.read(&mut hello).await? > 0 {}
    Ok(())
}

/// Who spoke last on a connection, and how often anybody did.
#[derive(Debug, Default)]
struct Talk {
    /// Twice the number of pieces that were passed, and one more when the last was the client's.
    state: AtomicU64,
}

impl Talk {
    fn said(&self, by_client: bool) {
        // Both directions are passed by the same task.
        let pieces = self.state.load(Ordering::Relaxed) / 2 + 1;
        let state = pieces * 2 + u64::from(by_client);
        self.state.store(state, Ordering::Relaxed);
    }

    /// Returns at a moment when the connection is at rest, once `leave` is there.
    async fn rests(&self, leave: &CancellationToken) {
        leave.cancelled().await;
        let mut silent = Duration::ZERO;
        let mut before = self.state.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(AT_REST).await;
            let now = self.state.load(Ordering::Relaxed);
            silent = match now == before {
                true => silent + AT_REST,
                false => Duration::ZERO,
            };
            let server_spoke_last = now.is_multiple_of(2);
            if silent >= SILENT || (silent >= AT_REST && server_spoke_last) {
                return;
            }
            before = now;
        }
    }
}

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// Passes bytes from one side to the other until it ends, and passes its end on: connections that
/// are half open stay half open.
async fn pass(
    from: ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    mut count: impl FnMut(u64),
) -> io::Result<()> {
    loop {
        from.readable().await?;
        // No await while the thread's buffer is borrowed.
        let passed = SHARED.with_borrow_mut(|buffer| -> io::Result<Passed> {
            let read = match from.try_read(buffer) {
                Ok(0) => return Ok(Passed::End),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Passed::Some(0));
                }
                Err(error) => return Err(error),
            };
            let written = match to.try_write(&buffer[..read]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            count(read as u64);
            if written == read {
                Ok(Passed::Some(read))
            } else {
                Ok(Passed::Rest(buffer[written..read].to_vec()))
            }
        })?;
        match passed {
            Passed::End => return to.shutdown().await,
            Passed::Some(read) => {
                if read == BUFFER {
                    // A fast peer must not keep the thread to itself.
                    tokio::task::yield_now().await;
                }
            }
            Passed::Rest(rest) => to.write_all(&rest).await?,
        }
    }
}

enum Passed {
    /// The sender has ended.
    End,
    /// That many bytes, all of them.
    Some(usize),
    /// What the receiver did not take yet.
    Rest(Vec<u8>),
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
