//! Disturbances that the guest must not notice, at places that depend on a seed only.

/// A source of them.
pub struct Chaos {
    state: u64,
    /// Whether everything is compiled at once.
    compiles_at_once: bool,
}

/// Thresholds that are tried.
const THRESHOLDS: [u32; 6] = [0, 1, 2, 5, 16, 40];

impl Chaos {
    /// Disturbances of a seed; even ones compile everything before it is executed once.
    pub fn new(seed: u64) -> Chaos {
        Chaos {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            compiles_at_once: seed.is_multiple_of(2),
        }
    }

    /// xorshift64.
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// True once in `times` calls, on average.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    /// Whether the code cache counts as full before the next compilation.
    pub fn fills_code_cache(&mut self) -> bool {
        self.once_in(300)
    }

    /// Executions after which a block is compiled from now on.
    pub fn threshold(&mut self) -> u32 {
        if self.compiles_at_once {
            0
        } else {
            THRESHOLDS[self.next() as usize % THRESHOLDS.len()]
        }
    }

    /// Instructions after which compiled code is left.
    pub fn quantum(&mut self) -> u64 {
        if self.once_in(3) {
            1 + self.next() % 60
        } else {
            1 + self.next() % 20_000
        }
    }
}
