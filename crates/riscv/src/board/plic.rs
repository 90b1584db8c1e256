//! The platform-level interrupt controller (RISC-V PLIC specification 1.0.0), laid out as QEMU's
//! `sifive,plic-1.0.0`: context `2 * hart` is the hart's M-mode, `2 * hart + 1` its S-mode.

use serde::{Deserialize, Serialize};

/// Number of the highest interrupt source (`riscv,ndev`).
pub const SOURCES: u32 = 95;
/// Highest priority; a priority of 0 never interrupts.
pub const MAX_PRIORITY: u32 = 7;

const WORDS: usize = (SOURCES as usize + 1) / 32;
const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;
const CONTEXT_THRESHOLD: u64 = 0;
const CONTEXT_CLAIM: u64 = 4;

/// One bit for each source.
type Sources = [u32; WORDS];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Context {
    enabled: Sources,
    threshold: u32,
}

/// The PLIC's registers and gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plic {
    /// Levels of the interrupt lines.
    level: Sources,
    /// Requests that the gateways forwarded and nobody claimed.
    pending: Sources,
    /// Requests claimed and not completed: their gateways forward nothing.
    in_service: Sources,
    /// One for each source, source 0 included.
    priority: Vec<u32>,
    contexts: Vec<Context>,
}

impl Plic {
    /// A PLIC with two contexts for each hart.
    pub fn new(harts: u32) -> Plic {
        Plic {
            level: [0; WORDS],
            pending: [0; WORDS],
            in_service: [0; WORDS],
            priority: vec![0; SOURCES as usize + 1],
            contexts: vec![Context::default(); 2 * harts as usize],
        }
    }

    /// Sets the level of a source's line (section 3, level-triggered gateway).
    pub fn set_level(&mut self, source: u32, level: bool) {
        if source == 0 || source > SOURCES {
            return;
        }
        let (word, bit) = position(source);
        if level {
            self.level[word] |= bit;
            self.forward(source);
        } else {
            self.level[word] &= !bit;
        }
    }

    /// Whether a context's external interrupt is pending (section 4): an enabled source whose
    /// priority is above the context's threshold.
    pub fn interrupt(&self, context: usize) -> bool {
        let Some(context) = self.contexts.get(context) else {
            return false;
        };
        (0..WORDS).any(|word| {
            let mut bits = self.pending[word] & context.enabled[word];
            while bits != 0 {
                let source = word as u32 * 32 + bits.trailing_zeros();
                if self.priority_of(source) > context.threshold {
                    return true;
                }
                bits &= bits - 1;
            }
            false
        })
    }

    /// Reads a 4-byte register; `None` is an access fault. What is not a register reads as zero.
    pub fn read(&mut self, offset: u64, size: u8) -> Option<u64> {
        if size != 4 {
            return None;
        }
        let value = match offset {
            0..PENDING => self.priority_of((offset / 4) as u32),
            PENDING..ENABLE => self
                .pending
                .get((offset - PENDING) as usize / 4)
                .copied()
                .unwrap_or(0),
            ENABLE..CONTEXT => {
                let (context, word) = enable_position(offset);
                self.contexts
                    .get(context)
                    .and_then(|c| c.enabled.get(word))
                    .copied()
                    .unwrap_or(0)
            }
            CONTEXT.. => {
                let context = ((offset - CONTEXT) / CONTEXT_STRIDE) as usize;
                match (offset - CONTEXT) % CONTEXT_STRIDE {
                    CONTEXT_THRESHOLD => self.contexts.get(context).map_or(0, |c| c.threshold),
                    CONTEXT_CLAIM => self.claim(context),
                    _ => 0,
                }
            }
        };
        Some(u64::from(value))
    }

    /// Writes a 4-byte register; `None` is an access fault.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) -> Option<()> {
        if size != 4 {
            return None;
        }
        let value = value as u32;
        match offset {
            0..PENDING => {
                let source = (offset / 4) as usize;
                if source != 0
                    && let Some(priority) = self.priority.get_mut(source)
                {
                    *priority = value & MAX_PRIORITY;
                }
            }
            PENDING..ENABLE => {} // read-only
            ENABLE..CONTEXT => {
                let (context, word) = enable_position(offset);
                let enabled = self
                    .contexts
                    .get_mut(context)
                    .and_then(|c| c.enabled.get_mut(word));
                if let Some(enabled) = enabled {
                    *enabled = if word == 0 { value & !1 } else { value }; // source 0 is none
                }
            }
            CONTEXT.. => {
                let context = ((offset - CONTEXT) / CONTEXT_STRIDE) as usize;
                match (offset - CONTEXT) % CONTEXT_STRIDE {
                    CONTEXT_THRESHOLD => {
                        if let Some(context) = self.contexts.get_mut(context) {
                            context.threshold = value & MAX_PRIORITY;
                        }
                    }
                    CONTEXT_CLAIM => self.complete(context, value),
                    _ => {}
                }
            }
        }
        Some(())
    }

    fn priority_of(&self, source: u32) -> u32 {
        self.priority.get(source as usize).copied().unwrap_or(0)
    }

    /// The gateway of `source` forwards a request if its line is high and none is on its way.
    fn forward(&mut self, source: u32) {
        let (word, bit) = position(source);
        if self.level[word] & bit != 0 && self.in_service[word] & bit == 0 {
            self.pending[word] |= bit;
        }
    }

    /// Section 7: hands out the enabled source of the highest priority, the lowest number among
    /// equals; 0 if there is none. The threshold does not matter here.
    fn claim(&mut self, context: usize) -> u32 {
        let Some(context) = self.contexts.get(context) else {
            return 0;
        };
        let mut best = 0;
        let mut best_priority = 0;
        for source in 1..=SOURCES {
            let (word, bit) = position(source);
            let waits = self.pending[word] & context.enabled[word] & bit != 0;
            if waits && self.priority_of(source) > best_priority {
                best = source;
                best_priority = self.priority_of(source);
            }
        }
        if best != 0 {
            let (word, bit) = position(best);
            self.pending[word] &= !bit;
            self.in_service[word] |= bit;
        }
        best
    }

    /// Section 8: a completion for a source that the context has not enabled is ignored.
    fn complete(&mut self, context: usize, source: u32) {
        if source == 0 || source > SOURCES {
            return;
        }
        let (word, bit) = position(source);
        if self
            .contexts
            .get(context)
            .is_some_and(|c| c.enabled[word] & bit != 0)
        {
            self.in_service[word] &= !bit;
            self.forward(source);
        }
    }
}

/// Word and bit of a source in [`Sources`].
fn position(source: u32) -> (usize, u32) {
    (source as usize / 32, 1 << (source % 32))
}

/// Context and word of an offset among the enable registers.
fn enable_position(offset: u64) -> (usize, usize) {
    let offset = offset - ENABLE;
    (
        (offset / ENABLE_STRIDE) as usize,
        (offset % ENABLE_STRIDE / 4) as usize,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plic_with(sources: &[(u32, u64)]) -> Plic {
        let mut plic = Plic::new(1);
        let mut enabled = 0;
        for &(source, priority) in sources {
            plic.write(4 * u64::from(source), 4, priority).unwrap();
            enabled |= 1 << source;
        }
        plic.write(ENABLE + ENABLE_STRIDE, 4, enabled).unwrap();
        plic
    }

    fn claim(plic: &mut Plic) -> u64 {
        plic.read(CONTEXT + CONTEXT_STRIDE + CONTEXT_CLAIM, 4)
            .unwrap()
    }

    fn complete(plic: &mut Plic, source: u64) {
        plic.write(CONTEXT + CONTEXT_STRIDE + CONTEXT_CLAIM, 4, source)
            .unwrap();
    }

    #[test]
    fn section_4_priority_zero_never_interrupts() {
        let mut plic = plic_with(&[(10, 0)]);
        plic.set_level(10, true);
        assert!(!plic.interrupt(1));
        assert_eq!(claim(&mut plic), 0);
        plic.write(40, 4, 1).unwrap();
        assert!(plic.interrupt(1));
    }

    #[test]
    fn section_5_pending_bits_are_read_only_and_stay_when_the_line_drops() {
        let mut plic = plic_with(&[(10, 1)]);
        plic.set_level(10, true);
        plic.set_level(10, false);
        plic.write(PENDING, 4, 0).unwrap();
        assert_eq!(plic.read(PENDING, 4), Some(1 << 10));
        assert!(plic.interrupt(1));
        assert_eq!(claim(&mut plic), 10);
        complete(&mut plic, 10);
        assert!(!plic.interrupt(1));
    }

    #[test]
    fn section_6_the_threshold_masks_up_to_and_including_itself_but_not_the_claim() {
        let mut plic = plic_with(&[(10, 3)]);
        plic.set_level(10, true);
        plic.write(CONTEXT + CONTEXT_STRIDE, 4, 3).unwrap();
        assert!(!plic.interrupt(1));
        plic.write(CONTEXT + CONTEXT_STRIDE, 4, 2).unwrap();
        assert!(plic.interrupt(1));
        plic.write(CONTEXT + CONTEXT_STRIDE, 4, 7).unwrap();
        assert_eq!(claim(&mut plic), 10);
    }

    #[test]
    fn section_7_the_highest_priority_is_claimed_first_then_the_lowest_number() {
        let mut plic = plic_with(&[(3, 1), (4, 5), (8, 5)]);
        for source in [8, 3, 4] {
            plic.set_level(source, true);
        }
        assert_eq!(
            [claim(&mut plic), claim(&mut plic), claim(&mut plic)],
            [4, 8, 3]
        );
        assert_eq!(claim(&mut plic), 0);
        assert!(!plic.interrupt(1));
    }

    #[test]
    fn section_8_a_level_still_high_at_completion_interrupts_again() {
        let mut plic = plic_with(&[(10, 1)]);
        plic.set_level(10, true);
        assert_eq!(claim(&mut plic), 10);
        plic.set_level(10, true);
        assert!(!plic.interrupt(1));
        complete(&mut plic, 10);
        assert!(plic.interrupt(1));
    }

    #[test]
    fn section_8_completion_of_a_source_not_enabled_here_is_ignored() {
        let mut plic = plic_with(&[(10, 1)]);
        plic.set_level(10, true);
        assert_eq!(claim(&mut plic), 10);
        plic.write(CONTEXT + CONTEXT_CLAIM, 4, 10).unwrap(); // the M-mode context
        assert!(!plic.interrupt(1));
        complete(&mut plic, 10);
        assert!(plic.interrupt(1));
    }

    #[test]
    fn contexts_are_separate_and_source_zero_does_not_exist() {
        let mut plic = plic_with(&[(10, 1)]);
        plic.write(ENABLE, 4, 0xffff_ffff).unwrap();
        assert_eq!(plic.read(ENABLE, 4), Some(0xffff_fffe));
        plic.write(ENABLE, 4, 0).unwrap();
        plic.set_level(10, true);
        plic.set_level(0, true);
        plic.set_level(SOURCES + 1, true);
        assert!(!plic.interrupt(0));
        assert!(plic.interrupt(1));
        assert!(!plic.interrupt(2));
        assert_eq!(plic.read(0, 8), None);
    }
}
