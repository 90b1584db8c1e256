//! Section numbers are those of PCI 3.0 where nothing else is said.

use super::host::{BUS_BYTES, PciHost};
use super::hostile;
use crate::virtio::driver::{NETWORK, TestBoard, config};
use machine::input::Input;
use proptest::prelude::*;

type PciBoard = TestBoard<PciHost>;

fn board() -> PciBoard {
    TestBoard::with(PciHost::new(&config(), true))
}

/// The offset of a register of a device's first function.
fn at(device: u64, register: u64) -> u64 {
    device << 15 | register
}

fn read(board: &mut PciBoard, offset: u64, size: u8) -> u64 {
    board.bus.read_configuration(offset, size)
}

fn write(board: &mut PciBoard, offset: u64, size: u8, value: u64) {
    let (bus, mut context) = board.parts();
    bus.write_configuration(offset, size, value, &mut context);
}

#[test]
fn section_6_1_all_ones_where_no_function_is() {
    let mut board = board();
    for offset in [
        at(7, 0),
        at(31, 0),
        at(1, 0) | 1 << 12,
        BUS_BYTES,
        0xff << 20,
        u64::MAX - 7,
    ] {
        assert_eq!(read(&mut board, offset, 4), 0xffff_ffff);
        assert_eq!(read(&mut board, offset, 1), 0xff);
        write(&mut board, offset, 4, 0);
    }
    assert_eq!(read(&mut board, at(1, 0x100), 4), 0xffff_ffff); // no extended space
    assert_eq!(read(&mut board, at(1, 0), 8), 0x0010_0000_1042_1af4);
}

#[test]
fn section_6_2_the_bridge_is_one_and_its_identity_cannot_be_written() {
    let mut board = board();
    write(&mut board, 0, 4, 0);
    assert_eq!(read(&mut board, 0, 4), 0x0008_1b36);
    assert_eq!(read(&mut board, 10, 2), 0x0600);
    assert_eq!(read(&mut board, 0x0e, 1), 0);
    write(&mut board, at(3, 8), 4, u64::MAX);
    assert_eq!(read(&mut board, at(3, 8), 4), 0x0200_0001);
}

#[test]
fn section_6_2_5_1_a_base_address_says_its_size_and_takes_an_address_of_that_alignment() {
    let mut board = board();
    write(&mut board, at(1, 0x10), 4, 0xffff_ffff);
    assert_eq!(read(&mut board, at(1, 0x10), 4), 0xffff_8000);
    write(&mut board, at(1, 0x10), 4, 0x4123_4567);
    assert_eq!(read(&mut board, at(1, 0x10), 4), 0x4123_0000);
    for other in 1..6 {
        write(&mut board, at(1, 0x10 + 4 * other), 4, 0xffff_ffff);
        assert_eq!(read(&mut board, at(1, 0x10 + 4 * other), 4), 0);
    }
    write(&mut board, at(1, 0x30), 4, 0xffff_ffff);
    assert_eq!(read(&mut board, at(1, 0x30), 4), 0); // no ROM
}

#[test]
fn section_6_2_2_a_function_answers_in_memory_only_where_it_is_enabled() {
    let mut board = board();
    write(&mut board, at(3, 0x10), 4, 0x4000_0000);
    assert_eq!(board.bus.read_memory(0x4000_2000, 1), 0xff);
    write(&mut board, at(3, 4), 2, 2);
    assert_eq!(board.bus.read_memory(0x4000_2000, 1), 0x52);
    assert_eq!(board.bus.read_memory(0x4000_8000, 4), 0xffff_ffff);
    assert_eq!(board.bus.read_memory(0x3fff_fff8, 8), u64::MAX);
}

#[test]
fn section_3_2_2_3_2_ports_lead_to_the_same_registers() {
    let mut board = board();
    board.bus.set_address(0xffff_ffff);
    assert_eq!(board.bus.address(), 0x80ff_fffc);
    board.bus.set_address(0x8000_0000 | 3 << 11);
    assert_eq!(board.bus.read_data(0, 4), 0x1041_1af4);
    assert_eq!(board.bus.read_data(2, 2), 0x1041);
    assert_eq!(board.bus.read_data(3, 1), 0x10);
    board.bus.set_address(3 << 11); // not enabled
    assert_eq!(board.bus.read_data(0, 4), 0xffff_ffff);
    board.bus.set_address(0x8000_0000 | 3 << 11 | 0x3c);
    let (bus, mut context) = board.parts();
    bus.write_data(0, 1, 0x2b, &mut context);
    assert_eq!(read(&mut board, at(3, 0x3c), 2), 0x012b);
}

#[test]
fn windows_that_a_firmware_placed_do_not_overlap_and_answer() {
    let mut board = board();
    board.bus.place_windows(0xd800_0000);
    for device in 1..7 {
        let base = 0xd800_0000 + 0x8000 * (device - 1);
        assert_eq!(read(&mut board, at(device, 0x10), 4), base);
        assert_eq!(
            board.bus.read_memory(base + 0x12, 2),
            [1, 1, 2, 2, 1, 2][device as usize - 1]
        );
    }
}

#[test]
fn a_snapshot_of_the_bus_is_the_bus() {
    let mut board = board();
    let [_receive, _transmit] = board.start(NETWORK, 0);
    let frame = vec![0; 60];
    board
        .inject(&Input::NetworkFrame { device: 0, frame })
        .unwrap();
    let bytes = postcard::to_stdvec(&board.bus).unwrap();
    let restored: PciHost = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(restored, board.bus);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a guest does: nothing panics, and the same leads to the same.
    #[test]
    fn no_guest_panics_the_bus(bytes in proptest::collection::vec(any::<u8>(), 8..4000)) {
        prop_assert!(hostile::run(&bytes) == hostile::run(&bytes));
    }
}
