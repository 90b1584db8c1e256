use super::super::driver::*;
use super::*;
use machine::input::Input;
use machine::output::Output;

fn type_bytes(board: &mut TestBoard, bytes: &[u8]) {
    let input = Input::ConsoleBytes {
        console: Console::Virtio,
        bytes: bytes.to_vec(),
    };
    board.inject(&input).unwrap();
}

#[test]
fn section_5_3_6_written_bytes_come_out_in_order() {
    let mut board = TestBoard::new();
    let [_, mut queue] = board.start(CONSOLE, 0);
    board.memory.write(BUFFERS, b"hello world").unwrap();
    board.add(&mut queue, &[(BUFFERS, 6, false), (BUFFERS + 6, 5, false)]);
    board.notify(&queue);
    let bytes = b"hello world".to_vec();
    assert_eq!(
        board.take_outputs(),
        [Output::ConsoleBytes {
            console: Console::Virtio,
            bytes
        }]
    );
    assert_eq!(board.used(&mut queue), [(0, 0)]);
}

#[test]
fn section_5_3_6_typed_bytes_wait_for_a_driver_and_for_buffers() {
    let mut board = TestBoard::new();
    type_bytes(&mut board, b"early ");
    let [mut queue, _] = board.start(CONSOLE, 0);
    type_bytes(&mut board, b"late");
    board.add(&mut queue, &[(BUFFERS, 4, true)]);
    board.add(&mut queue, &[(BUFFERS + 4, 100, true)]);
    board.notify(&queue);
    assert_eq!(board.used(&mut queue), [(0, 4), (1, 6)]);
    assert_eq!(board.bytes(BUFFERS, 10), b"early late");
    assert!(board.is_pending(CONSOLE));
}

#[test]
fn what_nobody_reads_is_bounded() {
    let mut board = TestBoard::new();
    for _ in 0..10 {
        type_bytes(&mut board, &[b'x'; 1000]);
    }
    let [mut queue, _] = board.start(CONSOLE, 0);
    board.add(&mut queue, &[(BUFFERS, 20_000, true)]);
    board.notify(&queue);
    assert_eq!(board.used(&mut queue), [(0, MAX_WAITING_BYTES as u32)]);
}

#[test]
fn a_receive_buffer_that_cannot_be_written_asks_for_a_reset() {
    let mut board = TestBoard::new();
    let [mut queue, _] = board.start(CONSOLE, 0);
    type_bytes(&mut board, b"x");
    board.add(&mut queue, &[(BUFFERS, 4, false)]);
    board.notify(&queue);
    assert!(board.needs_reset(CONSOLE));
}
