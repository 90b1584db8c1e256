//! A guest that does anything to a PCI bus with virtio devices: nothing panics, and the same leads to the same.
#![no_main]

use devices::pci::hostile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (first, second) = (hostile::run(data), hostile::run(data));
    assert!(first == second, "two runs differ");
});
