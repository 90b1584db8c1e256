//! Section numbers are those of virtio 1.2.

use super::super::driver::*;
use super::super::slots::VirtioSlots;
use super::super::{FEATURE_EVENT_INDEX, FEATURE_VERSION_1};
use super::*;
use crate::pci::host::PciHost;
use machine::input::{Console, DiskStatus, Input};
use machine::output::{Output, Trouble};
use proptest::prelude::*;

type PciBoard = TestBoard<PciHost>;

fn board(has_messages: bool) -> PciBoard {
    TestBoard::with(PciHost::new(&config(), has_messages))
}

fn configuration(board: &mut PciBoard, slot: usize, offset: u16, size: u8) -> u32 {
    let function = board.bus.functions_mut().get_mut(slot).unwrap();
    function.read_configuration(offset, size)
}

fn configure(board: &mut PciBoard, slot: usize, offset: u16, size: u8, value: u32) {
    let (bus, mut context) = board.parts();
    let function = bus.functions_mut().get_mut(slot).unwrap();
    function.write_configuration(offset, size, value, &mut context);
}

fn window(board: &mut PciBoard, slot: usize, offset: u32, size: u8) -> u64 {
    let function = board.bus.functions_mut().get_mut(slot).unwrap();
    function.read(offset, size)
}

fn put(board: &mut PciBoard, slot: usize, offset: u32, size: u8, value: u64) {
    let (bus, mut context) = board.parts();
    let function = bus.functions_mut().get_mut(slot).unwrap();
    function.write(offset, size, value, &mut context);
}

/// The capabilities of a function as a driver finds them: offset and identity.
fn capabilities(board: &mut PciBoard, slot: usize) -> Vec<(u16, u8)> {
    let mut found = Vec::new();
    let mut at = configuration(board, slot, 0x34, 1) as u16;
    while at != 0 {
        found.push((at, configuration(board, slot, at, 1) as u8));
        at = configuration(board, slot, at + 1, 1) as u16;
    }
    found
}

/// Enables MSI-X, with vector `n` unmasked for address 0xfee0_0000 and data 0x40 + n.
fn enable_messages(board: &mut PciBoard, slot: usize, vectors: u64) {
    let msix = capabilities(board, slot)
        .into_iter()
        .find(|(_, id)| *id == 0x11);
    configure(board, slot, msix.unwrap().0 + 2, 2, 0x8000);
    for vector in 0..vectors {
        let entry = VECTORS + 16 * vector as u32;
        put(board, slot, entry, 4, 0xfee0_0000);
        put(board, slot, entry + 8, 4, 0x40 + vector);
        put(board, slot, entry + 12, 4, 0);
    }
}

fn messages(board: &mut PciBoard) -> Vec<u32> {
    std::iter::from_fn(|| board.bus.next_message())
        .map(|message| message.data)
        .collect()
}

fn type_into_console(board: &mut PciBoard) {
    let input = Input::ConsoleBytes {
        console: Console::Virtio,
        bytes: b"x".to_vec(),
    };
    board.inject(&input).unwrap();
}

#[test]
fn section_4_1_2_devices_are_found_by_their_numbers() {
    let mut board = board(true);
    let ids: Vec<u32> = (0..6)
        .map(|slot| configuration(&mut board, slot, 0, 4))
        .collect();
    let expected = [2, 2, 1, 3, 4, 18].map(|kind| (0x1040 + kind) << 16 | 0x1af4);
    assert_eq!(ids, expected);
    for slot in 0..6 {
        assert!(configuration(&mut board, slot, 8, 1) >= 1); // revision
        assert!(configuration(&mut board, slot, 0x2e, 2) >= 0x40); // subsystem
        assert_eq!(configuration(&mut board, slot, 0x3d, 1), 1); // INTA#
    }
    assert_eq!(configuration(&mut board, DISK, 9, 2) >> 8, 0); // class 01 00 00
    assert_eq!(configuration(&mut board, DISK, 0xb, 1), 1);
}

#[test]
fn section_4_1_4_every_structure_has_a_capability_in_the_window() {
    for has_messages in [false, true] {
        let mut board = board(has_messages);
        let mut found = Vec::new();
        for (at, id) in capabilities(&mut board, NETWORK) {
            if id == 9 {
                let kind = configuration(&mut board, NETWORK, at + 3, 1);
                let bar = configuration(&mut board, NETWORK, at + 4, 1);
                let offset = configuration(&mut board, NETWORK, at + 8, 4);
                let length = configuration(&mut board, NETWORK, at + 12, 4);
                assert_eq!(bar, 0);
                assert!(offset + length <= WINDOW_BYTES && offset.is_multiple_of(4));
                let expected = if matches!(kind, 2 | 5) { 20 } else { 16 };
                assert_eq!(configuration(&mut board, NETWORK, at + 2, 1), expected);
                found.push(kind);
            }
        }
        assert_eq!(found, [1, 2, 3, 4, 5]);
        let has_msix = capabilities(&mut board, NETWORK)
            .iter()
            .any(|(_, id)| *id == 0x11);
        assert_eq!(has_msix, has_messages);
    }
}

#[test]
fn section_4_1_4_3_1_the_common_configuration_is_as_after_reset() {
    let mut board = board(true);
    let common = |board: &mut PciBoard, offset, size| window(board, NETWORK, offset, size);
    assert_eq!(common(&mut board, 0x10, 2), 0xffff);
    assert_eq!(common(&mut board, 0x12, 2), 2); // num_queues
    assert_eq!(common(&mut board, 0x14, 1), 0);
    for queue in 0..2 {
        put(&mut board, NETWORK, 0x16, 2, queue);
        assert_eq!(common(&mut board, 0x18, 2), 256);
        assert_eq!(common(&mut board, 0x1a, 2), 0xffff);
        assert_eq!(common(&mut board, 0x1c, 2), 0);
        assert_eq!(common(&mut board, 0x1e, 2), queue);
    }
    put(&mut board, NETWORK, 0x16, 2, 2);
    assert_eq!(common(&mut board, 0x18, 2), 0); // there is no such queue
    assert_eq!(common(&mut board, 0x38, 4), 0);
}

#[test]
fn section_4_1_3_1_fields_are_written_as_a_whole_and_addresses_in_halves() {
    let mut board = board(false);
    put(&mut board, DISK, 0x20, 4, 0x1234_5000);
    put(&mut board, DISK, 0x24, 4, 0x9);
    assert_eq!(window(&mut board, DISK, 0x20, 8), 0x9_1234_5000);
    put(&mut board, DISK, 0x28, 8, 0xa_0000_2000);
    assert_eq!(window(&mut board, DISK, 0x2c, 4), 0xa);
    put(&mut board, DISK, 0x20, 2, 0xffff);
    put(&mut board, DISK, 0x14, 4, 3); // the status is a byte
    assert_eq!(window(&mut board, DISK, 0x20, 4), 0x1234_5000);
    assert_eq!(window(&mut board, DISK, 0x14, 1), 0);
}

#[test]
fn section_4_1_4_5_reading_the_interrupt_status_clears_it_and_its_line() {
    let mut board = board(false);
    let [mut receive, _transmit] = board.start(CONSOLE, 0);
    board.add(&mut receive, &[(BUFFERS, 16, true)]);
    board.notify(&receive);
    assert!(!board.is_pending(CONSOLE));
    type_into_console(&mut board);
    assert!(board.is_pending(CONSOLE));
    assert_eq!(board.bus.lines(), [true, false, false, false]); // device 4
    assert_eq!(configuration(&mut board, CONSOLE, 6, 2) & 8, 8);
    assert_eq!(window(&mut board, CONSOLE, 0x1000, 1), 1);
    assert_eq!(window(&mut board, CONSOLE, 0x1000, 1), 0);
    assert_eq!(board.bus.lines(), [false; 4]);
    assert_eq!(configuration(&mut board, CONSOLE, 6, 2) & 8, 0);
}

#[test]
fn a_line_that_is_disabled_by_the_command_register_stays_low() {
    let mut board = board(false);
    let [mut receive, _transmit] = board.start(CONSOLE, 0);
    board.add(&mut receive, &[(BUFFERS, 16, true)]);
    board.notify(&receive);
    configure(&mut board, CONSOLE, 4, 2, 0x406);
    type_into_console(&mut board);
    assert!(!board.is_pending(CONSOLE));
    assert_eq!(configuration(&mut board, CONSOLE, 6, 2) & 8, 8); // it says that it wants
    configure(&mut board, CONSOLE, 4, 2, 6);
    assert!(board.is_pending(CONSOLE));
}

#[test]
fn section_4_1_5_1_2_1_a_vector_that_there_is_not_reads_as_none() {
    let mut board = board(true);
    put(&mut board, DISK, 0x10, 2, 1);
    assert_eq!(window(&mut board, DISK, 0x10, 2), 1);
    put(&mut board, DISK, 0x10, 2, 2); // one queue and the configuration: vectors 0 and 1
    assert_eq!(window(&mut board, DISK, 0x10, 2), 0xffff);
    put(&mut board, DISK, 0x1a, 2, 0);
    assert_eq!(window(&mut board, DISK, 0x1a, 2), 0);
    put(&mut board, DISK, 0x14, 1, 0);
    assert_eq!(window(&mut board, DISK, 0x1a, 2), 0xffff);
}

#[test]
fn section_4_1_5_3_used_buffers_are_told_by_the_queues_message_and_not_by_the_line() {
    let mut board = board(true);
    let [mut receive, _transmit] = board.start(CONSOLE, 0);
    enable_messages(&mut board, CONSOLE, 3);
    put(&mut board, CONSOLE, 0x16, 2, 0);
    put(&mut board, CONSOLE, 0x1a, 2, 2);
    board.add(&mut receive, &[(BUFFERS, 16, true)]);
    board.notify(&receive);
    type_into_console(&mut board);
    assert_eq!(messages(&mut board), [0x42]);
    assert!(!board.is_pending(CONSOLE));
    assert_eq!(window(&mut board, CONSOLE, 0x1000, 1), 0);
    assert_eq!(board.bytes(BUFFERS, 1), b"x");
}

#[test]
fn section_4_1_5_4_a_need_for_reset_is_told_by_the_configurations_message() {
    let mut board = board(true);
    let [_, mut transmit] = board.start(CONSOLE, 0);
    enable_messages(&mut board, CONSOLE, 3);
    put(&mut board, CONSOLE, 0x10, 2, 1);
    board.publish(&mut transmit, 99);
    board.notify(&transmit);
    assert!(board.needs_reset(CONSOLE));
    assert_eq!(messages(&mut board), [0x41]);
    assert!(matches!(
        board.take_outputs()[..],
        [Output::Trouble(Trouble::DriverFault { .. })]
    ));
    put(&mut board, CONSOLE, 0x14, 1, 0);
    assert!(!board.needs_reset(CONSOLE));
}

#[test]
fn a_masked_vector_waits_in_the_pending_bits() {
    let mut board = board(true);
    let [mut receive, _transmit] = board.start(CONSOLE, 0);
    enable_messages(&mut board, CONSOLE, 3);
    put(&mut board, CONSOLE, 0x16, 2, 0);
    put(&mut board, CONSOLE, 0x1a, 2, 1);
    put(&mut board, CONSOLE, VECTORS + 16 + 12, 4, 1); // masked
    board.add(&mut receive, &[(BUFFERS, 16, true)]);
    board.notify(&receive);
    type_into_console(&mut board);
    assert!(messages(&mut board).is_empty());
    let pending = VECTORS + msix::PENDING as u32;
    assert_eq!(window(&mut board, CONSOLE, pending, 8), 2);
    put(&mut board, CONSOLE, VECTORS + 16 + 12, 4, 0);
    assert_eq!(messages(&mut board), [0x41]);
    assert_eq!(window(&mut board, CONSOLE, pending, 4), 0);
}

#[test]
fn a_function_that_is_masked_or_no_bus_master_sends_nothing_until_it_may() {
    let mut board = board(true);
    let [mut receive, _transmit] = board.start(CONSOLE, 0);
    enable_messages(&mut board, CONSOLE, 3);
    put(&mut board, CONSOLE, 0x16, 2, 0);
    put(&mut board, CONSOLE, 0x1a, 2, 0);
    let msix = capabilities(&mut board, CONSOLE).last().unwrap().0;
    configure(&mut board, CONSOLE, msix + 2, 2, 0xc000);
    board.add(&mut receive, &[(BUFFERS, 16, true)]);
    board.notify(&receive);
    type_into_console(&mut board);
    assert!(messages(&mut board).is_empty());
    configure(&mut board, CONSOLE, 4, 2, 2);
    configure(&mut board, CONSOLE, msix + 2, 2, 0x8000);
    assert!(messages(&mut board).is_empty());
    configure(&mut board, CONSOLE, 4, 2, 6);
    assert_eq!(messages(&mut board), [0x40]);
}

#[test]
fn a_device_that_is_no_bus_master_leaves_memory_alone_and_goes_on_when_it_is_one() {
    let mut board = board(false);
    let [_, mut transmit] = board.start(CONSOLE, 0);
    configure(&mut board, CONSOLE, 4, 2, 2);
    board.memory.write(BUFFERS, b"hello").unwrap();
    board.add(&mut transmit, &[(BUFFERS, 5, false)]);
    put(&mut board, CONSOLE, NOTIFY + 4, 2, 1);
    assert!(board.take_outputs().is_empty());
    assert!(board.used(&mut transmit).is_empty());
    configure(&mut board, CONSOLE, 4, 2, 6);
    assert_eq!(board.take_outputs().len(), 1);
    assert_eq!(board.used(&mut transmit).len(), 1);
}

#[test]
fn section_4_1_4_9_configuration_space_leads_into_the_window() {
    let mut board = board(false);
    let access = capabilities(&mut board, NETWORK)[4].0;
    let mut at = |offset: u32, length: u32| {
        configure(&mut board, NETWORK, access + 4, 1, 0);
        configure(&mut board, NETWORK, access + 8, 4, offset);
        configure(&mut board, NETWORK, access + 12, 4, length);
        configuration(&mut board, NETWORK, access + 16, length as u8)
    };
    assert_eq!(at(0x12, 2), 2); // num_queues
    assert_eq!(at(0x2000, 1), 0x52); // the MAC address
    assert_eq!(at(0x2002, 4), 0x52); // not a multiple of the length: the data stays as it was
    assert_eq!(at(0x14, 1), 0);
    configure(&mut board, NETWORK, access + 16, 1, 3);
    assert_eq!(window(&mut board, NETWORK, 0x14, 1), 3);
    // Another window than there is, or a length that is none, leads nowhere.
    configure(&mut board, NETWORK, access + 4, 1, 1);
    configure(&mut board, NETWORK, access + 16, 1, 0);
    configure(&mut board, NETWORK, access + 4, 1, 0);
    configure(&mut board, NETWORK, access + 12, 4, 3);
    configure(&mut board, NETWORK, access + 16, 4, 0);
    assert_eq!(window(&mut board, NETWORK, 0x14, 1), 3);
}

#[test]
fn section_2_2_features_are_negotiated_as_behind_the_other_transport() {
    let mut board = board(false);
    assert!(board.negotiate(NETWORK, FEATURE_VERSION_1 | FEATURE_EVENT_INDEX));
    put(&mut board, NETWORK, 8, 4, 0);
    assert_eq!(window(&mut board, NETWORK, 0x0c, 4), FEATURE_EVENT_INDEX);
    put(&mut board, NETWORK, 8, 4, 1);
    assert_eq!(window(&mut board, NETWORK, 0x0c, 4), 1);
    assert!(!board.negotiate(NETWORK, FEATURE_VERSION_1 | 1));
}

/// What a driver and the outside do to a device.
#[derive(Clone, Debug)]
enum Step {
    Reset(usize),
    Start(usize, bool),
    Add(usize, usize, u32, bool),
    Publish(usize, usize, u16),
    Notify(usize, u32),
    Frame(Vec<u8>),
    Typed(Vec<u8>),
    Completion(u64, DiskStatus),
    Entropy(u8),
    Press,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slot = || 0usize..6;
    let status = prop_oneof![Just(DiskStatus::Ok), Just(DiskStatus::IoError)];
    let step = prop_oneof![
        1 => slot().prop_map(Step::Reset),
        3 => (slot(), any::<bool>()).prop_map(|(slot, events)| Step::Start(slot, events)),
        6 => (slot(), 0usize..2, 0u32..2000, any::<bool>())
            .prop_map(|(slot, queue, length, write)| Step::Add(slot, queue, length, write)),
        1 => (slot(), 0usize..2, 0u16..20)
            .prop_map(|(slot, queue, head)| Step::Publish(slot, queue, head)),
        6 => (slot(), 0u32..3).prop_map(|(slot, queue)| Step::Notify(slot, queue)),
        2 => proptest::collection::vec(any::<u8>(), 10..200).prop_map(Step::Frame),
        2 => proptest::collection::vec(any::<u8>(), 1..20).prop_map(Step::Typed),
        2 => (0u64..5, status).prop_map(|(request, status)| Step::Completion(request, status)),
        1 => (1u8..64).prop_map(Step::Entropy),
        1 => Just(Step::Press),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Does the steps; what came out, and what the driver and RAM saw at the end.
fn carry_out<B: TestBus>(mut board: TestBoard<B>, steps: &[Step]) -> (Vec<String>, Vec<u8>) {
    let mut queues: Vec<Vec<DriverQueue>> = (0..6).map(|_| Vec::new()).collect();
    let mut seen = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Reset(slot) => {
                board.write(*slot, 0x70, 0);
                queues[*slot].clear();
            }
            Step::Start(slot, events) => {
                let features = if *events { FEATURE_EVENT_INDEX } else { 0 };
                assert!(board.negotiate(*slot, features | FEATURE_VERSION_1));
                queues[*slot] = (0..2).map(|index| board.queue(*slot, index, 16)).collect();
                board.driver_ok(*slot);
            }
            Step::Add(slot, queue, length, write) => {
                if let Some(queue) = queues[*slot].get_mut(*queue) {
                    let at = BUFFERS + 0x1000 * number as u64;
                    board.add(
                        queue,
                        &[
                            (at, 16, false),
                            (at + 16, *length, *write),
                            (at + 0xff0, 1, true),
                        ],
                    );
                }
            }
            Step::Publish(slot, queue, head) => {
                if let Some(queue) = queues[*slot].get_mut(*queue) {
                    board.publish(queue, *head);
                }
            }
            Step::Notify(slot, queue) => board.write(*slot, 0x50, *queue),
            Step::Frame(frame) => {
                let frame = frame.clone();
                let _ = board.inject(&Input::NetworkFrame { device: 0, frame });
            }
            Step::Typed(bytes) => {
                let (console, bytes) = (Console::Virtio, bytes.clone());
                let _ = board.inject(&Input::ConsoleBytes { console, bytes });
            }
            Step::Completion(request, status) => {
                let (request, status) = (*request, *status);
                let input = Input::DiskCompletion {
                    device: 0,
                    request,
                    status,
                    data: vec![],
                };
                seen.push(format!("{:?}", board.inject(&input)));
            }
            Step::Entropy(length) => {
                let bytes = vec![7; usize::from(*length)];
                seen.push(format!("{:?}", board.inject(&Input::Entropy { bytes })));
            }
            Step::Press => board.inject(&Input::PowerButton).unwrap(),
        }
        for slot in 0..6 {
            seen.push(format!(
                "{} {}",
                board.is_pending(slot),
                board.read(slot, 0x70)
            ));
            seen.push(board.acknowledge(slot).to_string());
        }
        seen.push(format!("{:?}", board.take_outputs()));
    }
    let ram = board.bytes(RAM_BASE, BUFFERS - RAM_BASE + 0x1000 * steps.len() as u64);
    (seen, ram)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_device_does_the_same_behind_either_transport(steps in steps()) {
        let memory_mapped = carry_out(TestBoard::with(VirtioSlots::new(&config())), &steps);
        let pci = carry_out(board(true), &steps);
        prop_assert_eq!(memory_mapped.0, pci.0);
        prop_assert!(memory_mapped.1 == pci.1, "RAM differs");
    }
}
