//! The ACPI tables (ACPI 6.5): what tells the kernel which CPUs, interrupt controllers and devices there
//! are, and how to end the machine. Hardware-reduced: there are no fixed registers, power-off goes through
//! the sleep control register and reboot through the reset register.

use super::io_apic::IO_APIC_BASE;
use super::local_apic::LOCAL_APIC_BASE;
use super::wakeup::MAILBOX_BASE;
use super::{
    PCI_CONFIGURATION_BASE, PCI_CONFIGURATION_SIZE, PCI_INTERRUPT, PCI_MEMORY_BASE,
    PCI_MEMORY_SIZE, VIRTIO_SLOT_SIZE, cmos, ports, power, virtio_slot_base, virtio_slot_interrupt,
};
use acpi_tables::aml::{
    AddressSpace as Window, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed,
    Name, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use devices::pci::host;

const OEM: [u8; 6] = *b"UNDRST";
const OEM_TABLE: [u8; 8] = *b"UNDRSTDY";
const OEM_REVISION: u32 = 1;

/// What the tables describe.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// CPUs; their local APICs are numbered from 0 on.
    pub cpus: u8,
    /// Where a CPU goes that is to wait for its wakeup.
    pub reset_vector: u64,
    /// Occupied virtio slots, from the first on.
    pub virtio_slots: usize,
    /// Devices on the PCI bus besides its bridge, from number 1 on, if there is such a bus.
    pub pci_functions: Option<usize>,
}

/// The tables, for the physical address `base`, where the root pointer comes first.
pub fn tables(description: &Description, base: u64) -> Vec<u8> {
    let mut placed = Placed {
        bytes: vec![0; Rsdp::len().next_multiple_of(ALIGNMENT)],
        base,
    };
    let dsdt = placed.add(&dsdt(description));
    let fadt = placed.add(&fadt(dsdt));
    let madt = placed.add(&madt(description));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    if description.pci_functions.is_some() {
        xsdt.add_entry(placed.add(&mcfg()));
    }
    let xsdt = placed.add(&xsdt);
    let mut root = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut root);
    placed.bytes[..root.len()].copy_from_slice(&root);
    placed.bytes
}

const ALIGNMENT: usize = 16;

struct Placed {
    bytes: Vec<u8>,
    base: u64,
}

impl Placed {
    /// Puts a table behind the others and says where it is.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let start = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(start, 0);
        table.to_aml_bytes(&mut self.bytes);
        self.base + start as u64
    }
}

fn port(port: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(port),
    )
}

/// Section 5.2.9.
fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .preferred_pm_profile(PmProfile::EnterpriseServer);
    fadt.century = cmos::CENTURY;
    // Section 5.2.9.3: no legacy devices beyond those in the DSDT, no 8042, no VGA. The CMOS clock is
    // there, PCI Express active state power management is not for this board to decide.
    const VGA_NOT_PRESENT: u16 = 1 << 2;
    fadt.iapc_boot_arch = VGA_NOT_PRESENT.into();
    fadt.reset_reg = port(ports::RESET_CONTROL);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = port(ports::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(ports::SLEEP_STATUS);
    fadt.finalize()
}

/// Section 5.2.12. No 8259: the flag PCAT_COMPAT stays clear.
fn madt(description: &Description) -> Raw {
    let address = LocalInterruptController::Address(LOCAL_APIC_BASE as u32);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, address);
    for cpu in 0..description.cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IO_APIC_BASE as u32, 0));
    let mut table = Vec::new();
    madt.to_aml_bytes(&mut table);
    if description.cpus > 1 {
        append(&mut table, &multiprocessor_wakeup(description.reset_vector));
    }
    Raw(table)
}

/// Section 5.2.12.19, in its version 1, whose reset vector Linux takes CPUs offline by.
fn multiprocessor_wakeup(reset_vector: u64) -> [u8; 24] {
    const KIND: u8 = 0x10;
    let mut bytes = [0; 24];
    (bytes[0], bytes[1], bytes[2]) = (KIND, 24, 1);
    bytes[8..16].copy_from_slice(&MAILBOX_BASE.to_le_bytes());
    bytes[16..].copy_from_slice(&reset_vector.to_le_bytes());
    bytes
}

/// Makes a table longer (section 5.2.6: its length, and a sum of all bytes that is zero).
fn append(table: &mut Vec<u8>, bytes: &[u8]) {
    const LENGTH: usize = 4;
    const CHECKSUM: usize = 9;
    table.extend(bytes);
    let length = table.len() as u32;
    table[LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
    table[CHECKSUM] = 0;
    let sum = table.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    table[CHECKSUM] = sum.wrapping_neg();
}

/// PCI Firmware Specification 3.3, section 4.1.2: configuration space in memory, of bus 0.
fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(PCI_CONFIGURATION_BASE, 0, 0, 0);
    mcfg
}

fn dsdt(description: &Description) -> impl Aml {
    let mut body = Vec::new();
    for cpu in 0..description.cpus {
        add_processor(&mut body, cpu);
    }
    add_serial_port(&mut body);
    add_clock(&mut body);
    add_panic(&mut body);
    for slot in 0..description.virtio_slots {
        add_virtio_slot(&mut body, slot);
    }
    if let Some(functions) = description.pci_functions {
        add_pci_bus(&mut body, functions);
    }
    let mut code = Vec::new();
    Scope::new("_SB_".into(), vec![&Raw(body)]).to_aml_bytes(&mut code);
    // Section 7.4.2.6: the value that the sleep control register takes for soft off.
    let soft_off = power::SLEEP_TYPE_OFF;
    let values = Package::new(vec![&soft_off, &aml::ZERO, &aml::ZERO, &aml::ZERO]);
    Name::new("_S5_".into(), &values).to_aml_bytes(&mut code);

    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&code);
    table
}

/// Byte code that is ready.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// A device object with these named values.
fn add_device(body: &mut Vec<u8>, name: &str, values: &[(&str, &dyn Aml)]) {
    let values: Vec<Name> = values
        .iter()
        .map(|(path, value)| Name::new((*path).into(), *value))
        .collect();
    let children = values.iter().map(|value| value as &dyn Aml).collect();
    Device::new(Path::new(name), children).to_aml_bytes(body);
}

/// Section 8.4: a processor device, which the MADT names by its unique ID.
fn add_processor(body: &mut Vec<u8>, cpu: u8) {
    let name = format!("C{cpu:03}");
    add_device(body, &name, &[("_HID", &"ACPI0007"), ("_UID", &cpu)]);
}

fn add_serial_port(body: &mut Vec<u8>) {
    let ports = IO::new(ports::SERIAL, ports::SERIAL, 8, ports::SERIAL_PORTS as u8);
    let interrupt = Interrupt::new(true, true, false, false, ports::SERIAL_INTERRUPT as u32);
    let values: [(&str, &dyn Aml); 3] = [
        ("_HID", &EISAName::new("PNP0501")),
        ("_UID", &1u8),
        ("_CRS", &ResourceTemplate::new(vec![&ports, &interrupt])),
    ];
    add_device(body, "COM1", &values);
}

/// The CMOS clock, without an interrupt.
fn add_clock(body: &mut Vec<u8>) {
    let ports = IO::new(ports::CMOS_INDEX, ports::CMOS_INDEX, 1, 2);
    let values: [(&str, &dyn Aml); 2] = [
        ("_HID", &EISAName::new("PNP0B00")),
        ("_CRS", &ResourceTemplate::new(vec![&ports])),
    ];
    add_device(body, "RTC_", &values);
}

/// QEMU's pvpanic (`docs/specs/pvpanic.rst`), for Linux' `pvpanic-mmio`, which does without `RDPT` and
/// `WRPT`.
fn add_panic(body: &mut Vec<u8>) {
    let port = IO::new(ports::PANIC, ports::PANIC, 1, 1);
    let values: [(&str, &dyn Aml); 2] = [
        ("_HID", &"QEMU0001"),
        ("_CRS", &ResourceTemplate::new(vec![&port])),
    ];
    add_device(body, "PEVT", &values);
}

/// A virtio device behind the memory-mapped transport, as Linux knows it (`virtio_mmio.c`).
fn add_virtio_slot(body: &mut Vec<u8>, slot: usize) {
    let base = virtio_slot_base(slot) as u32;
    let registers = Memory32Fixed::new(true, base, VIRTIO_SLOT_SIZE as u32);
    let pin = virtio_slot_interrupt(slot) as u32;
    let interrupt = Interrupt::new(true, false, false, false, pin);
    let values: [(&str, &dyn Aml); 4] = [
        ("_HID", &"LNRO0005"),
        ("_UID", &(slot as u8)),
        ("_CCA", &aml::ONE),
        ("_CRS", &ResourceTemplate::new(vec![&registers, &interrupt])),
    ];
    add_device(body, &format!("V{slot:03}"), &values);
}

/// The PCI host bridge (PCI Firmware Specification 3.3, section 4.5): what it forwards, and where the lines of
/// its devices lead (ACPI 6.5, section 6.2.13). Its configuration space is claimed by a device of its own
/// (section 4.1.2 of the former).
fn add_pci_bus(body: &mut Vec<u8>, functions: usize) {
    let (first, last) = (
        PCI_MEMORY_BASE as u32,
        (PCI_MEMORY_BASE + PCI_MEMORY_SIZE - 1) as u32,
    );
    let buses = Window::new_bus_number(0u16, 0);
    let ports = IO::new(ports::PCI_ADDRESS, ports::PCI_ADDRESS, 1, 8);
    let not_cacheable = AddressSpaceCacheable::NotCacheable;
    let memory = Window::new_memory(not_cacheable, true, first, last, None);
    let routes: Vec<Route> = (0..functions).map(Route::of_slot).collect();
    let routes = Package::new(routes.iter().map(|route| route as &dyn Aml).collect());
    let values: [(&str, &dyn Aml); 8] = [
        ("_HID", &EISAName::new("PNP0A08")),
        ("_CID", &EISAName::new("PNP0A03")),
        ("_SEG", &aml::ZERO),
        ("_BBN", &aml::ZERO),
        ("_UID", &aml::ZERO),
        ("_CCA", &aml::ONE),
        (
            "_CRS",
            &ResourceTemplate::new(vec![&buses, &ports, &memory]),
        ),
        ("_PRT", &routes),
    ];
    add_device(body, "PCI0", &values);

    let (base, length) = (PCI_CONFIGURATION_BASE as u32, PCI_CONFIGURATION_SIZE as u32);
    let space = Memory32Fixed::new(true, base, length);
    let values: [(&str, &dyn Aml); 2] = [
        ("_HID", &EISAName::new("PNP0C02")),
        ("_CRS", &ResourceTemplate::new(vec![&space])),
    ];
    add_device(body, "MBRD", &values);
}

/// Where INTA# of a device leads.
struct Route {
    device: usize,
}

impl Route {
    fn of_slot(slot: usize) -> Route {
        Route {
            device: host::device_of_slot(slot),
        }
    }
}

impl Aml for Route {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let any_function = (self.device as u32) << 16 | 0xffff;
        let interrupt = (PCI_INTERRUPT + host::line(self.device)) as u32;
        let inta = aml::ZERO;
        let no_link_device = aml::ZERO;
        let values: Vec<&dyn Aml> = vec![&any_function, &inta, &no_link_device, &interrupt];
        Package::new(values).to_aml_bytes(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xe_0000;

    fn built() -> Vec<u8> {
        let description = Description {
            cpus: 2,
            reset_vector: 0xf_0000,
            virtio_slots: 3,
            pci_functions: None,
        };
        tables(&description, BASE)
    }

    fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
        bytes[at..at + length]
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte))
    }

    /// The table at a physical address, its length and checksum looked at.
    fn table(all: &[u8], address: u64) -> &[u8] {
        let at = (address - BASE) as usize;
        let length = number(all, at + 4, 4) as usize;
        let table = &all[at..at + length];
        assert_eq!(sum(table), 0, "checksum of {:?}", &table[..4]);
        table
    }

    fn find(all: &[u8], signature: &[u8]) -> Vec<u8> {
        let xsdt = table(all, number(all, 24, 8));
        assert_eq!(&xsdt[..4], b"XSDT");
        let entries = (36..xsdt.len()).step_by(8).map(|at| number(xsdt, at, 8));
        let found = entries
            .map(|entry| table(all, entry))
            .find(|t| &t[..4] == signature);
        found.expect("the XSDT names it").to_vec()
    }

    #[test]
    fn section_5_2_5_3_root_pointer() {
        let all = built();
        assert_eq!(&all[..8], b"RSD PTR ");
        assert_eq!(sum(&all[..20]), 0);
        assert_eq!(sum(&all[..36]), 0);
        assert_eq!(all[15], 2);
    }

    #[test]
    fn section_5_2_9_fadt() {
        let all = built();
        let fadt = find(&all, b"FACP");
        assert_eq!(fadt.len(), 276);
        let flags = number(&fadt, 112, 4);
        assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
        assert_eq!(number(&fadt, 120, 8), u64::from(ports::RESET_CONTROL)); // RESET_REG's address
        assert_eq!(fadt[128], power::RESET_VALUE);
        assert_eq!(fadt[244], 1); // SLEEP_CONTROL_REG is in I/O space
        assert_eq!(number(&fadt, 248, 8), u64::from(ports::SLEEP_CONTROL));
        let dsdt = table(&all, number(&fadt, 140, 8));
        assert_eq!(&dsdt[..4], b"DSDT");
        for name in ["COM1", "RTC_", "PEVT", "C001", "V002", "_S5_"] {
            let found = dsdt.windows(4).any(|window| window == name.as_bytes());
            assert!(found, "{name} is missing");
        }
        assert!(!dsdt.windows(4).any(|window| window == b"V003"));
    }

    #[test]
    fn section_5_2_12_madt() {
        let madt = find(&built(), b"APIC");
        assert_eq!(number(&madt, 36, 4), LOCAL_APIC_BASE);
        assert_eq!(number(&madt, 40, 4), 0); // no 8259
        assert_eq!(madt[44..52], [0, 8, 0, 0, 1, 0, 0, 0]);
        assert_eq!(madt[52..60], [0, 8, 1, 1, 1, 0, 0, 0]);
        assert_eq!(madt[60..64], [1, 12, 0, 0]);
        assert_eq!(number(&madt, 64, 4), IO_APIC_BASE);
        // Section 5.2.12.19.
        assert_eq!(madt[72..80], [0x10, 24, 1, 0, 0, 0, 0, 0]);
        assert_eq!(number(&madt, 80, 8), MAILBOX_BASE);
        assert_eq!(number(&madt, 88, 8), 0xf_0000);
        assert_eq!(madt.len(), 96);
    }

    /// Else a kernel waits for CPUs where nobody listens.
    #[test]
    fn one_cpu_has_no_mailbox() {
        let description = Description {
            cpus: 1,
            reset_vector: 0xf_0000,
            virtio_slots: 0,
            pci_functions: None,
        };
        let madt = find(&tables(&description, BASE), b"APIC");
        assert_eq!(madt.len(), 64);
    }

    #[test]
    fn the_pci_bus_is_described_where_there_is_one() {
        let description = Description {
            cpus: 1,
            reset_vector: 0,
            virtio_slots: 0,
            pci_functions: Some(3),
        };
        let all = tables(&description, BASE);
        let mcfg = find(&all, b"MCFG");
        assert_eq!(mcfg.len(), 60);
        assert_eq!(number(&mcfg, 44, 8), PCI_CONFIGURATION_BASE);
        assert_eq!(mcfg[52..56], [0, 0, 0, 0]); // segment 0, buses 0 to 0
        let dsdt = table(&all, number(&find(&all, b"FACP"), 140, 8));
        let has = |bytes: &[u8]| dsdt.windows(bytes.len()).any(|window| window == bytes);
        for name in ["PCI0", "_PRT", "_CRS", "_BBN", "MBRD"] {
            assert!(has(name.as_bytes()), "{name} is missing");
        }
        assert!(!has(b"V000"));
        // Device 3 by INTA#: DWord 0x3ffff, 0, 0, and pin 19.
        assert!(has(&[0x0c, 0xff, 0xff, 3, 0, 0, 0]));
        assert!(has(&[0, 0, 0x0a, 19]));
    }
}
