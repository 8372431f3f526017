//! An agent's connection with the master, without a network.

use std::net::IpAddr;

use axum::http::Request;
use axum::response::Response;
use bytes::Bytes;
use devcluster::master::Master;
use devcluster::protocol::{self, from_agent, to_agent};
use prost::Message as _;

use crate::stream::Stream;

pub struct Link {
    peer: IpAddr,
    stream: Stream,
    id: String,
}

impl Link {
    pub fn open(master: &Master, peer: IpAddr, subscribe: &protocol::Subscribe) -> Self {
        let body = subscribe.encode_to_vec();
        let response = post(master, peer, protocol::SUBSCRIBE_PATH, None, body);
        assert_eq!(response.status(), 200);
        let id = response.headers()[protocol::STREAM_ID]
            .to_str()
            .unwrap()
            .to_owned();
        Self {
            peer,
            stream: Stream::new(response),
            id,
        }
    }

    pub fn call(&self, master: &Master, message: from_agent::Message) {
        let body = protocol::FromAgent::from(message).encode_to_vec();
        let response = post(master, self.peer, protocol::CALL_PATH, Some(&self.id), body);
        assert_eq!(response.status(), 202);
    }

    /// What the master has said and nobody heard yet.
    pub fn next(&mut self) -> Option<to_agent::Message> {
        let frame = self.stream.next_frame()?;
        protocol::ToAgent::decode(frame.as_slice()).unwrap().message
    }

    pub fn ended(&mut self) -> bool {
        self.stream.ended()
    }
}

fn post(
    master: &Master,
    peer: IpAddr,
    path: &str,
    stream: Option<&str>,
    body: Vec<u8>,
) -> Response {
    let mut request = Request::post(path);
    if let Some(stream) = stream {
        request = request.header(protocol::STREAM_ID, stream);
    }
    master.request(peer, request.body(Bytes::from(body)).unwrap())
}
