//! `qemu-img`, files as storage, and storage in memory that loses what was not synced.

use qcow2::{Backing, Header, Image, OpenError, Storage};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

pub const SECTOR: usize = 512;

/// Runs it, and says what it printed and how it ended.
pub fn qemu_img(arguments: &[&str]) -> (String, i32) {
    let output = Command::new("qemu-img").args(arguments).output();
    let output = output.expect("qemu-img is there: apt-get install qemu-utils");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (text, output.status.code().unwrap_or(-1))
}

/// Runs it; it has to succeed.
pub fn qemu_img_ok(arguments: &[&str]) {
    let (text, status) = qemu_img(arguments);
    assert_eq!(status, 0, "qemu-img {arguments:?}: {text}");
}

/// What `qemu-img check` finds: 0 nothing, 3 leaks; errors fail.
pub fn check(path: &Path) -> i32 {
    let (text, status) = qemu_img(&["check", "-f", "qcow2", name(path)]);
    assert!(status == 0 || status == 3, "{status}: {text}");
    status
}

/// What `qemu-img` reads in an image.
pub fn content(path: &Path) -> Vec<u8> {
    let raw = path.with_extension("content");
    qemu_img_ok(&[
        "convert",
        "-f",
        "qcow2",
        "-O",
        "raw",
        name(path),
        name(&raw),
    ]);
    std::fs::read(raw).unwrap()
}

pub fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file of the host.
#[derive(Debug)]
pub struct OnDisk(pub File);

impl Storage for OnDisk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64)? {
                0 => break,
                length => done += length,
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    // Nobody pulls the plug of a test.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn give_back(&self, _offset: u64, _length: u64) {}

    fn next_data(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }
}

pub fn on_disk(path: &Path) -> Arc<OnDisk> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    Arc::new(OnDisk(file.unwrap()))
}

pub fn open(storage: Arc<dyn Storage>, backing: Option<Backing>) -> Result<Image, OpenError> {
    let header = Header::read(&*storage)?;
    Image::open(storage, header, backing, false)
}

/// An image of the host's, and what it lies over, to be read only.
pub fn open_below(path: &Path, backing: Option<Backing>) -> Backing {
    let storage = on_disk(path);
    let header = Header::read(&*storage).unwrap();
    Backing::Image(Box::new(
        Image::open(storage, header, backing, true).unwrap(),
    ))
}

/// Bytes that a seed makes.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[derive(Debug, Default)]
struct Platters {
    durable: Vec<u8>,
    /// What was written since the last sync, sector by sector, in order.
    pending: Vec<(u64, Vec<u8>)>,
    now: Vec<u8>,
    calls: u64,
    fails_at: Option<std::ops::Range<u64>>,
}

/// A disk in memory. What was not synced may be lost, sector by sector. Calls may fail: of a sync that
/// failed, nothing is known.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Platters>);

impl Memory {
    pub fn new(content: Vec<u8>) -> Memory {
        Memory(Mutex::new(Platters {
            durable: content.clone(),
            now: content,
            ..Platters::default()
        }))
    }

    /// Writes and syncs so far.
    pub fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// From this call on as many fail.
    pub fn fail_at(&self, calls: std::ops::Range<u64>) {
        self.0.lock().unwrap().fails_at = Some(calls);
    }

    /// What is there when the power went; `choose(n)` is less than `n`.
    pub fn after_power_loss(&self, mut choose: impl FnMut(usize) -> usize) -> Vec<u8> {
        let platters = self.0.lock().unwrap();
        let mut content = platters.durable.clone();
        let mut sectors: Vec<u64> = platters.pending.iter().map(|(at, _)| *at).collect();
        sectors.sort_unstable();
        sectors.dedup();
        for sector in sectors {
            let versions = platters.pending.iter().filter(|(at, _)| *at == sector);
            let versions: Vec<&Vec<u8>> = versions.map(|(_, bytes)| bytes).collect();
            if let Some(kept) = choose(versions.len() + 1).checked_sub(1) {
                put(&mut content, sector as usize * SECTOR, versions[kept]);
            }
        }
        content
    }

    pub fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap().now.clone()
    }
}

impl Platters {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        let fails = self.fails_at.as_ref();
        match fails.is_some_and(|calls| calls.contains(&self.calls)) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Storage for Memory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let platters = self.0.lock().unwrap();
        let there = platters.now.get(offset as usize..).unwrap_or(&[]);
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.call()?;
        put(&mut platters.now, offset as usize, bytes);
        let end = offset as usize + bytes.len();
        for sector in offset as usize / SECTOR..end.div_ceil(SECTOR) {
            let after = ((sector + 1) * SECTOR).min(platters.now.len());
            let version = platters.now[sector * SECTOR..after].to_vec();
            platters.pending.push((sector as u64, version));
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        if let Err(error) = platters.call() {
            // The host forgets what it could not write.
            platters.pending.clear();
            return Err(error);
        }
        for (sector, bytes) in std::mem::take(&mut platters.pending) {
            put(&mut platters.durable, sector as usize * SECTOR, &bytes);
        }
        // What was forgotten leaves a hole: the length is not content.
        let length = platters.now.len();
        platters.durable.resize(length, 0);
        Ok(())
    }

    fn give_back(&self, offset: u64, length: u64) {
        let mut platters = self.0.lock().unwrap();
        let end = (offset + length).min(platters.now.len() as u64);
        for sector in offset / SECTOR as u64..end / SECTOR as u64 {
            let rubbish = vec![0xa5; SECTOR];
            put(&mut platters.now, sector as usize * SECTOR, &rubbish);
            platters.pending.push((sector, rubbish));
        }
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }
}
