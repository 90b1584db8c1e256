use super::*;
use driver::TestBus;
use machine::input::{ClockRecord, DiskStatus};
use machine::output::Output;
use proptest::prelude::*;

// Compiled here once more: as a feature of `devices` it would make another crate of that than the one that ships.
#[allow(dead_code)] // what this board does not need
#[path = "../../../../devices/testing/driver.rs"]
mod driver;

type TestBoard = driver::TestBoard<Bus>;

impl TestBus for Bus {
    fn read(&mut self, slot: usize, register: u64, context: &mut DeviceContext) -> u32 {
        let address = VIRTIO_BASE + slot as u64 * VIRTIO_SLOT_SIZE + register;
        Bus::read(self, address, 4, context).unwrap() as u32
    }

    fn write(&mut self, slot: usize, register: u64, value: u32, context: &mut DeviceContext) {
        let address = VIRTIO_BASE + slot as u64 * VIRTIO_SLOT_SIZE + register;
        Bus::write(self, address, 4, value.into(), context).unwrap();
    }

    fn inject(&mut self, input: &Input, context: &mut DeviceContext) -> Result<(), InputError> {
        Bus::inject(self, input, context)
    }

    fn is_pending(&mut self, slot: usize, context: &mut DeviceContext) -> bool {
        Bus::read(self, PLIC_BASE + 0x1000, 4, context).unwrap() & (2 << slot) != 0
    }
}

fn new_board() -> TestBoard {
    TestBoard::with(
        Bus::new(&BoardConfig {
            harts: 2,
            ..driver::config()
        })
        .unwrap(),
    )
}

fn board(harts: u32) -> BoardConfig {
    BoardConfig {
        harts,
        ..driver::config()
    }
}

fn read(board: &mut TestBoard, address: u64, size: u8) -> Result<u64, AccessFault> {
    let (bus, mut context) = board.parts();
    bus.read(address, size, &mut context)
}

fn write(board: &mut TestBoard, address: u64, size: u8, value: u64) -> Result<(), AccessFault> {
    let (bus, mut context) = board.parts();
    bus.write(address, size, value, &mut context)
}

#[test]
fn boards_that_cannot_be_built_are_refused() {
    let refused = |config: BoardConfig| Bus::new(&config).unwrap_err();
    for bytes in [0, 4095, 4097, LIMITS.memory_bytes + 4096] {
        let config = BoardConfig {
            memory_bytes: bytes,
            ..board(1)
        };
        assert_eq!(
            refused(config),
            BoardConfigError::Memory {
                bytes,
                at_most: LIMITS.memory_bytes
            }
        );
    }
    assert_eq!(
        refused(board(0)),
        BoardConfigError::Harts {
            harts: 0,
            at_most: 512
        }
    );
    assert_eq!(
        refused(board(513)),
        BoardConfigError::Harts {
            harts: 513,
            at_most: 512
        }
    );
    let mut config = board(1);
    config.disks = vec![config.disks[0].clone(); 6];
    assert_eq!(
        refused(config),
        BoardConfigError::TooManyDevices {
            devices: 10,
            slots: 8
        }
    );
    let mut config = board(1);
    config.disks[1].sectors = 1 << 54;
    let error = BoardConfigError::DiskTooLarge {
        disk: 1,
        sectors: 1 << 54,
    };
    assert_eq!(refused(config), error);
    let mut config = board(1);
    config.network[0].mac = [1, 0, 0, 0, 0, 1];
    assert_eq!(refused(config), BoardConfigError::Mac { device: 0 });
}

#[test]
fn addresses_without_a_device_fault_and_so_do_misaligned_ones() {
    let mut board = new_board();
    for address in [
        0,
        0xfff,
        0x1_0000,
        0x10_2002,
        0x10_5000,
        0x1000_0100,
        0x1000_9000,
        0x7fff_ffff,
        u64::MAX,
    ] {
        assert_eq!(
            read(&mut board, address, 1),
            Err(AccessFault { address, size: 1 })
        );
        assert_eq!(
            write(&mut board, address, 1, 0),
            Err(AccessFault { address, size: 1 })
        );
    }
    for (address, size) in [
        (CLINT_BASE + 2, 4),
        (PLIC_BASE + 4, 8),
        (GPIO_BASE, 1),
        (WATCHDOG_BASE, 8),
        (ROM_BASE, 3),
        (ROM_BASE, 0),
    ] {
        assert_eq!(
            read(&mut board, address, size),
            Err(AccessFault { address, size })
        );
    }
}

#[test]
fn the_boot_rom_is_read_in_all_sizes_and_never_written() {
    let mut board = new_board();
    board.bus.set_rom(vec![1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(read(&mut board, ROM_BASE, 8), Ok(0x0807_0605_0403_0201));
    assert_eq!(read(&mut board, ROM_BASE + 6, 2), Ok(0x0807));
    assert_eq!(read(&mut board, ROM_BASE + 8, 8), Ok(9));
    assert_eq!(read(&mut board, ROM_BASE + ROM_SIZE - 8, 8), Ok(0));
    let fault = AccessFault {
        address: ROM_BASE,
        size: 4,
    };
    assert_eq!(write(&mut board, ROM_BASE, 4, 0), Err(fault));
    board.bus.set_rom(vec![0; 0x2_0000]);
    assert_eq!(board.bus.rom().len() as u64, ROM_SIZE);
}

#[test]
fn the_uart_interrupts_the_hart_that_enabled_it() {
    let mut board = new_board();
    write(&mut board, PLIC_BASE + 4 * u64::from(UART_INTERRUPT), 4, 1).unwrap();
    write(
        &mut board,
        PLIC_BASE + 0x2000 + 3 * 0x80,
        4,
        1 << UART_INTERRUPT,
    )
    .unwrap();
    write(&mut board, UART_BASE + 1, 1, 1).unwrap();
    let input = Input::ConsoleBytes {
        console: Console::Uart,
        bytes: b"a".to_vec(),
    };
    board.inject(&input).unwrap();
    assert!(board.bus.supervisor_external_interrupt(1));
    assert!(!board.bus.supervisor_external_interrupt(0));
    assert!(!board.bus.machine_external_interrupt(1));
    let claim = PLIC_BASE + 0x20_0004 + 3 * 0x1000;
    assert_eq!(read(&mut board, claim, 4), Ok(u64::from(UART_INTERRUPT)));
    assert_eq!(read(&mut board, UART_BASE, 1), Ok(u64::from(b'a')));
    write(&mut board, claim, 4, u64::from(UART_INTERRUPT)).unwrap();
    assert!(!board.bus.supervisor_external_interrupt(1));
}

#[test]
fn the_rtc_asks_to_be_woken_and_interrupts() {
    let mut board = new_board();
    write(&mut board, PLIC_BASE + 4 * u64::from(RTC_INTERRUPT), 4, 1).unwrap();
    write(&mut board, PLIC_BASE + 0x2000, 4, 1 << RTC_INTERRUPT).unwrap();
    let alarm = 1_700_000_000_000_000_000u64 + 1_000_000;
    for (register, value) in [(0x10, 1), (0x0c, alarm >> 32), (0x08, alarm & 0xffff_ffff)] {
        write(&mut board, RTC_BASE + register, 4, value).unwrap();
    }
    assert_eq!(board.bus.next_device_timer_ns(), Some(1_000_000));
    board.time_ns = 1_000_000;
    let (bus, mut context) = board.parts();
    bus.time_passed(&mut context);
    assert!(board.bus.machine_external_interrupt(0));
    assert_eq!(board.bus.next_device_timer_ns(), None);
}

#[test]
fn the_finisher_ends_the_machine_once() {
    let mut board = new_board();
    write(&mut board, FINISHER_BASE, 4, 0x0003_3333).unwrap();
    write(&mut board, FINISHER_BASE, 2, 0x5555).unwrap();
    assert_eq!(board.take_outputs(), [Output::Finish(Finish::Fail(3))]);
    assert_eq!(board.bus.finish(), Some(Finish::Fail(3)));
}

#[test]
fn inputs_for_devices_that_are_not_there_are_refused() {
    let mut board = new_board();
    let config = BoardConfig {
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
        network: vec![],
        ..driver::config()
    };
    board.bus = Bus::new(&config).unwrap();
    let before = board.bus.clone();
    for input in [
        Input::NetworkFrame {
            device: 0,
            frame: vec![0; 60],
        },
        Input::ConsoleBytes {
            console: Console::Virtio,
            bytes: vec![1],
        },
        Input::Entropy { bytes: vec![1] },
        Input::DiskCompletion {
            device: 9,
            request: 0,
            status: DiskStatus::Ok,
            data: vec![],
        },
    ] {
        assert!(matches!(
            board.inject(&input),
            Err(InputError::NoSuchDevice { .. })
        ));
    }
    let clock = Input::Clock(ClockRecord {
        time_ns: 0,
        rate: 1,
    });
    assert_eq!(board.inject(&clock), Err(InputError::Clock));
    assert_eq!(board.bus, before);
}

/// What a guest and the world may do to the board.
#[derive(Clone, Debug)]
enum Action {
    Read(u64, u8),
    Write(u64, u8, u64),
    /// A 32-bit write to a virtio register.
    Register(usize, u64, u32),
    /// Bytes in the pages where the queues lie.
    Poke(u64, u64),
    /// A whole valid set-up of a device.
    Start(usize),
    Inject(Input),
    Time(u64),
}

fn device_address() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0u64..0x1_0000).prop_map(|offset| ROM_BASE + offset),
        (0u64..0x2000).prop_map(|offset| FINISHER_BASE + 4 + offset),
        (0u64..0x1_0000).prop_map(|offset| CLINT_BASE + offset),
        (0u64..0x4000).prop_map(|offset| PLIC_BASE + offset),
        (0u64..0x5000).prop_map(|offset| PLIC_BASE + 0x20_0000 + offset),
        (0u64..0x10).prop_map(|offset| UART_BASE + offset),
        (0u64..0x9000).prop_map(|offset| VIRTIO_BASE + offset),
        any::<u64>(),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        (0u8..2, bytes()).prop_map(|(device, frame)| Input::NetworkFrame { device, frame }),
        bytes().prop_map(|bytes| Input::ConsoleBytes {
            console: Console::Uart,
            bytes
        }),
        bytes().prop_map(|bytes| Input::ConsoleBytes {
            console: Console::Virtio,
            bytes
        }),
        bytes().prop_map(|bytes| Input::Entropy { bytes }),
        (0u8..3, 0u64..8, 0usize..3).prop_map(|(device, request, sectors)| {
            let data = vec![0x5a; 512 * sectors];
            Input::DiskCompletion {
                device,
                request,
                status: DiskStatus::Ok,
                data,
            }
        }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let size = || prop_oneof![Just(1u8), Just(2), Just(4), Just(8), any::<u8>()];
    let register = prop_oneof![
        Just(0x50u64), // notify, most often
        Just(0x50),
        Just(0x50),
        (0u64..0x48).prop_map(|index| 4 * index),
    ];
    let value = || prop_oneof![0u32..4, any::<u32>()];
    prop_oneof![
        (device_address(), size()).prop_map(|(address, size)| Action::Read(address, size)),
        (device_address(), size(), any::<u64>())
            .prop_map(|(address, size, value)| Action::Write(address, size, value)),
        (0usize..6, register, value())
            .prop_map(|(slot, register, value)| Action::Register(slot, register, value)),
        (0u64..0x18_0000, poke()).prop_map(|(offset, value)| Action::Poke(offset, value)),
        (0usize..5).prop_map(Action::Start),
        input().prop_map(Action::Inject),
        (0u64..1 << 40).prop_map(Action::Time),
    ]
}

/// Values that mean something in a queue: small numbers, and buffers in RAM.
fn poke() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..0x20,
        (0u64..0x10_0000).prop_map(|offset| driver::BUFFERS + offset),
        (0u64..600, 0u64..8, 0u64..16)
            .prop_map(|(length, flags, next)| { length | flags << 32 | next << 48 }),
        any::<u64>(),
    ]
}

fn perform(board: &mut TestBoard, action: &Action) {
    match *action {
        Action::Read(address, size) => {
            let _ = read(board, address, size);
        }
        Action::Write(address, size, value) => {
            let _ = write(board, address, size, value);
        }
        Action::Register(slot, register, value) => board.write(slot, register, value),
        Action::Poke(offset, value) => {
            let address = driver::RAM_BASE + offset / 8 * 8;
            board.memory.write(address, &value.to_le_bytes()).unwrap();
        }
        Action::Start(slot) => {
            board.negotiate(slot, 1 << 32 | 1 << 28 | 1 << 29);
            for index in 0..2 {
                let mut queue = board.queue(slot, index, 16);
                let disk = slot <= driver::READ_ONLY_DISK;
                if !disk {
                    board.add(&mut queue, &[(driver::BUFFERS, 600, index == 0)]);
                }
                let chain = [
                    (driver::BUFFERS, 16, false),
                    (driver::BUFFERS + 16, 513, true),
                ];
                board.add(&mut queue, &chain);
            }
            board.driver_ok(slot);
        }
        Action::Inject(ref input) => {
            let _ = board.inject(input);
        }
        Action::Time(step) => {
            board.time_ns = board.time_ns.saturating_add(step);
            let (bus, mut context) = board.parts();
            bus.time_passed(&mut context);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever guest and world do: no panic, a bounded state, the same on every run, and a state
    /// that survives a snapshot.
    #[test]
    fn random_actions_never_panic_and_are_deterministic(
        actions in prop::collection::vec(action(), 1..150),
    ) {
        let (mut one, mut two) = (new_board(), new_board());
        for (index, action) in actions.iter().enumerate() {
            perform(&mut one, action);
            perform(&mut two, action);
            if index == actions.len() / 2 {
                let snapshot = postcard::to_stdvec(&two.bus).unwrap();
                two.bus = postcard::from_bytes(&snapshot).unwrap();
            }
        }
        prop_assert_eq!(one.take_outputs(), two.take_outputs());
        prop_assert_eq!(
            postcard::to_stdvec(&one.bus).unwrap(),
            postcard::to_stdvec(&two.bus).unwrap()
        );
        prop_assert!(
            one.memory.slice(driver::RAM_BASE, 8 << 20)
                == two.memory.slice(driver::RAM_BASE, 8 << 20)
        );
        for hart in 0..3 {
            prop_assert_eq!(
                one.bus.supervisor_external_interrupt(hart),
                two.bus.supervisor_external_interrupt(hart)
            );
        }
    }
}

/// A board whose virtio devices are on the PCI bus, and which answers to the lines in S-mode.
fn pci_board() -> TestBoard {
    let config = BoardConfig {
        transport: machine::config::Transport::Pci,
        ..board(1)
    };
    TestBoard::with(Bus::new(&config).unwrap())
}

#[test]
fn a_pci_function_is_found_placed_and_interrupts_by_its_line() {
    const DEVICE_3: u64 = PCI_CONFIGURATION_BASE + (3 << 15);
    let mut board = pci_board();
    assert_eq!(read(&mut board, DEVICE_3, 4), Ok(0x1041_1af4));
    assert_eq!(read(&mut board, DEVICE_3 + 0x34, 1), Ok(0x40));
    write(&mut board, DEVICE_3 + 0x10, 4, PCI_MEMORY_BASE + 0x8000).unwrap();
    write(&mut board, DEVICE_3 + 4, 2, 6).unwrap();
    let window = PCI_MEMORY_BASE + 0x8000;
    assert_eq!(read(&mut board, window + 0x2000, 1), Ok(0x52));
    // A queue that is not RAM, after DRIVER_OK: the device interrupts because it needs a reset.
    for (field, size, value) in [
        (0x14, 1, 3),
        (0x14, 1, 11),
        (0x14, 1, 15),
        (0x20, 4, 0x10),
        (0x1c, 2, 1),
    ] {
        write(&mut board, window + field, size, value).unwrap();
    }
    let pending = PLIC_BASE + 0x1004;
    assert_eq!(read(&mut board, pending, 4), Ok(1 << 3)); // source 32 + 3
    assert_eq!(read(&mut board, window + 0x1000, 1), Ok(2));
    let (bus, _) = board.parts();
    let VirtioBus::Pci(host) = &bus.virtio else {
        panic!("the devices are not on the PCI bus");
    };
    assert_eq!(host.lines(), [false; 4]);
}

#[test]
fn where_no_pci_function_is_all_ones_are_read_and_without_a_bus_accesses_fault() {
    let places = [
        PCI_CONFIGURATION_BASE + (9 << 15),
        PCI_CONFIGURATION_BASE + PCI_CONFIGURATION_SIZE - 8,
        PCI_MEMORY_BASE,
        PCI_MEMORY_BASE + PCI_MEMORY_SIZE - 8,
        PCI_PORTS_BASE,
        PCI_PORTS_BASE + PCI_PORTS_SIZE - 8,
    ];
    let (mut with, mut without) = (pci_board(), new_board());
    for address in places {
        assert_eq!(read(&mut with, address, 8), Ok(u64::MAX));
        assert_eq!(write(&mut with, address, 8, u64::MAX), Ok(()));
        let fault = AccessFault { address, size: 8 };
        assert_eq!(read(&mut without, address, 8), Err(fault));
        assert_eq!(write(&mut without, address, 8, 0), Err(fault));
    }
    let fault = AccessFault {
        address: VIRTIO_BASE,
        size: 4,
    };
    assert_eq!(read(&mut with, VIRTIO_BASE, 4), Err(fault));
    assert_eq!(write(&mut with, VIRTIO_BASE, 4, 0), Err(fault));
}
