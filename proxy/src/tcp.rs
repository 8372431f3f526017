//! Sockets as both sides of the front door want them.

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// A connection over which nothing comes is asked for a sign of life after this time ...
const KEEPALIVE_IDLE_SECONDS: u32 = 30;
/// ... this often ...
const KEEPALIVE_INTERVAL_SECONDS: u32 = 10;
/// ... and given up after that many that were not answered.
const KEEPALIVE_COUNT: u32 = 3;
/// Unacknowledged data gives a connection up after this time.
const USER_TIMEOUT_MILLIS: u32 = 60_000;

/// Small packets at once, and an end for peers that vanish without a word: a watch may be silent
/// for hours, and no time-out of ours may end it.
pub fn tune(stream: &TcpStream) {
    let results = [
        stream.set_nodelay(true).map_err(|e| e.to_string()),
        setsockopt(stream, sockopt::KeepAlive, &true).map_err(|e| e.to_string()),
        setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SECONDS)
            .map_err(|e| e.to_string()),
        setsockopt(
            stream,
            sockopt::TcpKeepInterval,
            &KEEPALIVE_INTERVAL_SECONDS,
        )
        .map_err(|e| e.to_string()),
        setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_COUNT).map_err(|e| e.to_string()),
        setsockopt(stream, sockopt::TcpUserTimeout, &USER_TIMEOUT_MILLIS)
            .map_err(|e| e.to_string()),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        tracing::debug!(error, "socket option");
    }
}

/// The next end of the connection is a reset: the peer learns at once that nobody was there.
pub fn reset_on_close(stream: &TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    if let Err(error) = setsockopt(stream, sockopt::Linger, &linger) {
        tracing::debug!(%error, "socket option");
    }
}
