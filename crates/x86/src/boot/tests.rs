use super::*;

const BOARD: acpi::Description = acpi::Description {
    cpus: 1,
    reset_vector: 0,
    virtio_slots: 0,
    pci_functions: None,
};

/// The least that counts as a kernel: one setup sector, 4 KiB of body.
fn kernel() -> Vec<u8> {
    let mut file = vec![0; 1024 + 4096];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    put(1024, &[0xf4; 4096]);
    file
}

fn images(kernel: Vec<u8>) -> BootImages {
    BootImages {
        firmware: None,
        kernel,
        initrd: None,
        command_line: "console=ttyS0".into(),
    }
}

fn refused(file: Vec<u8>) -> KernelError {
    match load(&mut Ram::new(64 << 20), &images(file), &BOARD) {
        Err(BootError::Kernel(error)) => error,
        other => panic!("not refused as a kernel: {:?}", other.err()),
    }
}

fn number(ram: &Ram, address: u64, length: u64) -> u64 {
    let bytes = ram.slice(address, length).unwrap();
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[test]
fn the_64_bit_boot_protocol_is_kept() {
    let mut ram = Ram::new(64 << 20);
    let cpu = load(&mut ram, &images(kernel()), &BOARD).unwrap().cpu;
    assert_eq!(cpu.registers.rip, 0x100_0200);
    assert_eq!(cpu.registers.gpr[6], ZERO_PAGE);
    assert_eq!(number(&ram, cpu.registers.rip, 1), 0xf4);
    assert_eq!(cpu.registers.gdtr.limit, 31);
    let code = number(&ram, cpu.registers.gdtr.base + 0x10, 8);
    assert_eq!(code >> 53 & 1, 1, "the code segment is not for 64 bits");
    assert_eq!(cpu.registers.rflags & 0x200, 0);
}

#[test]
fn the_zero_page_names_command_line_initrd_tables_and_memory() {
    let mut ram = Ram::new(64 << 20);
    let mut images = images(kernel());
    images.initrd = Some(vec![7; 5000]);
    load(&mut ram, &images, &BOARD).unwrap();
    assert_eq!(
        number(&ram, ZERO_PAGE + 0x202, 4),
        u64::from(u32::from_le_bytes(*b"HdrS"))
    );
    assert_eq!(number(&ram, ZERO_PAGE + 0x210, 1), 0xff);
    let command_line = number(&ram, ZERO_PAGE + 0x228, 4);
    assert_eq!(ram.slice(command_line, 14).unwrap(), b"console=ttyS0\0");
    let initrd = number(&ram, ZERO_PAGE + 0x218, 4);
    assert_eq!(number(&ram, ZERO_PAGE + 0x21c, 4), 5000);
    assert_eq!(initrd, (64 << 20) - 8192);
    assert_eq!(ram.slice(initrd, 5000).unwrap(), [7; 5000]);
    let root = number(&ram, ZERO_PAGE + 0x70, 8);
    assert_eq!(ram.slice(root, 8).unwrap(), b"RSD PTR ");
    assert_eq!(number(&ram, ZERO_PAGE + 0x1e8, 1), 3);
    let last = ZERO_PAGE + 0x2d0 + 2 * 20;
    assert_eq!(number(&ram, last, 8), 0x10_0000);
    assert_eq!(number(&ram, last + 8, 8), (64 << 20) - 0x10_0000);
    assert_eq!(number(&ram, last + 16, 4), 1);
}

#[test]
fn the_page_tables_map_4_gib_to_themselves() {
    let mut ram = Ram::new(64 << 20);
    let cpu = load(&mut ram, &images(kernel()), &BOARD).unwrap().cpu;
    for address in [0, 0x20_0000, 0x4000_0000, 0xfee0_0000u64] {
        let level = |table: u64, shift: u32| {
            let entry = number(&ram, table + 8 * (address >> shift & 511), 8);
            assert_eq!(entry & 3, 3);
            entry
        };
        let directories = level(cpu.registers.cr3, 39) & !0xfff;
        let directory = level(directories, 30) & !0xfff;
        let page = level(directory, 21);
        assert_eq!(page & 0x80, 0x80);
        assert_eq!(page & !0xfff, address & !0x1f_ffff);
    }
}

#[test]
fn an_initrd_stays_below_what_the_kernel_can_address() {
    let mut file = kernel();
    file[0x22c..0x230].copy_from_slice(&0x1ff_ffffu32.to_le_bytes());
    let mut images = images(file);
    images.initrd = Some(vec![7; 4096]);
    let mut ram = Ram::new(64 << 20);
    load(&mut ram, &images, &BOARD).unwrap();
    assert_eq!(number(&ram, ZERO_PAGE + 0x218, 4), 0x1ff_f000);
}

#[test]
fn files_that_are_no_kernels_are_named() {
    let of = |magic: &[u8]| {
        let mut file = vec![0; 4096];
        file[..magic.len()].copy_from_slice(magic);
        refused(file)
    };
    let not = KernelError::NotAKernel;
    assert_eq!(of(&[0x1f, 0x8b]), not(NotAKernel::Packed("gzip")));
    assert_eq!(of(b"070701"), not(NotAKernel::Archive));
    assert_eq!(of(b"\x7fELF"), not(NotAKernel::Elf));
    assert_eq!(of(b"hello"), not(NotAKernel::Unknown));
    assert_eq!(refused(Vec::new()), not(NotAKernel::Unknown));
    let mut file = vec![0; 4096];
    file[0x38..0x3c].copy_from_slice(b"RSC\x05");
    assert_eq!(refused(file), not(NotAKernel::OtherArchitecture("RISC-V")));
    let mut file = vec![0; 4096];
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(refused(file), not(NotAKernel::BootSector));
}

#[test]
fn kernels_that_cannot_be_entered_are_refused() {
    let mut old = kernel();
    old[0x206] = 0x0a;
    assert_eq!(refused(old), KernelError::TooOld(0x020a));
    let mut small = kernel();
    small[0x236] = 0;
    assert_eq!(refused(small), KernelError::Not64Bit);
    let mut cut = kernel();
    cut.truncate(1024 + 100);
    let (needed, found) = (1024 + 0x200, 1024 + 100);
    assert_eq!(refused(cut), KernelError::Truncated { needed, found });
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut small = Ram::new(16 << 20);
    let result = load(&mut small, &images(kernel()), &BOARD);
    assert!(matches!(
        result,
        Err(BootError::NoRoom {
            part: Part::Kernel,
            ..
        })
    ));
    let mut images = images(kernel());
    images.initrd = Some(vec![1; 60 << 20]);
    let result = load(&mut Ram::new(64 << 20), &images, &BOARD);
    assert!(matches!(
        result,
        Err(BootError::NoRoom {
            part: Part::Initrd,
            ..
        })
    ));
    images.initrd = Some(Vec::new());
    let result = load(&mut Ram::new(64 << 20), &images, &BOARD);
    assert_eq!(result.err(), Some(BootError::EmptyInitrd));
    images.initrd = None;
    images.command_line = "x".repeat(2048);
    let result = load(&mut Ram::new(64 << 20), &images, &BOARD);
    let (length, most) = (2048, 2047);
    assert_eq!(
        result.err(),
        Some(BootError::CommandLineTooLong { length, most })
    );
}
