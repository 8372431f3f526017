//! `make bench`, front door: what the way through it costs, against the same server direct.
//!
//! Machines differ and are noisy, so each figure is a difference or a ratio of two things measured
//! alternately in one run. The server is a stand-in in this process, quicker than an API server,
//! so that what the front door adds stands out; with `K8SM_UPSTREAM_BIN` a real kube-apiserver
//! with an etcd of its own besides ([`upstream`]). The front door is the program itself.

#[path = "../../tests/support/mod.rs"]
mod support;
mod upstream;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{ApiServer, Authority, Body, connect, connect_tls, get, request, wait};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Pairs of requests, one through the front door and one direct.
const PAIRS: usize = 5_000;
/// Connections that ask at the same time for throughput.
const CONNECTIONS: usize = 16;
/// Length of one measurement of throughput, of which there are several, alternately.
const SPAN: Duration = Duration::from_secs(2);
const SPANS: usize = 3;
/// Idle watches while memory is looked at.
const WATCHES: usize = 1_000;
/// Bytes of a large answer.
const LARGE: usize = 1 << 20;

/// What is asked, and of whom.
struct Target<'a> {
    authority: &'a Authority,
    direct: SocketAddr,
    door: SocketAddr,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
}

impl Target<'_> {
    fn request(&self) -> Request<Body> {
        request(Method::GET, &self.path, &self.headers, "")
    }
}

/// A line of the table: what, measured, goal, kept.
struct Row(String, String, &'static str, bool);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    raise_file_limit();
    let mut rows = Vec::new();
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "stand-in").await;
    let door = Door::start(&authority, server.address).await;
    let mut target = Target {
        authority: &authority,
        direct: server.address,
        door: door.tls,
        path: "/quick".to_owned(),
        headers: Vec::new(),
    };
    latency("stand-in", &target, &mut rows).await;
    throughput("stand-in, small answers", &target, &mut rows).await;
    target.path = format!("/bytes?{LARGE}");
    throughput("stand-in, answers of 1 MiB", &target, &mut rows).await;
    memory(&authority, &door, &mut rows).await;
    drop(door);
    match std::env::var_os("K8SM_UPSTREAM_BIN") {
        Some(bin) => real(Path::new(&bin), &mut rows).await,
        None => eprintln!("K8SM_UPSTREAM_BIN is not set: no measurement with a real API server"),
    }
    println!("\n| front door | measured | goal | |\n|---|---|---|---|");
    for Row(what, measured, goal, kept) in &rows {
        let mark = if *kept { "kept" } else { "MISSED" };
        println!("| {what} | {measured} | {goal} | {mark} |");
    }
}

async fn real(bin: &Path, rows: &mut Vec<Row>) {
    let authority = Authority::new();
    let server = upstream::ApiServer::start(bin, &authority).await;
    let door = Door::start(&authority, server.address).await;
    let target = Target {
        authority: &authority,
        direct: server.address,
        door: door.tls,
        path: "/api/v1/namespaces/default".to_owned(),
        headers: vec![
            ("authorization", upstream::AUTHORIZATION),
            ("accept", "application/json"),
        ],
    };
    latency("kube-apiserver", &target, rows).await;
    throughput("kube-apiserver", &target, rows).await;
}

async fn timed(sender: &mut SendRequest<Body>, request: Request<Body>) -> Duration {
    let begun = Instant::now();
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap();
    begun.elapsed()
}

async fn latency(what: &str, target: &Target<'_>, rows: &mut Vec<Row>) {
    let mut direct = connect_tls(target.authority, target.direct).await;
    let mut through = connect_tls(target.authority, target.door).await;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        a.push(timed(&mut direct, target.request()).await);
        b.push(timed(&mut through, target.request()).await);
    }
    a.sort();
    b.sort();
    for (percent, goal_ms, goal) in [(50, 0.3, "0.3 ms"), (99, 2.0, "2 ms")] {
        let at = PAIRS * percent / 100;
        let added = (b[at].as_secs_f64() - a[at].as_secs_f64()) * 1e3;
        rows.push(Row(
            format!("added latency p{percent}, {what}"),
            format!("{added:.3} ms ({:.3} ms direct)", a[at].as_secs_f64() * 1e3),
            goal,
            added <= goal_ms,
        ));
    }
}

/// Answers per second.
async fn rate(target: &Target<'_>, address: SocketAddr) -> f64 {
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(connect_tls(target.authority, address).await);
    }
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for mut sender in senders {
        let (path, headers) = (target.path.clone(), target.headers.clone());
        asking.spawn(async move {
            let mut count = 0u32;
            while begun.elapsed() < SPAN {
                timed(&mut sender, request(Method::GET, &path, &headers, "")).await;
                count += 1;
            }
            count
        });
    }
    let counts: u32 = asking.join_all().await.into_iter().sum();
    f64::from(counts) / begun.elapsed().as_secs_f64()
}

async fn throughput(what: &str, target: &Target<'_>, rows: &mut Vec<Row>) {
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..SPANS {
        direct.push(rate(target, target.direct).await);
        through.push(rate(target, target.door).await);
    }
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    let (direct, through) = (best(&direct), best(&through));
    let ratio = through / direct;
    rows.push(Row(
        format!("throughput, {what}"),
        format!("{ratio:.2} of direct ({through:.0}/s of {direct:.0}/s)"),
        "0.9",
        ratio >= 0.9,
    ));
}

async fn memory(authority: &Authority, door: &Door, rows: &mut Vec<Row>) {
    let before = resident_mib(&door.child);
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let mut sender = connect_tls(authority, door.tls).await;
        let asked = request(Method::GET, "/api/v1/pods?watch=1", &[], "");
        let answer = sender.send_request(asked).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        watches.push((sender, answer));
    }
    let with = resident_mib(&door.child);
    rows.push(Row(
        format!("resident memory with {WATCHES} idle watches"),
        format!("{with:.1} MB ({before:.1} MB before)"),
        "40 MB",
        with <= 40.0,
    ));
}

fn resident_mib(child: &Child) -> f64 {
    let path = format!("/proc/{}/status", child.id().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1000.0 * 1.024
}

/// Every watch is a socket here, two in the front door and one in the stand-in.
fn raise_file_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// The program.
struct Door {
    child: Child,
    tls: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Door {
    async fn start(authority: &Authority, server: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [tls, status] = [free_port(), free_port()];
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_k8sm-proxy"))
            .arg(format!("--listen={tls}"))
            .arg(format!("--status-listen={status}"))
            .arg(format!("--backend={server}"))
            .arg(format!("--ca-file={}", authority.ca_file().display()))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        wait("the front door is ready", async || {
            if tokio::net::TcpStream::connect(status).await.is_err() {
                return false;
            }
            get(connect(status).await, "/readyz").await.0 == StatusCode::OK
        })
        .await;
        Self {
            child,
            tls,
            _dir: dir,
        }
    }
}

fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
