//! Any bytes as a qcow2 image that is opened, read, written to and zeroed: nothing panics, nothing hangs.
//!
//! Whatever the bytes are, they begin with the magic; the first byte says where is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qcow2::{Header, Image, MAGIC, Storage};
use std::io;
use std::sync::{Arc, Mutex};

/// No image grows beyond it: an input may say that its next free cluster is at 2^55.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Debug)]
struct Memory(Mutex<Vec<u8>>);

impl Storage for Memory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.0.lock().unwrap();
        let there = content.get(offset.min(MOST_BYTES) as usize..).unwrap_or(&[]);
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > MOST_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut content = self.0.lock().unwrap();
        let length = content.len().max(end as usize);
        content.resize(length, 0);
        content[offset as usize..end as usize].copy_from_slice(bytes);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn give_back(&self, _offset: u64, _length: u64) {}

    fn next_data(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let content = [&MAGIC[..], rest].concat();
    let storage = Arc::new(Memory(Mutex::new(content)));
    let Ok(header) = Header::read(&*storage) else {
        return;
    };
    let Ok(image) = Image::open(storage, header, None, false) else {
        return;
    };
    let length = image.length().min(1 << 20);
    let mut out = vec![0; length as usize];
    let _read = image.read(0, &mut out);
    let _next = image.next_data(0);
    let at = length * u64::from(*first) / 256;
    let _written = image.write(at, &vec![0x5a; (length - at).min(9000) as usize]);
    let _flushed = image.flush();
    let _zeroed = image.zero(at / 2, length - at);
    let _flushed = image.flush();
    let _read = image.read(0, &mut out);
});
