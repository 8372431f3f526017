//! Requests that go on while something is done to a cluster, and are counted: each that fails is
//! remembered with its reason.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use packaging::pki::{Authority, Name, Pki};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

/// The longest that one request may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two rounds of one kind, in milliseconds.
const PACE: std::ops::Range<u64> = 20..200;
/// So many failures are enough to see what is the matter.
const MOST: usize = 20;

/// Requests of several kinds, each in a thread of its own.
pub struct Load {
    begun: Instant,
    stop: Arc<AtomicBool>,
    kinds: Vec<(&'static str, Arc<AtomicUsize>, JoinHandle<Outcome>)>,
}

/// What came of one kind.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many had the wanted answer.
    pub answered: usize,
    /// The others: when, and why.
    pub failed: Vec<String>,
    /// Those whose write was lost on its way to etcd's leader, because that stopped being it. They
    /// are answered 500 after a while; no client repeats such a request by itself.
    pub without_leader: Vec<String>,
    /// How long the slowest took.
    pub slowest: Duration,
}

/// One request, or several that belong together; the number is that of the round.
type Round = Box<dyn FnMut(usize) -> Result<(), String> + Send>;

impl Load {
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            stop: Arc::default(),
            kinds: Vec::new(),
        }
    }

    /// Begins one kind.
    pub fn begin(&mut self, name: &'static str, mut round: Round) {
        let (stop, begun) = (Arc::clone(&self.stop), self.begun);
        let rounds = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&rounds);
        let thread = std::thread::spawn(move || {
            let mut outcome = Outcome::default();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                match round(counter.fetch_add(1, Ordering::Relaxed)) {
                    Ok(()) => outcome.answered += 1,
                    Err(why) => {
                        let of_etcd = why.contains("etcdserver: ");
                        let failures = match of_etcd {
                            true => &mut outcome.without_leader,
                            false => &mut outcome.failed,
                        };
                        if failures.len() < MOST {
                            let at = begun.elapsed().as_secs_f64();
                            failures.push(format!("{at:.1} s: {why}"));
                        }
                    }
                }
                outcome.slowest = outcome.slowest.max(started.elapsed());
                let pause = rand::rng().random_range(PACE);
                std::thread::sleep(Duration::from_millis(pause));
            }
            outcome
        });
        self.kinds.push((name, rounds, thread));
    }

    /// How many rounds the kind has had that had the fewest.
    pub fn fewest(&self) -> usize {
        let rounds = self.kinds.iter().map(|k| k.1.load(Ordering::Relaxed));
        rounds.min().unwrap_or_default()
    }

    /// Ends all.
    pub fn end(self) -> Vec<(&'static str, Outcome)> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.kinds.into_iter();
        ended
            .map(|(name, _, thread)| (name, thread.join().expect("a load's thread")))
            .collect()
    }
}

/// The front doors, as a balancer before them uses them: each in turn, and the next one when a
/// connection is not taken.
pub struct Doors {
    runtime: Runtime,
    tls: TlsConnector,
    doors: Vec<(SocketAddr, Option<SendRequest<Bytes>>)>,
    next: usize,
    kept: bool,
}

/// What came of one try.
enum Tried {
    Answer(Result<Value, String>),
    /// The server has not looked at the request, or says when to repeat it: it is sent again, as
    /// any client of Kubernetes does it.
    NotBegun(String),
}

impl Doors {
    /// With an administrator's certificate, by HTTP/2 as kubectl and the clients' libraries speak
    /// it. Connections are `kept` for the next request, or each request makes its own.
    pub fn new(addresses: &[SocketAddr], pki: &Path, kept: bool) -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            tls: TlsConnector::from(Arc::new(tls(&Pki::new(pki.to_owned())))),
            doors: addresses.iter().map(|address| (*address, None)).collect(),
            next: 0,
            kept,
        }
    }

    /// A call of the API; the answer, which has to be a success.
    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut reasons = Vec::new();
        // Each may have closed a connection that was kept, and be there all the same.
        for _ in 0..2 * self.doors.len() {
            self.next = (self.next + 1) % self.doors.len();
            let (address, connection) = &mut self.doors[self.next];
            let trying = attempt(&self.tls, *address, connection, method, path, body);
            let tried = async { tokio::time::timeout(PATIENCE, trying).await };
            let tried = self.runtime.block_on(tried);
            if !self.kept {
                *connection = None;
            }
            match tried {
                Ok(Tried::Answer(answer)) => return answer,
                Ok(Tried::NotBegun(reason)) => {
                    *connection = None;
                    reasons.push(format!("{address}: {reason}"));
                }
                Err(_) => return Err(format!("{method} {path}: no answer in {PATIENCE:?}")),
            }
        }
        Err(format!("{method} {path}: {}", reasons.join(", ")))
    }

    /// Writes an object of its own in each round, and reads it.
    pub fn writes(mut self, prefix: &'static str) -> Round {
        const MAPS: &str = "/api/v1/namespaces/default/configmaps";
        Box::new(move |round| {
            let name = format!("{prefix}-{round}");
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "labels": {"load": prefix}},
                "data": {"round": round.to_string()},
            });
            self.call("POST", MAPS, Some(&object))?;
            let read = self.call("GET", &format!("{MAPS}/{name}"), None)?;
            match read["data"] == object["data"] {
                true => Ok(()),
                false => Err(format!("{name} is {}", read["data"])),
            }
        })
    }

    /// Reads a list in each round.
    pub fn reads(mut self) -> Round {
        Box::new(move |_| {
            self.call("GET", "/api/v1/namespaces/default/pods", None)
                .map(drop)
        })
    }
}

fn tls(pki: &Pki) -> rustls::ClientConfig {
    let pems = |path: std::path::PathBuf| pem::parse_many(std::fs::read(path).unwrap()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for pem in pems(pki.authority_certificate(Authority::Cluster)) {
        roots.add(pem.into_contents().into()).unwrap();
    }
    let chain = pems(pki.certificate(Name::Admin)).into_iter();
    let key = pems(pki.key(Name::Admin)).remove(0).into_contents();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain.map(|pem| pem.into_contents().into()).collect(),
            rustls::pki_types::PrivatePkcs8KeyDer::from(key).into(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn connect(tls: &TlsConnector, address: SocketAddr) -> anyhow::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = tls
        .connect("kubernetes.default.svc".try_into()?, stream)
        .await?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender.ready().await?)
}

/// One request. A connection that is there is used, else one is made.
async fn attempt(
    tls: &TlsConnector,
    address: SocketAddr,
    connection: &mut Option<SendRequest<Bytes>>,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Tried {
    let sender = match connection.take() {
        Some(sender) => sender.ready().await.map_err(anyhow::Error::from),
        None => connect(tls, address).await,
    };
    let mut sender = match sender {
        Ok(sender) => sender,
        Err(error) => return Tried::NotBegun(format!("{error:#}")),
    };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("https://kubernetes.default.svc{path}"))
        .header("content-type", "application/json")
        .body(())
        .expect("a request");
    let sent = sender.send_request(request, body.is_none());
    let (answer, mut stream) = match sent {
        Ok(sent) => sent,
        Err(error) => return Tried::NotBegun(error.to_string()),
    };
    if let Some(body) = body
        && let Err(error) = stream.send_data(body.to_string().into(), true)
    {
        return Tried::NotBegun(error.to_string());
    }
    let result = async {
        let answer = answer.await?;
        let again = answer.headers().contains_key("retry-after");
        let (status, mut body) = (answer.status(), answer.into_body());
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            bytes.extend(piece);
        }
        Ok::<_, h2::Error>((status, again, bytes))
    };
    match result.await {
        Ok((status, true, _)) if !status.is_success() => {
            // A second, says an API server that is about to end; by then it takes no connection.
            Tried::NotBegun(format!("{status}, to be repeated"))
        }
        Ok((status, _, bytes)) => {
            *connection = Some(sender);
            Tried::Answer(match status.is_success() {
                true => serde_json::from_slice(&bytes).map_err(|e| e.to_string()),
                false => {
                    let text = String::from_utf8_lossy(&bytes);
                    Err(format!("{method} {path}: {status} {text}"))
                }
            })
        }
        // Of a stream that came after its last one a server says so (RFC 9113, 6.8 and 8.7).
        Err(error) if error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            Tried::NotBegun(error.to_string())
        }
        Err(error) => Tried::Answer(Err(format!("{method} {path} at {address}: {error}"))),
    }
}

/// A page of a pod, on a connection of its own in each round.
pub fn page(url: String) -> Round {
    Box::new(move |_| {
        let output = std::process::Command::new("curl")
            .args(["-fsS", "--max-time", "5", "-o", "/dev/null", &url])
            .output()
            .map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    })
}
