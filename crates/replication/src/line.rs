//! One line of text that a program may trust: a word, a version, fields in a fixed order, a checksum.
//!
//! Keys at the arbiter and markers beside disks are read by people, and decide who may run a
//! machine. So they are text, and only what was written whole counts: the line ends with its
//! checksum and a newline, and whoever reads one compares it with what it would have written.

use thiserror::Error;

/// Why bytes are not such a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    /// It does not end as a whole one does.
    #[error("it is not whole")]
    Torn,
    /// It begins otherwise.
    #[error("it is something else")]
    Foreign,
    /// Another version of the format.
    #[error("it has version {0:?}, which this build does not read")]
    Version(String),
    /// The checksum does not fit.
    #[error("its checksum does not fit")]
    Checksum,
    /// The checksum fits, but the text makes no sense.
    #[error("its {0} makes no sense")]
    Field(&'static str),
}

const CHECKSUM: &str = " crc=";
/// ` crc=`, eight digits, a newline.
const TAIL_BYTES: usize = CHECKSUM.len() + 8 + 1;

/// Writes a line.
pub(crate) struct LineWriter(String);

impl LineWriter {
    pub fn new(word: &str, version: u32) -> LineWriter {
        LineWriter(format!("{word} {version}"))
    }

    /// `value` must not contain spaces or control characters.
    pub fn field(&mut self, name: &str, value: impl std::fmt::Display) -> &mut LineWriter {
        let value = value.to_string();
        assert!(
            !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic()),
            "{name}={value:?} cannot be in a line"
        );
        self.0.push_str(&format!(" {name}={value}"));
        self
    }

    pub fn finish(&self) -> Vec<u8> {
        let checksum = crc32c::crc32c(self.0.as_bytes());
        format!("{}{CHECKSUM}{checksum:08x}\n", self.0).into_bytes()
    }
}

/// Reads a line whose checksum fits.
pub(crate) struct LineReader<'a> {
    fields: std::str::Split<'a, char>,
}

impl<'a> LineReader<'a> {
    pub fn open(bytes: &'a [u8], word: &str, version: u32) -> Result<LineReader<'a>, LineError> {
        let text = std::str::from_utf8(bytes).map_err(|_| LineError::Foreign)?;
        let begins = text.len().min(word.len());
        if !text.is_char_boundary(begins) || text[..begins] != word[..begins] {
            return Err(LineError::Foreign);
        }
        let body = text
            .len()
            .checked_sub(TAIL_BYTES)
            .filter(|end| text.is_char_boundary(*end));
        let (body, tail) = text.split_at(body.ok_or(LineError::Torn)?);
        let digits = tail
            .strip_prefix(CHECKSUM)
            .and_then(|tail| tail.strip_suffix('\n'))
            .ok_or(LineError::Torn)?;
        if digits != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
            return Err(LineError::Checksum);
        }
        let mut fields = body.split(' ');
        if fields.next() != Some(word) {
            return Err(LineError::Foreign);
        }
        match fields.next() {
            Some(found) if found == version.to_string() => Ok(LineReader { fields }),
            found => Err(LineError::Version(found.unwrap_or_default().to_owned())),
        }
    }

    pub fn field(&mut self, name: &'static str) -> Result<&'a str, LineError> {
        self.fields
            .next()
            .and_then(|field| field.strip_prefix(name))
            .and_then(|field| field.strip_prefix('='))
            .ok_or(LineError::Field(name))
    }

    /// The next field as a number in decimal.
    pub fn number(&mut self, name: &'static str) -> Result<u64, LineError> {
        self.field(name)?
            .parse()
            .map_err(|_| LineError::Field(name))
    }

    /// The next field as 128 bits in hexadecimal.
    pub fn identity(&mut self, name: &'static str) -> Result<u128, LineError> {
        parse_identity(self.field(name)?).ok_or(LineError::Field(name))
    }

    /// The next field, if it has this name: it may be left out.
    pub fn optional(&mut self, name: &'static str) -> Option<&'a str> {
        let mut ahead = self.fields.clone();
        let value = ahead.next()?.strip_prefix(name)?.strip_prefix('=')?;
        self.fields = ahead;
        Some(value)
    }

    pub fn end(mut self) -> Result<(), LineError> {
        self.fields
            .next()
            .map_or(Ok(()), |_| Err(LineError::Field("end")))
    }
}

pub(crate) fn parse_identity(text: &str) -> Option<u128> {
    (text.len() == 32)
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// A name as it may stand in a line: anything but letters, digits, `-`, `_` and `.` as `%xx`.
pub(crate) fn escape(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

/// The name again.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
