//! The first bytes of every file: eight that say what it is, and the number of its format.

/// Bytes before the first frame.
pub const PREAMBLE_BYTES: usize = MAGIC_BYTES + 2;

const MAGIC_BYTES: usize = 8;

/// It begins like something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign;

/// The beginning of a file in this format.
pub fn preamble(magic: [u8; MAGIC_BYTES], version: u16) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend_from_slice(&version.to_le_bytes());
    out
}

/// The first bytes of a file, as they come.
#[derive(Debug, Default)]
pub struct Preamble(Vec<u8>);

impl Preamble {
    /// Takes what belongs to it, and gives the rest.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = PREAMBLE_BYTES - self.0.len();
        let (own, rest) = bytes.split_at(missing.min(bytes.len()));
        self.0.extend_from_slice(own);
        rest
    }

    /// Bytes that have come.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The format, once it is whole.
    ///
    /// # Errors
    /// It does not begin like that, as far as it has come.
    pub fn version(&self, magic: [u8; MAGIC_BYTES]) -> Result<Option<u16>, Foreign> {
        let seen = self.0.len().min(MAGIC_BYTES);
        if self.0[..seen] != magic[..seen] {
            return Err(Foreign);
        }
        match self.0[seen..] {
            [low, high] => Ok(Some(u16::from_le_bytes([low, high]))),
            _ => Ok(None),
        }
    }
}
