//! Snapshots as bytes: damage of any kind is an error, never a panic, a wrong machine or a huge
//! allocation.

use machine::config::BoardConfig;
use machine::config::BootImages;
use machine::snapshot::{Snapshot, SnapshotError};
use machine::{Machine as _, Stop};
use proptest::prelude::*;
use riscv::isa::Extensions;
use riscv::{Config, Machine, RISCV64, SEMANTICS_VERSION};
use std::io::{self, Read};
use std::sync::LazyLock;

/// Bytes before the state: magic, format, architecture, semantics, length of the state.
const HEADER_BYTES: usize = 8 + 4 + 1 + 7 + 4 + 8;
/// Where the length of the state is.
const LENGTH: std::ops::Range<usize> = HEADER_BYTES - 8..HEADER_BYTES;

/// Two harts that count in memory: `addi a3, a3, 1; sd a3, 0(a1); j` (a1: the device tree).
fn machine() -> Machine {
    let board = BoardConfig {
        memory_bytes: 4 << 20,
        harts: 2,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: true,
        entropy: true,
        transport: Default::default(),
    };
    let words = [0x0016_8693u32, 0x00d5_b023, 0xff9f_f06f];
    let kernel = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let images = BootImages {
        kernel: Some(kernel),
        ..BootImages::default()
    };
    let config = Config {
        board,
        extensions: Extensions::ALL,
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
        bytes[LENGTH].copy_from_slice(&length.to_le_bytes());
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
    let state_length = u64::from_le_bytes(BYTES[LENGTH].try_into().expect("eight bytes"));
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

/// With another name or number before it, and its checksum made anew.
fn renamed(name: &[u8; 7], semantics_version: u32) -> Snapshot {
    let mut bytes = BYTES.clone();
    bytes[13..20].copy_from_slice(name);
    bytes[20..24].copy_from_slice(&semantics_version.to_le_bytes());
    let checksum = bytes.len() - 8;
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..checksum]);
    bytes[checksum..].copy_from_slice(&sum.to_le_bytes());
    read(&bytes).expect("it is whole")
}

#[test]
fn a_machine_of_another_architecture_or_of_other_semantics_is_refused_with_a_sentence() {
    assert!(
        RISCV64
            .restore(&renamed(b"riscv64", SEMANTICS_VERSION))
            .is_ok()
    );
    let refusal = |snapshot| match RISCV64.restore(&snapshot) {
        Ok(_) => panic!("it was taken for one of ours"),
        Err(error) => error.to_string(),
    };
    let other = refusal(renamed(b"sparc64", SEMANTICS_VERSION));
    assert_eq!(
        other,
        "the snapshot is of a machine of architecture \"sparc64\", and this one is riscv64"
    );
    let newer = refusal(renamed(b"riscv64", SEMANTICS_VERSION + 1));
    assert!(
        newer.contains(&format!("semantics version {}", SEMANTICS_VERSION + 1)),
        "{newer}"
    );
}
