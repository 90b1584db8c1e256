//! Bytes within an input or a state, moved in one piece.
//!
//! They are written as a sequence of bytes is (postcard's format of both is the same), which is otherwise done
//! byte by byte: a disk that reads much is bounded by that. For `#[serde(with = "…")]`.

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_byte_buf(Bytes)
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Whole {
        #[serde(with = "super")]
        bytes: Vec<u8>,
        after: u16,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct ByteByByte {
        bytes: Vec<u8>,
        after: u16,
    }

    /// Logs, recordings and snapshots of before are read, and the other way round.
    #[test]
    fn bytes_in_one_piece_are_written_as_bytes_one_by_one_are() {
        for length in [0, 1, 127, 128, 20_000] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
            let (whole, after) = (bytes.clone(), 0x1234);
            let whole = postcard::to_stdvec(&Whole {
                bytes: whole,
                after,
            })
            .unwrap();
            let one_by_one = ByteByByte { bytes, after };
            assert_eq!(whole, postcard::to_stdvec(&one_by_one).unwrap());
            let read: Whole = postcard::from_bytes(&whole).unwrap();
            assert_eq!((read.bytes, read.after), (one_by_one.bytes, after));
            postcard::from_bytes::<Whole>(&whole[..whole.len() - 1]).unwrap_err();
        }
    }
}
