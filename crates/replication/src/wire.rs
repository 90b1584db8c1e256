//! The few primitives that every format here is made of: little-endian, varints, strict bounds.

use thiserror::Error;

/// Why bytes could not be understood. The frame's checksum was right, so the other side speaks
/// another language (or there is a bug): nothing to repair, the connection or the log ends.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// A field goes beyond the end of its frame.
    #[error("a field goes beyond the end of its frame")]
    Truncated,
    /// A varint has more bytes than it needs, or more than 64 bits.
    #[error("a number is not in its shortest form or has more than 64 bits")]
    Varint,
    /// A length or a number is beyond what the format allows.
    #[error("{what} is {value}, more than the {limit} allowed")]
    TooLarge {
        /// Which field.
        what: &'static str,
        /// What it says.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A kind that this version does not know.
    #[error("unknown {what} {tag}")]
    UnknownTag {
        /// Which kind of thing.
        what: &'static str,
        /// Its number.
        tag: u8,
    },
    /// More bytes than fields.
    #[error("{0} bytes too many at the end of a frame")]
    TrailingBytes(usize),
    /// A machine's name is none.
    #[error("a machine cannot have this name")]
    Name,
    /// Something is there twice, or not in order.
    #[error("{0} is there twice or not in its place")]
    Order(&'static str),
    /// A text has characters that no program writes there.
    #[error("{0} has unprintable characters")]
    Unprintable(&'static str),
    /// A marker is none.
    #[error("a marker cannot be read")]
    Marker,
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    NotUtf8,
    /// Instruction counts or record numbers run over 64 bits.
    #[error("a count runs over 64 bits")]
    Overflow,
}

/// Appends `value` as LEB128: seven bits a byte, low ones first, 1 to 10 bytes.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length (varint) and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads fields off the front of a frame's payload.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts at the front of `payload`.
    pub fn new(payload: &'a [u8]) -> Fields<'a> {
        Fields { rest: payload }
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    /// A fixed-size little-endian number's bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Truncated)
    }

    /// A varint in its shortest form.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(WireError::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    /// A length (at most `limit`) and that many bytes.
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], WireError> {
        let length = self.varint()?;
        if length > limit as u64 {
            return Err(WireError::TooLarge {
                what,
                value: length,
                limit: limit as u64,
            });
        }
        self.take(length as usize)
    }

    /// A name: UTF-8, at most `limit` bytes.
    pub fn string(&mut self, what: &'static str, limit: usize) -> Result<String, WireError> {
        let bytes = self.bytes(what, limit)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| WireError::NotUtf8)
    }

    /// All that is left.
    pub fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    pub fn end(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(WireError::TrailingBytes(n)),
        }
    }
}
