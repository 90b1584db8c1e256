//! The guest's reset: within `run`, after the store that asked for it, at the same count in every
//! replica.
//!
//! RAM, harts and devices begin anew from the images that the machine keeps. The instruction count and
//! guest time go on, and so do the numbers of requests to the outside: it is the same life.

use super::{Config, Machine, description, turns};
use crate::board::boot::{self, BootEntry, BootError};
use crate::board::bus::Bus;
use crate::hart::Hart;
use crate::interpreter::block::BlockCache;
use crate::memory::{Memory, RAM_BASE};
use machine::Machine as _;
use machine::config::BootImages;
use machine::input::InstructionCount;
use machine::memory::{PAGE_SIZE, keep_in_huge_pages};
use machine::output::{Finish, Output};
use machine::snapshot::KeptImage;

/// The boot images as the machine and its snapshots keep them: firmware, kernel, initrd, command line.
/// One that there is not is empty.
pub(super) type KeptImages = [KeptImage; 4];

/// Keeps images that were loaded as `entry` says.
pub(super) fn keep(images: &BootImages, entry: BootEntry) -> KeptImages {
    let image = |bytes: Option<&[u8]>, address: Option<u64>| KeptImage {
        bytes: keep_in_huge_pages(bytes.unwrap_or_default()),
        first_page: address.and_then(page_index),
    };
    let initrd = entry.initrd.map(|(start, _)| start);
    [
        image(images.firmware.as_deref(), Some(RAM_BASE)),
        image(images.kernel.as_deref(), Some(entry.kernel)),
        image(images.initrd.as_deref(), initrd),
        image(Some(images.command_line.as_bytes()), None),
    ]
}

/// The page of RAM that begins at `address`.
fn page_index(address: u64) -> Option<u32> {
    let offset = address.checked_sub(RAM_BASE)?;
    let index = u32::try_from(offset / PAGE_SIZE).ok()?;
    offset.is_multiple_of(PAGE_SIZE).then_some(index)
}

/// Images of a snapshot; `None` if they are no machine's.
pub(super) fn of_snapshot(images: Vec<KeptImage>) -> Option<KeptImages> {
    let images: KeptImages = images.try_into().ok()?;
    std::str::from_utf8(&images[3].bytes).ok()?;
    Some(images)
}

/// What [`keep`] kept.
fn boot_images([firmware, kernel, initrd, command_line]: &KeptImages) -> Option<BootImages> {
    let image = |image: &KeptImage| (!image.bytes.is_empty()).then(|| image.bytes.to_vec());
    Some(BootImages {
        firmware: image(firmware),
        kernel: image(kernel),
        initrd: image(initrd),
        command_line: String::from_utf8(command_line.bytes.to_vec()).ok()?,
    })
}

/// Loads what a board begins with into RAM that is all zero.
pub(super) fn load(
    config: &Config,
    images: &BootImages,
    memory: &mut Memory,
    bus: &mut Bus,
) -> Result<BootEntry, BootError> {
    let isa = description::of(config.extensions);
    boot::load(&config.board, images, &isa, memory, bus)
}

/// Harts at reset, at instruction count `count`.
pub(super) fn harts(config: &Config, entry: BootEntry, count: InstructionCount) -> Vec<Hart> {
    let hart = |id| {
        let mut hart = Hart::new(id, entry.pc);
        hart.counters.begin(count);
        hart.update_translation_context();
        hart
    };
    (0..config.board.harts).map(hart).collect()
}

impl Machine {
    /// Carries out a reset if the guest asked for one. A machine whose images cannot be loaded again
    /// (its snapshot was not made by this program) has ended.
    pub(super) fn reset_if_asked(&mut self) {
        if self.state.bus.asks_for_reset() && self.reset().is_none() {
            self.state.bus.end_at_reset();
            let end = Output::Finish(Finish::Reset);
            self.state.outputs.other(end);
        }
    }

    fn reset(&mut self) -> Option<()> {
        let images = boot_images(&self.images)?;
        let state = &mut self.state;
        let mut bus = state.bus.after_reset(&state.config.board).ok()?;
        self.memory.clear();
        let entry = load(&state.config, &images, &mut self.memory, &mut bus).ok()?;
        state.bus = bus;
        state.harts = harts(&state.config, entry, state.count);
        state.current = 0;
        state.slice_end = state.count + turns::SLICE;
        self.memory.take_disturbances();
        self.forget_code();
        Some(())
    }

    /// RAM and harts are new: whatever the engine remembers of the old ones is void.
    fn forget_code(&mut self) {
        self.blocks = BlockCache::new(self.state.config.extensions);
        self.jit = None;
        self.set_engine(self.engine);
    }
}
