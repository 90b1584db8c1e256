//! Advice to the host about large memory.

use std::sync::Arc;

/// What is smaller than some pages of 2 MiB has nothing of them.
const LARGE_BYTES: usize = 4 << 20;

/// Lets the host map what is accessed here and there by pages of 2 MiB, so that an access misses its
/// TLB less often. A host that cannot is slower, nothing else.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // advice on memory of its own
pub fn ask_for_huge_pages<T>(memory: &mut [T]) {
    use super::PAGE_SIZE;
    use rustix::mm::{Advice, madvise};
    let page = PAGE_SIZE as usize;
    let bytes = memory.as_mut_ptr().cast::<u8>();
    let unaligned = bytes.align_offset(page);
    let length = size_of_val(memory).saturating_sub(unaligned) / page * page;
    if length > 0 {
        // SAFETY: the range is whole pages within `memory`, and the advice changes no contents.
        let _ = unsafe { madvise(bytes.add(unaligned).cast(), length, Advice::LinuxHugepage) };
    }
}

/// There is nobody to advise.
#[cfg(not(target_os = "linux"))]
pub fn ask_for_huge_pages<T>(_: &mut [T]) {}

/// A copy of what is kept for as long as the machine lives, in large pages where it is large. A process that
/// is killed closes its connections only after its memory was freed, page by page: with pages of 4 KiB its
/// backup learns of it later by a third of a millisecond for each megabyte.
#[allow(unsafe_code)] // memory of its own, written before it is called written
pub fn keep_in_huge_pages(bytes: &[u8]) -> Arc<[u8]> {
    if bytes.len() < LARGE_BYTES {
        return bytes.into();
    }
    let mut kept = Arc::<[u8]>::new_uninit_slice(bytes.len());
    let room = Arc::get_mut(&mut kept).expect("nobody else has what was just made");
    // Before the first access: what has been accessed stays in small pages.
    ask_for_huge_pages(room);
    for (to, from) in room.iter_mut().zip(bytes) {
        to.write(*from);
    }
    // SAFETY: the loop has written each element, since both have the same length.
    unsafe { kept.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_equal_whether_it_is_large_or_not() {
        for length in [0, 1, 4096, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 4097] {
            let bytes: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
            assert!(
                keep_in_huge_pages(&bytes)[..] == bytes[..],
                "{length} bytes"
            );
        }
    }
}
