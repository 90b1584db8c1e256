use super::*;
use crate::board::bus::ROM_BASE;
use devices::DeviceContext;
use machine::config::{DiskConfig, NetworkConfig, Transport};
use machine::output::Outputs;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn config(memory_bytes: u64) -> BoardConfig {
    BoardConfig {
        memory_bytes,
        harts: 2,
        network: vec![NetworkConfig {
            mac: [0x52, 0x54, 0, 0, 0, 1],
        }],
        disks: vec![DiskConfig {
            sectors: 8,
            read_only: false,
            serial: "d".into(),
        }],
        virtio_console: true,
        entropy: true,
        transport: Default::default(),
    }
}

fn isa() -> IsaDescription {
    IsaDescription {
        isa: "rv64imafdc_zicsr_zifencei_sstc".into(),
        isa_base: "rv64i".into(),
        isa_extensions: ["i", "m", "a", "f", "d", "c", "zicsr"]
            .map(String::from)
            .to_vec(),
        mmu_type: "riscv,sv57".into(),
        block_lengths: vec!["riscv,cboz-block-size"],
    }
}

fn load_into(
    memory_bytes: u64,
    images: &BootImages,
) -> Result<(BootEntry, Memory, Bus), BootError> {
    load_board(&config(memory_bytes), images)
}

fn load_board(
    config: &BoardConfig,
    images: &BootImages,
) -> Result<(BootEntry, Memory, Bus), BootError> {
    let mut memory = Memory::new(config.memory_bytes);
    let mut bus = Bus::new(config).unwrap();
    let entry = load(config, images, &isa(), &mut memory, &mut bus)?;
    Ok((entry, memory, bus))
}

fn error(memory_bytes: u64, images: &BootImages) -> BootError {
    load_into(memory_bytes, images)
        .map(|(entry, ..)| entry)
        .unwrap_err()
}

/// A raw binary that looks like code.
fn raw(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(37) | 0x80)
        .collect()
}

/// A Linux `Image` without sections.
fn linux_image(length: usize, image_size: u64) -> Vec<u8> {
    let mut image = raw(length);
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[24..32].fill(0);
    image[48..60].copy_from_slice(b"RISCV\0\0\0RSC\x05");
    image
}

/// An executable of the given segments: address, bytes, length in memory.
fn elf_file(entry: u64, segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2u16.to_le_bytes());
    file.extend(243u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(entry.to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend([0; 8 + 4 + 2]);
    file.extend(56u16.to_le_bytes());
    file.extend((segments.len() as u16).to_le_bytes());
    file.extend([0; 6]);
    assert_eq!(file.len(), 64);
    let mut offset = 64 + 56 * segments.len() as u64;
    for &(address, bytes, memory_length) in segments {
        file.extend(1u32.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        let length = bytes.len() as u64;
        for field in [offset, u64::MAX, address, length, memory_length, 4096] {
            file.extend(field.to_le_bytes());
        }
        offset += length;
    }
    for (_, bytes, _) in segments {
        file.extend(*bytes);
    }
    file
}

/// The device tree that was loaded, up to its length.
fn tree(entry: &BootEntry, memory: &Memory) -> Vec<u8> {
    assert_eq!(
        memory.read_array(entry.device_tree).unwrap(),
        [0xd0, 0x0d, 0xfe, 0xed]
    );
    let length = u32::from_be_bytes(memory.read_array(entry.device_tree + 4).unwrap());
    memory
        .slice(entry.device_tree, length.into())
        .unwrap()
        .to_vec()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn firmware_kernel_and_initrd_lie_where_qemu_puts_them() {
    let images = BootImages {
        firmware: Some(raw(100_000)),
        kernel: Some(linux_image(1000, 3 * MIB)),
        initrd: Some(vec![0x5a; 5000]),
        command_line: "console=ttyS0 root=/dev/vda".into(),
    };
    let (entry, memory, _) = load_into(512 * MIB, &images).unwrap();
    assert_eq!((entry.pc, entry.start), (0x1000, 0x8000_0000));
    assert_eq!(entry.kernel, 0x8020_0000);
    assert_eq!(entry.device_tree, 0x9fe0_0000);
    assert_eq!(entry.initrd, Some((0x8820_0000, 0x8820_1388)));
    assert_eq!(memory.slice(entry.start, 100_000).unwrap(), raw(100_000));
    assert_eq!(
        memory.slice(entry.kernel, 1000).unwrap(),
        linux_image(1000, 3 * MIB)
    );
    assert_eq!(memory.slice(0x8820_0000, 5000).unwrap(), [0x5a; 5000]);
    let tree = tree(&entry, &memory);
    assert!(contains(&tree, b"console=ttyS0 root=/dev/vda\0"));
    assert!(contains(&tree, &0x8820_0000u64.to_be_bytes()));
    assert!(contains(&tree, &0x8820_1388u64.to_be_bytes()));
}

#[test]
fn the_boot_rom_is_that_of_qemu() {
    let images = BootImages {
        firmware: Some(raw(1000)),
        kernel: Some(raw(1000)),
        ..BootImages::default()
    };
    let (_, mut memory, mut bus) = load_into(256 * MIB, &images).unwrap();
    let mut outputs = Outputs::default();
    let mut context = DeviceContext {
        memory: &mut *memory,
        outputs: &mut outputs,
        time_ns: 0,
        unix_base_ns: 0,
    };
    // As read with `xp /24xw 0x1000` in QEMU 7.2's monitor (-m 256), but for next_addr.
    let expected: [u32; 22] = [
        0x0000_0297,
        0x0282_8613,
        0xf140_2573,
        0x0202_b583,
        0x0182_b283,
        0x0002_8067,
        0x8000_0000,
        0,
        0x8fe0_0000,
        0,
        0x4942_534f,
        0,
        2,
        0,
        0x8020_0000,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
    ];
    for (index, word) in expected.into_iter().enumerate() {
        let address = ROM_BASE + 4 * index as u64;
        assert_eq!(
            bus.read(address, 4, &mut context),
            Ok(u64::from(word)),
            "at {address:#x}"
        );
    }
}

#[test]
fn without_firmware_an_elf_kernel_starts_at_its_entry() {
    let code = raw(300);
    let segments = [
        (0x8000_0000, &code[..], 300),
        (0x8000_1000, &code[..10], 5000),
    ];
    let images = BootImages {
        kernel: Some(elf_file(0x8000_0004, &segments)),
        ..BootImages::default()
    };
    let config = config(16 * MIB);
    let mut memory = Memory::new(16 * MIB);
    memory.write(0x8000_1000, &[0xff; 6000]).unwrap();
    let mut bus = Bus::new(&config).unwrap();
    let entry = load(&config, &images, &isa(), &mut memory, &mut bus).unwrap();
    assert_eq!((entry.start, entry.kernel), (0x8000_0004, 0x8000_0004));
    assert_eq!(memory.slice(0x8000_0000, 300).unwrap(), code);
    assert_eq!(memory.slice(0x8000_1000, 10).unwrap(), &code[..10]);
    assert_eq!(memory.slice(0x8000_100a, 4990).unwrap(), [0; 4990]);
    assert_eq!(memory.slice(0x8000_2388, 1).unwrap(), [0xff]);
}

#[test]
fn a_raw_kernel_without_firmware_starts_at_the_start_of_ram() {
    let images = BootImages {
        kernel: Some(raw(100)),
        ..BootImages::default()
    };
    let (entry, ..) = load_into(16 * MIB, &images).unwrap();
    assert_eq!(entry.start, RAM_BASE);
    let images = BootImages {
        firmware: Some(raw(100)),
        ..BootImages::default()
    };
    let (entry, ..) = load_into(16 * MIB, &images).unwrap();
    assert_eq!((entry.start, entry.kernel), (RAM_BASE, 0));
}

#[test]
fn a_large_firmware_pushes_the_kernel_up() {
    let images = BootImages {
        firmware: Some(raw(2 * MIB as usize + 1)),
        kernel: Some(raw(100)),
        ..BootImages::default()
    };
    let (entry, ..) = load_into(16 * MIB, &images).unwrap();
    assert_eq!(entry.kernel, RAM_BASE + 4 * MIB);
}

#[test]
fn in_small_memory_the_initrd_is_right_below_the_device_tree() {
    let images = BootImages {
        kernel: Some(linux_image(1000, MIB)),
        initrd: Some(vec![1; 7 * MIB as usize + 1]),
        ..BootImages::default()
    };
    let (entry, ..) = load_into(16 * MIB, &images).unwrap();
    assert_eq!(entry.device_tree, RAM_BASE + 14 * MIB);
    let start = RAM_BASE + 7 * MIB - 4096;
    assert_eq!(entry.initrd, Some((start, start + 7 * MIB + 1)));
    let images = BootImages {
        initrd: Some(vec![1; 13 * MIB as usize + 1]),
        ..images
    };
    let error = error(16 * MIB, &images);
    assert!(
        matches!(
            error,
            BootError::NoRoom {
                part: Part::Initrd,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_device_tree_stays_below_three_gibibytes() {
    let config = config(2048 * MIB);
    let images = BootImages {
        kernel: Some(raw(100)),
        ..BootImages::default()
    };
    let (entry, memory, _) = load_into(config.memory_bytes, &images).unwrap();
    assert_eq!(entry.device_tree, 0xbfe0_0000);
    let mut reg = RAM_BASE.to_be_bytes().to_vec();
    reg.extend((2048 * MIB).to_be_bytes());
    assert!(contains(&tree(&entry, &memory), &reg));
}

#[test]
fn the_same_board_always_has_the_same_tree() {
    let images = BootImages {
        kernel: Some(raw(100)),
        ..BootImages::default()
    };
    let (first, one, _) = load_into(16 * MIB, &images).unwrap();
    let (second, two, _) = load_into(16 * MIB, &images).unwrap();
    assert_eq!(tree(&first, &one), tree(&second, &two));
}

#[test]
fn a_board_has_the_pci_bus_of_qemu_or_slots() {
    let images = BootImages {
        kernel: Some(raw(100)),
        ..BootImages::default()
    };
    for transport in [Transport::Mmio, Transport::Pci] {
        let config = BoardConfig {
            transport,
            ..config(16 * MIB)
        };
        let (entry, memory, _) = load_board(&config, &images).unwrap();
        let tree = tree(&entry, &memory);
        let is_pci = transport == Transport::Pci;
        assert_eq!(contains(&tree, b"pci@30000000\0"), is_pci);
        assert_eq!(contains(&tree, b"virtio_mmio@10001000\0"), !is_pci);
        // The third device's INTB# leads to the PLIC's source 32 + 3.
        let cells = [2u32 << 11, 0, 0, 2, 1, 35].map(u32::to_be_bytes);
        assert_eq!(contains(&tree, cells.as_flattened()), is_pci);
        let memory = [
            0x0200_0000u32,
            0,
            0x4000_0000,
            0,
            0x4000_0000,
            0,
            0x4000_0000,
        ];
        let memory = memory.map(u32::to_be_bytes);
        assert_eq!(contains(&tree, memory.as_flattened()), is_pci);
    }
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let kernel = |kernel| BootImages {
        kernel: Some(kernel),
        ..BootImages::default()
    };
    let big = error(16 * MIB, &kernel(linux_image(1000, 17 * MIB)));
    assert!(
        matches!(
            big,
            BootError::OutsideRam {
                part: Part::Kernel,
                ..
            }
        ),
        "{big}"
    );
    let tight = error(16 * MIB, &kernel(linux_image(1000, 15 * MIB)));
    assert!(matches!(tight, BootError::Overlap { .. }), "{tight}");
    let small = error(64 << 10, &kernel(raw(100)));
    assert!(
        matches!(
            small,
            BootError::NoRoom {
                part: Part::DeviceTree,
                ..
            }
        ),
        "{small}"
    );
    for address in [0, 0x7fff_f000, 0xffff_ffff_8000_0000] {
        let elsewhere = error(
            16 * MIB,
            &kernel(elf_file(address, &[(address, &[0x13], 1)])),
        );
        assert!(
            matches!(elsewhere, BootError::OutsideRam { .. }),
            "{elsewhere}"
        );
    }
    let both = BootImages {
        firmware: Some(raw(5000)),
        ..kernel(elf_file(RAM_BASE + 4096, &[(RAM_BASE + 4096, &[0x13], 1)]))
    };
    let overlap = BootError::Overlap {
        first: Part::Firmware,
        second: Part::Kernel,
        address: RAM_BASE + 4096,
    };
    assert_eq!(error(16 * MIB, &both), overlap);
}

#[test]
fn nothing_to_start_and_empty_files_are_refused() {
    assert_eq!(error(16 * MIB, &BootImages::default()), BootError::Nothing);
    let images = BootImages {
        kernel: Some(vec![]),
        ..BootImages::default()
    };
    let empty = BootError::Raw {
        part: Part::Kernel,
        error: RawError::Empty,
    };
    assert_eq!(error(16 * MIB, &images), empty);
    let images = BootImages {
        kernel: Some(raw(9)),
        initrd: Some(vec![]),
        ..BootImages::default()
    };
    assert_eq!(error(16 * MIB, &images), BootError::EmptyInitrd);
    let images = BootImages {
        kernel: Some(raw(9)),
        command_line: "a\0b".into(),
        ..BootImages::default()
    };
    assert!(matches!(error(16 * MIB, &images), BootError::DeviceTree(_)));
}

fn elf_error(file: Vec<u8>) -> ElfError {
    let images = BootImages {
        kernel: Some(file),
        ..BootImages::default()
    };
    match error(16 * MIB, &images) {
        BootError::Elf {
            part: Part::Kernel,
            error,
        } => error,
        other => panic!("{other}"),
    }
}

#[test]
fn elf_files_for_other_machines_and_broken_ones_are_refused() {
    let good = elf_file(RAM_BASE, &[(RAM_BASE, &raw(100), 200)]);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    assert_eq!(elf_error(with(4, &[1])), ElfError::Not64Bit);
    assert_eq!(elf_error(with(5, &[2])), ElfError::BigEndian);
    assert_eq!(elf_error(with(16, &[1])), ElfError::Type(1));
    assert_eq!(elf_error(with(18, &[62])), ElfError::Machine(62));
    assert_eq!(elf_error(with(24, &[0xff; 8])), ElfError::Entry(u64::MAX));
    assert_eq!(elf_error(with(54, &[57])), ElfError::ProgramHeaderSize(57));
    assert_eq!(elf_error(with(56, &[0])), ElfError::NoSegments);
    assert_eq!(elf_error(with(64, &[6])), ElfError::NoSegments);
    let shrunk = with(64 + 40, &99u64.to_le_bytes());
    assert_eq!(elf_error(shrunk), ElfError::Segment { address: RAM_BASE });
    let endless = with(64 + 40, &u64::MAX.to_le_bytes());
    assert_eq!(elf_error(endless), ElfError::Segment { address: RAM_BASE });
    for length in [5, 63, 64, 119, 219] {
        let truncated = elf_error(good[..length].to_vec());
        assert!(matches!(truncated, ElfError::Truncated { found, .. } if found == length as u64));
    }
    let wild = elf_error(with(64 + 8, &u64::MAX.to_le_bytes()));
    assert!(matches!(wild, ElfError::Truncated { .. }));
}

fn raw_error(file: Vec<u8>) -> RawError {
    let images = BootImages {
        firmware: Some(file),
        ..BootImages::default()
    };
    match error(16 * MIB, &images) {
        BootError::Raw {
            part: Part::Firmware,
            error,
        } => error,
        other => panic!("{other}"),
    }
}

#[test]
fn files_that_are_no_riscv_program_are_named_for_what_they_are() {
    let with = |at: usize, magic: &[u8]| {
        let mut file = raw(1024);
        file[at..at + magic.len()].copy_from_slice(magic);
        RawError::WrongFormat(match raw_error(file) {
            RawError::WrongFormat(format) => format,
            other => panic!("{other}"),
        })
    };
    let wrong = RawError::WrongFormat;
    assert_eq!(with(0, b"\x1f\x8b"), wrong(WrongFormat::Compressed("gzip")));
    assert_eq!(with(0, b"\xfd7zXZ"), wrong(WrongFormat::Compressed("xz")));
    assert_eq!(
        with(0, b"MZ\0\0zimg"),
        wrong(WrongFormat::Compressed("EFI zboot"))
    );
    assert_eq!(with(0, b"MZ"), wrong(WrongFormat::Executable));
    assert_eq!(with(0x38, b"ARM\x64"), wrong(WrongFormat::Foreign("arm64")));
    assert_eq!(with(0x202, b"HdrS"), wrong(WrongFormat::Foreign("x86")));
    assert_eq!(with(0, b"070701"), wrong(WrongFormat::Archive));
    assert_eq!(with(0, b"\xd0\x0d\xfe\xed"), wrong(WrongFormat::DeviceTree));
    assert_eq!(
        raw_error(b"root:x:0:0:root\n".to_vec()),
        wrong(WrongFormat::Text)
    );
    let mut image = linux_image(100, 100);
    image[24] = 1;
    assert_eq!(raw_error(image), RawError::BigEndian);
}

#[test]
fn a_truncated_linux_image_is_recognised_by_its_sections() {
    let mut image = linux_image(4096, 8192);
    image[0..2].copy_from_slice(b"MZ");
    image[0x3c..0x40].copy_from_slice(&64u32.to_le_bytes());
    image[64..68].copy_from_slice(b"PE\0\0");
    image[70..72].copy_from_slice(&2u16.to_le_bytes());
    image[84..86].copy_from_slice(&160u16.to_le_bytes());
    let table = 64 + 24 + 160;
    for (section, (length, start)) in [(1000u32, 1024u32), (2048, 2048)].into_iter().enumerate() {
        let at = table + 40 * section;
        image[at + 16..at + 20].copy_from_slice(&length.to_le_bytes());
        image[at + 20..at + 24].copy_from_slice(&start.to_le_bytes());
    }
    let whole = BootImages {
        kernel: Some(image.clone()),
        ..BootImages::default()
    };
    assert!(load_into(16 * MIB, &whole).is_ok());
    let truncated = RawError::Truncated {
        found: 4095,
        needed: 4096,
    };
    assert_eq!(raw_error(image[..4095].to_vec()), truncated);
    assert!(matches!(
        raw_error(image[..300].to_vec()),
        RawError::Truncated { found: 300, .. }
    ));
}

proptest! {
    /// Whatever the files hold, they are loaded or refused.
    #[test]
    fn random_files_never_panic(
        mut file in prop::collection::vec(any::<u8>(), 0..400),
        kind in 0u8..4,
        edits in prop::collection::vec((0usize..200, any::<u8>()), 0..6),
    ) {
        match kind {
            0 => {}
            1 => file = elf_file(RAM_BASE, &[(RAM_BASE, &file, 1000), (RAM_BASE + 4096, &[1], 1)]),
            _ => {
                file.resize(file.len().max(64), 1);
                file[56..60].copy_from_slice(b"RSC\x05");
                if kind == 3 {
                    file[0..2].copy_from_slice(b"MZ");
                    file[60..64].copy_from_slice(&64u32.to_le_bytes());
                    file.extend(b"PE\0\0");
                }
            }
        }
        for (at, byte) in edits {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        let images = BootImages {
            firmware: Some(file.clone()),
            kernel: Some(file.clone()),
            initrd: Some(file),
            command_line: String::new(),
        };
        let _ = load_into(8 * MIB, &images);
    }
}
