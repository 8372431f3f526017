//! A web server in one small static program, the example that `k8sm up` deploys: it says which
//! pod on which node answered. Nothing but the standard library, so that it can be read in a
//! minute.
//!
//! `GET /` answers text, `GET /healthz` answers `ok`. The environment says where it runs:
//! `POD_NAME`, `POD_NAMESPACE`, `NODE_NAME` (all optional), `PORT` (8080). At SIGTERM it stops
//! accepting, lets requests end, and exits.

use std::env;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// A request must be complete within this time.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a request's head, as many servers allow.
const HEAD_LIMIT: usize = 8 * 1024;
/// Connections at a time; more are refused with 503.
const CONNECTIONS: usize = 64;
/// How long open requests may take after SIGTERM; Kubernetes' default grace is 30 s.
const DRAIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    // Before any thread starts, so that all inherit it: as process 1 of a container a signal with
    // its default action would be ignored.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;

    let port: u16 = match env::var("PORT") {
        Ok(text) => text.parse().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("PORT={text} is no port"),
            )
        })?,
        Err(_) => 8080,
    };
    let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)))?;
    println!("listening on {}", listener.local_addr()?);
    let open = Arc::new(AtomicUsize::new(0));
    let accepting = Arc::clone(&open);
    thread::spawn(move || accept(&listener, &accepting));

    let signal = signals.wait()?;
    println!("{signal}: ending");
    // The service still sends connections for a moment; accepting goes on while requests end.
    let deadline = Instant::now() + DRAIN;
    let (_keep, quiet) = mpsc::channel::<()>();
    loop {
        // A pause that nothing ends early.
        let _ = quiet.recv_timeout(Duration::from_millis(200));
        if open.load(Ordering::SeqCst) == 0 || Instant::now() >= deadline {
            return Ok(());
        }
    }
}

fn accept(listener: &TcpListener, open: &Arc<AtomicUsize>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            let _ = respond(&stream, "503 Service Unavailable", "busy\n", false);
            continue;
        }
        let counted = Arc::clone(open);
        thread::spawn(move || {
            if let Err(error) = serve(&stream) {
                eprintln!("request: {error}");
            }
            counted.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    let Some(head) = read_head(stream)? else {
        return Ok(());
    };
    let (status, body) = answer(&head, stream.peer_addr()?);
    respond(stream, status, &body, head.starts_with("HEAD "))
}

/// Reads up to the empty line; `None` when the client closed without a request.
fn read_head(mut stream: &TcpStream) -> io::Result<Option<String>> {
    let deadline = Instant::now() + REQUEST_DEADLINE;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut buffer)?;
        if read == 0 && head.is_empty() {
            return Ok(None);
        }
        head.extend_from_slice(&buffer[..read]);
        if head.windows(4).any(|w| w == b"\r\n\r\n") || read == 0 || head.len() > HEAD_LIMIT {
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
    }
}

fn answer(head: &str, client: SocketAddr) -> (&'static str, String) {
    if head.len() > HEAD_LIMIT {
        return ("431 Request Header Fields Too Large", String::new());
    }
    let mut words = head.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return ("400 Bad Request", "no request line\n".to_owned());
    };
    if !matches!(method, "GET" | "HEAD") {
        return ("405 Method Not Allowed", "GET, please\n".to_owned());
    }
    match target.split('?').next() {
        Some("/healthz") => ("200 OK", "ok\n".to_owned()),
        Some("/") => ("200 OK", page(client)),
        _ => ("404 Not Found", "try /\n".to_owned()),
    }
}

fn page(client: SocketAddr) -> String {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    format!(
        "Hello from Kubernetes on Mesos.\npod:    {}/{}\nnode:   {}\nclient: {}\n",
        variable("POD_NAMESPACE"),
        variable("POD_NAME"),
        variable("NODE_NAME"),
        client.ip(),
    )
}

fn respond(mut stream: &TcpStream, status: &str, body: &str, head_only: bool) -> io::Result<()> {
    stream.set_write_timeout(Some(REQUEST_DEADLINE))?;
    let length = body.len();
    let body = if head_only { "" } else { body };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> &'static str {
        answer(head, SocketAddr::from(([192, 0, 2, 1], 1))).0
    }

    #[test]
    fn requests_are_answered_by_method_and_path() {
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "200 OK");
        assert_eq!(status("HEAD /healthz?x HTTP/1.1\r\n\r\n"), "200 OK");
        assert_eq!(status("POST / HTTP/1.1\r\n\r\n"), "405 Method Not Allowed");
        assert_eq!(status("GET /other HTTP/1.1\r\n\r\n"), "404 Not Found");
        assert_eq!(status("\r\n\r\n"), "400 Bad Request");
        assert!(status(&"x".repeat(HEAD_LIMIT + 1)).starts_with("431"));
    }

    #[test]
    fn the_page_names_the_client() {
        let (_, body) = answer("GET / HTTP/1.1", SocketAddr::from(([192, 0, 2, 1], 1)));
        assert!(body.contains("client: 192.0.2.1"), "{body}");
    }
}
