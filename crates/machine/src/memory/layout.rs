//! Which guest physical addresses are RAM.

use super::{OutsideRam, PAGE_SIZE};

/// A piece of the guest physical address space that is RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first address, a multiple of the page size.
    pub base: u64,
    /// Its length in bytes, a multiple of the page size and more than zero.
    pub length: u64,
}

/// A region and what lies before it.
#[derive(Clone, Copy)]
struct Placed {
    region: Region,
    /// Offset in RAM of its first byte.
    offset: u64,
}

/// The regions, in the order of their addresses. RAM as offsets has no holes.
pub(super) struct Layout {
    /// At offset 0. Most machines have no other.
    first: Region,
    others: Vec<Placed>,
    size: u64,
}

impl Layout {
    /// # Panics
    /// Without a region, if one is not whole pages, and if two touch or are not in the order of
    /// their addresses.
    pub(super) fn new(regions: &[Region]) -> Layout {
        let [first, rest @ ..] = regions else {
            panic!("a machine has RAM");
        };
        let (mut size, mut end) = (0, None);
        let mut place = |region: &Region| {
            let Region { base, length } = *region;
            assert!(
                length > 0 && length.is_multiple_of(PAGE_SIZE) && base.is_multiple_of(PAGE_SIZE),
                "RAM of {length} bytes at {base:#x} is not whole pages"
            );
            assert!(
                end.is_none_or(|end| end < base),
                "RAM at {base:#x} touches the region before it"
            );
            end = Some(base.checked_add(length).expect("RAM ends below 2^64"));
            let offset = size;
            size += length;
            Placed {
                region: *region,
                offset,
            }
        };
        let first = place(first).region;
        let others = rest.iter().map(&mut place).collect();
        Layout {
            first,
            others,
            size,
        }
    }

    /// The regions, in the order of their addresses.
    pub(super) fn regions(&self) -> Vec<Region> {
        let others = self.others.iter().map(|placed| placed.region);
        [self.first].into_iter().chain(others).collect()
    }

    /// Bytes of RAM.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The offset of `address`, if `length` bytes from there are all in one region.
    #[inline]
    pub(super) fn offset(&self, address: u64, length: u64) -> Result<usize, OutsideRam> {
        let offset = address.wrapping_sub(self.first.base);
        if offset < self.first.length && self.first.length - offset >= length {
            Ok(offset as usize)
        } else {
            self.offset_in_others(address, length)
        }
    }

    #[cold]
    fn offset_in_others(&self, address: u64, length: u64) -> Result<usize, OutsideRam> {
        let placed = self.others.iter().find_map(|Placed { region, offset }| {
            let within = address.wrapping_sub(region.base);
            (within < region.length && region.length - within >= length).then(|| offset + within)
        });
        match placed {
            Some(offset) => Ok(offset as usize),
            None => Err(OutsideRam { address, length }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// RAM of a PC: below the hole for devices, and the rest from 4 GiB on.
    #[test]
    fn ram_on_both_sides_of_a_hole_has_none_in_its_offsets() {
        let low = Region {
            base: 0,
            length: 3 * GIB,
        };
        let high = Region {
            base: 4 * GIB,
            length: GIB,
        };
        let layout = Layout::new(&[low, high]);
        assert_eq!(layout.size(), 4 * GIB);
        let offset = |address, length| layout.offset(address, length).ok();
        assert_eq!(offset(0, 1), Some(0));
        assert_eq!(offset(3 * GIB - 8, 8), Some(3 * GIB as usize - 8));
        assert_eq!(offset(3 * GIB - 8, 9), None, "it reaches into the hole");
        assert_eq!(offset(3 * GIB, 1), None);
        assert_eq!(offset(4 * GIB - 1, 1), None);
        assert_eq!(offset(4 * GIB, 1), Some(3 * GIB as usize));
        assert_eq!(offset(5 * GIB - 1, 1), Some(4 * GIB as usize - 1));
        assert_eq!(offset(5 * GIB - 1, 2), None);
        assert_eq!(offset(u64::MAX, 2), None);
        assert_eq!(offset(0, u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "touches")]
    fn regions_that_overlap_are_refused() {
        let region = Region {
            base: 0x8000_0000,
            length: 0x2000,
        };
        let next = Region {
            base: 0x8000_1000,
            length: 0x1000,
        };
        Layout::new(&[region, next]);
    }
}
