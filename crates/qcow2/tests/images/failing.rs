//! A host's disk that fails for a while.

use crate::power_loss::{Allowed, SECTORS, Step, new_image, numbered, options, steps};
use crate::support::{Memory, SECTOR, check, open};
use proptest::prelude::*;
use std::sync::Arc;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// An error is told to whoever asked, if it cost him something. When the disk is well again the image is sound, and a flush that
    /// succeeds then is a promise, whatever was forgotten by those that failed.
    #[test]
    fn an_image_on_a_disk_that_failed_for_a_while_is_sound(
        options in options(),
        (before, after) in (steps(), steps()),
        from in 1..200u64,
        calls in 1..6u64,
    ) {
        let memory = Arc::new(Memory::new(new_image(options)));
        let image = open(memory.clone(), None).unwrap();
        memory.fail_at(from..from + calls);
        let (mut allowed, mut last) = (Allowed::new(), vec![0; SECTORS as usize]);
        let mut has_failed = false;
        for (number, step) in (1..).zip(before.iter().chain(&after)) {
            let (sector, sectors, written) = match step {
                Step::Write { sector, sectors } => (*sector, *sectors, number),
                Step::Zero { sector, sectors } => (*sector, *sectors, 0),
                Step::Flush => (0, 0, 0),
            };
            allowed.perhaps(sector, sectors, written);
            let done = match step {
                Step::Write { .. } => image.write(sector * SECTOR as u64, &numbered(number, sectors)),
                Step::Zero { .. } => image.zero(sector * SECTOR as u64, sectors * SECTOR as u64),
                Step::Flush => image.flush(),
            };
            has_failed |= done.is_err();
            if done.is_ok() {
                last[sector as usize..(sector + sectors) as usize].fill(written);
            }
            // What came before an error may be lost: only its tables are sure to be right.
            if matches!(step, Step::Flush) && done.is_ok() && !has_failed {
                allowed.certain(&last);
            }
        }
        prop_assert!(memory.calls() >= from || !has_failed);
        memory.fail_at(0..0);
        image.write(0, &numbered(u32::MAX, 3)).unwrap();
        image.flush().unwrap();
        allowed.perhaps(0, SECTORS, u32::MAX);
        // All that was not synced goes.
        let content = memory.after_power_loss(|_| 0);
        std::mem::forget(image);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.qcow2");
        std::fs::write(&path, &content).unwrap();
        check(&path);
        let again = open(Arc::new(Memory::new(content)), None).unwrap();
        let mut out = vec![1; SECTORS as usize * SECTOR];
        again.read(0, &mut out).unwrap();
        prop_assert_eq!(&out[..3 * SECTOR], &numbered(u32::MAX, 3)[..]);
        if !has_failed {
            allowed.check(&out)?;
        }
    }
}
