//! A web server in one small static program, the example that `k8sm up` deploys: it says which
//! pod on which node answered. Nothing but the standard library, so that it can be read in a
//! minute.
//!
//! `GET /` and `GET /index.html` answer text, `GET /healthz` answers `ok`. The environment says
//! where it runs: `POD_NAME`, `POD_NAMESPACE`, `NODE_NAME` (all optional), `PORT`. Without `PORT` it
//! listens on 8080 and, where it may, on 80 too: the image stands in for any web server, also in
//! manifests that cannot be told to set a variable (`examples/pod.json`). At SIGTERM it stops
//! accepting, lets requests end, and exits.
//!
//! `hello get URL` asks instead, for a look at services and names from inside a pod that has no
//! other program: `kubectl exec deploy/hello -- /hello get http://hello/`.

use std::env;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
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
/// Bytes of an answer that `hello get` reads.
const ANSWER_LIMIT: u64 = 1 << 20;
/// Connections at a time; more are refused with 503.
const CONNECTIONS: usize = 64;
/// How long open requests may take after SIGTERM; Kubernetes' default grace is 30 s.
const DRAIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => run(),
        ["get", url] => get(url).and_then(|body| io::stdout().write_all(&body)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "usage: hello, or hello get http://host[:port]/path",
        )),
    };
    match done {
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

    let open = Arc::new(AtomicUsize::new(0));
    for listener in listeners()? {
        println!("listening on {}", listener.local_addr()?);
        let accepting = Arc::clone(&open);
        thread::spawn(move || accept(&listener, &accepting));
    }

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

/// The port that is wanted, or the two usual ones, of which 80 may be reserved or taken.
fn listeners() -> io::Result<Vec<TcpListener>> {
    let listen = |port: u16| TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)));
    match env::var("PORT") {
        Ok(text) => {
            let port = text.parse().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("PORT={text} is no port"),
                )
            })?;
            Ok(vec![listen(port)?])
        }
        Err(_) => {
            let mut all = vec![listen(8080)?];
            match listen(80) {
                Ok(listener) => all.push(listener),
                Err(error) => println!("not listening on port 80: {error}"),
            }
            Ok(all)
        }
    }
}

/// The body of what a URL answers with 200; every address of the host is tried.
fn get(url: &str) -> io::Result<Vec<u8>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| invalid(format!("{url} does not begin with http://")))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut last = invalid(format!("{host} has no address"));
    for address in with_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, REQUEST_DEADLINE) {
            Ok(stream) => return ask(&stream, host, path),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

fn ask(mut stream: &TcpStream, host: &str, path: &str) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(REQUEST_DEADLINE))?;
    stream.set_write_timeout(Some(REQUEST_DEADLINE))?;
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(status.to_owned()));
    }
    Ok(answer.split_off(end + 4))
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
        Some("/" | "/index.html") => ("200 OK", page(client)),
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
        assert_eq!(status("GET /index.html HTTP/1.1\r\n\r\n"), "200 OK");
        assert_eq!(status("HEAD /healthz?x HTTP/1.1\r\n\r\n"), "200 OK");
        assert_eq!(status("POST / HTTP/1.1\r\n\r\n"), "405 Method Not Allowed");
        assert_eq!(status("GET /other HTTP/1.1\r\n\r\n"), "404 Not Found");
        assert_eq!(status("\r\n\r\n"), "400 Bad Request");
        assert!(status(&"x".repeat(HEAD_LIMIT + 1)).starts_with("431"));
    }

    #[test]
    fn get_prints_the_body_and_refuses_other_answers() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || accept(&listener, &Arc::new(AtomicUsize::new(0))));
        assert_eq!(get(&format!("http://{address}/healthz")).unwrap(), b"ok\n");
        let error = get(&format!("http://{address}/other")).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
        assert!(get("ftp://x/").is_err());
    }

    #[test]
    fn the_page_names_the_client() {
        let (_, body) = answer("GET / HTTP/1.1", SocketAddr::from(([192, 0, 2, 1], 1)));
        assert!(body.contains("client: 192.0.2.1"), "{body}");
    }
}
