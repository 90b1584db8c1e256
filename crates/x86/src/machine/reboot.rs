//! The guest's reset: within `run`, after the instruction that asked for it, at the same count in every
//! replica.
//!
//! RAM, CPUs and devices begin anew from the images that the machine keeps. The instruction count and guest
//! time go on (and with it the time-stamp counter), and so do the numbers of requests to the outside: it is
//! the same life.

use super::{Machine, turns};
use crate::boot::{self, BootImages};
use crate::ram::PAGE_SIZE;
use machine::output::{Finish, Output};
use machine::snapshot::KeptImage;

/// The boot images as the machine and its snapshots keep them: firmware, kernel, initrd, command line. One that
/// there is not is empty.
pub(super) type KeptImages = [KeptImage; 4];

/// Keeps images; the initrd was loaded at an address. (The kernel is not loaded as it is in its file, and firmware
/// works where it is loaded.)
pub(super) fn keep(images: &BootImages, initrd: Option<u64>) -> KeptImages {
    let image = |bytes: &[u8], first_page: Option<u32>| KeptImage {
        bytes: bytes.into(),
        first_page,
    };
    [
        image(images.firmware.as_deref().unwrap_or_default(), None),
        image(&images.kernel, None),
        image(
            images.initrd.as_deref().unwrap_or_default(),
            initrd.and_then(page_index),
        ),
        image(images.command_line.as_bytes(), None),
    ]
}

/// The page of RAM that begins at `address`.
fn page_index(address: u64) -> Option<u32> {
    let index = u32::try_from(address / PAGE_SIZE).ok()?;
    address.is_multiple_of(PAGE_SIZE).then_some(index)
}

/// Images of a snapshot; `None` if they are no machine's.
pub(super) fn of_snapshot(images: Vec<KeptImage>) -> Option<KeptImages> {
    let images: KeptImages = images.try_into().ok()?;
    std::str::from_utf8(&images[3].bytes).ok()?;
    Some(images)
}

/// What [`keep`] kept.
fn boot_images([firmware, kernel, initrd, command_line]: &KeptImages) -> Option<BootImages> {
    let optional = |image: &KeptImage| (!image.bytes.is_empty()).then(|| image.bytes.to_vec());
    Some(BootImages {
        firmware: optional(firmware),
        kernel: kernel.bytes.to_vec(),
        initrd: optional(initrd),
        command_line: String::from_utf8(command_line.bytes.to_vec()).ok()?,
    })
}

impl Machine {
    /// Carries out a reset if the guest asked for one. A machine whose images cannot be loaded again (its
    /// snapshot was not made by this program) has ended.
    pub(super) fn reset_if_asked(&mut self) {
        if self.state.board.asks_for_reset() && self.reset().is_none() {
            self.state.board.end_at_reset();
            let end = Output::Finish(Finish::Reset);
            self.state.outputs.other(end);
        }
    }

    fn reset(&mut self) -> Option<()> {
        let images = boot_images(&self.images)?;
        let state = &mut self.state;
        let board = state.board.after_reset(&state.config.board);
        self.ram.clear();
        let loaded = boot::load(&mut self.ram, &images, &board.description()).ok()?;
        state.board = board;
        state.cpus = turns::cpus(loaded.cpu, state.board.cpus());
        state.current = 0;
        state.slice_end = state.count + turns::SLICE;
        // RAM and CPUs are new: whatever the engine remembers of the old ones is void.
        self.jit = None;
        self.set_engine(self.engine);
        Some(())
    }
}
