use super::*;
use crate::bus::Bus;
use crate::ram::Ram;
use machine::clock::Clock;
use machine::output::{Output, Outputs};
use proptest::prelude::*;

/// With a disk, a network device and a source of random bytes.
fn config() -> BoardConfig {
    BoardConfig {
        memory_bytes: 1 << 20,
        harts: 1,
        network: vec![machine::config::NetworkConfig {
            mac: [0x52, 0x54, 0, 0, 0, 1],
        }],
        disks: vec![machine::config::DiskConfig {
            sectors: 64,
            read_only: false,
            serial: "disk".into(),
        }],
        virtio_console: false,
        entropy: true,
        transport: Default::default(),
    }
}

/// What these devices look into: nothing.
fn no_ram() -> Ram {
    Ram::new(crate::ram::PAGE_SIZE)
}

/// A board with all that it stands in.
struct Bench {
    board: Board,
    outputs: Outputs,
    clock: Clock,
}

impl Bench {
    fn new() -> Bench {
        Bench::of(&config())
    }

    /// With the virtio devices on the PCI bus.
    fn with_pci() -> Bench {
        Bench::of(&BoardConfig {
            transport: machine::config::Transport::Pci,
            ..config()
        })
    }

    fn of(config: &BoardConfig) -> Bench {
        let mut bench = Bench {
            board: Board::new(config),
            outputs: Outputs::default(),
            clock: Clock::new(), // 4 ns an instruction
        };
        bench
            .bus()
            .write_device(&mut no_ram(), APIC + 0xf0, 4, 0x1ff, 0);
        bench
    }

    fn bus(&mut self) -> BoardBus<'_> {
        let surroundings = Surroundings {
            outputs: &mut self.outputs,
            clock: &self.clock,
            unix_base_ns: 1_709_210_096_000_000_000,
        };
        BoardBus::new(&mut self.board, 0, surroundings)
    }

    fn inject(&mut self, input: &Input) -> Result<(), InputError> {
        let mut surroundings = Surroundings {
            outputs: &mut self.outputs,
            clock: &self.clock,
            unix_base_ns: 0,
        };
        let mut ram = no_ram();
        let mut context = surroundings.context(&mut ram, 0);
        self.board.inject(input, &mut context)
    }

    fn route(&mut self, pin: u64, low: u64) {
        let mut bus = self.bus();
        bus.write_device(&mut no_ram(), IO_APIC, 4, 0x10 + 2 * pin, 0);
        bus.write_device(&mut no_ram(), IO_APIC + 0x10, 4, low, 0);
    }
}

const APIC: u64 = local_apic::LOCAL_APIC_BASE;
const IO_APIC: u64 = io_apic::IO_APIC_BASE;
const SERIAL: u16 = ports::SERIAL;

#[test]
fn a_received_byte_interrupts_through_both_controllers() {
    let mut bench = Bench::new();
    bench.route(4, 0x34);
    let mut bus = bench.bus();
    bus.write_port(&mut no_ram(), SERIAL + 1, 1, 0x01, 10);
    assert!(!bus.wants_attention());
    let input = Input::ConsoleBytes {
        console: Console::Uart,
        bytes: b"x".to_vec(),
    };
    bench.inject(&input).unwrap();
    let mut bus = bench.bus();
    assert_eq!(bus.pending_interrupt(), Some(0x34));
    assert_eq!(bus.acknowledge_interrupt(), 0x34);
    assert_eq!(bus.read_port(&mut no_ram(), SERIAL, 1, 11), u32::from(b'x'));
    bus.write_device(&mut no_ram(), APIC + 0xb0, 4, 0, 12);
    assert_eq!(bus.pending_interrupt(), None);
}

#[test]
fn a_level_interrupts_again_after_its_end() {
    let mut bench = Bench::new();
    bench.route(4, 0x8034);
    let mut bus = bench.bus();
    bus.write_port(&mut no_ram(), SERIAL + 1, 1, 0x02, 10); // the transmitter is empty
    assert!(bus.wants_attention());
    assert_eq!(bus.acknowledge_interrupt(), 0x34);
    assert_eq!(bus.pending_interrupt(), None);
    bus.write_device(&mut no_ram(), APIC + 0xb0, 4, 0, 12);
    assert_eq!(bus.pending_interrupt(), Some(0x34));
}

#[test]
fn a_timer_that_is_set_wants_attention_and_counts_guest_time() {
    let mut bench = Bench::new();
    let mut bus = bench.bus();
    bus.write_device(&mut no_ram(), APIC + 0x320, 4, 0xec, 0);
    bus.write_device(&mut no_ram(), APIC + 0x3e0, 4, 0xb, 0);
    assert!(!bus.wants_attention());
    bus.write_device(&mut no_ram(), APIC + 0x380, 4, 1000, 100);
    assert!(bus.wants_attention());
    assert_eq!(bus.read_device(&mut no_ram(), APIC + 0x390, 4, 110), 960);
    assert_eq!(bench.board.next_timer_ns(), Some(1400));
    bench.board.time_passed(1400);
    assert_eq!(bench.bus().pending_interrupt(), Some(0xec));
}

#[test]
fn printed_bytes_leave_and_wake_nobody() {
    let mut bench = Bench::new();
    let mut bus = bench.bus();
    bus.write_port(&mut no_ram(), SERIAL, 1, u32::from(b'o'), 0);
    bus.write_port(&mut no_ram(), SERIAL, 1, u32::from(b'k'), 1);
    assert!(!bus.wants_attention());
    let [Output::ConsoleBytes { bytes, .. }] = &bench.outputs.take()[..] else {
        panic!("something else came out");
    };
    assert_eq!(bytes, b"ok");
}

/// ACPI 6.5, section 4.8.2.1; a narrower access gets its part.
#[test]
fn the_power_management_timer_counts_guest_time() {
    let mut bench = Bench::new();
    let mut bus = bench.bus();
    let second = 250_000_000; // of 4 ns
    assert_eq!(bus.read_port(&mut no_ram(), 0x608, 4, 0), 0);
    assert_eq!(bus.read_port(&mut no_ram(), 0x608, 4, second), 3_579_545);
    assert_eq!(
        bus.read_port(&mut no_ram(), 0x60a, 2, second),
        3_579_545 >> 16
    );
    bus.write_port(&mut no_ram(), 0x608, 4, 7, second);
    assert_eq!(bus.read_port(&mut no_ram(), 0x608, 4, second), 3_579_545);
}

/// EDK2 knows the board by its bridge (`PlatformInitLib`, `INTEL_Q35_MCH_DEVICE_ID` and others), and places windows
/// from 3 GiB on: also where the other transport has its slots.
#[test]
fn the_pci_bus_is_the_one_that_edk2_knows() {
    let mut bench = Bench::with_pci();
    let mut bus = bench.bus();
    let config = |device: u64, register: u64| PCI_CONFIGURATION_BASE + (device << 15) + register;
    let mut ram = no_ram();
    assert_eq!(bus.read_device(&mut ram, config(0, 0), 4, 0), 0x0d57_8086);
    for place in [0xc000_0000, VIRTIO_BASE, 0xdfff_8000u64] {
        bus.write_device(&mut ram, config(1, 0x10), 4, place, 0);
        bus.write_device(&mut ram, config(1, 4), 2, 2, 0);
        let device_status = place + 20; // section 4.1.4.3 of virtio 1.2
        bus.write_device(&mut ram, device_status, 1, 1, 0);
        assert_eq!(bus.read_device(&mut ram, device_status, 1, 0), 1);
        bus.write_device(&mut ram, device_status, 1, 0, 0);
        assert_eq!(bus.read_device(&mut ram, device_status, 1, 0), 0);
    }
}

#[test]
fn the_end_wants_attention() {
    let mut bench = Bench::new();
    let mut bus = bench.bus();
    bus.write_port(&mut no_ram(), ports::SLEEP_CONTROL, 1, 5 << 2 | 1 << 5, 0);
    assert!(bus.wants_attention());
    assert_eq!(bench.board.finish(), Some(Finish::PowerOff));
}

#[test]
fn where_nobody_is_all_ones_are_read() {
    let mut bench = Bench::new();
    let mut bus = bench.bus();
    for (size, ones) in [(1, 0xff), (2, 0xffff), (4, 0xffff_ffff), (8, u64::MAX)] {
        assert_eq!(bus.read_device(&mut no_ram(), 0xd800_0000, size, 0), ones);
        bus.write_device(&mut no_ram(), 0xd800_0000, size, 0, 0);
    }
    assert_eq!(bus.read_port(&mut no_ram(), 0xcf8, 4, 0), u32::MAX);
    assert_eq!(
        bus.read_port(&mut no_ram(), ports::KEYBOARD_COMMAND, 1, 0),
        0
    );
}

#[test]
fn the_clock_tells_the_time_of_day() {
    let mut bench = Bench::new();
    let mut bus = bench.bus();
    let a_minute_later = 60_000_000_000 / 4;
    bus.write_port(&mut no_ram(), ports::CMOS_INDEX, 1, 2, 0);
    assert_eq!(bus.read_port(&mut no_ram(), ports::CMOS_DATA, 1, 0), 0x34);
    assert_eq!(
        bus.read_port(&mut no_ram(), ports::CMOS_DATA, 1, a_minute_later),
        0x35
    );
}

#[test]
fn an_access_beside_a_register_gets_its_part() {
    let mut bench = Bench::new();
    let mut bus = bench.bus();
    assert_eq!(
        bus.read_device(&mut no_ram(), APIC + 0x30, 4, 0),
        0x0005_0014
    );
    assert_eq!(bus.read_device(&mut no_ram(), APIC + 0x32, 1, 0), 0x05);
    assert_eq!(
        bus.read_device(&mut no_ram(), APIC + 0x30, 8, 0),
        0x0005_0014
    );
    assert_eq!(bus.read_device(&mut no_ram(), APIC + 0x38, 4, 0), 0);
}

#[test]
fn virtio_slots_answer_where_the_tables_say() {
    let mut bench = Bench::new();
    assert_eq!(bench.board.description().virtio_slots, 4);
    let mut bus = bench.bus();
    let mut device_id = |slot| {
        let base = virtio_slot_base(slot);
        assert_eq!(bus.read_device(&mut no_ram(), base, 4, 0), 0x7472_6976);
        bus.read_device(&mut no_ram(), base + 8, 4, 0)
    };
    assert_eq!([0, 1, 2, 3, 4].map(&mut device_id), [2, 1, 4, 18, 0]);
}

#[test]
fn an_input_for_a_device_that_is_not_there_is_refused() {
    let mut bench = Bench::new();
    let input = Input::NetworkFrame {
        device: 1,
        frame: vec![0; 60],
    };
    assert!(matches!(
        bench.inject(&input),
        Err(InputError::NoSuchDevice { device: 1, .. })
    ));
}

const ECAM: u64 = PCI_CONFIGURATION_BASE;

#[test]
fn pci_functions_are_found_in_memory_and_through_ports() {
    let mut bench = Bench::with_pci();
    assert_eq!(bench.board.description().pci_functions, Some(4));
    assert_eq!(bench.board.description().virtio_slots, 0);
    let mut bus = bench.bus();
    let mut ram = no_ram();
    for (device, id) in [
        0x0d57_8086,
        0x1042_1af4,
        0x1041_1af4,
        0x1044_1af4,
        0x1052_1af4,
        0xffff_ffff,
    ]
    .into_iter()
    .enumerate()
    {
        let device = device as u64;
        assert_eq!(bus.read_device(&mut ram, ECAM + (device << 15), 4, 0), id);
        bus.write_port(
            &mut ram,
            ports::PCI_ADDRESS,
            4,
            1 << 31 | (device as u32) << 11,
            0,
        );
        assert_eq!(
            u64::from(bus.read_port(&mut ram, ports::PCI_DATA, 4, 0)),
            id
        );
        let upper = bus.read_port(&mut ram, ports::PCI_DATA + 2, 2, 0);
        assert_eq!(u64::from(upper), id >> 16);
    }
    assert_eq!(
        bus.read_device(&mut ram, virtio_slot_base(0), 4, 0),
        0xffff_ffff
    );
    // The byte in the middle of the address is the register for resets.
    bus.write_port(&mut ram, ports::RESET_CONTROL, 1, 0x02, 0);
    bus.write_port(
        &mut ram,
        ports::RESET_CONTROL,
        1,
        power::RESET_VALUE.into(),
        0,
    );
    assert!(bench.board.asks_for_reset());
}

/// Has the network device, which is device 2, ask for a reset after DRIVER_OK.
fn break_the_network_device(bus: &mut BoardBus, ram: &mut Ram) {
    let window = PCI_MEMORY_BASE + 0x8000;
    for (field, size, value) in [
        (0x14, 1, 3),
        (0x14, 1, 11),
        (0x14, 1, 15),
        (0x20, 4, 0x8),
        (0x1c, 2, 1),
    ] {
        bus.write_device(ram, window + field, size, value, 0);
    }
}

#[test]
fn a_pci_function_interrupts_by_its_line() {
    let mut bench = Bench::with_pci();
    bench.route(18, 0x8041); // device 2
    let mut bus = bench.bus();
    let mut ram = no_ram();
    break_the_network_device(&mut bus, &mut ram);
    assert!(bus.wants_attention());
    assert_eq!(bus.acknowledge_interrupt(), 0x41);
    assert_eq!(bus.read_device(&mut ram, PCI_MEMORY_BASE + 0x9000, 1, 0), 2);
    bus.write_device(&mut ram, APIC + 0xb0, 4, 0, 12);
    assert_eq!(bus.pending_interrupt(), None);
}

#[test]
fn a_pci_function_interrupts_by_message_without_the_io_apic() {
    let mut bench = Bench::with_pci();
    let mut bus = bench.bus();
    let mut ram = no_ram();
    let space = ECAM + (2 << 15);
    let mut msix = bus.read_device(&mut ram, space + 0x34, 1, 0);
    while bus.read_device(&mut ram, space + msix, 1, 0) != 0x11 {
        msix = bus.read_device(&mut ram, space + msix + 1, 1, 0);
    }
    bus.write_device(&mut ram, space + msix + 2, 2, 0x8000, 0);
    bus.write_device(&mut ram, space + 4, 2, 6, 0);
    let window = PCI_MEMORY_BASE + 0x8000;
    bus.write_device(&mut ram, window + 0x4010, 8, 0xfee0_0000, 0);
    bus.write_device(&mut ram, window + 0x4018, 4, 0x51, 0);
    bus.write_device(&mut ram, window + 0x401c, 4, 0, 0);
    bus.write_device(&mut ram, window + 0x10, 2, 1, 0);
    assert!(!bus.wants_attention());
    break_the_network_device(&mut bus, &mut ram);
    assert!(bus.wants_attention());
    assert_eq!(bus.acknowledge_interrupt(), 0x51);
    assert_eq!(bus.pending_interrupt(), None);
}

#[test]
fn a_board_begins_anew_with_its_windows_placed() {
    let config = BoardConfig {
        transport: machine::config::Transport::Pci,
        ..config()
    };
    let mut bench = Bench::of(&config);
    bench
        .bus()
        .write_device(&mut no_ram(), ECAM + (1 << 15) + 0x10, 4, 0, 0);
    let board = bench.board.after_reset(&config);
    assert_eq!(board, Board::new(&config));
}

/// What a guest may reach: ports, and all that is not RAM below 4 GiB.
#[derive(Clone, Copy, Debug)]
enum Access {
    ReadPort(u16, usize),
    WritePort(u16, usize, u32),
    Read(u64, usize),
    Write(u64, usize, u64),
}

fn accesses() -> impl Strategy<Value = Vec<Access>> {
    let port = || {
        prop_oneof![
            any::<u16>(),
            0x70u16..0x72,
            0x3f8u16..0x400,
            0x500u16..0x610,
            0xcf8u16..0xd00
        ]
    };
    let port_size = || prop_oneof![Just(1usize), Just(2), Just(4)];
    let address = || {
        prop_oneof![
            0xc000_0000u64..0x1_0000_0000,
            ECAM..ECAM + 0x3_0000,
            PCI_MEMORY_BASE..PCI_MEMORY_BASE + 0x3_0000,
            IO_APIC..IO_APIC + 0x20,
            APIC..APIC + 0x400,
        ]
    };
    let sized = || {
        (address(), 0u32..4).prop_map(|(address, exponent)| {
            let size = 1u64 << exponent;
            (address / size * size, size as usize)
        })
    };
    let value = || prop_oneof![any::<u64>(), 0u64..64, address()];
    let access = prop_oneof![
        (port(), port_size()).prop_map(|(port, size)| Access::ReadPort(port, size)),
        (port(), port_size(), any::<u32>())
            .prop_map(|(port, size, value)| Access::WritePort(port, size, value)),
        sized().prop_map(|(address, size)| Access::Read(address, size)),
        (sized(), value()).prop_map(|((address, size), value)| Access::Write(address, size, value)),
    ];
    prop::collection::vec(access, 1..60)
}

proptest! {
    /// No guest brings down its host, and the same accesses are answered the same.
    #[test]
    fn any_accesses_are_answered_and_the_same_twice(accesses in accesses()) {
        let answers = || {
            let mut bench = Bench::with_pci();
            let mut ram = no_ram();
            let mut bus = bench.bus();
            let mut read = Vec::new();
            for (now, access) in (0..).step_by(1000).zip(&accesses) {
                match *access {
                    Access::ReadPort(port, size) => {
                        read.push(u64::from(bus.read_port(&mut ram, port, size, now)));
                    }
                    Access::WritePort(port, size, value) => {
                        bus.write_port(&mut ram, port, size, value, now);
                    }
                    Access::Read(address, size) => {
                        read.push(bus.read_device(&mut ram, address, size, now));
                    }
                    Access::Write(address, size, value) => {
                        bus.write_device(&mut ram, address, size, value, now);
                    }
                }
            }
            (read, bench.board)
        };
        prop_assert!(answers() == answers());
    }
}
