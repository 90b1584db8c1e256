//! How what comes on the connection for a snapshot's pieces is spelt.

use super::super::{DiskBlocks, Fetched, MAX_CHUNK_BYTES, Message, SnapshotChunk, SnapshotPart};
use super::kind;
use crate::blocks::{BlockDigest, WINDOW_BLOCKS};
use crate::wire::{Fields, WireError, put_varint};

/// As [`encode`](super::encode) of the piece, without its bytes, which follow.
pub(in crate::message) fn encode_chunk_head(out: &mut Vec<u8>, chunk: &SnapshotChunk) -> u8 {
    put_varint(out, chunk.pairing);
    match chunk.part {
        SnapshotPart::Machine => out.push(0),
        SnapshotPart::Disk(index) => out.extend_from_slice(&[1, index]),
    }
    put_varint(out, chunk.offset);
    put_varint(out, chunk.total);
    assert!(
        chunk.bytes.len() <= MAX_CHUNK_BYTES,
        "a chunk of {}",
        chunk.bytes.len()
    );
    kind::SNAPSHOT
}

/// What comes on the connection for a snapshot's pieces.
pub(in crate::message) fn decode_fetched(
    kind: u8,
    payload: &[u8],
) -> Result<Fetched<'_>, WireError> {
    let mut f = Fields::new(payload);
    let fetched = match kind {
        kind::SNAPSHOT => get_piece(&mut f)?,
        kind::DISKS => {
            let (pairing, seed, lengths) = get_disks(&mut f)?;
            Fetched::Disks {
                pairing,
                seed,
                lengths,
            }
        }
        kind::ZEROS => {
            let (pairing, device, offset, length) = get_zeros(&mut f)?;
            Fetched::Zeros {
                pairing,
                device,
                offset,
                length,
            }
        }
        kind::ALIKE => Fetched::Alike {
            pairing: f.varint()?,
            device: get_device(&mut f)?,
            end: f.varint()?,
        },
        kind::SNAPSHOT_END => {
            let (pairing, chunks) = (f.varint()?, f.varint()?);
            Fetched::End { pairing, chunks }
        }
        kind::SNAPSHOT_ROUND => Fetched::Round {
            pairing: f.varint()?,
        },
        kind::PACKED => Fetched::Packed,
        kind::DISKS_FIRST => Fetched::DisksFirst {
            pairing: f.varint()?,
        },
        _ => return Ok(Fetched::Other),
    };
    f.end()?;
    Ok(fetched)
}

/// A machine's disks are told by one byte.
const MAX_DISKS: usize = 256;

pub(super) fn get_disks(f: &mut Fields<'_>) -> Result<(u64, u64, Vec<u64>), WireError> {
    let (pairing, seed, mut lengths) = (f.varint()?, f.varint()?, Vec::new());
    while !f.is_empty() {
        if lengths.len() == MAX_DISKS {
            return Err(WireError::TooLarge {
                what: "the number of disks",
                value: lengths.len() as u64 + 1,
                limit: MAX_DISKS as u64,
            });
        }
        lengths.push(f.varint()?);
    }
    Ok((pairing, seed, lengths))
}

pub(super) fn get_device(f: &mut Fields<'_>) -> Result<u8, WireError> {
    let device = f.varint()?;
    u8::try_from(device).map_err(|_| WireError::TooLarge {
        what: "the index of a disk",
        value: device,
        limit: u8::MAX.into(),
    })
}

pub(super) fn get_zeros(f: &mut Fields<'_>) -> Result<(u64, u8, u64, u64), WireError> {
    let (pairing, device) = (f.varint()?, get_device(f)?);
    let (offset, length) = (f.varint()?, f.varint()?);
    offset.checked_add(length).ok_or(WireError::Overflow)?;
    Ok((pairing, device, offset, length))
}

/// Which blocks are no zeros, a bit each; and the digests of those.
pub(super) fn put_blocks(out: &mut Vec<u8>, blocks: &DiskBlocks) {
    let digests = &blocks.digests;
    assert!(digests.len() <= WINDOW_BLOCKS, "digests of a window");
    put_varint(out, blocks.pairing);
    put_varint(out, blocks.device.into());
    put_varint(out, blocks.offset);
    put_varint(out, digests.len() as u64);
    let is_kept = |digest: &BlockDigest| *digest != BlockDigest::ZEROS;
    out.extend(digests.chunks(8).map(|eight| {
        let bits = eight.iter().enumerate();
        bits.fold(0, |byte, (bit, digest)| {
            byte | u8::from(is_kept(digest)) << bit
        })
    }));
    for digest in digests.iter().filter(|digest| is_kept(digest)) {
        out.extend_from_slice(&digest.0.to_le_bytes());
    }
}

pub(super) fn get_blocks(f: &mut Fields<'_>) -> Result<DiskBlocks, WireError> {
    let (pairing, device, offset) = (f.varint()?, get_device(f)?, f.varint()?);
    let count = f.varint()?;
    if count > WINDOW_BLOCKS as u64 {
        return Err(WireError::TooLarge {
            what: "the number of blocks",
            value: count,
            limit: WINDOW_BLOCKS as u64,
        });
    }
    let count = count as usize;
    let kept = f.take(count.div_ceil(8))?;
    let mut digests = Vec::with_capacity(count);
    for index in 0..kept.len() * 8 {
        let is_kept = kept[index / 8] >> (index % 8) & 1 != 0;
        match (is_kept, index < count) {
            (false, false) => {}
            (true, false) => return Err(WireError::Order("a block")),
            (false, true) => digests.push(BlockDigest::ZEROS),
            (true, true) => match BlockDigest(u128::from_le_bytes(f.array()?)) {
                BlockDigest::ZEROS => return Err(WireError::Order("a block of zeros")),
                digest => digests.push(digest),
            },
        }
    }
    Ok(DiskBlocks {
        pairing,
        device,
        offset,
        digests,
    })
}

pub(super) fn get_chunk(f: &mut Fields<'_>) -> Result<Message, WireError> {
    let Fetched::Chunk {
        pairing,
        part,
        offset,
        total,
        bytes,
    } = get_piece(f)?
    else {
        unreachable!("a piece is a piece");
    };
    Ok(Message::Snapshot(SnapshotChunk {
        pairing,
        part,
        offset,
        total,
        bytes: bytes.to_vec(),
    }))
}

fn get_piece<'a>(f: &mut Fields<'a>) -> Result<Fetched<'a>, WireError> {
    let pairing = f.varint()?;
    let part = match f.byte()? {
        0 => SnapshotPart::Machine,
        1 => SnapshotPart::Disk(f.byte()?),
        tag => {
            return Err(WireError::UnknownTag {
                what: "snapshot part",
                tag,
            });
        }
    };
    let (offset, total) = (f.varint()?, f.varint()?);
    let bytes = f.remainder();
    if bytes.len() > MAX_CHUNK_BYTES {
        let (value, limit) = (bytes.len() as u64, MAX_CHUNK_BYTES as u64);
        return Err(WireError::TooLarge {
            what: "a snapshot chunk",
            value,
            limit,
        });
    }
    if offset.checked_add(bytes.len() as u64).is_none() {
        return Err(WireError::Overflow);
    }
    Ok(Fetched::Chunk {
        pairing,
        part,
        offset,
        total,
        bytes,
    })
}
