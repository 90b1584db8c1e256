//! Ethernet frames on a byte stream: each is preceded by its length as a 32-bit big-endian number.
//! This is what QEMU's `-netdev stream` speaks, so a QEMU guest may join the same switch.

use std::ops::Range;

/// Octets of the length in front of each frame.
pub(crate) const PREFIX_LENGTH: usize = 4;
/// Two addresses and a type: a shorter frame is none (IEEE 802.3, 3.1.1).
pub const MIN_FRAME_LENGTH: usize = 14;
/// The largest frame that any device with segmentation offload makes.
pub const MAX_FRAME_LENGTH: usize = 65_550;
/// A decoder holds the largest frame and much of the next ones.
const DECODER_CAPACITY: usize = 2 * (PREFIX_LENGTH + MAX_FRAME_LENGTH);

/// A stream that does not carry frames. It cannot be found into again and has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stream announces a frame of {length} octets, outside {MIN_FRAME_LENGTH} to \
     {MAX_FRAME_LENGTH}: the peer does not send Ethernet frames with a 32-bit big-endian length"
)]
pub struct FrameLengthError {
    /// The announced length in octets.
    pub length: u32,
}

/// Cuts a byte stream into frames, without copying them.
#[derive(Debug)]
pub(crate) struct FrameDecoder {
    buffer: Vec<u8>,
    unread: Range<usize>,
}

impl Default for FrameDecoder {
    fn default() -> FrameDecoder {
        FrameDecoder {
            buffer: vec![0; DECODER_CAPACITY],
            unread: 0..0,
        }
    }
}

impl FrameDecoder {
    /// Where the next bytes of the stream go; never empty once [`Self::next_frame`] has said
    /// `None`. Report how many came with [`Self::filled`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.buffer.len() - self.unread.end < PREFIX_LENGTH + MAX_FRAME_LENGTH {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        &mut self.buffer[self.unread.end..]
    }

    /// So many bytes were put into [`Self::space`].
    pub(crate) fn filled(&mut self, length: usize) {
        self.unread.end = (self.unread.end + length).min(self.buffer.len());
    }

    /// The next whole frame, `None` when it has not arrived in full.
    pub(crate) fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameLengthError> {
        let Some(frame) = self.front()? else {
            return Ok(None);
        };
        self.unread.start = frame.end;
        Ok(Some(&self.buffer[frame]))
    }

    /// Whether a whole frame waits.
    pub(crate) fn has_frame(&self) -> bool {
        matches!(self.front(), Ok(Some(_)) | Err(_))
    }

    fn front(&self) -> Result<Option<Range<usize>>, FrameLengthError> {
        let unread = &self.buffer[self.unread.clone()];
        let Some((prefix, rest)) = unread.split_first_chunk::<PREFIX_LENGTH>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*prefix);
        let length = announced as usize;
        if !(MIN_FRAME_LENGTH..=MAX_FRAME_LENGTH).contains(&length) {
            return Err(FrameLengthError { length: announced });
        }
        let start = self.unread.start + PREFIX_LENGTH;
        Ok((rest.len() >= length).then_some(start..start + length))
    }
}

/// Frames on their way into a stream, in the stream's format, bounded: a frame for which there is
/// no room is dropped, as a switch does.
#[derive(Debug)]
pub(crate) struct FrameQueue {
    bytes: Vec<u8>,
    /// Where the first frame starts that is not wholly written.
    front: usize,
    /// Where writing goes on; `front` or inside the frame there.
    written: usize,
    limit: usize,
    dropped: u64,
}

impl FrameQueue {
    /// Holds at most `limit` octets, prefixes included.
    pub(crate) fn new(limit: usize) -> FrameQueue {
        FrameQueue {
            bytes: Vec::new(),
            front: 0,
            written: 0,
            limit,
            dropped: 0,
        }
    }

    /// Appends a frame; false when it was dropped for want of room.
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        let dropped = self.dropped;
        self.push_with(frame.len(), |room| room.copy_from_slice(frame));
        self.dropped == dropped
    }

    /// Appends a frame of `length` octets that `fill` writes. It is called in any case.
    pub(crate) fn push_with<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.make_room(PREFIX_LENGTH + length);
        let start = self.bytes.len();
        let prefix = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&prefix.to_be_bytes());
        self.bytes.resize(start + PREFIX_LENGTH + length, 0);
        let result = fill(&mut self.bytes[start + PREFIX_LENGTH..]);
        let fits = self.bytes.len() - self.front <= self.limit;
        if !fits || !(MIN_FRAME_LENGTH..=MAX_FRAME_LENGTH).contains(&length) {
            self.bytes.truncate(start);
            self.dropped += 1;
        }
        result
    }

    /// Moves what is unwritten to the start before the vector would have to grow, unless that is
    /// most of it.
    fn make_room(&mut self, length: usize) {
        let full = self.bytes.len() + length > self.bytes.capacity();
        if full && self.front > 0 && self.front >= self.bytes.len() / 2 {
            self.bytes.drain(..self.front);
            self.written -= self.front;
            self.front = 0;
        }
    }

    /// What is to be written to the stream next.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// The stream took `length` octets of [`Self::unwritten`].
    pub(crate) fn advance(&mut self, length: usize) {
        self.written = (self.written + length).min(self.bytes.len());
        while let Some(end) = self
            .frame_end(self.front)
            .filter(|end| *end <= self.written)
        {
            self.front = end;
        }
        if self.front == self.bytes.len() {
            self.clear();
        }
    }

    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Frames that were dropped, since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The frames of which nothing is written yet, in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = self.first_unbegun();
        std::iter::from_fn(move || {
            let end = self.frame_end(start)?;
            let frame = &self.bytes[start + PREFIX_LENGTH..end];
            start = end;
            Some(frame)
        })
    }

    /// Takes out the frames that `wanted` chooses among those of which nothing is written yet.
    pub(crate) fn extract(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        let mut start = self.first_unbegun();
        let mut kept = start;
        while let Some(end) = self.frame_end(start) {
            let frame = &self.bytes[start + PREFIX_LENGTH..end];
            if wanted(frame) {
                taken.push(frame.to_vec());
            } else {
                self.bytes.copy_within(start..end, kept);
                kept += end - start;
            }
            start = end;
        }
        self.bytes.truncate(kept);
        taken
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.front = 0;
        self.written = 0;
    }

    fn first_unbegun(&self) -> usize {
        if self.written == self.front {
            self.front
        } else {
            self.frame_end(self.front).unwrap_or(self.bytes.len())
        }
    }

    fn frame_end(&self, start: usize) -> Option<usize> {
        let prefix = self.bytes.get(start..)?.first_chunk::<PREFIX_LENGTH>()?;
        Some(start + PREFIX_LENGTH + u32::from_be_bytes(*prefix) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let length = prop_oneof![
            MIN_FRAME_LENGTH..200,
            Just(MAX_FRAME_LENGTH),
            MIN_FRAME_LENGTH..MAX_FRAME_LENGTH
        ];
        let frame = (any::<u8>(), length).prop_map(|(byte, length)| vec![byte; length]);
        prop::collection::vec(frame, 0..12)
    }

    /// Gives `bytes` to the decoder in pieces and returns all frames.
    fn decode(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, FrameLengthError> {
        let mut decoder = FrameDecoder::default();
        let mut decoded = Vec::new();
        let mut rest = bytes;
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let space = decoder.space();
            let length = rest
                .len()
                .min(space.len())
                .min(pieces.next().copied().unwrap_or(1));
            space[..length].copy_from_slice(&rest[..length]);
            decoder.filled(length);
            rest = &rest[length..];
            while let Some(frame) = decoder.next_frame()? {
                decoded.push(frame.to_vec());
            }
        }
        Ok(decoded)
    }

    proptest! {
        #[test]
        fn any_division_of_the_stream_gives_the_same_frames(
            frames in frames(),
            writes in prop::collection::vec(1usize..100_000, 1..8),
            reads in prop::collection::vec(1usize..100_000, 1..8),
        ) {
            let mut queue = FrameQueue::new(usize::MAX);
            let mut stream = Vec::new();
            let mut writes = writes.iter().cycle();
            for frame in &frames {
                prop_assert!(queue.push(frame));
                let length = queue.unwritten().len().min(*writes.next().unwrap());
                stream.extend_from_slice(&queue.unwritten()[..length]);
                queue.advance(length);
            }
            stream.extend_from_slice(queue.unwritten());
            prop_assert_eq!(decode(&stream, &reads), Ok(frames));
        }

        #[test]
        fn nonsense_ends_in_an_error_or_waits_but_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            reads in prop::collection::vec(1usize..500, 1..4),
        ) {
            if let Ok(frames) = decode(&bytes, &reads) {
                for frame in frames {
                    prop_assert!((MIN_FRAME_LENGTH..=MAX_FRAME_LENGTH).contains(&frame.len()));
                }
            }
        }

        #[test]
        fn extraction_leaves_the_frame_that_is_being_written_and_the_order(
            lengths in prop::collection::vec(MIN_FRAME_LENGTH..60, 1..20),
            written in 0usize..400,
        ) {
            let mut queue = FrameQueue::new(usize::MAX);
            let all: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(i, length)| vec![i as u8; *length]).collect();
            for frame in &all {
                queue.push(frame);
            }
            let written = written.min(queue.unwritten().len());
            let mut stream = queue.unwritten()[..written].to_vec();
            queue.advance(written);
            let taken = queue.extract(|frame| frame[0] % 2 == 0);
            stream.extend_from_slice(queue.unwritten());
            let remained = decode(&stream, &[7]).unwrap();
            prop_assert_eq!(remained.len() + taken.len(), all.len());
            let mut merged: Vec<Vec<u8>> = remained.iter().chain(&taken).cloned().collect();
            merged.sort();
            prop_assert_eq!(merged, all);
            prop_assert!(remained.is_sorted() && taken.is_sorted());
        }
    }

    #[test]
    fn a_full_queue_drops_the_newest() {
        let mut queue = FrameQueue::new(2 * (PREFIX_LENGTH + 20));
        for byte in 1..=3 {
            queue.push(&[byte; 20]);
        }
        assert_eq!(queue.dropped(), 1);
        assert_eq!(
            queue.frames().map(|frame| frame[0]).collect::<Vec<_>>(),
            [1, 2]
        );
        queue.advance(PREFIX_LENGTH + 20);
        queue.push(&[4; 20]);
        assert_eq!(
            queue.frames().map(|frame| frame[0]).collect::<Vec<_>>(),
            [2, 4]
        );
    }

    #[test]
    fn lengths_outside_the_range_are_refused() {
        for length in [0u32, 13, MAX_FRAME_LENGTH as u32 + 1, u32::MAX] {
            let mut decoder = FrameDecoder::default();
            decoder.space()[..4].copy_from_slice(&length.to_be_bytes());
            decoder.filled(4);
            assert!(decoder.has_frame());
            assert_eq!(decoder.next_frame(), Err(FrameLengthError { length }));
        }
    }
}
