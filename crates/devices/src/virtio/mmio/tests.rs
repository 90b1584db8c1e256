use super::super::driver::*;
use super::super::{FEATURE_EVENT_INDEX, FEATURE_INDIRECT_DESCRIPTORS, FEATURE_VERSION_1};
use super::*;
use machine::output::{Output, Trouble};

#[test]
fn section_4_2_2_identifies_each_device_and_empty_slots() {
    let mut board = TestBoard::new();
    let ids: Vec<u32> = (0..8).map(|slot| board.read(slot, 0x08)).collect();
    assert_eq!(ids, [2, 2, 1, 3, 4, 18, 0, 0]);
    for slot in 0..8 {
        assert_eq!(board.read(slot, 0x00), 0x7472_6976);
        assert_eq!(board.read(slot, 0x04), 2);
    }
    assert_eq!(board.read(DISK, 0xb0), u32::MAX);
    assert_eq!(board.read(DISK, 0xb4), u32::MAX);
}

#[test]
fn section_2_2_features_are_offered_in_halves_and_only_a_subset_is_accepted() {
    let mut board = TestBoard::new();
    board.write(NETWORK, 0x14, 0);
    let low = board.read(NETWORK, 0x10);
    assert_eq!(low, 1 << 5 | 1 << 15 | 1 << 16 | 1 << 28 | 1 << 29);
    board.write(NETWORK, 0x14, 1);
    assert_eq!(board.read(NETWORK, 0x10), 1);
    board.write(NETWORK, 0x14, 2);
    assert_eq!(board.read(NETWORK, 0x10), 0);
    assert!(board.negotiate(NETWORK, FEATURE_VERSION_1 | u64::from(low)));
    assert!(board.negotiate(NETWORK, 0)); // xv6
    assert!(!board.negotiate(NETWORK, FEATURE_VERSION_1 | 1)); // checksum offload
    assert!(!board.negotiate(NETWORK, FEATURE_VERSION_1 << 1));
}

#[test]
fn section_3_1_1_features_are_fixed_by_features_ok() {
    let mut board = TestBoard::new();
    assert!(board.negotiate(DISK, FEATURE_VERSION_1));
    board.write(DISK, 0x24, 0);
    board.write(DISK, 0x20, 0xffff_ffff);
    board.write(DISK, 0x70, 15);
    assert_eq!(board.read(DISK, 0x70), 15);
    board.write(DISK, 0x70, 0);
    board.write(DISK, 0x70, 7); // DRIVER_OK without FEATURES_OK
    assert_eq!(board.read(DISK, 0x70), 3);
}

#[test]
fn section_4_2_2_2_queue_registers_are_fixed_while_the_queue_is_ready() {
    let mut board = TestBoard::new();
    board.negotiate(DISK, FEATURE_VERSION_1);
    let mut queue = board.queue(DISK, 0, 16);
    assert_eq!(board.read(DISK, 0x44), 1);
    board.write(DISK, 0x80, 0xdead_0000);
    board.write(DISK, 0x38, 3);
    board.driver_ok(DISK);
    board.add(
        &mut queue,
        &[(BUFFERS, 16, false), (BUFFERS + 16, 21, true)],
    );
    board.memory.write(BUFFERS, &8u32.to_le_bytes()).unwrap(); // GET_ID
    board.notify(&queue);
    assert_eq!(board.used(&mut queue), [(0, 21)]);
    board.write(DISK, 0x30, 1); // there is no such queue
    assert_eq!(board.read(DISK, 0x34), 0);
    board.write(DISK, 0x44, 1);
    assert_eq!(board.read(DISK, 0x44), 0);
    assert!(!board.needs_reset(DISK));
}

#[test]
fn section_2_1_2_nothing_is_consumed_before_driver_ok_and_all_of_it_then() {
    let mut board = TestBoard::new();
    board.negotiate(CONSOLE, FEATURE_VERSION_1);
    let mut queue = board.queue(CONSOLE, 1, 16);
    board.memory.write(BUFFERS, b"hello").unwrap();
    board.add(&mut queue, &[(BUFFERS, 5, false)]);
    board.notify(&queue);
    assert!(board.take_outputs().is_empty());
    board.driver_ok(CONSOLE);
    assert_eq!(board.take_outputs().len(), 1);
    assert_eq!(board.used(&mut queue), [(0, 0)]);
}

#[test]
fn section_2_1_2_a_bad_queue_asks_for_a_reset_and_is_left_alone_until_it_comes() {
    let mut board = TestBoard::new();
    let [_, mut queue] = board.start(CONSOLE, 0);
    board.publish(&mut queue, 99);
    board.notify(&queue);
    assert!(board.needs_reset(CONSOLE));
    assert_eq!(board.read(CONSOLE, 0x60), 2);
    assert!(board.is_pending(CONSOLE));
    let fault = QueueError::DescriptorIndex {
        index: 99,
        size: 16,
    };
    assert_eq!(board.bus.driver_faults(), [(CONSOLE, fault)]);
    let told = Output::Trouble(Trouble::DriverFault {
        device: "virtio console".to_owned(),
        fault: fault.to_string(),
    });
    assert_eq!(board.take_outputs(), [told]);

    board.add(&mut queue, &[(BUFFERS, 5, false)]);
    board.notify(&queue);
    board.write(CONSOLE, 0x70, 15); // the driver cannot wish it away
    assert!(board.needs_reset(CONSOLE));
    assert!(board.take_outputs().is_empty());

    let [_, mut queue] = board.start(CONSOLE, 0);
    assert!(!board.needs_reset(CONSOLE));
    assert_eq!(board.read(CONSOLE, 0x60), 0);
    assert!(board.bus.driver_faults().is_empty());
    board.add(&mut queue, &[(BUFFERS, 5, false)]);
    board.notify(&queue);
    assert_eq!(board.take_outputs().len(), 1);
}

#[test]
fn a_queue_outside_ram_asks_for_a_reset_when_it_is_enabled() {
    let mut board = TestBoard::new();
    board.negotiate(DISK, FEATURE_VERSION_1);
    board.write(DISK, 0x38, 16);
    board.write(DISK, 0x80, 0x1000);
    board.write(DISK, 0x44, 1);
    assert_eq!(board.read(DISK, 0x44), 0);
    assert!(board.needs_reset(DISK));
    assert_eq!(board.read(DISK, 0x60), 0); // no interrupt before DRIVER_OK
}

#[test]
fn a_used_ring_that_overwrites_its_own_available_ring_does_not_hang() {
    let mut board = TestBoard::new();
    board.negotiate(CONSOLE, FEATURE_VERSION_1);
    board.write(CONSOLE, 0x30, 1);
    board.write(CONSOLE, 0x38, 16);
    let base = RAM_BASE as u32;
    for (register, address) in [(0x80, base), (0x90, base + 0x4000), (0xa0, base + 0x4000)] {
        board.write(CONSOLE, register, address);
        board.write(CONSOLE, register + 4, 0);
    }
    board.write(CONSOLE, 0x44, 1);
    board.write_descriptor(RAM_BASE, (BUFFERS, 1, false), 0, 0);
    board
        .memory
        .write(RAM_BASE + 0x4002, &1u16.to_le_bytes())
        .unwrap();
    board.driver_ok(CONSOLE);
    for _ in 0..100 {
        board.write(CONSOLE, 0x50, 1);
    }
    assert!(board.outputs.visible() <= 100 * 16 + 16);
}

#[test]
fn section_4_2_3_3_notifying_a_queue_that_does_not_exist_is_ignored() {
    let mut board = TestBoard::new();
    let [_queue] = board.start(ENTROPY, 0);
    board.write(ENTROPY, 0x50, 1);
    board.write(ENTROPY, 0x50, u32::MAX);
    assert!(!board.needs_reset(ENTROPY));
}

#[test]
fn section_4_2_2_registers_are_four_bytes_and_configuration_any() {
    let board = TestBoard::new();
    let read = |offset, size| board.bus.read(NETWORK, offset, size);
    assert_eq!(read(0, 1), 0);
    assert_eq!(read(0x100, 1), 0x52);
    assert_eq!(read(0x102, 2), 0x0100);
    assert_eq!(read(0x100, 8), 0x0001_0302_0100_5452);
    assert_eq!(read(0xffc, 4), 0);
}

#[test]
fn section_2_7_10_the_device_publishes_its_available_event() {
    let mut board = TestBoard::new();
    let [_, mut queue] = board.start(CONSOLE, FEATURE_EVENT_INDEX | FEATURE_INDIRECT_DESCRIPTORS);
    for _ in 0..3 {
        board.add(&mut queue, &[(BUFFERS, 1, false)]);
    }
    board.notify(&queue);
    assert_eq!(board.available_event(&queue), 3);
}
