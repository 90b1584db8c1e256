//! The pieces of a machine's copy, packed where the network is slower than packing is.

use super::channel::Compression;
use super::stream::{StreamPacker, put_plain_head};
use crate::host_time::monotonic;
use std::io::{self, Write};
use std::time::Duration;

/// So many bytes go as they are before it is decided, more than sockets hold: writing them takes as long as the network
/// does.
const MEASURED: u64 = 8 << 20;
/// So many are packed to see what that takes.
const TRIED: u64 = 2 << 20;
/// What was decided holds for so many.
const DECIDED: u64 = 256 << 20;

/// Sends pieces, for one connection. Whoever reads there knows that chunks come.
#[derive(Debug)]
pub struct CopyPacker {
    packer: StreamPacker,
    out: Vec<u8>,
    decision: Decision,
}

/// So many bytes, and how long they took.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    bytes: u64,
    time: Duration,
}

impl Taken {
    fn add(&mut self, bytes: usize, time: Duration) {
        self.bytes += bytes as u64;
        self.time += time;
    }

    /// Seconds a byte.
    fn pace(&self) -> f64 {
        self.time.as_secs_f64() / self.bytes.max(1) as f64
    }
}

/// Whether packing is quicker than the network is for what it saves.
#[derive(Clone, Copy, Debug)]
struct Decision {
    always: bool,
    /// Of what was written as it is.
    plain: Taken,
    /// Of what was packed, without writing it.
    packing: Taken,
    /// …and bytes that it became.
    packed_bytes: u64,
    /// What is done with so many bytes more.
    packs: bool,
    left: u64,
}

impl Decision {
    fn new(when: Compression) -> Decision {
        Decision {
            always: when == Compression::Always,
            plain: Taken::default(),
            packing: Taken::default(),
            packed_bytes: 0,
            packs: when == Compression::Always,
            left: 0,
        }
    }

    /// Whether the next piece is to be packed.
    fn packs(&mut self) -> bool {
        if self.always || self.left > 0 {
            return self.packs;
        }
        if self.plain.bytes < MEASURED {
            return false;
        }
        if self.packing.bytes < TRIED {
            return true;
        }
        let share = self.packed_bytes as f64 / self.packing.bytes as f64;
        let network = self.plain.pace();
        *self = Decision {
            packs: self.packing.pace() + share * network < network,
            left: DECIDED,
            ..Decision::new(Compression::Auto)
        };
        self.packs
    }

    fn was_plain(&mut self, bytes: usize, time: Duration) {
        self.passed(bytes);
        self.plain.add(bytes, time);
    }

    fn was_packed(&mut self, bytes: usize, packed: usize, time: Duration) {
        self.passed(bytes);
        self.packing.add(bytes, time);
        self.packed_bytes += packed as u64;
    }

    /// What a decision made of these is no measurement for the next.
    fn passed(&mut self, bytes: usize) {
        let was_decided = self.left > 0;
        self.left = self.left.saturating_sub(bytes as u64);
        if was_decided && self.left == 0 {
            (self.plain, self.packing, self.packed_bytes) = Default::default();
        }
    }
}

impl CopyPacker {
    /// Of a copy that begins; `None` if nothing is to be packed.
    ///
    /// # Errors
    /// The host gives no memory.
    pub fn new(when: Compression) -> io::Result<Option<CopyPacker>> {
        if when == Compression::Never {
            return Ok(None);
        }
        Ok(Some(CopyPacker {
            packer: StreamPacker::new()?,
            out: Vec::new(),
            decision: Decision::new(when),
        }))
    }

    /// Writes a message that is whole with `bytes`, as it is or packed.
    ///
    /// # Errors
    /// The connection failed, or the host gives no memory.
    pub fn write(&mut self, to: &mut impl Write, head: &[u8], bytes: &[u8]) -> io::Result<()> {
        self.out.clear();
        let begin = monotonic();
        if !bytes.is_empty() && self.decision.packs() {
            put_plain_head(head.len(), &mut self.out);
            self.out.extend_from_slice(head);
            self.packer.pack(bytes, &mut self.out)?;
            let took = monotonic().saturating_sub(begin);
            self.decision.was_packed(bytes.len(), self.out.len(), took);
            return to.write_all(&self.out);
        }
        put_plain_head(head.len() + bytes.len(), &mut self.out);
        self.out.extend_from_slice(head);
        to.write_all(&self.out)?;
        to.write_all(bytes)?;
        let took = monotonic().saturating_sub(begin);
        self.decision.was_plain(bytes.len(), took);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 1 << 20;

    /// Sends so many pieces by a network of so many bytes a second, packing 400 MB a second to `share`; says how many
    /// were packed.
    fn packed(pieces: usize, network: f64, share: f64) -> usize {
        let mut decision = Decision::new(Compression::Auto);
        let mut packed = 0;
        for _ in 0..pieces {
            if decision.packs() {
                packed += 1;
                let time = Duration::from_secs_f64(PIECE as f64 / 400e6);
                let became = (PIECE as f64 * share) as usize;
                decision.was_packed(PIECE, became, time);
            } else {
                let time = Duration::from_secs_f64(PIECE as f64 / network);
                decision.was_plain(PIECE, time);
            }
        }
        packed
    }

    #[test]
    fn a_network_of_a_gigabit_is_spared_and_one_of_a_hundred_waits_for_nobody() {
        let most = 1024 - 4 * 8;
        let gigabit = packed(1024, 125e6, 0.4);
        assert!(gigabit >= most, "{gigabit}");
        let hundred = packed(1024, 12.5e9, 0.4);
        assert!(hundred <= 4 * 2, "they were tried: {hundred}");
        // What cannot be packed is not, however slow the network is.
        let noise = packed(1024, 1e6, 1.01);
        assert!(noise <= 4 * 2, "{noise}");
    }

    #[test]
    fn a_network_that_becomes_slow_is_noticed_with_the_next_decision() {
        let mut decision = Decision::new(Compression::Auto);
        let mut send = |network: f64| {
            let packs = decision.packs();
            match packs {
                true => decision.was_packed(PIECE, PIECE / 3, Duration::from_millis(3)),
                false => {
                    let time = Duration::from_secs_f64(PIECE as f64 / network);
                    decision.was_plain(PIECE, time);
                }
            }
            packs
        };
        let early = (0..100).filter(|_| send(10e9)).count();
        let late = (0..600).filter(|_| send(20e6)).count();
        assert_eq!(early, 2, "they were tried");
        assert!(late > 300, "{late}");
    }
}
