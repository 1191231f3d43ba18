//! Preamble and record heads as bytes.

/// Not text in any encoding; a transfer that changes line ends changes it.
pub const MAGIC: [u8; 8] = *b"\x89ATNS\r\n\x1a";
/// Raised with every change to what is written, also of a frame's fields.
pub const VERSION: u32 = 5;
pub const PREAMBLE: usize = 16;
pub const HEAD: usize = 24;
/// Longest contents of a record before compression.
pub const MAX_PLAIN: usize = 1 << 31;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Header = 1,
    Prompt = 2,
    Spellings = 3,
    Frame = 4,
    Rewound = 5,
    Forked = 6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    Plain = 0,
    Deflate = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub codec: Codec,
    /// Of a frame, or the step gone back to; else 0.
    pub step: u32,
    /// Bytes in the file after the head.
    pub stored: u32,
    /// Bytes before compression.
    pub plain: u32,
    /// CRC-32 of the stored bytes.
    pub crc: u32,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.iter().skip(at).take(4).rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

pub fn preamble() -> [u8; PREAMBLE] {
    let mut out = [0; PREAMBLE];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let crc = crc32fast::hash(&out[..12]);
    out[12..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What a preamble says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preamble {
    Foreign,
    /// The magic is ours, the check sum is not right.
    Damaged,
    Version(u32),
}

pub fn read_preamble(bytes: &[u8; PREAMBLE]) -> Preamble {
    match () {
        () if bytes[..8] != MAGIC => Preamble::Foreign,
        () if crc32fast::hash(&bytes[..12]) != word(bytes, 12) => Preamble::Damaged,
        () => Preamble::Version(word(bytes, 8)),
    }
}

impl Head {
    pub fn bytes(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        (out[0], out[1]) = (self.kind as u8, self.codec as u8);
        for (i, word) in [self.step, self.stored, self.plain, self.crc].into_iter().enumerate() {
            out[4 + 4 * i..8 + 4 * i].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..20]);
        out[20..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// What is wrong with it otherwise.
    pub fn read(bytes: &[u8; HEAD]) -> Result<Self, String> {
        if crc32fast::hash(&bytes[..20]) != word(bytes, 20) {
            return Err("the check sum of a record's head is wrong".into());
        }
        let kinds = [Kind::Header, Kind::Prompt, Kind::Spellings, Kind::Frame, Kind::Rewound, Kind::Forked];
        let kind = kinds.into_iter().find(|kind| *kind as u8 == bytes[0]);
        let codec = [Codec::Plain, Codec::Deflate].into_iter().find(|codec| *codec as u8 == bytes[1]);
        let (Some(kind), Some(codec)) = (kind, codec) else {
            return Err(format!("kind {} and codec {} of a record are not known", bytes[0], bytes[1]));
        };
        let [step, stored, plain, crc] = [4, 8, 12, 16].map(|at| word(bytes, at));
        if plain as usize > MAX_PLAIN || codec == Codec::Plain && stored != plain {
            return Err(format!("a record says that it holds {plain} bytes in {stored}"));
        }
        Ok(Self { kind, codec, step, stored, plain, crc })
    }
}
