//! Advice to the host about large memory.

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
