use proptest::prelude::*;

use super::*;

/// Everything that a decoder makes of these chunks, and how it ends.
fn decode<'a>(
    limit: usize,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Vec<u8>>, Result<(), RecordIoError>) {
    let mut decoder = Decoder::new(limit);
    let mut records = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next_frame() {
                Ok(Some(record)) => records.push(record.to_vec()),
                Ok(None) => break,
                Err(error) => return (records, Err(error)),
            }
        }
    }
    let end = decoder.finish();
    (records, end)
}

/// Cuts bytes into chunks of these lengths, over and over.
fn cut<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut chunks = Vec::new();
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((*length).min(rest.len()));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

proptest! {
    #[test]
    fn records_survive_any_chunking(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        lengths in prop::collection::vec(1_usize..64, 1..8),
    ) {
        let bytes: Vec<u8> = records.iter().flat_map(|record| encode(record)).collect();
        let (found, end) = decode(300, cut(&bytes, &lengths));
        prop_assert_eq!(found, records);
        prop_assert_eq!(end, Ok(()));
    }

    #[test]
    fn a_stream_that_is_cut_off_says_so(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 1..5),
        keep in 0.0..1.0_f64,
    ) {
        let bytes: Vec<u8> = records.iter().flat_map(|record| encode(record)).collect();
        let mut boundaries = vec![0];
        for record in &records {
            boundaries.push(boundaries[boundaries.len() - 1] + encode(record).len());
        }
        let kept = (bytes.len() as f64 * keep) as usize;
        let (found, end) = decode(50, [&bytes[..kept]]);
        let whole = boundaries.iter().filter(|at| **at > 0 && **at <= kept).count();
        prop_assert_eq!(found.len(), whole);
        if boundaries.contains(&kept) {
            prop_assert_eq!(end, Ok(()));
        } else {
            let truncated = matches!(end, Err(RecordIoError::Truncated { missing }) if missing > 0);
            prop_assert!(truncated);
        }
    }

    #[test]
    fn garbage_is_an_error_or_a_record_and_never_more_than_the_limit(
        bytes in prop::collection::vec(prop_oneof![Just(b'\n'), b'0'..=b'9', any::<u8>()], 0..400),
        lengths in prop::collection::vec(1_usize..64, 1..8),
    ) {
        let (found, end) = decode(100, cut(&bytes, &lengths));
        prop_assert!(found.iter().all(|record| record.len() <= 100));
        let (at_once, same_end) = decode(100, [&bytes[..]]);
        prop_assert_eq!(found, at_once);
        // What is quoted depends on how much has arrived.
        prop_assert_eq!(
            end.map_err(|error| std::mem::discriminant(&error)),
            same_end.map_err(|error| std::mem::discriminant(&error))
        );
    }
}

#[test]
fn a_record_longer_than_the_limit_is_refused_before_it_arrives() {
    let (records, end) = decode(10, [&b"10\n0123456789"[..], b"11\n"]);
    assert_eq!(records, [b"0123456789"]);
    let error = RecordIoError::TooLong {
        length: 11,
        limit: 10,
    };
    assert_eq!(end, Err(error));
}

#[test]
fn what_is_no_length_is_quoted() {
    for (bytes, found) in [
        (&b"\n"[..], "\\n"),
        (b"<html><body>", "<html><body>"),
        (b"+5\nhello", "+5\\nhello"),
        (b" 5\nhello", " 5\\nhello"),
        (b"5\r\nhello", "5\\r\\nhello"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"000000000000000000001\n", "000000000000000000001\\n"),
        (b"99999999999999999999\n", "99999999999999999999\\n"),
    ] {
        let (records, end) = decode(100, [bytes]);
        assert_eq!(records, Vec::<Vec<u8>>::new());
        let error = RecordIoError::BadLength {
            found: found.to_owned(),
        };
        assert_eq!(end, Err(error));
    }
}

#[test]
fn a_decoder_stays_in_error() {
    let mut decoder = Decoder::new(10);
    decoder.push(b"x");
    let first = decoder.next_frame();
    assert!(first.is_err());
    decoder.push(b"1\na");
    assert_eq!(decoder.next_frame(), first);
    assert_eq!(decoder.finish(), first.map(drop));
}
