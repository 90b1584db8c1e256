//! How far the machine was whenever its guest had printed a line.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

/// Writes each line of a console to a file, behind the instruction count at which it was taken from the machine.
pub struct LineCounts<W: Write> {
    file: W,
    /// The line that has not ended yet.
    line: Vec<u8>,
}

/// A longer line is written in pieces: a guest may never end one.
const LONGEST_LINE_BYTES: usize = 4096;

impl LineCounts<BufWriter<File>> {
    /// Begins the file anew. One of these that was there is replaced; anything else is kept: its name was a slip.
    ///
    /// # Errors
    /// It cannot be created, or is something else.
    pub fn create(path: &Path) -> io::Result<LineCounts<BufWriter<File>>> {
        let is_other =
            fs::metadata(path).is_ok_and(|there| there.is_file()) && !begins_with_count(path)?;
        if is_other {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it exists and holds no counts of lines: name another file",
            ));
        }
        Ok(LineCounts::new(BufWriter::new(File::create(path)?)))
    }
}

/// Whether a file begins as these do, or is empty.
fn begins_with_count(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    // The largest count has 20 digits.
    File::open(path)?.take(21).read_to_end(&mut beginning)?;
    let digits = beginning.iter().take_while(|byte| byte.is_ascii_digit());
    let digits = digits.count();
    Ok(beginning.is_empty() || digits > 0 && beginning.get(digits) == Some(&b' '))
}

impl<W: Write> LineCounts<W> {
    fn new(file: W) -> LineCounts<W> {
        let line = Vec::new();
        LineCounts { file, line }
    }

    /// The guest has printed bytes, which were taken from the machine at an instruction count.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn printed(&mut self, count: u64, bytes: &[u8]) -> io::Result<()> {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(count)?,
                b'\r' => {}
                _ => self.line.push(byte),
            }
            if self.line.len() == LONGEST_LINE_BYTES {
                self.end_line(count)?;
            }
        }
        Ok(())
    }

    /// No more is printed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn end_line(&mut self, count: u64) -> io::Result<()> {
        write!(self.file, "{count} ")?;
        self.file.write_all(&self.line)?;
        self.line.clear();
        self.file.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding: a slip of the hand truncated a file.
    #[test]
    fn what_holds_no_counts_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        for bytes in [&b"QFI\xfb"[..], b"17", b"17x", b" 17 "] {
            fs::write(&path, bytes).unwrap();
            assert!(LineCounts::create(&path).is_err());
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::write(&path, b"17 a line\n").unwrap();
        let mut counts = LineCounts::create(&path).unwrap();
        counts.printed(5, b"b\n").unwrap();
        counts.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"5 b\n");
        LineCounts::create(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn a_line_has_the_count_of_its_end() {
        let mut counts = LineCounts::new(Vec::new());
        counts.printed(10, b"one\r\ntw").unwrap();
        counts.printed(20, b"o\r\n\r\nthr").unwrap();
        assert_eq!(counts.file, b"10 one\n20 two\n20 \n");
    }

    /// Else a guest could fill the host's memory.
    #[test]
    fn a_line_without_an_end_is_written_in_pieces() {
        let mut counts = LineCounts::new(Vec::new());
        counts.printed(1, &[b'x'; 3 * LONGEST_LINE_BYTES]).unwrap();
        assert!(counts.line.is_empty());
        assert_eq!(counts.file.iter().filter(|&&byte| byte == b'\n').count(), 3);
    }
}
