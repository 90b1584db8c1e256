//! Snapshots as bytes: damage of any kind is an error, never a panic, a wrong machine or a huge
//! allocation.

use machine::boot::BootImages;
use machine::bus::BoardConfig;
use machine::machine::{Machine, MachineConfig, Stop};
use machine::state::{Snapshot, SnapshotError};
use proptest::prelude::*;
use std::io::{self, Read};
use std::sync::LazyLock;

/// Bytes before the state: magic, format, semantics, its length.
const HEADER_BYTES: usize = 24;

/// Two harts that count in memory: `addi a3, a3, 1; sd a3, 0(a1); j` (a1: the device tree).
fn machine() -> Machine {
    let board = BoardConfig {
        memory_bytes: 4 << 20,
        harts: 2,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: true,
        entropy: true,
        bit_manipulation: true,
    };
    let words = [0x0016_8693u32, 0x00d5_b023, 0xff9f_f06f];
    let kernel = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let images = BootImages {
        kernel: Some(kernel),
        ..BootImages::default()
    };
    let config = MachineConfig {
        board,
        unix_base_ns: 0,
    };
    let mut machine = Machine::new(config, &images).expect("the program loads");
    assert_eq!(machine.run(50_000), Stop::Reached);
    machine
}

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    machine()
        .snapshot()
        .write_to(&mut bytes)
        .expect("a vector takes everything");
    bytes
});

fn read(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    Snapshot::read_from(&mut &*bytes)
}

proptest! {
    #[test]
    fn a_truncated_snapshot_is_an_error(at in 0usize..1 << 20) {
        let at = at % BYTES.len();
        prop_assert!(matches!(read(&BYTES[..at]), Err(SnapshotError::Read(_))), "cut at {at}");
    }

    #[test]
    fn a_flipped_bit_is_an_error(at in 0usize..1 << 20, bit in 0u8..8) {
        let mut bytes = BYTES.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1u8 << bit;
        prop_assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
    }

    #[test]
    fn overwritten_bytes_are_an_error(at in 0usize..1 << 20, new in prop::collection::vec(any::<u8>(), 1..64)) {
        let mut bytes = BYTES.clone();
        let at = at % (bytes.len() - new.len());
        prop_assume!(bytes[at..at + new.len()] != new[..]);
        bytes[at..at + new.len()].copy_from_slice(&new);
        prop_assert!(read(&bytes).is_err(), "{} bytes at {at}", new.len());
    }

    #[test]
    fn bytes_that_are_no_snapshot_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(read(&bytes).is_err());
    }
}

#[test]
fn every_bit_of_the_header_and_the_checksum_counts() {
    let checksum = BYTES.len() - 8;
    for at in (0..HEADER_BYTES).chain(checksum..BYTES.len()) {
        for bit in 0..8 {
            let mut bytes = BYTES.clone();
            bytes[at] ^= 1u8 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn each_kind_of_damage_has_its_name() {
    let with = |at: usize, byte: u8| {
        let mut bytes = BYTES.clone();
        bytes[at] = byte;
        read(&bytes).err()
    };
    assert!(matches!(with(0, b'X'), Some(SnapshotError::NotASnapshot)));
    assert!(matches!(with(8, 200), Some(SnapshotError::Format(200))));
    let others = Snapshot::new(200, Vec::new(), 0);
    assert!(matches!(
        Machine::restore(&others).err(),
        Some(SnapshotError::Semantics { found: 200, .. })
    ));
    assert!(matches!(
        with(BYTES.len() / 2, !BYTES[BYTES.len() / 2]),
        Some(SnapshotError::Damaged(_))
    ));
}

/// Remembers the largest buffer that it was asked to fill.
struct Watching<'a> {
    bytes: &'a [u8],
    largest: usize,
}

impl Read for Watching<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.largest = self.largest.max(buffer.len());
        self.bytes.read(buffer)
    }
}

/// Lengths that nothing follows: whoever sends them must not make this host reserve memory.
#[test]
fn a_length_allocates_only_what_comes() {
    for length in [1u64 << 20, 64 << 20, (64 << 20) + 1, 1 << 40, u64::MAX] {
        let mut bytes = BYTES[..HEADER_BYTES].to_vec();
        bytes[16..24].copy_from_slice(&length.to_le_bytes());
        bytes.extend([0; 1000]);
        let mut reader = Watching {
            bytes: &bytes,
            largest: 0,
        };
        assert!(
            Snapshot::read_from(&mut reader).is_err(),
            "state of {length} bytes"
        );
        assert!(
            reader.largest <= 1 << 17,
            "a buffer of {} bytes",
            reader.largest
        );
    }
    let state_length = u64::from_le_bytes(BYTES[16..24].try_into().expect("eight bytes"));
    let page_count = HEADER_BYTES + state_length as usize;
    for count in [1u64 << 32, u64::MAX] {
        let mut bytes = BYTES.clone();
        bytes[page_count..page_count + 8].copy_from_slice(&count.to_le_bytes());
        let mut reader = Watching {
            bytes: &bytes,
            largest: 0,
        };
        assert!(Snapshot::read_from(&mut reader).is_err(), "{count} pages");
        assert!(
            reader.largest <= 1 << 17,
            "a buffer of {} bytes",
            reader.largest
        );
    }
}

#[test]
fn a_restored_machine_goes_on_as_the_original() {
    let mut original = machine();
    let snapshot = read(&BYTES).expect("it was just written");
    let mut restored = Machine::restore(&snapshot).expect("it is whole");
    assert_eq!(restored.digest(), original.digest());
    assert_eq!(restored.instruction_count(), original.instruction_count());
    original.run(90_000);
    restored.run(90_000);
    assert_eq!(restored.digest(), original.digest());
    let mut again = Vec::new();
    restored
        .snapshot()
        .write_to(&mut again)
        .expect("a vector takes everything");
    let mut other = Vec::new();
    original
        .snapshot()
        .write_to(&mut other)
        .expect("a vector takes everything");
    assert!(again == other, "the same state gives the same bytes");
}

#[test]
fn what_follows_a_snapshot_stays_in_the_stream() {
    let mut stream = BYTES.clone();
    stream.extend(b"next");
    let mut reader = stream.as_slice();
    Snapshot::read_from(&mut reader).expect("it is whole");
    assert_eq!(reader, b"next");
}
