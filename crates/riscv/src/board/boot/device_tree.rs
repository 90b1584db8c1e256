//! The device tree: the nodes of QEMU's `virt` for the devices that are here.

use super::IsaDescription;
use crate::board::bus::{
    CLINT_BASE, CLINT_SIZE, FINISHER_BASE, FINISHER_SIZE, GPIO_BASE, GPIO_INTERRUPT, GPIO_SIZE,
    PANIC_LAMP_PIN, PCI_CONFIGURATION_BASE, PCI_CONFIGURATION_SIZE, PCI_INTERRUPT, PCI_MEMORY_BASE,
    PCI_MEMORY_SIZE, PCI_PORTS_BASE, PCI_PORTS_SIZE, PLIC_BASE, PLIC_SIZE, PVPANIC_BASE,
    PVPANIC_SIZE, RTC_BASE, RTC_INTERRUPT, RTC_SIZE, UART_BASE, UART_INTERRUPT, UART_SIZE,
    VIRTIO_BASE, VIRTIO_INTERRUPT, VIRTIO_SLOT_SIZE, VIRTIO_SLOTS, WATCHDOG_BASE, WATCHDOG_SIZE,
};
use crate::board::clint::TIMEBASE_HZ;
use crate::board::plic;
use crate::isa::cache_block::BLOCK_BYTES;
use crate::memory::RAM_BASE;
use devices::pci::host::LINES;
use machine::config::{BoardConfig, Transport};
use vm_fdt::{Error, FdtWriter};

const UART_CLOCK_HZ: u32 = 3_686_400;
const POWER_OFF: u32 = 0x5555;
const REBOOT: u32 = 0x7777;

/// Interrupts of a hart's local controller (`mcause` codes).
const MACHINE_SOFTWARE: u32 = 3;
const MACHINE_TIMER: u32 = 7;
const SUPERVISOR_EXTERNAL: u32 = 9;
const MACHINE_EXTERNAL: u32 = 11;

const PLIC_PHANDLE: u32 = 1;
const FINISHER_PHANDLE: u32 = 2;
const GPIO_PHANDLE: u32 = 3;

/// What `/chosen` says.
pub struct Chosen<'a> {
    /// `bootargs`.
    pub command_line: &'a str,
    /// First byte of the initrd and the one after its last.
    pub initrd: Option<(u64, u64)>,
}

/// The device tree blob.
pub fn build(
    config: &BoardConfig,
    isa: &IsaDescription,
    chosen: &Chosen,
) -> Result<Vec<u8>, Error> {
    let mut tree = FdtWriter::new()?;
    let root = tree.begin_node("")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_string("compatible", "riscv-virtio")?;
    tree.property_string("model", "riscv-virtio,qemu")?;
    write_aliases(&mut tree)?;
    write_chosen(&mut tree, chosen)?;
    write_power(&mut tree, "poweroff", "syscon-poweroff", POWER_OFF)?;
    write_power(&mut tree, "reboot", "syscon-reboot", REBOOT)?;
    write_panic_lamp(&mut tree)?;
    let memory = tree.begin_node(&format!("memory@{RAM_BASE:x}"))?;
    tree.property_string("device_type", "memory")?;
    tree.property_array_u64("reg", &[RAM_BASE, config.memory_bytes])?;
    tree.end_node(memory)?;
    write_cpus(&mut tree, config.harts, isa)?;
    let soc = tree.begin_node("soc")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_string("compatible", "simple-bus")?;
    tree.property_null("ranges")?;
    write_rtc(&mut tree)?;
    write_uart(&mut tree)?;
    write_finisher(&mut tree)?;
    write_pvpanic(&mut tree)?;
    write_gpio(&mut tree)?;
    write_watchdog(&mut tree)?;
    match config.transport {
        Transport::Mmio => write_virtio(&mut tree)?,
        Transport::Pci => write_pci(&mut tree)?,
    }
    write_plic(&mut tree, config.harts)?;
    write_clint(&mut tree, config.harts)?;
    tree.end_node(soc)?;
    tree.end_node(root)?;
    tree.finish()
}

fn uart_name() -> String {
    format!("serial@{UART_BASE:x}")
}

fn write_aliases(tree: &mut FdtWriter) -> Result<(), Error> {
    let node = tree.begin_node("aliases")?;
    tree.property_string("serial0", &format!("/soc/{}", uart_name()))?;
    tree.end_node(node)
}

fn write_chosen(tree: &mut FdtWriter, chosen: &Chosen) -> Result<(), Error> {
    let node = tree.begin_node("chosen")?;
    if let Some((start, end)) = chosen.initrd {
        tree.property_u64("linux,initrd-start", start)?;
        tree.property_u64("linux,initrd-end", end)?;
    }
    if !chosen.command_line.is_empty() {
        tree.property_string("bootargs", chosen.command_line)?;
    }
    tree.property_string("stdout-path", &format!("/soc/{}", uart_name()))?;
    tree.end_node(node)
}

fn write_power(
    tree: &mut FdtWriter,
    name: &str,
    compatible: &str,
    value: u32,
) -> Result<(), Error> {
    let node = tree.begin_node(name)?;
    tree.property_u32("value", value)?;
    tree.property_u32("offset", 0)?;
    tree.property_u32("regmap", FINISHER_PHANDLE)?;
    tree.property_string("compatible", compatible)?;
    tree.end_node(node)
}

fn cpu_phandle(hart: u32) -> u32 {
    GPIO_PHANDLE + 1 + 2 * hart
}

fn interrupt_controller_phandle(hart: u32) -> u32 {
    cpu_phandle(hart) + 1
}

fn write_cpus(tree: &mut FdtWriter, harts: u32, isa: &IsaDescription) -> Result<(), Error> {
    let cpus = tree.begin_node("cpus")?;
    tree.property_u32("#address-cells", 1)?;
    tree.property_u32("#size-cells", 0)?;
    tree.property_u32("timebase-frequency", TIMEBASE_HZ)?;
    for hart in 0..harts {
        write_cpu(tree, hart, isa)?;
    }
    let map = tree.begin_node("cpu-map")?;
    let cluster = tree.begin_node("cluster0")?;
    for hart in 0..harts {
        let core = tree.begin_node(&format!("core{hart}"))?;
        tree.property_u32("cpu", cpu_phandle(hart))?;
        tree.end_node(core)?;
    }
    tree.end_node(cluster)?;
    tree.end_node(map)?;
    tree.end_node(cpus)
}

fn write_cpu(tree: &mut FdtWriter, hart: u32, isa: &IsaDescription) -> Result<(), Error> {
    let cpu = tree.begin_node(&format!("cpu@{hart:x}"))?;
    tree.property_phandle(cpu_phandle(hart))?;
    tree.property_string("device_type", "cpu")?;
    tree.property_u32("reg", hart)?;
    tree.property_string("status", "okay")?;
    tree.property_string("compatible", "riscv")?;
    tree.property_string_list("riscv,isa-extensions", isa.isa_extensions.clone())?;
    tree.property_string("riscv,isa-base", &isa.isa_base)?;
    tree.property_string("riscv,isa", &isa.isa)?;
    tree.property_string("mmu-type", &isa.mmu_type)?;
    for property in &isa.block_lengths {
        tree.property_u32(property, BLOCK_BYTES as u32)?;
    }
    let controller = tree.begin_node("interrupt-controller")?;
    tree.property_u32("#address-cells", 0)?;
    tree.property_u32("#interrupt-cells", 1)?;
    tree.property_null("interrupt-controller")?;
    tree.property_string("compatible", "riscv,cpu-intc")?;
    tree.property_phandle(interrupt_controller_phandle(hart))?;
    tree.end_node(controller)?;
    tree.end_node(cpu)
}

/// `interrupts` of a device behind the PLIC.
fn write_interrupt(tree: &mut FdtWriter, source: u32) -> Result<(), Error> {
    tree.property_u32("interrupts", source)?;
    tree.property_u32("interrupt-parent", PLIC_PHANDLE)
}

fn write_rtc(tree: &mut FdtWriter) -> Result<(), Error> {
    let node = tree.begin_node(&format!("rtc@{RTC_BASE:x}"))?;
    write_interrupt(tree, RTC_INTERRUPT)?;
    tree.property_array_u64("reg", &[RTC_BASE, RTC_SIZE])?;
    tree.property_string("compatible", "google,goldfish-rtc")?;
    tree.end_node(node)
}

fn write_uart(tree: &mut FdtWriter) -> Result<(), Error> {
    let node = tree.begin_node(&uart_name())?;
    write_interrupt(tree, UART_INTERRUPT)?;
    tree.property_u32("clock-frequency", UART_CLOCK_HZ)?;
    tree.property_array_u64("reg", &[UART_BASE, UART_SIZE])?;
    tree.property_string("compatible", "ns16550a")?;
    tree.end_node(node)
}

fn write_finisher(tree: &mut FdtWriter) -> Result<(), Error> {
    let node = tree.begin_node(&format!("test@{FINISHER_BASE:x}"))?;
    tree.property_phandle(FINISHER_PHANDLE)?;
    tree.property_array_u64("reg", &[FINISHER_BASE, FINISHER_SIZE])?;
    let compatible = ["sifive,test1", "sifive,test0", "syscon"];
    tree.property_string_list("compatible", compatible.map(String::from).to_vec())?;
    tree.end_node(node)
}

/// For kernels that have its driver (Debian's for RISC-V does not).
fn write_pvpanic(tree: &mut FdtWriter) -> Result<(), Error> {
    let node = tree.begin_node(&format!("pvpanic@{PVPANIC_BASE:x}"))?;
    tree.property_array_u64("reg", &[PVPANIC_BASE, PVPANIC_SIZE])?;
    tree.property_string("compatible", "qemu,pvpanic-mmio")?;
    tree.end_node(node)
}

fn write_gpio(tree: &mut FdtWriter) -> Result<(), Error> {
    let node = tree.begin_node(&format!("gpio@{GPIO_BASE:x}"))?;
    tree.property_phandle(GPIO_PHANDLE)?;
    tree.property_array_u64("reg", &[GPIO_BASE, GPIO_SIZE])?;
    tree.property_string("compatible", "sifive,gpio0")?;
    write_interrupt(tree, GPIO_INTERRUPT)?;
    tree.property_null("gpio-controller")?;
    tree.property_u32("#gpio-cells", 2)?;
    tree.property_null("interrupt-controller")?;
    tree.property_u32("#interrupt-cells", 2)?;
    tree.end_node(node)
}

/// A lamp that Linux lets blink when it panics (`leds-gpio`, the trigger `panic`).
fn write_panic_lamp(tree: &mut FdtWriter) -> Result<(), Error> {
    let leds = tree.begin_node("leds")?;
    tree.property_string("compatible", "gpio-leds")?;
    let lamp = tree.begin_node("led-panic")?;
    tree.property_string("label", "panic")?;
    tree.property_array_u32("gpios", &[GPIO_PHANDLE, PANIC_LAMP_PIN, 0])?;
    tree.property_string("default-state", "off")?;
    tree.property_null("panic-indicator")?;
    tree.end_node(lamp)?;
    tree.end_node(leds)
}

fn write_watchdog(tree: &mut FdtWriter) -> Result<(), Error> {
    let node = tree.begin_node(&format!("watchdog@{WATCHDOG_BASE:x}"))?;
    tree.property_array_u64("reg", &[WATCHDOG_BASE, WATCHDOG_SIZE])?;
    tree.property_string("compatible", "allwinner,sun6i-a31-wdt")?;
    tree.end_node(node)
}

/// All slots, also the empty ones. Unlike QEMU in rising order, so that a guest numbers the disks
/// and interfaces as the configuration does.
fn write_virtio(tree: &mut FdtWriter) -> Result<(), Error> {
    for slot in 0..VIRTIO_SLOTS as u32 {
        let base = VIRTIO_BASE + u64::from(slot) * VIRTIO_SLOT_SIZE;
        let node = tree.begin_node(&format!("virtio_mmio@{base:x}"))?;
        write_interrupt(tree, VIRTIO_INTERRUPT + slot)?;
        tree.property_array_u64("reg", &[base, VIRTIO_SLOT_SIZE])?;
        tree.property_string("compatible", "virtio,mmio")?;
        tree.end_node(node)?;
    }
    Ok(())
}

/// The PCI host bridge (IEEE 1275's PCI bus binding, `pci-host-ecam-generic`).
fn write_pci(tree: &mut FdtWriter) -> Result<(), Error> {
    const PORTS: u32 = 0x0100_0000;
    const MEMORY: u32 = 0x0200_0000;
    let range = |space, bus: u64, base: u64, length: u64| {
        let halves = |value: u64| [(value >> 32) as u32, value as u32];
        let [bus, base, length] = [bus, base, length].map(halves);
        [
            space, bus[0], bus[1], base[0], base[1], length[0], length[1],
        ]
    };
    let node = tree.begin_node(&format!("pci@{PCI_CONFIGURATION_BASE:x}"))?;
    tree.property_string("compatible", "pci-host-ecam-generic")?;
    tree.property_string("device_type", "pci")?;
    tree.property_array_u64("reg", &[PCI_CONFIGURATION_BASE, PCI_CONFIGURATION_SIZE])?;
    let ranges = [
        range(PORTS, 0, PCI_PORTS_BASE, PCI_PORTS_SIZE),
        range(MEMORY, PCI_MEMORY_BASE, PCI_MEMORY_BASE, PCI_MEMORY_SIZE),
    ];
    tree.property_array_u32("ranges", ranges.as_flattened())?;
    tree.property_array_u32("bus-range", &[0, 0xff])?;
    tree.property_u32("linux,pci-domain", 0)?;
    tree.property_null("dma-coherent")?;
    tree.property_u32("#address-cells", 3)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_u32("#interrupt-cells", 1)?;
    // The lines turn from device to device: four devices say it of all.
    let lines = LINES as u32;
    let mut map = Vec::new();
    for device in 0..lines {
        for pin in 0..lines {
            let source = PCI_INTERRUPT + (device + pin) % lines;
            map.extend([device << 11, 0, 0, pin + 1, PLIC_PHANDLE, source]);
        }
    }
    tree.property_array_u32("interrupt-map", &map)?;
    tree.property_array_u32("interrupt-map-mask", &[(lines - 1) << 11, 0, 0, 7])?;
    tree.end_node(node)
}

/// `interrupts-extended`: two of each hart's local interrupts.
fn write_local_interrupts(
    tree: &mut FdtWriter,
    harts: u32,
    interrupts: [u32; 2],
) -> Result<(), Error> {
    let mut cells = Vec::new();
    for hart in 0..harts {
        for interrupt in interrupts {
            cells.extend([interrupt_controller_phandle(hart), interrupt]);
        }
    }
    tree.property_array_u32("interrupts-extended", &cells)
}

fn write_plic(tree: &mut FdtWriter, harts: u32) -> Result<(), Error> {
    let node = tree.begin_node(&format!("plic@{PLIC_BASE:x}"))?;
    tree.property_phandle(PLIC_PHANDLE)?;
    tree.property_u32("riscv,ndev", plic::SOURCES)?;
    tree.property_array_u64("reg", &[PLIC_BASE, PLIC_SIZE])?;
    write_local_interrupts(tree, harts, [MACHINE_EXTERNAL, SUPERVISOR_EXTERNAL])?;
    tree.property_null("interrupt-controller")?;
    let compatible = ["sifive,plic-1.0.0", "riscv,plic0"];
    tree.property_string_list("compatible", compatible.map(String::from).to_vec())?;
    tree.property_u32("#address-cells", 0)?;
    tree.property_u32("#interrupt-cells", 1)?;
    tree.end_node(node)
}

fn write_clint(tree: &mut FdtWriter, harts: u32) -> Result<(), Error> {
    let node = tree.begin_node(&format!("clint@{CLINT_BASE:x}"))?;
    write_local_interrupts(tree, harts, [MACHINE_SOFTWARE, MACHINE_TIMER])?;
    tree.property_array_u64("reg", &[CLINT_BASE, CLINT_SIZE])?;
    let compatible = ["sifive,clint0", "riscv,clint0"];
    tree.property_string_list("compatible", compatible.map(String::from).to_vec())?;
    tree.end_node(node)
}
