//! What FNSTENV, FNSAVE and FXSAVE lay down in memory (volume 1, figures 8-9 and 8-10, table 10-2).

use super::state::X87State;
use crate::float::DoubleExtended;

/// Bytes of the environment with an operand size of 16 and of 32 bits.
pub(super) const ENVIRONMENT_16: usize = 14;
/// See [`ENVIRONMENT_16`].
pub(super) const ENVIRONMENT_32: usize = 28;
/// Bytes of the eight registers after it.
pub(super) const REGISTERS: usize = 80;

impl X87State {
    /// The environment in 14 or 28 bytes; unused upper halves are ones.
    pub(super) fn store_environment(&self, image: &mut [u8]) {
        let words = [self.control, self.status, self.tags()];
        if image.len() == ENVIRONMENT_16 {
            image.fill(0);
            for (place, word) in image.chunks_exact_mut(2).zip(words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        } else {
            image.fill(0);
            for (place, word) in image.chunks_exact_mut(4).zip(words) {
                place.copy_from_slice(&(u32::from(word) | 0xffff_0000).to_le_bytes());
            }
            image[26..28].fill(0xff);
        }
    }

    /// Loads an environment of 14 or 28 bytes.
    pub(super) fn load_environment(&mut self, image: &[u8]) {
        let stride = if image.len() == ENVIRONMENT_16 { 2 } else { 4 };
        let word = |i: usize| u16::from_le_bytes([image[stride * i], image[stride * i + 1]]);
        self.set_control(word(0));
        self.set_status(word(1));
        self.set_tags(word(2));
    }

    /// The registers from ST(0) on, in 80 bytes.
    pub(super) fn store_registers(&self, image: &mut [u8]) {
        for (i, place) in image.chunks_exact_mut(10).enumerate() {
            place.copy_from_slice(&self.get(i).to_bits().to_le_bytes()[..10]);
        }
    }

    /// Loads the registers from ST(0) on; their tags stay.
    pub(super) fn load_registers(&mut self, image: &[u8]) {
        let top = self.top();
        for (i, place) in image.chunks_exact(10).enumerate() {
            self.registers[(top + i) & 7] = ten_bytes(place);
        }
    }

    /// The first 160 bytes of FXSAVE's area, without MXCSR.
    pub fn store_fxsave(&self, image: &mut [u8; 160]) {
        image.fill(0);
        image[0..2].copy_from_slice(&self.control.to_le_bytes());
        image[2..4].copy_from_slice(&self.status.to_le_bytes());
        image[4] = self.occupied;
        for (i, place) in image[32..].chunks_exact_mut(16).enumerate() {
            place[..10].copy_from_slice(&self.get(i).to_bits().to_le_bytes()[..10]);
        }
    }

    /// From the first 160 bytes of FXSAVE's area.
    pub fn load_fxsave(&mut self, image: &[u8; 160]) {
        self.set_control(u16::from_le_bytes([image[0], image[1]]));
        self.set_status(u16::from_le_bytes([image[2], image[3]]));
        self.occupied = image[4];
        let top = self.top();
        for (i, place) in image[32..].chunks_exact(16).enumerate() {
            self.registers[(top + i) & 7] = ten_bytes(&place[..10]);
        }
    }
}

fn ten_bytes(bytes: &[u8]) -> DoubleExtended {
    let mut bits = [0; 16];
    bits[..10].copy_from_slice(bytes);
    DoubleExtended::from_bits(u128::from_le_bytes(bits))
}
