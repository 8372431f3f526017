//! How connections end, with plain sockets on both sides: the test says when.

use super::*;
use crate::backends::pool::Backend;

/// Bounds a failure only.
const DEADLINE: Duration = Duration::from_secs(20);

/// A client and a server that a relay connects.
struct Connected {
    client: TcpStream,
    server: TcpStream,
    leave: CancellationToken,
    stop: CancellationToken,
}

async fn connected() -> Connected {
    let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (door, api_server) = (listen().await, listen().await);
    let (metrics, _) = Metrics::registered();
    let backends = Backends::new(metrics.clone());
    let address = api_server.local_addr().unwrap().to_string();
    backends.update(&[Backend::parse(&address).unwrap()]);
    let limits = Limits {
        connections: 1,
        per_address: 1,
    };
    let relay = Relay::new(backends, metrics, limits);
    let (leave, stop) = (CancellationToken::new(), CancellationToken::new());
    let at = door.local_addr().unwrap();
    // Nothing is ever cut off here: `end` stays as it is.
    tokio::spawn(relay.run(
        door,
        TaskTracker::new(),
        stop.clone(),
        leave.clone(),
        CancellationToken::new(),
    ));
    let client = TcpStream::connect(at).await.unwrap();
    let (server, _) = api_server.accept().await.unwrap();
    Connected {
        client,
        server,
        leave,
        stop,
    }
}

/// What one side says arrives at the other.
async fn says(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    let passed = async {
        from.write_all(text.as_bytes()).await.unwrap();
        let mut heard = vec![0; text.len()];
        to.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, text.as_bytes());
    };
    tokio::time::timeout(DEADLINE, passed).await.unwrap();
}

/// Nothing more comes, and it ended in order.
async fn ends(stream: &mut TcpStream) {
    let rest = tokio::time::timeout(DEADLINE, stream.read(&mut [0; 16])).await;
    assert_eq!(rest.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_request_that_is_under_way_is_answered_and_then_its_connection_closed() {
    let mut it = connected().await;
    says(&mut it.client, &mut it.server, "request").await;
    it.leave.cancel();
    // Longer than a connection between two requests has left.
    let early = tokio::time::timeout(AT_REST * 5, it.server.read(&mut [0; 16])).await;
    assert!(early.is_err(), "the server is not told to go: {early:?}");
    says(&mut it.server, &mut it.client, "answer").await;
    // The server says goodbye, and the client hears it.
    ends(&mut it.server).await;
    says(&mut it.server, &mut it.client, "goodbye").await;
    drop(it.server);
    ends(&mut it.client).await;
    it.stop.cancel();
}

#[tokio::test]
async fn a_connection_on_which_nobody_says_anything_is_closed_whoever_spoke_last() {
    let mut it = connected().await;
    says(&mut it.client, &mut it.server, "request").await;
    says(&mut it.server, &mut it.client, "answer").await;
    // HTTP/2's clients acknowledge.
    says(&mut it.client, &mut it.server, "acknowledgement").await;
    it.leave.cancel();
    ends(&mut it.server).await;
    drop(it.server);
    ends(&mut it.client).await;
    it.stop.cancel();
}

#[tokio::test]
async fn a_connection_lives_on_until_it_is_to_leave() {
    let mut it = connected().await;
    says(&mut it.client, &mut it.server, "request").await;
    says(&mut it.server, &mut it.client, "answer").await;
    let early = tokio::time::timeout(AT_REST * 5, it.server.read(&mut [0; 16])).await;
    assert!(early.is_err(), "{early:?}");
    says(&mut it.client, &mut it.server, "request").await;
    it.stop.cancel();
}
