//! Memory for compiled code: one memfd mapped twice, executable here and writable there, so that no
//! mapping is ever both. Directly behind the executable mapping lies plain memory for what compiled
//! code reads and writes beside itself, in reach of its relative addresses.
#![allow(unsafe_code)] // mappings of its own, which no safe library offers in this arrangement

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::io;
use std::ptr::{NonNull, null_mut};

/// The mappings. Dropping it unmaps them.
pub struct ExecutableMemory {
    code: NonNull<u8>,
    writable: NonNull<u8>,
    code_bytes: usize,
    data_bytes: usize,
}

// SAFETY: it owns its mappings, and hands out writes through `&mut self` only.
unsafe impl Send for ExecutableMemory {}

impl ExecutableMemory {
    /// Maps `code_bytes` for code and `data_bytes` (zero) behind it; both whole pages.
    pub fn new(code_bytes: usize, data_bytes: usize) -> io::Result<ExecutableMemory> {
        let file = memfd_create("understudy-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, code_bytes as u64)?;
        let executable = ProtFlags::READ | ProtFlags::EXEC;
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the first mapping goes where the kernel chooses; the second replaces a part of it
        // that nobody uses yet; the third goes where the kernel chooses.
        unsafe {
            let all = mmap_anonymous(
                null_mut(),
                code_bytes + data_bytes,
                writable,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?;
            let owned = |writable: NonNull<u8>| ExecutableMemory {
                code: NonNull::new_unchecked(all.cast()),
                writable,
                code_bytes,
                data_bytes,
            };
            let unmap = |error: rustix::io::Errno| {
                let _ = munmap(all, code_bytes + data_bytes);
                io::Error::from(error)
            };
            let fixed = MapFlags::SHARED | MapFlags::FIXED;
            mmap(all, code_bytes, executable, fixed, &file, 0).map_err(unmap)?;
            let alias = mmap(null_mut(), code_bytes, writable, MapFlags::SHARED, &file, 0)
                .map_err(unmap)?;
            Ok(owned(NonNull::new_unchecked(alias.cast())))
        }
    }

    /// Address at which the code runs.
    pub fn code_address(&self) -> usize {
        self.code.as_ptr() as usize
    }

    /// Address of the data behind it.
    pub fn data_address(&self) -> usize {
        self.code_address() + self.code_bytes
    }

    /// Writes code, `offset` bytes from its begin.
    pub fn write_code(&mut self, offset: usize, bytes: &[u8]) {
        assert!(
            offset <= self.code_bytes && bytes.len() <= self.code_bytes - offset,
            "code is written within its memory"
        );
        // SAFETY: the range was just checked, and nothing else borrows the mapping.
        unsafe {
            self.writable
                .as_ptr()
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// The data as numbers. Compiled code does not run meanwhile.
    pub fn data(&mut self) -> &mut [u64] {
        // SAFETY: the mapping is as long, aligned to a page, and `&mut self` is the only way to it
        // while no compiled code runs.
        unsafe {
            std::slice::from_raw_parts_mut(self.data_address() as *mut u64, self.data_bytes / 8)
        }
    }
}

impl Drop for ExecutableMemory {
    fn drop(&mut self) {
        // SAFETY: both mappings are its own, and no code runs in them: whoever runs it borrows it.
        unsafe {
            let _ = munmap(self.code.as_ptr().cast(), self.code_bytes + self.data_bytes);
            let _ = munmap(self.writable.as_ptr().cast(), self.code_bytes);
        }
    }
}
