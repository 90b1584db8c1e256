use super::super::driver::{RAM_BASE, ram};
use super::super::{FEATURE_EVENT_INDEX, FEATURE_INDIRECT_DESCRIPTORS};
use super::*;
use machine::memory::Ram;
use proptest::prelude::*;

const MEMORY_BYTES: u64 = 1 << 20;
const DESCRIPTORS: u64 = RAM_BASE;
const AVAILABLE: u64 = RAM_BASE + 0x4000;
const USED: u64 = RAM_BASE + 0x8000;
const BUFFERS: u64 = RAM_BASE + 0x1_0000;
const LIMIT: u64 = 1 << 16;

fn queue(size: u16, features: u64, memory: &Ram) -> Queue {
    let mut queue = Queue::new(256);
    queue.size = size;
    queue.descriptors = DESCRIPTORS;
    queue.available = AVAILABLE;
    queue.used = USED;
    queue.enable(features, memory).unwrap();
    queue
}

fn descriptor(memory: &mut Ram, at: u64, address: u64, length: u32, flags: u16, next: u16) {
    memory.write(at, &address.to_le_bytes()).unwrap();
    memory.write(at + 8, &length.to_le_bytes()).unwrap();
    memory.write(at + 12, &flags.to_le_bytes()).unwrap();
    memory.write(at + 14, &next.to_le_bytes()).unwrap();
}

fn publish(memory: &mut Ram, index: u16, heads: &[u16]) {
    for (slot, head) in heads.iter().enumerate() {
        memory
            .write(AVAILABLE + 4 + 2 * slot as u64, &head.to_le_bytes())
            .unwrap();
    }
    memory.write(AVAILABLE + 2, &index.to_le_bytes()).unwrap();
}

/// A queue of 8 whose one available chain begins at descriptor 0, for a test to spoil.
fn one_chain(descriptors: &[(u64, u32, u16, u16)]) -> Result<Option<Chain>, QueueError> {
    let mut memory = ram(MEMORY_BYTES);
    for (index, &(address, length, flags, next)) in descriptors.iter().enumerate() {
        descriptor(
            &mut memory,
            DESCRIPTORS + 16 * index as u64,
            address,
            length,
            flags,
            next,
        );
    }
    publish(&mut memory, 1, &[0]);
    queue(8, FEATURE_INDIRECT_DESCRIPTORS, &memory).pop(&memory, LIMIT)
}

#[test]
fn section_2_7_queue_sizes_are_powers_of_two() {
    let memory = ram(MEMORY_BYTES);
    for size in [0, 3, 255, 512] {
        let mut queue = Queue::new(256);
        (queue.descriptors, queue.available, queue.used) = (DESCRIPTORS, AVAILABLE, USED);
        queue.size = size;
        assert_eq!(
            queue.enable(0, &memory),
            Err(QueueError::Size { size, max: 256 })
        );
        assert!(!queue.is_ready());
    }
}

#[test]
fn section_2_7_rings_are_aligned_and_in_ram() {
    let memory = ram(MEMORY_BYTES);
    let end = RAM_BASE + MEMORY_BYTES;
    for (descriptors, available, used) in [
        (DESCRIPTORS + 8, AVAILABLE, USED),
        (DESCRIPTORS, AVAILABLE + 1, USED),
        (DESCRIPTORS, AVAILABLE, USED + 2),
        (end - 16, AVAILABLE, USED),
        (DESCRIPTORS, end - 4, USED),
        (DESCRIPTORS, AVAILABLE, 0x1000),
        (u64::MAX - 15, AVAILABLE, USED),
    ] {
        let mut queue = Queue::new(256);
        queue.size = 8;
        (queue.descriptors, queue.available, queue.used) = (descriptors, available, used);
        assert!(matches!(
            queue.enable(0, &memory),
            Err(QueueError::Address { .. })
        ));
    }
}

#[test]
fn section_2_7_5_a_chain_is_its_readable_then_its_writable_parts() {
    let chain = one_chain(&[
        (BUFFERS, 10, DESCRIPTOR_NEXT, 2),
        (BUFFERS + 300, 30, DESCRIPTOR_WRITE, 0),
        (BUFFERS + 100, 0, DESCRIPTOR_NEXT, 3),
        (BUFFERS + 200, 20, DESCRIPTOR_NEXT, 1),
    ]);
    let chain = chain.unwrap().unwrap();
    let segment = |offset, length| Segment {
        address: BUFFERS + offset,
        length,
    };
    assert_eq!(chain.readable, [segment(0, 10), segment(200, 20)]);
    assert_eq!(chain.writable, [segment(300, 30)]);
}

#[test]
fn section_2_7_4_2_readable_after_writable_is_refused() {
    let chain = one_chain(&[
        (BUFFERS, 10, DESCRIPTOR_WRITE | DESCRIPTOR_NEXT, 1),
        (BUFFERS, 10, 0, 0),
    ]);
    assert_eq!(chain, Err(QueueError::Order { head: 0 }));
}

#[test]
fn section_2_7_5_loops_and_wild_descriptors_are_refused() {
    let looped = one_chain(&[
        (BUFFERS, 1, DESCRIPTOR_NEXT, 1),
        (BUFFERS, 1, DESCRIPTOR_NEXT, 0),
    ]);
    assert_eq!(looped, Err(QueueError::Loop { head: 0 }));
    let wild = one_chain(&[(BUFFERS, 1, DESCRIPTOR_NEXT, 8)]);
    assert_eq!(wild, Err(QueueError::DescriptorIndex { index: 8, size: 8 }));
    let outside = one_chain(&[(RAM_BASE + MEMORY_BYTES - 1, 2, 0, 0)]);
    assert!(matches!(
        outside,
        Err(QueueError::Address { length: 2, .. })
    ));
    let wrapping = one_chain(&[(u64::MAX, u32::MAX, 0, 0)]);
    assert!(matches!(wrapping, Err(QueueError::Address { .. })));
}

#[test]
fn a_chain_beyond_the_limit_is_refused() {
    let half = LIMIT as u32 / 2;
    let whole = one_chain(&[(BUFFERS, half, DESCRIPTOR_NEXT, 1), (BUFFERS, half, 0, 0)]);
    assert!(whole.is_ok());
    let more = one_chain(&[
        (BUFFERS, half, DESCRIPTOR_NEXT, 1),
        (BUFFERS, half + 1, 0, 0),
    ]);
    assert_eq!(
        more,
        Err(QueueError::TooLong {
            head: 0,
            limit: LIMIT
        })
    );
}

#[test]
fn section_2_7_5_3_indirect_tables_are_neither_nested_nor_continued_nor_of_odd_length() {
    let bad = Err(QueueError::Indirect { head: 0 });
    let flags = DESCRIPTOR_INDIRECT;
    assert_eq!(one_chain(&[(DESCRIPTORS + 16, 24, flags, 0)]), bad);
    assert_eq!(one_chain(&[(DESCRIPTORS + 16, 0, flags, 0)]), bad);
    assert_eq!(
        one_chain(&[(DESCRIPTORS + 16, 16, flags | DESCRIPTOR_NEXT, 0)]),
        bad
    );
    assert_eq!(one_chain(&[(DESCRIPTORS, 16, flags, 0)]), bad); // refers to itself
    let huge = 16 * (MAX_INDIRECT_DESCRIPTORS + 1);
    assert_eq!(one_chain(&[(DESCRIPTORS + 16, huge, flags, 0)]), bad);
    let outside = one_chain(&[(RAM_BASE + MEMORY_BYTES, 16, flags, 0)]);
    assert!(matches!(outside, Err(QueueError::Address { .. })));
}

#[test]
fn section_2_7_5_3_indirect_needs_negotiation() {
    let mut memory = ram(MEMORY_BYTES);
    descriptor(
        &mut memory,
        DESCRIPTORS,
        DESCRIPTORS + 16,
        16,
        DESCRIPTOR_INDIRECT,
        0,
    );
    descriptor(&mut memory, DESCRIPTORS + 16, BUFFERS, 5, 0, 0);
    publish(&mut memory, 1, &[0]);
    let mut without = queue(8, 0, &memory);
    assert_eq!(
        without.pop(&memory, LIMIT),
        Err(QueueError::Indirect { head: 0 })
    );
    let mut with = queue(8, FEATURE_INDIRECT_DESCRIPTORS, &memory);
    let chain = with.pop(&memory, LIMIT).unwrap().unwrap();
    assert_eq!(
        chain.readable,
        [Segment {
            address: BUFFERS,
            length: 5
        }]
    );
}

#[test]
fn section_2_7_13_the_available_index_is_at_most_a_queue_ahead() {
    let mut memory = ram(MEMORY_BYTES);
    publish(&mut memory, 9, &[0; 8]);
    let mut queue = queue(8, 0, &memory);
    let error = QueueError::AvailableIndex {
        available: 9,
        next: 0,
    };
    assert_eq!(queue.pop(&memory, LIMIT), Err(error));
}

#[test]
fn indexes_wrap_at_65536() {
    let mut memory = ram(MEMORY_BYTES);
    descriptor(&mut memory, DESCRIPTORS, BUFFERS, 1, 0, 0);
    let mut queue = queue(8, 0, &memory);
    for count in 1..=70_000u32 {
        publish(&mut memory, count as u16, &[0; 8]);
        let chain = queue.pop(&memory, LIMIT).unwrap().unwrap();
        assert_eq!(queue.pop(&memory, LIMIT), Ok(None));
        queue.push(&mut memory, chain.head, count).unwrap();
    }
    assert_eq!(
        memory.read_array(USED + 2),
        Ok((70_000u32 as u16).to_le_bytes())
    );
    let last = USED + 4 + 8 * (69_999 % 8) + 4;
    assert_eq!(memory.read_array(last), Ok(70_000u32.to_le_bytes()));
}

#[test]
fn section_2_7_7_without_event_index_the_flag_suppresses_interrupts() {
    let mut memory = ram(MEMORY_BYTES);
    let mut queue = queue(8, 0, &memory);
    assert_eq!(queue.take_interrupt(&memory), Ok(false));
    queue.push(&mut memory, 0, 0).unwrap();
    assert_eq!(queue.take_interrupt(&memory), Ok(true));
    assert_eq!(queue.take_interrupt(&memory), Ok(false));
    memory.write(AVAILABLE, &1u16.to_le_bytes()).unwrap();
    queue.push(&mut memory, 0, 0).unwrap();
    assert_eq!(queue.take_interrupt(&memory), Ok(false));
}

#[test]
fn section_2_7_7_with_event_index_interrupts_come_when_the_event_is_passed() {
    let mut memory = ram(MEMORY_BYTES);
    let mut queue = queue(8, FEATURE_EVENT_INDEX, &memory);
    let event = AVAILABLE + 4 + 2 * 8;
    memory.write(event, &2u16.to_le_bytes()).unwrap(); // when entry 2 is used
    let mut interrupts = Vec::new();
    for _ in 0..4 {
        queue.push(&mut memory, 0, 0).unwrap();
        interrupts.push(queue.take_interrupt(&memory).unwrap());
    }
    assert_eq!(interrupts, [false, false, true, false]);
    memory.write(event, &5u16.to_le_bytes()).unwrap();
    for _ in 0..3 {
        queue.push(&mut memory, 0, 0).unwrap(); // entries 4 to 6 at once
    }
    assert_eq!(queue.take_interrupt(&memory), Ok(true));
}

#[test]
fn a_disabled_queue_begins_anew() {
    let mut memory = ram(MEMORY_BYTES);
    descriptor(&mut memory, DESCRIPTORS, BUFFERS, 1, 0, 0);
    publish(&mut memory, 1, &[0]);
    let mut queue = queue(8, 0, &memory);
    queue.pop(&memory, LIMIT).unwrap().unwrap();
    queue.push(&mut memory, 0, 0).unwrap();
    queue.disable();
    assert!(!queue.is_ready());
    queue.enable(0, &memory).unwrap();
    assert!(queue.pop(&memory, LIMIT).unwrap().is_some());
    queue.push(&mut memory, 0, 7).unwrap();
    assert_eq!(memory.read_array(USED + 2), Ok(1u16.to_le_bytes()));
}

proptest! {
    /// Whatever the tables hold, a chain is refused or lies in RAM and within the limit.
    #[test]
    fn random_tables_give_valid_chains_or_errors(
        table in prop::collection::vec((0u64..4, 0u64..0x2_0000, 0u32..0x3000, 0u16..8, 0u16..20), 16),
        heads in prop::collection::vec(0u16..20, 16),
        index in 0u16..20,
    ) {
        let mut memory = ram(MEMORY_BYTES);
        for (at, &(place, offset, length, flags, next)) in table.iter().enumerate() {
            // Mostly in RAM, sometimes in the tables, outside, or at the end of the addresses.
            let address = match place {
                0 => DESCRIPTORS + 16 * (offset % 32),
                1 => RAM_BASE + MEMORY_BYTES - offset,
                2 => BUFFERS + offset,
                _ => u64::MAX - offset,
            };
            let length = if flags & DESCRIPTOR_INDIRECT != 0 { length % 5 * 16 } else { length };
            descriptor(&mut memory, DESCRIPTORS + 16 * at as u64, address, length, flags, next);
        }
        publish(&mut memory, index, &heads);
        let mut queue = queue(16, FEATURE_INDIRECT_DESCRIPTORS, &memory);
        for _ in 0..20 {
            match queue.pop(&memory, LIMIT) {
                Ok(None) => break,
                Err(_) => queue.next_available = queue.next_available.wrapping_add(1),
                Ok(Some(chain)) => {
                    let bytes = total_length(&chain.readable) + total_length(&chain.writable);
                    prop_assert!(bytes <= LIMIT);
                    for segment in chain.readable.iter().chain(&chain.writable) {
                        prop_assert!(memory.slice(segment.address, segment.length.into()).is_ok());
                    }
                }
            }
        }
    }

    /// What is scattered over any segments is gathered from them again.
    #[test]
    fn scatter_and_gather_are_inverse(
        lengths in prop::collection::vec(1u32..50, 1..10),
        start in 0u64..100,
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut memory = ram(MEMORY_BYTES);
        let mut address = BUFFERS;
        let segments: Vec<Segment> = lengths
            .iter()
            .map(|&length| {
                address += 100;
                Segment { address, length }
            })
            .collect();
        scatter(&segments, &mut memory, start, &data).unwrap();
        let room = total_length(&segments).saturating_sub(start).min(data.len() as u64);
        let back = gather(&segments, &memory, start, data.len() as u64).unwrap();
        prop_assert_eq!(&back[..], &data[..room as usize]);
    }
}
