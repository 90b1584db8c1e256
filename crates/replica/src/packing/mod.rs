//! Packs by Zstandard: what is in files that hold a machine (parts of a kept snapshot, pieces of a journal's, and what
//! disks read), and what goes over a network that is slow for it.

mod channel;
mod copy;
mod messages;
mod stream;

pub use channel::{ChannelPacker, Compression, FAR};
pub(crate) use copy::CopyPacker;
pub use messages::{MessageStream, MessageStreamError};
pub use stream::StreamError;
pub(crate) use stream::StreamUnpacker;

use std::io;
use zstd::bulk::{Compressor, Decompressor};

/// The quickest of Zstandard's usual levels: packing has the time that the guest leaves.
const LEVEL: i32 = 1;

/// Packs parts, one by one.
pub(crate) struct Packer(Compressor<'static>);

impl Packer {
    pub(crate) fn new() -> io::Result<Packer> {
        Ok(Packer(Compressor::new(LEVEL)?))
    }

    pub(crate) fn pack(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match bytes {
            [] => Ok(Vec::new()),
            bytes => self.0.compress(bytes),
        }
    }
}

/// Unpacks them.
pub(crate) struct Unpacker(Decompressor<'static>);

impl Unpacker {
    pub(crate) fn new() -> io::Result<Unpacker> {
        Ok(Unpacker(Decompressor::new()?))
    }

    /// `None`: it is not what was packed of so many bytes. No more room than those is taken for it.
    pub(crate) fn unpack(&mut self, packed: &[u8], bytes: u64) -> Option<Vec<u8>> {
        if bytes == 0 {
            return packed.is_empty().then(Vec::new);
        }
        let unpacked = self.0.decompress(packed, bytes as usize).ok()?;
        (unpacked.len() as u64 == bytes).then_some(unpacked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let packed = Packer::new().unwrap().pack(&bytes).unwrap();
            let mut unpacker = Unpacker::new().unwrap();
            let length = bytes.len() as u64;
            prop_assert_eq!(unpacker.unpack(&packed, length + 1), None);
            prop_assert_eq!(unpacker.unpack(&packed, length), Some(bytes));
        }
    }

    /// A file says how long a part is; whoever made it may lie.
    #[test]
    fn garbage_or_more_than_was_said_is_none() {
        let packed = Packer::new().unwrap().pack(&[0; 1 << 20]).unwrap();
        let mut unpacker = Unpacker::new().unwrap();
        assert_eq!(unpacker.unpack(&packed, 1000), None);
        assert_eq!(unpacker.unpack(&[7; 90], 1000), None);
        assert_eq!(unpacker.unpack(&[7], 0), None);
    }
}
