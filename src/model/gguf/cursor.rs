//! Reading forward through bytes that may end anywhere.

use super::GgufError;

/// A position in the file; every read is checked against what is left.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        let end = usize::try_from(count).ok().and_then(|n| self.at.checked_add(n)).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(GgufError::Truncated { what, at: self.at, need: count, left: self.left() });
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string: its length in eight bytes, then its bytes.
    pub fn string_bytes(&mut self, what: &'static str) -> Result<&'a [u8], GgufError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    pub fn string(&mut self, what: &'static str) -> Result<&'a str, GgufError> {
        let at = self.at;
        std::str::from_utf8(self.string_bytes(what)?).map_err(|_| GgufError::Utf8 { what, at })
    }

    /// Whether `count` items of at least `size` bytes each can follow.
    pub fn expect(&self, count: u64, size: u64, what: &'static str) -> Result<(), GgufError> {
        match count.checked_mul(size) {
            Some(bytes) if bytes <= self.left() as u64 => Ok(()),
            _ => Err(GgufError::Count { what, count }),
        }
    }
}
