//! What is there after the power went, at any moment and whatever of the unsynced reached the disk.

use crate::support::{Memory, SECTOR, check, name, open, qemu_img_ok};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub enum Step {
    Write { sector: u64, sectors: u64 },
    Zero { sector: u64, sectors: u64 },
    Flush,
}

pub const SECTORS: u64 = 2048;

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = (0..SECTORS, prop_oneof![1..4u64, 1..200u64]);
    let place = place.prop_map(|(sector, sectors)| (sector, sectors.min(SECTORS - sector)));
    let step = prop_oneof![
        5 => place.clone().prop_map(|(sector, sectors)| Step::Write { sector, sectors }),
        2 => place.prop_map(|(sector, sectors)| Step::Zero { sector, sectors }),
        2 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..60)
}

/// For each sector, the numbers of the writes that it may hold; 0 is nothing.
pub struct Allowed(Vec<BTreeSet<u32>>);

impl Allowed {
    pub fn new() -> Allowed {
        Allowed(vec![BTreeSet::from([0]); SECTORS as usize])
    }

    /// The write of this number may be there, or not.
    pub fn perhaps(&mut self, sector: u64, sectors: u64, number: u32) {
        for sector in sector..sector + sectors {
            self.0[sector as usize].insert(number);
        }
    }

    pub fn certain(&mut self, last: &[u32]) {
        for (allowed, last) in self.0.iter_mut().zip(last) {
            *allowed = BTreeSet::from([*last]);
        }
    }

    pub fn check(&self, content: &[u8]) -> Result<(), TestCaseError> {
        for (sector, bytes) in content.chunks(SECTOR).enumerate() {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            prop_assert!(
                (0..SECTOR).step_by(4).all(|at| word(at) == word(0))
                    && self.0[sector].contains(&word(0)),
                "sector {} holds {}, and may hold {:?}",
                sector,
                word(0),
                self.0[sector]
            );
        }
        Ok(())
    }
}

pub fn numbered(number: u32, sectors: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(sectors as usize * SECTOR / 4)
}

/// An empty image; QEMU makes each kind once.
pub fn new_image(options: &'static str) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<&str, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let image = made.entry(options).or_insert_with(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.qcow2");
        let length = (SECTORS * SECTOR as u64).to_string();
        qemu_img_ok(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            options,
            name(&path),
            &length,
        ]);
        std::fs::read(path).unwrap()
    });
    image.clone()
}

/// Small clusters: tables are made and grow within few writes.
pub fn options() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "cluster_size=512,refcount_bits=64",
        "cluster_size=512",
        "cluster_size=4096",
        "cluster_size=65536",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_a_loss_of_power_an_image_is_sound_and_has_what_was_flushed(
        options in options(),
        steps in steps(),
        lost_at in any::<prop::sample::Index>(),
        choices in any::<u64>(),
    ) {
        let made = new_image(options);
        // Once to know how many writes and syncs there are, and once with the power going at one of them.
        let mut calls = 0;
        let mut cut = None;
        for is_cut in [false, true] {
            let memory = Arc::new(Memory::new(made.clone()));
            if is_cut {
                let call = lost_at.index(calls as usize + 1) as u64 + 1;
                memory.fail_at(call..u64::MAX);
            }
            let image = open(memory.clone(), None).unwrap();
            let (mut allowed, mut last) = (Allowed::new(), vec![0; SECTORS as usize]);
            for (number, step) in (1..).zip(&steps) {
                let done = match step {
                    Step::Write { sector, sectors } => {
                        allowed.perhaps(*sector, *sectors, number);
                        last[*sector as usize..(sector + sectors) as usize].fill(number);
                        image.write(sector * SECTOR as u64, &numbered(number, *sectors))
                    }
                    Step::Zero { sector, sectors } => {
                        allowed.perhaps(*sector, *sectors, 0);
                        last[*sector as usize..(sector + sectors) as usize].fill(0);
                        image.zero(sector * SECTOR as u64, sectors * SECTOR as u64)
                    }
                    Step::Flush => image.flush(),
                };
                if done.is_err() {
                    break;
                }
                if let Step::Flush = step {
                    allowed.certain(&last);
                }
            }
            calls = memory.calls();
            if is_cut {
                cut = Some((memory.clone(), allowed));
            }
            // Nothing is closed when the power goes.
            std::mem::forget(image);
        }
        let (memory, allowed) = cut.unwrap();
        let mut state = choices | 1;
        let content = memory.after_power_loss(|count| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) as usize % count
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.qcow2");
        std::fs::write(&path, &content).unwrap();
        check(&path);
        let again = open(Arc::new(Memory::new(content)), None).unwrap();
        let mut out = vec![1; SECTORS as usize * SECTOR];
        again.read(0, &mut out).unwrap();
        allowed.check(&out)?;
    }
}
