//! What a channel sends, packed where that pays.

use super::stream::{StreamPacker, put_plain};
use std::io;
use std::time::Duration;

/// When hosts pack what they send each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Where the network is what is waited for.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whoever is so far away is not on this network: what lies between is shared, or paid for.
pub const FAR: Duration = Duration::from_millis(1);
/// What packing saves of less is less than what it takes.
const LEAST_BYTES: usize = 128;
/// What is longer goes as it is; so whoever unpacks has this bound on what a few bytes can become.
pub const MOST_BYTES: usize = 128 << 10;
/// After bytes that could not be packed so many go as they are.
const SPARED: u32 = 16;

/// Packs what one end of a channel sends.
#[derive(Debug)]
pub struct ChannelPacker {
    when: Compression,
    /// Made when it is first needed: it has tables.
    packer: Option<StreamPacker>,
    /// The other end is [`FAR`] away.
    is_far: bool,
    /// So many more go as they are.
    spared: u32,
}

impl ChannelPacker {
    /// Of a channel on which nothing was packed yet.
    pub fn new(when: Compression) -> ChannelPacker {
        ChannelPacker {
            when,
            packer: None,
            is_far: false,
            spared: 0,
        }
    }

    /// So long takes a way there and back.
    pub fn measured(&mut self, round_trip: Duration) {
        self.is_far = round_trip >= FAR;
    }

    /// Appends a chunk of `bytes` to `out`. `waits`: the network did not take everything that was sent before.
    ///
    /// # Errors
    /// The host gives no memory: the channel cannot go on.
    pub fn put(&mut self, bytes: &[u8], waits: bool, out: &mut Vec<u8>) -> io::Result<()> {
        let pays = match self.when {
            Compression::Always => true,
            Compression::Auto => self.is_far || waits,
            Compression::Never => false,
        };
        if !pays || !(LEAST_BYTES..=MOST_BYTES).contains(&bytes.len()) {
            put_plain(bytes, out);
            return Ok(());
        }
        if self.spared > 0 {
            self.spared -= 1;
            put_plain(bytes, out);
            return Ok(());
        }
        let packer = match &mut self.packer {
            Some(packer) => packer,
            none => none.insert(StreamPacker::new()?),
        };
        let before = out.len();
        packer.pack(bytes, out)?;
        if out.len() - before > bytes.len() - bytes.len() / 8 {
            self.spared = SPARED;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(packer: &mut ChannelPacker, bytes: &[u8], waits: bool) -> usize {
        let mut out = Vec::new();
        packer.put(bytes, waits, &mut out).unwrap();
        out.len()
    }

    #[test]
    fn near_hosts_pack_only_while_the_network_is_waited_for() {
        let mut packer = ChannelPacker::new(Compression::Auto);
        let bytes = [7; 1000];
        packer.measured(Duration::from_micros(200));
        assert!(put(&mut packer, &bytes, false) > 1000);
        assert!(put(&mut packer, &bytes, true) < 100);
        packer.measured(Duration::from_millis(10));
        assert!(put(&mut packer, &bytes, false) < 100);
        let mut never = ChannelPacker::new(Compression::Never);
        never.measured(Duration::from_millis(10));
        assert!(put(&mut never, &bytes, true) > 1000);
        assert!(put(&mut ChannelPacker::new(Compression::Always), &bytes, false) < 100);
    }

    #[test]
    fn what_cannot_be_packed_is_tried_now_and_then() {
        let mut packer = ChannelPacker::new(Compression::Always);
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let noise: Vec<u8> = (0..4000).map(|_| random()).collect();
        assert!(put(&mut packer, &noise, false) >= 4000);
        // Even the same again, which would be told in a few bytes, goes as it is.
        for _ in 0..SPARED {
            assert_eq!(put(&mut packer, &noise, false), 4003);
        }
        assert!(put(&mut packer, &noise, false) < 100);
    }
}
