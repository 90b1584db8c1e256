//! Compressed clusters are only read: what the guest writes is never compressed.

use crate::error::damaged;
use crate::header::Compression;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use std::io::{self, Read};

/// Makes a whole cluster of `packed`, which may have bytes after its end that belong to others.
///
/// # Errors
/// It is not a cluster that was packed so.
pub(crate) fn unpack(how: Compression, packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
    match how {
        Compression::Deflate => {
            let mut state = Box::<DecompressorOxide>::default();
            let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let (status, _, length) = decompress(&mut state, packed, cluster, 0, flags);
            // As QEMU: what fills the cluster is one, whether it says that it ends or not.
            let is_whole = matches!(status, TINFLStatus::Done | TINFLStatus::HasMoreOutput);
            match is_whole && length == cluster.len() {
                true => Ok(()),
                false => Err(damaged(format!("a compressed cluster ends as {status:?}"))),
            }
        }
        Compression::Zstandard => {
            let mut stream = zstd::stream::read::Decoder::with_buffer(packed)?.single_frame();
            let unpacked = stream.read_exact(cluster);
            unpacked.map_err(|error| damaged(format!("a compressed cluster: {error}")))
        }
    }
}
