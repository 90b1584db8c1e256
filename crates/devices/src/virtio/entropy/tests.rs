use super::super::driver::*;
use super::*;
use machine::input::Input;
use machine::input::InputError;
use machine::output::Trouble;

fn bring(board: &mut TestBoard, bytes: &[u8]) -> Result<(), InputError> {
    board.inject(&Input::Entropy {
        bytes: bytes.to_vec(),
    })
}

#[test]
fn section_5_4_6_buffers_are_filled_one_request_after_the_other() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(ENTROPY, 0);
    board.add(&mut queue, &[(BUFFERS, 8, true)]);
    board.add(&mut queue, &[(BUFFERS + 8, 100_000, true)]);
    board.notify(&queue);
    assert_eq!(board.take_outputs(), [Output::EntropyRequest { length: 8 }]);
    assert_eq!(board.bus.open_entropy_request(), Some(8));
    bring(&mut board, b"12345678").unwrap();
    assert_eq!(board.used(&mut queue), [(0, 8)]);
    assert_eq!(board.bytes(BUFFERS, 8), b"12345678");
    let length = MAX_REQUEST_BYTES;
    assert_eq!(board.take_outputs(), [Output::EntropyRequest { length }]);
    bring(&mut board, b"abc").unwrap(); // fewer than asked for
    assert_eq!(board.used(&mut queue), [(1, 3)]);
    assert_eq!(board.bus.open_entropy_request(), None);
    assert!(board.is_pending(ENTROPY));
}

#[test]
fn bytes_that_nobody_asked_for_are_refused() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(ENTROPY, 0);
    assert_eq!(
        bring(&mut board, b"x"),
        Err(InputError::Entropy {
            requested: 0,
            found: 1
        })
    );
    board.add(&mut queue, &[(BUFFERS, 2, true)]);
    board.notify(&queue);
    assert_eq!(
        bring(&mut board, b""),
        Err(InputError::Entropy {
            requested: 2,
            found: 0
        })
    );
    assert_eq!(
        bring(&mut board, b"xyz"),
        Err(InputError::Entropy {
            requested: 2,
            found: 3
        })
    );
    bring(&mut board, b"xy").unwrap();
}

#[test]
fn bytes_for_a_driver_that_is_gone_serve_the_next() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(ENTROPY, 0);
    board.add(&mut queue, &[(BUFFERS, 4, true)]);
    board.notify(&queue);
    let [mut queue] = board.start(ENTROPY, 0);
    board.add(&mut queue, &[(BUFFERS + 100, 2, true)]);
    board.notify(&queue);
    bring(&mut board, b"1234").unwrap();
    assert_eq!(board.used(&mut queue), [(0, 2)]);
    assert_eq!(board.bytes(BUFFERS, 4), [0; 4]);
    assert_eq!(board.bytes(BUFFERS + 100, 4), b"12\0\0");
}

#[test]
fn a_buffer_that_cannot_be_written_asks_for_a_reset() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(ENTROPY, 0);
    board.add(&mut queue, &[(BUFFERS, 4, false)]);
    board.notify(&queue);
    assert!(board.needs_reset(ENTROPY));
    assert!(matches!(
        &board.take_outputs()[..],
        [Output::Trouble(Trouble::DriverFault { device, .. })] if device == "entropy device"
    ));
}
