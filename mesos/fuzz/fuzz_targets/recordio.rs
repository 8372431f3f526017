//! RecordIO: the same records come out however the bytes are cut, none is longer than the
//! limit, and what came out, framed again, is what went in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesos::recordio::{Decoder, RecordIoError, encode};

const LIMIT: usize = 4096;

/// The records, and what ended them.
fn decode(bytes: &[u8], chunk: usize) -> (Vec<Vec<u8>>, Result<(), RecordIoError>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut records = Vec::new();
    for chunk in bytes.chunks(chunk) {
        decoder.push(chunk);
        loop {
            match decoder.next_frame() {
                Ok(Some(record)) => records.push(record.to_vec()),
                Ok(None) => break,
                Err(error) => return (records, Err(error)),
            }
        }
    }
    (records, decoder.finish())
}

fuzz_target!(|bytes: &[u8]| {
    let (records, end) = decode(bytes, usize::MAX);
    assert!(records.iter().all(|record| record.len() <= LIMIT));
    for chunk in [1, 3, 64] {
        let (again, same_end) = decode(bytes, chunk);
        assert_eq!(again, records);
        assert_eq!(end.is_ok(), same_end.is_ok());
    }
    let framed: Vec<u8> = records.iter().flat_map(|record| encode(record)).collect();
    assert_eq!(decode(&framed, 5), (records, Ok(())));
});
