//! All frames in a file that Wireshark and tcpdump read (the classic pcap format: version 2.4,
//! little-endian, microseconds, LINKTYPE_ETHERNET).

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MAGIC: u32 = 0xa1b2_c3d4;
const SNAP_LENGTH: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;

/// A capture that is being written.
#[derive(Debug)]
pub struct Capture<W: Write = BufWriter<File>> {
    file: W,
}

impl Capture {
    /// Starts a file at `path`, for its owner alone. A capture that was there is replaced; anything else is
    /// kept: its name was a slip.
    ///
    /// # Errors
    /// It cannot be made, or the file is no capture.
    pub fn create(path: &Path) -> io::Result<Capture> {
        // For writing alone: who could read a pipe as well would never learn that its reader went away.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if file.metadata()?.is_file() {
            let mut beginning = Vec::new();
            File::open(path)?.take(4).read_to_end(&mut beginning)?;
            if !MAGIC.to_le_bytes().starts_with(&beginning) {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "it exists and is no capture: name another file",
                ));
            }
            file.set_len(0)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Capture::new(BufWriter::new(file))
    }
}

impl<W: Write> Capture<W> {
    fn new(mut file: W) -> io::Result<Capture<W>> {
        file.write_all(&MAGIC.to_le_bytes())?;
        file.write_all(&[2, 0, 4, 0])?;
        file.write_all(&[0; 8])?;
        file.write_all(&SNAP_LENGTH.to_le_bytes())?;
        file.write_all(&LINKTYPE_ETHERNET.to_le_bytes())?;
        file.flush()?;
        Ok(Capture { file })
    }

    /// Appends a frame with the present time.
    pub(crate) fn record(&mut self, frame: &[u8]) -> io::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.record_at(now, frame)
    }

    /// Appends a frame that was seen so long after 1970-01-01 00:00 UTC.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record_at(&mut self, now: Duration, frame: &[u8]) -> io::Result<()> {
        // The format's own limits: seconds until 2106, frames far below 4 GiB.
        let length = frame.len() as u32;
        self.file.write_all(&(now.as_secs() as u32).to_le_bytes())?;
        self.file.write_all(&now.subsec_micros().to_le_bytes())?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(frame)
    }

    /// Brings what was recorded to the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_header_and_a_record_are_as_the_format_says() {
        let mut capture = Capture::new(Vec::new()).unwrap();
        capture.record(&[0xab; 60]).unwrap();
        let bytes = capture.file;
        assert_eq!(bytes.len(), 24 + 16 + 60);
        assert_eq!(bytes[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(bytes[20..24], [1, 0, 0, 0]);
        assert_eq!(bytes[32..40], [60, 0, 0, 0, 60, 0, 0, 0]);
        assert_eq!(bytes[40..], [0xab; 60]);
    }
}
