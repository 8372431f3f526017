//! Tests of the balancer over real sockets of loopback.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that answers each connection with its name and then echoes what it is sent, and
/// says goodbye once the client has ended its half.
async fn server(name: &'static str) -> (String, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tokio::select! {
                () = stopped.cancelled() => return,
                accepted = listener.accept() => accepted.unwrap(),
            };
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
                stream.write_all(b"!").await.unwrap();
            });
        }
    });
    (address, stop)
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

struct Fixture {
    balancer: Balancer,
    stop: CancellationToken,
    /// What was to be kept.
    told: Arc<Mutex<Vec<Vec<String>>>>,
}

async fn fixture(servers: &[String]) -> Fixture {
    let told = Arc::<Mutex<Vec<Vec<String>>>>::default();
    let stop = CancellationToken::new();
    let lists = Arc::clone(&told);
    let keep = move |list: &[String]| lock(&lists).push(list.to_vec());
    let balancer = Balancer::start(0, servers, &[], keep, stop.clone());
    Fixture {
        balancer: balancer.await.unwrap(),
        stop,
        told,
    }
}

async fn talk(balancer: &Balancer, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", balancer.port()))
        .await
        .unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_end_of_one_half_is_passed_on_and_the_other_half_goes_on() {
    let (address, _server) = server("a").await;
    let f = fixture(&[address]).await;
    assert_eq!(talk(&f.balancer, "hello").await, "ahello!");
}

#[tokio::test]
async fn a_server_that_is_down_is_skipped_within_the_same_connection() {
    let (address, _server) = server("a").await;
    let f = fixture(&[nobody().await, address, nobody().await]).await;
    for _ in 0..6 {
        assert_eq!(talk(&f.balancer, "x").await, "ax!");
    }
}

#[tokio::test]
async fn with_no_server_up_a_connection_ends_at_once() {
    let f = fixture(&[nobody().await]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", f.balancer.port()))
        .await
        .unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
    assert_eq!(end.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_list_that_moved_is_used_at_once_and_told_for_the_next_life() {
    let (a, _a) = server("a").await;
    let (b, _b) = server("b").await;
    let f = fixture(std::slice::from_ref(&a)).await;
    assert_eq!(talk(&f.balancer, "").await, "a!");
    f.balancer.update(std::slice::from_ref(&b));
    for _ in 0..3 {
        assert_eq!(talk(&f.balancer, "").await, "b!");
    }
    f.balancer.update(&[]);
    assert_eq!(talk(&f.balancer, "").await, "b!");
    let kept = lock(&f.told).clone();
    assert_eq!(kept, [vec![b]]);
    let stop = CancellationToken::new();
    let next = Balancer::start(0, &[a], &kept[0], |_| {}, stop).await;
    assert_eq!(talk(&next.unwrap(), "").await, "b!");
}

#[tokio::test]
async fn after_stop_nothing_new_is_taken_and_what_runs_may_finish() {
    let (a, _a) = server("a").await;
    let f = fixture(&[a]).await;
    let mut open = TcpStream::connect(("127.0.0.1", f.balancer.port()))
        .await
        .unwrap();
    let mut name = [0; 1];
    open.read_exact(&mut name).await.unwrap();
    f.stop.cancel();
    let refused = async {
        while TcpStream::connect(("127.0.0.1", f.balancer.port()))
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .unwrap();
    open.write_all(b"last words").await.unwrap();
    open.shutdown().await.unwrap();
    let mut rest = String::new();
    open.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "last words!");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let started = std::time::Instant::now();
    let error = Balancer::start(port, &[], &[], |_| {}, CancellationToken::new())
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")));
    assert!(started.elapsed() >= BIND_DEADLINE);
}
