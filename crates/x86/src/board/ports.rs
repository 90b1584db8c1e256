//! The I/O ports of the board.

/// First port of the UART (COM1).
pub const SERIAL: u16 = 0x3f8;
/// Ports of the UART.
pub const SERIAL_PORTS: u16 = 8;
/// Pin of the I/O APIC that the UART drives.
pub const SERIAL_INTERRUPT: usize = 4;
/// Selects a register of the CMOS clock.
pub const CMOS_INDEX: u16 = 0x70;
/// Reads and writes it.
pub const CMOS_DATA: u16 = 0x71;
/// Data of the keyboard controller, which has no keyboard.
pub const KEYBOARD_DATA: u16 = 0x60;
/// Commands of the keyboard controller.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// Progress codes of firmware, and a write that takes time on old hardware.
pub const DEBUG: u16 = 0x80;
/// Ends the machine with an exit status.
pub const EXIT: u16 = 0xf4;
/// QEMU's pvpanic: the guest says that its kernel panicked.
pub const PANIC: u16 = 0x505;
/// A CPU that writes here waits for its wakeup.
pub const CPU_WAIT: u16 = 0x510;
/// ACPI's sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;
/// ACPI's sleep status register.
pub const SLEEP_STATUS: u16 = 0x601;
/// ACPI's power management timer, 32 bits.
pub const TIMER: u16 = 0x608;
/// The last of its ports.
pub const TIMER_LAST: u16 = 0x60b;
/// The chipset's reset control register.
pub const RESET_CONTROL: u16 = 0xcf9;
/// Which register of PCI's configuration space the data ports are, as 32 bits.
pub const PCI_ADDRESS: u16 = 0xcf8;
/// The data ports.
pub const PCI_DATA: u16 = 0xcfc;
/// The last of them.
pub const PCI_DATA_LAST: u16 = 0xcff;
