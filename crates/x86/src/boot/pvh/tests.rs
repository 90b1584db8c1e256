#[path = "../../../testing/firmware_image.rs"]
mod firmware_image;

use super::super::{BootImages, load as load_images};
use super::*;
use firmware_image::{FIRMWARE, firmware_image};
use proptest::prelude::*;

const BOARD: acpi::Description = acpi::Description {
    cpus: 1,
    reset_vector: 0,
    virtio_slots: 0,
    pci_functions: Some(1),
};
const MEMORY: u64 = 64 << 20;

fn images(firmware: Vec<u8>) -> BootImages {
    BootImages {
        firmware: Some(firmware),
        ..BootImages::default()
    }
}

fn refused(firmware: Vec<u8>) -> BootError {
    load_images(&mut Ram::new(MEMORY), &images(firmware), &BOARD).expect_err("it is refused")
}

fn in_ram(ram: &Ram, address: u64, length: u64) -> u64 {
    number(ram.slice(address, length).unwrap(), 0, length).unwrap()
}

/// `docs/misc/pvh.pandoc`, "CPU state".
#[test]
fn pvh_enters_flat_32_bit_code_with_ebx_leading_to_the_start_info() {
    let mut ram = Ram::new(MEMORY);
    let images = images(firmware_image(&[0xf4; 9]));
    let registers = load_images(&mut ram, &images, &BOARD)
        .unwrap()
        .cpu
        .registers;
    assert_eq!(registers.rip, FIRMWARE);
    assert_eq!(registers.cr0 & 0x8000_0001, 1);
    assert_eq!((registers.cr4, registers.efer), (0, 0));
    assert_eq!(registers.rflags & 0x2_0300, 0); // VM, IF, TF
    for segment in registers.segments {
        assert_eq!((segment.base, segment.limit), (0, u32::MAX));
        assert_eq!(segment.attributes & 0x6000, 0x4000); // 32 bits
    }
    assert_eq!((registers.tr.base, registers.tr.limit), (0, 0x67));
    assert_eq!(in_ram(&ram, FIRMWARE, 8), 0xf4f4_f4f4_f4f4_f4f4);
    assert_eq!(in_ram(&ram, FIRMWARE + 8, 2), 0xf4);

    let info = registers.gpr[3];
    assert_eq!(in_ram(&ram, info, 4), 0x336e_c578);
    assert_eq!(in_ram(&ram, info + 4, 4), 1);
    for nothing in [8, 12, 16, 24] {
        assert_eq!(in_ram(&ram, info + nothing, 4), 0); // flags, modules, command line
    }
    let root = in_ram(&ram, info + 32, 8);
    assert_eq!(ram.slice(root, 8).unwrap(), b"RSD PTR ");
}

/// `start_info.h`, `struct hvm_memmap_table_entry`: the kinds are those of E820.
#[test]
fn the_memory_map_says_what_is_ram() {
    let mut ram = Ram::new(MEMORY);
    load_images(&mut ram, &images(firmware_image(&[])), &BOARD).unwrap();
    let map = in_ram(&ram, START_INFO + 40, 8);
    let entries = in_ram(&ram, START_INFO + 48, 4);
    let entry = |index: u64| {
        let at = map + 24 * index;
        let field = |offset, length| in_ram(&ram, at + offset, length);
        (field(0, 8), field(8, 8), field(16, 8))
    };
    let all: Vec<_> = (0..entries).map(entry).collect();
    assert_eq!(
        all,
        [
            (0, 0x9_fc00, 1),
            (0x9_fc00, 0x6_0400, 2),
            (0x10_0000, MEMORY - 0x10_0000, 1),
            (0xe000_0000, 0x10_0000, 2),
        ]
    );
}

#[test]
fn what_is_no_firmware_is_refused_with_the_package_that_has_one() {
    let not_elf = [b"MZ".to_vec(), Vec::new(), vec![0; 4 << 20]];
    for file in not_elf {
        let error = refused(file);
        assert_eq!(error, BootError::Firmware(FirmwareError::NotElf));
        assert!(error.to_string().contains("cloudhv-efi-x86-64"), "{error}");
    }
    let mut without_note = firmware_image(&[]);
    without_note[0xb8] = 17;
    let no_entry = BootError::Firmware(FirmwareError::NoEntry);
    assert_eq!(refused(without_note), no_entry);
}

#[test]
fn firmware_that_is_cut_off_is_refused_at_every_length() {
    let whole = firmware_image(&[0x90; 100]);
    for length in 0..whole.len() {
        let error = refused(whole[..length].to_vec());
        let is_told = matches!(
            error,
            BootError::Firmware(FirmwareError::NotElf | FirmwareError::Truncated { .. })
        );
        assert!(is_told, "{length}: {error}");
    }
}

#[test]
fn firmware_that_does_not_fit_is_refused() {
    // Below 1 MiB, where what it is told lies; behind the end of RAM; so long that its end is no address.
    for (at, bytes) in [
        (0x58, 0x7000u64),
        (0x58, MEMORY),
        (0x68, MEMORY),
        (0x68, u64::MAX),
    ] {
        let mut file = firmware_image(&[0x90]);
        file[at..at + 8].copy_from_slice(&bytes.to_le_bytes());
        let error = refused(file);
        let BootError::NoRoom { part, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(part, Part::Firmware);
    }
}

proptest! {
    /// A file is anybody's, and so is a snapshot that names one.
    #[test]
    fn any_change_of_the_headers_is_loaded_or_refused(
        changes in prop::collection::vec((0usize..0xc4, any::<u8>()), 1..8),
    ) {
        let mut file = firmware_image(&[0x90; 64]);
        for (at, byte) in changes {
            file[at] = byte;
        }
        let _ = load_images(&mut Ram::new(MEMORY), &images(file), &BOARD);
    }
}
