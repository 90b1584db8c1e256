use super::super::driver::*;
use super::*;
use machine::input::Input;

fn press(board: &mut TestBoard) {
    board.inject(&Input::PowerButton).unwrap();
}

/// Gives the device so many buffers of an event, and says what it wrote into those that it used.
fn events(board: &mut TestBoard, queue: &mut DriverQueue, buffers: u64) -> Vec<(u16, u16, u32)> {
    for index in 0..buffers {
        board.add(queue, &[(BUFFERS + 8 * index, 8, true)]);
    }
    board.notify(queue);
    let used = board.used(queue);
    let event = |index: usize| {
        let bytes = board.bytes(BUFFERS + 8 * index as u64, 8);
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        (number(0), number(2), u32::from(number(4)))
    };
    used.iter()
        .enumerate()
        .map(|(index, _)| event(index))
        .collect()
}

#[test]
fn section_5_8_4_the_driver_selects_what_it_reads() {
    let mut board = TestBoard::new();
    let select = |board: &mut TestBoard, select: u8, subselect: u8| {
        board.write_byte(POWER_BUTTON, 0x100, select);
        board.write_byte(POWER_BUTTON, 0x101, subselect);
        let size = board.read_byte(POWER_BUTTON, 0x102);
        let bytes = (0..u64::from(size)).map(|at| board.read_byte(POWER_BUTTON, 0x108 + at));
        bytes.collect::<Vec<u8>>()
    };
    assert_eq!(select(&mut board, ID_NAME, 0), NAME);
    assert_eq!(select(&mut board, ID_DEVIDS, 0), IDENTITY);
    let keys = select(&mut board, EVENT_BITS, 1);
    assert_eq!((keys.len(), keys[14]), (15, 1 << 4));
    assert!(keys[..14].iter().all(|byte| *byte == 0));
    // No relative or absolute axes, no lamps, no properties.
    for (what, sub) in [
        (EVENT_BITS, 2),
        (EVENT_BITS, 3),
        (EVENT_BITS, 17),
        (0x10, 0),
        (0x12, 0),
    ] {
        assert_eq!(select(&mut board, what, sub), [0u8; 0], "{what:#x} {sub}");
    }
    board.write(POWER_BUTTON, 0x70, 0);
    assert_eq!(board.read_byte(POWER_BUTTON, 0x102), 0);
}

#[test]
fn section_5_8_6_a_press_goes_down_and_up_again() {
    let mut board = TestBoard::new();
    let [mut queue, _] = board.start(POWER_BUTTON, 0);
    assert_eq!(events(&mut board, &mut queue, 6), []);
    press(&mut board);
    assert!(board.is_pending(POWER_BUTTON));
    assert_eq!(events(&mut board, &mut queue, 0), PRESS);
}

#[test]
fn a_press_waits_for_a_driver_and_for_buffers_and_is_one_however_often() {
    let mut board = TestBoard::new();
    press(&mut board);
    press(&mut board);
    let [mut queue, _] = board.start(POWER_BUTTON, 0);
    assert_eq!(events(&mut board, &mut queue, 3), PRESS[..3]);
    // The driver is loaded anew before it was told of all.
    let [mut queue, _] = board.start(POWER_BUTTON, 0);
    assert_eq!(events(&mut board, &mut queue, 8), PRESS);
    let [mut queue, _] = board.start(POWER_BUTTON, 0);
    assert_eq!(events(&mut board, &mut queue, 8), []);
}

#[test]
fn a_buffer_too_small_for_an_event_asks_for_a_reset() {
    let mut board = TestBoard::new();
    let [mut queue, _] = board.start(POWER_BUTTON, 0);
    press(&mut board);
    board.add(&mut queue, &[(BUFFERS, 7, true)]);
    board.notify(&queue);
    assert!(board.needs_reset(POWER_BUTTON));
}

#[test]
fn what_the_driver_says_of_lamps_is_taken() {
    let mut board = TestBoard::new();
    let [_, mut status] = board.start(POWER_BUTTON, 0);
    board.add(&mut status, &[(BUFFERS, 8, false)]);
    board.notify(&status);
    assert_eq!(board.used(&mut status), [(0, 0)]);
}
