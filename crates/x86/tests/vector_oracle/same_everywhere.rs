//! The same bits on every host: what all forms leave, as one number.

use x86::operands::Operands;

use crate::machine::Machine;
use crate::state::{place_image, state};
use crate::values::Random;
use crate::{ENCODINGS, forms};

/// Where the guest's memory is; no host has a say in it.
const BASE: u64 = 0x10_0000;
const CASES: u64 = 20;

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
        for encoding_number in 0..ENCODINGS {
            let mut random = Random::of(2, code, encoding_number);
            let encoding = forms::encode(code, encoding_number % 2 == 0, &mut random);
            for case in 0..CASES {
                let (start, mut memory) = state(&mut random, BASE, case % 4 != 0);
                place_image(code, &mut random, BASE, &start, &mut memory);
                let mut machine = Machine::new(&start, BASE, &memory);
                let fault = machine.execute(&encoding.instruction);
                digest.add(&machine.fxsave());
                digest.add(&machine.rest.memory);
                for general in machine.rest.general {
                    digest.add(&general.to_le_bytes());
                }
                digest.add(&machine.rest.flags().to_le_bytes());
                digest.add(&[fault.unwrap_or(0xff)]);
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
        digest, 0x3f8e_2e99_ebab_87dd,
        "the digest is {digest:#018x}"
    );
}
