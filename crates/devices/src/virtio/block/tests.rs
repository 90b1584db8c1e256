use super::super::driver::*;
use super::super::slots::VirtioSlots;
use super::*;
use machine::input::Input;
use machine::input::InputError;
use machine::output::Trouble;

const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x800;

/// Makes a request available, as Linux lays it out: header, data, status.
fn submit(
    board: &mut TestBoard,
    queue: &mut DriverQueue,
    kind: u32,
    sector: u64,
    data: Option<(u32, bool)>,
) -> u16 {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    board.memory.write(HEADER, &header).unwrap();
    board.memory.write(STATUS, &[0xff]).unwrap();
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend(data.map(|(length, write)| (DATA, length, write)));
    buffers.push((STATUS, 1, true));
    let head = board.add(queue, &buffers);
    board.notify(queue);
    head
}

fn completion(request: u64, status: DiskStatus, data: Vec<u8>) -> Input {
    Input::DiskCompletion {
        device: 0,
        request,
        status,
        data,
    }
}

fn disk_outputs(board: &mut TestBoard) -> Vec<DiskRequest> {
    let outputs = board.take_outputs().into_iter();
    let requests = outputs.filter_map(|output| match output {
        Output::Disk(request) => Some(request),
        // Whether there may be one is the test's to say, by the device's status.
        Output::Trouble(Trouble::DriverFault { device, .. }) if device == "disk" => None,
        other => panic!("{other:?}"),
    });
    requests.collect()
}

/// The status byte that a request is answered with at once.
fn immediate_status(slot: usize, kind: u32, sector: u64, data: Option<(u32, bool)>) -> u8 {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(slot, 0);
    submit(&mut board, &mut queue, kind, sector, data);
    assert!(board.take_outputs().is_empty());
    assert_eq!(board.used(&mut queue).len(), 1);
    board.bytes(STATUS, 1)[0]
}

#[test]
fn section_5_2_6_a_write_asks_the_host_and_ends_with_its_completion() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(DISK, 0);
    let data: Vec<u8> = (0..1024u32).map(|i| (i * 7) as u8).collect();
    board.memory.write(DATA, &data).unwrap();
    submit(&mut board, &mut queue, TYPE_OUT, 5, Some((1024, false)));
    let operation = DiskOperation::Write { sector: 5, data };
    assert_eq!(
        disk_outputs(&mut board),
        [DiskRequest {
            device: 0,
            request: 0,
            operation
        }]
    );
    assert!(board.used(&mut queue).is_empty());
    assert!(!board.is_pending(DISK));
    board
        .inject(&completion(0, DiskStatus::Ok, vec![]))
        .unwrap();
    assert_eq!(board.used(&mut queue), [(0, 1)]);
    assert_eq!(board.bytes(STATUS, 1), [STATUS_OK]);
    assert!(board.is_pending(DISK));
    assert_eq!(board.acknowledge(DISK), 1);
}

#[test]
fn section_5_2_6_reads_may_complete_in_any_order() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(DISK, 0);
    for sector in [1, 2] {
        submit(&mut board, &mut queue, TYPE_IN, sector, Some((512, true)));
    }
    assert_eq!(disk_outputs(&mut board).len(), 2);
    board
        .inject(&completion(1, DiskStatus::Ok, vec![2; 512]))
        .unwrap();
    assert_eq!(board.used(&mut queue), [(3, 513)]);
    assert_eq!(board.bytes(DATA, 512), [2; 512]);
    board
        .inject(&completion(0, DiskStatus::Ok, vec![1; 512]))
        .unwrap();
    assert_eq!(board.used(&mut queue), [(0, 513)]);
    assert_eq!(board.bytes(DATA, 512), [1; 512]);
    assert!(board.bus.open_disk_requests().is_empty());
}

#[test]
fn a_failed_read_writes_only_its_status() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(DISK, 0);
    submit(&mut board, &mut queue, TYPE_IN, 0, Some((512, true)));
    board
        .inject(&completion(0, DiskStatus::IoError, vec![]))
        .unwrap();
    assert_eq!(board.used(&mut queue), [(0, 0)]);
    assert_eq!(board.bytes(STATUS, 1), [STATUS_IO_ERROR]);
    assert_eq!(board.bytes(DATA, 512), [0; 512]);
}

#[test]
fn completions_that_fit_no_request_change_nothing() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(DISK, 0);
    submit(&mut board, &mut queue, TYPE_IN, 0, Some((512, true)));
    let before = board.bus.clone();
    let unknown = InputError::UnknownDiskRequest {
        device: 0,
        request: 1,
    };
    assert_eq!(
        board.inject(&completion(1, DiskStatus::Ok, vec![])),
        Err(unknown)
    );
    for found in [0, 511, 513] {
        let length = InputError::DiskDataLength {
            device: 0,
            request: 0,
            expected: 512,
            found,
        };
        let data = vec![0; found as usize];
        assert_eq!(
            board.inject(&completion(0, DiskStatus::Ok, data)),
            Err(length)
        );
    }
    let nobody = Input::DiskCompletion {
        device: 2,
        request: 0,
        status: DiskStatus::Ok,
        data: vec![],
    };
    let none = InputError::NoSuchDevice {
        kind: "disk",
        device: 2,
    };
    assert_eq!(board.inject(&nobody), Err(none));
    assert_eq!(board.bus, before);
    board
        .inject(&completion(0, DiskStatus::Ok, vec![0; 512]))
        .unwrap();
    assert_eq!(
        board.inject(&completion(0, DiskStatus::Ok, vec![0; 512])),
        Err(InputError::UnknownDiskRequest {
            device: 0,
            request: 0
        })
    );
}

#[test]
fn section_5_2_6_flush_discard_and_write_zeroes() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(DISK, 0);
    submit(&mut board, &mut queue, TYPE_FLUSH, 0, None);
    let mut segment = 10u64.to_le_bytes().to_vec();
    segment.extend(20u32.to_le_bytes());
    segment.extend(0u32.to_le_bytes());
    board.memory.write(DATA, &segment).unwrap();
    submit(&mut board, &mut queue, TYPE_DISCARD, 0, Some((16, false)));
    board.memory.write(DATA + 12, &[1]).unwrap();
    submit(
        &mut board,
        &mut queue,
        TYPE_WRITE_ZEROES,
        0,
        Some((16, false)),
    );
    let operations: Vec<DiskOperation> = disk_outputs(&mut board)
        .into_iter()
        .map(|request| request.operation)
        .collect();
    let zero = DiskOperation::Zero {
        sector: 10,
        sectors: 20,
    };
    assert_eq!(operations, [DiskOperation::Flush, zero.clone(), zero]);
    // Unmapping in a discard is refused, as is what lies beyond the disk.
    submit(&mut board, &mut queue, TYPE_DISCARD, 0, Some((16, false)));
    assert_eq!(board.bytes(STATUS, 1), [STATUS_UNSUPPORTED]);
    board.memory.write(DATA, &999u64.to_le_bytes()).unwrap();
    submit(
        &mut board,
        &mut queue,
        TYPE_WRITE_ZEROES,
        0,
        Some((16, false)),
    );
    assert_eq!(board.bytes(STATUS, 1), [STATUS_IO_ERROR]);
    assert!(board.take_outputs().is_empty());
}

#[test]
fn section_5_2_6_requests_beyond_the_disk_or_of_broken_sectors_fail_at_once() {
    for (sector, length) in [
        (DISK_SECTORS, 512),
        (DISK_SECTORS - 1, 1024),
        (u64::MAX, 512),
        (0, 511),
    ] {
        let read = immediate_status(DISK, TYPE_IN, sector, Some((length, true)));
        let write = immediate_status(DISK, TYPE_OUT, sector, Some((length, false)));
        assert_eq!((read, write), (STATUS_IO_ERROR, STATUS_IO_ERROR));
    }
    assert_eq!(immediate_status(DISK, TYPE_IN, 0, None), STATUS_IO_ERROR);
    assert_eq!(
        immediate_status(DISK, TYPE_DISCARD, 0, Some((15, false))),
        STATUS_IO_ERROR
    );
    assert_eq!(immediate_status(DISK, 99, 0, None), STATUS_UNSUPPORTED);
}

#[test]
fn section_5_2_3_a_read_only_disk_says_so_and_refuses_writes() {
    let mut board = TestBoard::new();
    board.write(READ_ONLY_DISK, 0x14, 0);
    assert_ne!(board.read(READ_ONLY_DISK, 0x10) & 1 << 5, 0);
    for kind in [TYPE_OUT, TYPE_DISCARD, TYPE_WRITE_ZEROES] {
        let status = immediate_status(READ_ONLY_DISK, kind, 0, Some((512, false)));
        assert_eq!(status, STATUS_IO_ERROR);
    }
}

#[test]
fn section_5_2_6_get_id_gives_twenty_bytes() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(DISK, 0);
    submit(&mut board, &mut queue, TYPE_GET_ID, 0, Some((20, true)));
    assert_eq!(board.used(&mut queue), [(0, 21)]);
    assert_eq!(board.bytes(DATA, 20), b"a serial number that");
}

#[test]
fn requests_without_header_or_status_ask_for_a_reset() {
    for buffers in [
        &[(HEADER, 15, false), (STATUS, 1, true)][..],
        &[(HEADER, 16, false)],
    ] {
        let mut board = TestBoard::new();
        let [mut queue] = board.start(DISK, 0);
        board.add(&mut queue, buffers);
        board.notify(&queue);
        assert!(board.needs_reset(DISK));
    }
}

#[test]
fn open_requests_are_repeated_as_they_were_even_after_the_guest_changed_its_buffers() {
    let mut board = TestBoard::new();
    let [mut queue] = board.start(DISK, 0);
    board.memory.write(DATA, &[7; 512]).unwrap();
    submit(&mut board, &mut queue, TYPE_OUT, 3, Some((512, false)));
    submit(&mut board, &mut queue, TYPE_IN, 4, Some((512, true)));
    let asked = disk_outputs(&mut board);
    board.memory.write(DATA, &[8; 512]).unwrap();
    assert_eq!(board.bus.open_disk_requests(), asked);
    board.write(DISK, 0x70, 0); // the driver resets the device
    assert_eq!(board.bus.open_disk_requests(), asked);
    let [mut queue] = board.start(DISK, 0);
    board
        .inject(&completion(0, DiskStatus::Ok, vec![]))
        .unwrap();
    board
        .inject(&completion(1, DiskStatus::Ok, vec![9; 512]))
        .unwrap();
    assert_eq!(board.bytes(DATA, 512), [8; 512]); // nobody asked for it any more
    assert!(board.used(&mut queue).is_empty());
    submit(&mut board, &mut queue, TYPE_FLUSH, 0, None);
    assert_eq!(disk_outputs(&mut board)[0].request, 2);
}

#[test]
fn a_read_is_bounded_however_much_the_guest_asks_for() {
    let longest = MAX_READ_BYTES as u32;
    for (length, is_taken) in [(longest, true), (longest + 512, false)] {
        let mut board = TestBoard::new();
        let mut config = config();
        config.disks[0].sectors = 1 << 20;
        board.bus = VirtioSlots::new(&config);
        board.memory = ram(32 << 20);
        board.negotiate(DISK, super::super::FEATURE_VERSION_1);
        let mut queue = board.queue(DISK, 0, 64);
        board.driver_ok(DISK);
        submit(&mut board, &mut queue, TYPE_IN, 0, Some((length, true)));
        assert_eq!(
            disk_outputs(&mut board).len(),
            usize::from(is_taken),
            "{length}"
        );
        assert_eq!(board.needs_reset(DISK), !is_taken, "{length}");
    }
}

#[test]
fn data_of_open_requests_is_bounded_and_the_rest_follows_as_they_complete() {
    const LENGTH: u32 = 4 << 20;
    let mut board = TestBoard::new();
    // A larger disk than the other tests need, in the same slot.
    let mut config = config();
    config.disks[0].sectors = 1 << 20;
    board.bus = VirtioSlots::new(&config);
    board.negotiate(DISK, super::super::FEATURE_VERSION_1);
    let mut queue = board.queue(DISK, 0, 64);
    board.driver_ok(DISK);
    for _ in 0..12 {
        submit(&mut board, &mut queue, TYPE_OUT, 0, Some((LENGTH, false)));
    }
    let first = disk_outputs(&mut board).len() as u64;
    assert_eq!(first, MAX_OPEN_BYTES / u64::from(LENGTH));
    board
        .inject(&completion(0, DiskStatus::Ok, vec![]))
        .unwrap();
    assert_eq!(disk_outputs(&mut board).len(), 1);
    for request in 1..12 {
        board
            .inject(&completion(request, DiskStatus::Ok, vec![]))
            .unwrap();
    }
    assert_eq!(board.used(&mut queue).len(), 12);
    assert!(board.bus.open_disk_requests().is_empty());
}

#[test]
fn section_5_2_4_the_configuration_tells_capacity_and_limits() {
    let mut board = TestBoard::new();
    assert_eq!(u64::from(board.read(DISK, 0x100)), DISK_SECTORS);
    assert_eq!(board.read(DISK, 0x114), 512);
    let (segment, segments) = (board.read(DISK, 0x108), board.read(DISK, 0x10c));
    assert!(u64::from(segment) * u64::from(segments) + 17 <= CHAIN_LIMIT);
}
