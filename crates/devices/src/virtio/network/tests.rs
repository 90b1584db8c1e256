use super::super::FEATURE_EVENT_INDEX;
use super::super::driver::*;
use super::*;
use machine::input::Input;
use machine::input::InputError;
use machine::output::Output;

fn frame(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

fn receive(board: &mut TestBoard, frame: &[u8]) {
    board
        .inject(&Input::NetworkFrame {
            device: 0,
            frame: frame.to_vec(),
        })
        .unwrap();
}

/// Adds `count` receive buffers of `length` bytes, one after the other in memory.
fn add_buffers(board: &mut TestBoard, queue: &mut DriverQueue, count: u64, length: u32) {
    for index in 0..count {
        board.add(
            queue,
            &[(BUFFERS + index * u64::from(length), length, true)],
        );
    }
    board.notify(queue);
}

#[test]
fn section_5_1_6_2_frames_leave_without_their_header_however_they_are_cut() {
    let mut board = TestBoard::new();
    let [_, mut queue] = board.start(NETWORK, 0);
    let data = frame(100, 1);
    board.memory.write(BUFFERS + 12, &data).unwrap();
    board.add(&mut queue, &[(BUFFERS, 112, false)]);
    board.add(
        &mut queue,
        &[(BUFFERS, 12, false), (BUFFERS + 12, 100, false)],
    );
    board.add(
        &mut queue,
        &[
            (BUFFERS, 5, false),
            (BUFFERS + 5, 50, false),
            (BUFFERS + 55, 57, false),
        ],
    );
    board.notify(&queue);
    let sent = Output::NetworkFrame {
        device: 0,
        frame: data,
    };
    assert_eq!(board.take_outputs(), [sent.clone(), sent.clone(), sent]);
    assert_eq!(board.used(&mut queue), [(0, 0), (1, 0), (3, 0)]);
    assert_eq!(board.outputs.visible(), 3);
}

#[test]
fn section_5_1_6_2_runts_and_giants_are_consumed_and_dropped() {
    let mut board = TestBoard::new();
    let [_, mut queue] = board.start(NETWORK, 0);
    board.add(&mut queue, &[(BUFFERS, 12 + 13, false)]);
    board.add(&mut queue, &[(BUFFERS, 12 + 65_551, false)]);
    board.notify(&queue);
    assert!(board.take_outputs().is_empty());
    assert_eq!(board.used(&mut queue).len(), 2);
    board.add(&mut queue, &[(BUFFERS, 11, false)]);
    board.notify(&queue);
    assert!(board.needs_reset(NETWORK));
}

#[test]
fn section_5_1_6_4_a_frame_lands_in_one_buffer_with_its_header() {
    for features in [0, FEATURE_MERGEABLE_BUFFERS] {
        let mut board = TestBoard::new();
        let [mut queue, _] = board.start(NETWORK, features);
        add_buffers(&mut board, &mut queue, 1, 1526);
        let data = frame(60, 2);
        receive(&mut board, &data);
        assert_eq!(board.used(&mut queue), [(0, 72)]);
        assert_eq!(
            board.bytes(BUFFERS, 12),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
        );
        assert_eq!(board.bytes(BUFFERS + 12, 60), data);
        assert!(board.is_pending(NETWORK));
    }
}

#[test]
fn section_5_1_6_4_mergeable_buffers_share_a_frame() {
    let mut board = TestBoard::new();
    let [mut queue, _] = board.start(NETWORK, FEATURE_MERGEABLE_BUFFERS);
    add_buffers(&mut board, &mut queue, 4, 100);
    let data = frame(200, 3);
    receive(&mut board, &data);
    assert_eq!(board.used(&mut queue), [(0, 100), (1, 100), (2, 12)]);
    assert_eq!(board.bytes(BUFFERS, 12)[10], 3);
    assert_eq!(board.bytes(BUFFERS + 12, 200), data);
}

#[test]
fn frames_wait_for_buffers_in_order() {
    let mut board = TestBoard::new();
    let [mut queue, _] = board.start(NETWORK, FEATURE_MERGEABLE_BUFFERS);
    let frames: Vec<Vec<u8>> = (0..3).map(|seed| frame(200, seed)).collect();
    for frame in &frames {
        receive(&mut board, frame);
    }
    let first = BUFFERS;
    board.add(&mut queue, &[(first, 150, true)]);
    board.notify(&queue);
    assert!(board.used(&mut queue).is_empty()); // room for half a frame: it waits on
    for index in 1..6 {
        board.add(&mut queue, &[(first + 150 * index, 150, true)]);
    }
    board.notify(&queue);
    let lengths: Vec<u32> = board
        .used(&mut queue)
        .iter()
        .map(|&(_, length)| length)
        .collect();
    assert_eq!(lengths, [150, 62, 150, 62, 150, 62]);
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(&board.bytes(first + 300 * index as u64 + 12, 200), frame);
    }
}

#[test]
fn a_frame_that_no_buffer_can_ever_hold_is_dropped() {
    let mut board = TestBoard::new();
    let [mut queue, _] = board.start(NETWORK, 0);
    add_buffers(&mut board, &mut queue, 2, 100);
    receive(&mut board, &frame(200, 1)); // needs merging, which was not negotiated
    let data = frame(60, 2);
    receive(&mut board, &data);
    assert_eq!(board.used(&mut queue), [(0, 72)]);
    assert_eq!(board.bytes(BUFFERS + 12, 60), data);
}

#[test]
fn frames_are_dropped_without_a_driver_and_beyond_the_bound() {
    let mut board = TestBoard::new();
    receive(&mut board, &frame(60, 0));
    let [mut queue, _] = board.start(NETWORK, FEATURE_MERGEABLE_BUFFERS);
    add_buffers(&mut board, &mut queue, 1, 100);
    assert!(board.used(&mut queue).is_empty());

    let [mut queue, _] = board.start(NETWORK, 0);
    for _ in 0..MAX_WAITING_FRAMES + 10 {
        receive(&mut board, &frame(60, 0));
    }
    for _ in 0..MAX_WAITING_FRAMES / 2 {
        add_buffers(&mut board, &mut queue, 2, 100);
        assert_eq!(board.used(&mut queue).len(), 2);
    }
    add_buffers(&mut board, &mut queue, 2, 100);
    assert!(board.used(&mut queue).is_empty());

    let [_queue, _] = board.start(NETWORK, 0);
    for _ in 0..40 {
        receive(&mut board, &frame(60_000, 0));
    }
    let state = postcard::to_stdvec(&board.bus).unwrap();
    assert!(state.len() < MAX_WAITING_BYTES + 10_000);
}

#[test]
fn frames_of_impossible_lengths_are_dropped() {
    let mut board = TestBoard::new();
    let [mut queue, _] = board.start(NETWORK, 0);
    add_buffers(&mut board, &mut queue, 1, 70_000);
    for length in [0, 13, 65_551] {
        receive(&mut board, &frame(length, 0));
    }
    assert!(board.used(&mut queue).is_empty());
    receive(&mut board, &frame(65_550, 0));
    assert_eq!(board.used(&mut queue), [(0, 65_562)]);
    let nobody = Input::NetworkFrame {
        device: 1,
        frame: vec![0; 60],
    };
    let none = InputError::NoSuchDevice {
        kind: "network device",
        device: 1,
    };
    assert_eq!(board.inject(&nobody), Err(none));
}

#[test]
fn section_2_7_7_transmission_interrupts_only_past_the_used_event() {
    let mut board = TestBoard::new();
    let [_, mut queue] = board.start(NETWORK, FEATURE_EVENT_INDEX);
    board.set_used_event(&queue, 1);
    board.add(&mut queue, &[(BUFFERS, 100, false)]);
    board.notify(&queue);
    assert!(!board.is_pending(NETWORK));
    board.add(&mut queue, &[(BUFFERS, 100, false)]);
    board.notify(&queue);
    assert!(board.is_pending(NETWORK));
}

#[test]
fn indirect_chains_carry_frames_too() {
    let mut board = TestBoard::new();
    let [_, mut queue] = board.start(NETWORK, super::super::FEATURE_INDIRECT_DESCRIPTORS);
    let data = frame(90, 5);
    board.memory.write(BUFFERS + 12, &data).unwrap();
    let table = BUFFERS + 0x10_0000;
    board.add_indirect(
        &mut queue,
        table,
        &[(BUFFERS, 12, false), (BUFFERS + 12, 90, false)],
    );
    board.notify(&queue);
    assert_eq!(
        board.take_outputs(),
        [Output::NetworkFrame {
            device: 0,
            frame: data
        }]
    );
    assert_eq!(board.used(&mut queue), [(0, 0)]);
}

#[test]
fn a_receive_buffer_without_room_for_the_header_asks_for_a_reset() {
    let mut board = TestBoard::new();
    let [mut queue, _] = board.start(NETWORK, FEATURE_MERGEABLE_BUFFERS);
    add_buffers(&mut board, &mut queue, 2, 11);
    receive(&mut board, &frame(60, 0));
    assert!(board.needs_reset(NETWORK));
    receive(&mut board, &frame(60, 0));
}

#[test]
fn section_5_1_6_1_a_driver_without_version_1_has_a_header_of_ten_bytes() {
    let mut board = TestBoard::new();
    assert!(board.negotiate(NETWORK, 0));
    let mut receive_queue = board.queue(NETWORK, 0, 16);
    let mut transmit_queue = board.queue(NETWORK, 1, 16);
    board.driver_ok(NETWORK);
    let data = frame(60, 4);
    board.memory.write(BUFFERS + 10, &data).unwrap();
    board.add(&mut transmit_queue, &[(BUFFERS, 70, false)]);
    board.notify(&transmit_queue);
    let sent = Output::NetworkFrame {
        device: 0,
        frame: data.clone(),
    };
    assert_eq!(board.take_outputs(), [sent]);
    add_buffers(&mut board, &mut receive_queue, 1, 70);
    receive(&mut board, &data);
    assert_eq!(board.used(&mut receive_queue), [(0, 70)]);
    assert_eq!(board.bytes(BUFFERS + 10, 60), data);
}
