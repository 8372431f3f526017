//! RecordIO, the framing of every Mesos event stream: the length of a record in decimal, a line
//! feed, the bytes of the record, and at once the next length.
//!
//! [`Decoder`] is incremental and does no I/O: it is given whatever chunk has arrived and hands
//! out the records that are complete.
//!
//! ```
//! use mesos::recordio::{Decoder, encode};
//!
//! let mut decoder = Decoder::new(1024);
//! let bytes = [encode(b"one"), encode(b"two")].concat();
//! decoder.push(&bytes[..6]);
//! assert_eq!(decoder.next_frame()?.as_deref(), Some(&b"one"[..]));
//! assert_eq!(decoder.next_frame()?, None);
//! decoder.push(&bytes[6..]);
//! assert_eq!(decoder.next_frame()?.as_deref(), Some(&b"two"[..]));
//! decoder.finish()?;
//! # Ok::<(), mesos::recordio::RecordIoError>(())
//! ```

use bytes::{Buf, Bytes, BytesMut};

/// Decimal digits of the largest 64-bit length; a longer header cannot be a length.
const MAX_HEADER_DIGITS: usize = 20;

/// Why a stream is not RecordIO (any more). The stream cannot be resynchronised: it has to be
/// opened again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordIoError {
    /// The peer announced a record that is larger than the limit of this decoder.
    #[error("record of {length} bytes announced, more than the limit of {limit} bytes")]
    TooLong {
        /// What was announced, in bytes.
        length: u64,
        /// The decoder's limit, in bytes.
        limit: usize,
    },
    /// What should be a length in decimal is something else.
    #[error("`{found}` where the length of a record was expected")]
    BadLength {
        /// The start of what was found, escaped.
        found: String,
    },
    /// The stream ended inside a record.
    #[error("the stream ended inside a record, {missing} bytes before its end")]
    Truncated {
        /// How many bytes are missing at least.
        missing: u64,
    },
}

/// An incremental decoder. After an error it stays in error.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Length of the record whose header has been read.
    length: Option<usize>,
    limit: usize,
    failed: Option<RecordIoError>,
}

impl Decoder {
    /// A decoder that refuses records of more than `max_frame_bytes` bytes. It holds at most
    /// one such record plus the chunk that was pushed last.
    pub fn new(max_frame_bytes: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            length: None,
            limit: max_frame_bytes,
            failed: None,
        }
    }

    /// Adds what has arrived. Call [`Self::next_frame`] until it has no more before the next
    /// push, or the buffer grows.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// The next complete record, or `None` if more bytes are needed for it.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, RecordIoError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
        })
    }

    /// Says that the stream has ended. An error if it ended inside a record.
    pub fn finish(&self) -> Result<(), RecordIoError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.length {
            Some(length) => Err(RecordIoError::Truncated {
                missing: (length - self.buffer.len().min(length)) as u64,
            }),
            None if self.buffer.is_empty() => Ok(()),
            // At least the line feed of the header is missing.
            None => Err(RecordIoError::Truncated { missing: 1 }),
        }
    }

    fn advance(&mut self) -> Result<Option<Bytes>, RecordIoError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.header()? {
                Some(length) => *self.length.insert(length),
                None => return Ok(None),
            },
        };
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.length = None;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn header(&mut self) -> Result<Option<usize>, RecordIoError> {
        let digits = self
            .buffer
            .iter()
            .take(MAX_HEADER_DIGITS + 1)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        match self.buffer.get(digits) {
            _ if digits > MAX_HEADER_DIGITS => return Err(self.bad_length()),
            None => return Ok(None),
            Some(b'\n') if digits > 0 => {}
            Some(_) => return Err(self.bad_length()),
        }
        let length = std::str::from_utf8(&self.buffer[..digits])
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .ok_or_else(|| self.bad_length())?;
        let fits = usize::try_from(length).ok().filter(|l| *l <= self.limit);
        let Some(fits) = fits else {
            return Err(RecordIoError::TooLong {
                length,
                limit: self.limit,
            });
        };
        self.buffer.advance(digits + 1);
        Ok(Some(fits))
    }

    fn bad_length(&self) -> RecordIoError {
        let start = &self.buffer[..self.buffer.len().min(32)];
        RecordIoError::BadLength {
            found: start.escape_ascii().to_string(),
        }
    }
}

/// One record, framed.
pub fn encode(record: &[u8]) -> Vec<u8> {
    let mut framed = record.len().to_string().into_bytes();
    framed.reserve_exact(record.len() + 1);
    framed.push(b'\n');
    framed.extend_from_slice(record);
    framed
}

#[cfg(test)]
mod tests;
