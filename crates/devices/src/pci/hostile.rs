//! A guest that does anything to a PCI bus, for tests: bytes are what it does.

use super::host::PciHost;
use crate::virtio::driver::{RAM_BASE, TestBoard, TestBus, config};
use machine::input::{Console, Input};

/// Where the windows begin.
const WINDOWS: u32 = 0x4000_0000;
/// Bytes that make a step.
const STEP_BYTES: usize = 8;

/// Lets the guest do what the bytes say, eight for each step. Gives what it read, and the bus at the end: a
/// function of the bytes.
pub fn run(bytes: &[u8]) -> (Vec<u64>, PciHost) {
    let mut board = TestBoard::with(PciHost::new(&config(), true));
    board.bus.place_windows(WINDOWS);
    let mut read = Vec::new();
    let (steps, _) = bytes.as_chunks::<STEP_BYTES>();
    for &step in steps {
        take(&mut board, step, &mut read);
        while let Some(message) = board.bus.next_message() {
            read.extend([message.address, message.data.into()]);
        }
    }
    read.push(board.outputs.visible());
    (read, board.bus)
}

/// One step: a kind, a place, and a value.
fn take(board: &mut TestBoard<PciHost>, step: [u8; STEP_BYTES], read: &mut Vec<u64>) {
    let [kind, device, part, low, value @ ..] = step;
    let value = u32::from_le_bytes(value);
    let size = 1 << (kind & 3);
    // Most values are small, or lead into RAM: so that more than headers is reached.
    let value = match kind >> 2 & 3 {
        0 => u64::from(value % 32),
        1 => RAM_BASE + u64::from(value % 0x1_0000),
        2 => u64::from(WINDOWS) + u64::from(value % 0x4_0000),
        _ => u64::from(value) << 16 | u64::from(value),
    };
    let (device, low) = (u64::from(device % 8), u64::from(low) & !(size - 1));
    let register = device << 15 | low;
    let memory = u64::from(WINDOWS) + (device << 15 | u64::from(part % 8) << 12 | low);
    let (bus, mut context) = board.parts();
    match kind >> 4 {
        0..3 => read.push(bus.read_configuration(register, size as u8)),
        3..6 => bus.write_configuration(register, size as u8, value, &mut context),
        6..8 => read.push(bus.read_memory(memory, size as u8)),
        8..12 => bus.write_memory(memory, size as u8, value, &mut context),
        12 => bus.set_address(value as u32 | 1 << 31),
        13 => bus.write_data(low % 4, size.min(4) as u8, value as u32, &mut context),
        14 => {
            let bytes = vec![7; 60];
            let input = match value % 4 {
                0 => Input::NetworkFrame {
                    device: 0,
                    frame: bytes,
                },
                1 => Input::ConsoleBytes {
                    console: Console::Virtio,
                    bytes,
                },
                2 => Input::Entropy { bytes },
                _ => Input::PowerButton,
            };
            // Whether it is taken depends on what the guest did before.
            read.push(TestBus::inject(bus, &input, &mut context).is_ok().into());
        }
        _ => {
            let at = RAM_BASE + (u64::from(part) << 8 | low);
            // Within RAM.
            let written = board.memory.write(at, &value.to_le_bytes());
            assert_eq!(written, Ok(()));
        }
    }
}
