//! The same bits on every host: what all forms leave, as one number.

use x86::operands::Operands;

use crate::forms;
use crate::machine::Machine;
use crate::state::{place_image, state};
use crate::values::Random;

/// Where the guest's memory is; no host has a say in it.
const BASE: u64 = 0x10_0000;
/// Of each form.
const CASES: u64 = 120;

/// FNV-1a, of which only that it tells differences matters.
struct Digest(u64);

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

fn digest() -> u64 {
    let mut digest = Digest(0xcbf2_9ce4_8422_2325);
    for code in forms::all() {
        let encodings = forms::encodings(code);
        for encoding_number in 0..encodings {
            let mut random = Random::of(2, code, encoding_number);
            let encoding = forms::encode(code, encoding_number, &mut random);
            for case in 0..CASES.div_ceil(encodings) {
                let (start, mut memory) = state(code, &mut random, BASE, case % 4 != 0);
                place_image(code, &mut random, BASE, &start, &mut memory);
                let mut machine = Machine::new(&start, BASE, &memory);
                let fault = machine.execute(&encoding.instruction);
                digest.add(&machine.fxsave());
                digest.add(&machine.rest.memory);
                for general in machine.rest.general {
                    digest.add(&general.to_le_bytes());
                }
                digest.add(&machine.rest.flags().to_le_bytes());
                digest.add(&[fault.map_or(0xff, |fault| fault.vector)]);
            }
        }
    }
    digest.0
}

/// A change of semantics changes this number, and needs a new version of them.
#[test]
fn every_form_leaves_the_same_bits_on_every_host() {
    let digest = digest();
    assert_eq!(
        digest, 0x9fe9_96b6_5e64_4426,
        "the digest is {digest:#018x}"
    );
}
