//! A server for tests that shows each request as it came over the wire and answers with what
//! the test wants, down to the chunk.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// A request as it came over the wire.
#[derive(Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    answer: mpsc::Sender<Vec<u8>>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// Answers with a whole response.
    pub async fn answer(self, status: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let bytes = [head.as_bytes(), b"\r\n", body].concat();
        self.answer.send(bytes).await.expect("connection is open");
    }

    /// Answers with the head of a stream.
    pub async fn stream(self, headers: &[(&str, &str)]) -> Stream {
        let mut head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n".to_owned();
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.answer
            .send(head.into_bytes())
            .await
            .expect("connection is open");
        Stream(self.answer)
    }
}

/// A chunked answer. Dropping it breaks the connection off.
pub struct Stream(mpsc::Sender<Vec<u8>>);

impl Stream {
    /// Sends a chunk.
    pub async fn chunk(&self, bytes: &[u8]) {
        let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        self.0.send(framed).await.expect("connection is open");
    }

    /// Sends a record.
    pub async fn record(&self, bytes: &[u8]) {
        self.chunk(&mesos::recordio::encode(bytes)).await;
    }

    /// Ends the answer properly.
    pub async fn end(self) {
        self.0
            .send(b"0\r\n\r\n".to_vec())
            .await
            .expect("connection is open");
    }

    /// Waits until the client has closed the connection.
    pub async fn closed(&self) {
        soon("the client closes the stream", self.0.closed()).await;
    }
}

/// Answers an event as Mesos would.
pub fn json(event: &serde_json::Value) -> Vec<u8> {
    event.to_string().into_bytes()
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound")
}

/// A server on a port of its own. Ends with the test.
pub struct Server {
    pub address: SocketAddr,
    requests: mpsc::Receiver<Received>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_with(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, tls)
    }

    pub fn on(listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let address = listener.local_addr().expect("bound");
        let (sender, requests) = mpsc::channel(16);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    return;
                };
                let sender = sender.clone();
                let tls = tls.clone();
                connections.spawn(async move {
                    match tls {
                        None => serve(socket, sender).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, sender).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            requests,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// A server on a Unix socket.
    pub fn unix(path: &std::path::Path) -> Self {
        let listener = tokio::net::UnixListener::bind(path).expect("a new socket");
        let (sender, requests) = mpsc::channel(16);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, sender.clone()));
            }
        });
        Self {
            address: ([0, 0, 0, 0], 0).into(),
            requests,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The next request of any connection.
    pub async fn request(&mut self) -> Received {
        soon("a request arrives", self.requests.recv())
            .await
            .expect("the server runs")
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S, requests: mpsc::Sender<Received>) {
    let mut buffer = Vec::new();
    while let Some((mut received, mut answer)) = read_request(&mut socket, &mut buffer).await {
        // The answer is open for as long as the test holds the request or its stream.
        let streaming = {
            received.headers.sort();
            requests.send(received).await.is_ok()
        };
        if !streaming {
            return;
        }
        let mut chunked = false;
        let mut ended = false;
        let mut probe = [0_u8; 1];
        loop {
            tokio::select! {
                bytes = answer.recv() => {
                    let Some(bytes) = bytes else { break };
                    chunked |= bytes.starts_with(b"HTTP/1.1 200 OK\r\nTransfer-Encoding");
                    ended |= bytes == b"0\r\n\r\n";
                    if socket.write_all(&bytes).await.is_err() || socket.flush().await.is_err() {
                        return;
                    }
                }
                // While it is answered, a client has nothing more to say but that it goes.
                _ = socket.read(&mut probe) => return,
            }
        }
        if chunked && !ended {
            return;
        }
    }
}

async fn read_request<S: AsyncRead + Unpin>(
    socket: &mut S,
    buffer: &mut Vec<u8>,
) -> Option<(Received, mpsc::Receiver<Vec<u8>>)> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            break String::from_utf8(head).ok()?;
        }
        more(socket, buffer).await?;
    };
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().expect("a length"));
    while buffer.len() < length {
        more(socket, buffer).await?;
    }
    let body = buffer.drain(..length).collect();
    let (answer, answers) = mpsc::channel(1024);
    let received = Received {
        method,
        path,
        headers,
        body,
        answer,
    };
    Some((received, answers))
}

async fn more<S: AsyncRead + Unpin>(socket: &mut S, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 8192];
    let read = socket
        .read(&mut chunk)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    buffer.extend_from_slice(&chunk[..read]);
    Some(())
}
