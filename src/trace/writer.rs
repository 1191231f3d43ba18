//! Appending to a trace file, record by record: what has been written is whole, whatever happens next.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde::Serialize;

use super::error::{Result, TraceError};
use super::packed::Packed;
use super::record::{Fork, Header, Spellings};
use super::wire::{self, Codec, HEAD, Head, Kind, MAX_PLAIN};
use crate::engine::frame::Frame;
use crate::engine::message::Speller;

/// The fastest level with codes made for the data: one below, numbers do not shrink at all; levels above take longer
/// for hardly anything.
const LEVEL: u32 = 2;
/// Shorter contents stay plain.
const WORTH_COMPRESSING: usize = 512;

pub struct Writer {
    path: PathBuf,
    file: File,
    /// Bytes written in whole records; 0 = not begun, an older file is still as it was.
    length: u64,
    frames: u64,
    spelled: HashSet<u32>,
    /// This writer has made the file: without contents it goes again.
    made: bool,
}

/// How much has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub frames: u64,
    pub bytes: u64,
}

impl Writer {
    /// Opens the file. An existing one is refused, or with `force` replaced, but not before the first record.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        let wrong = |source| TraceError::Io { doing: "write", path: path.to_owned(), source };
        let (file, made) = match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => (file, true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && !force => {
                return Err(TraceError::Exists { path: path.to_owned() });
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                (OpenOptions::new().write(true).open(path).map_err(wrong)?, false)
            }
            Err(e) => return Err(wrong(e)),
        };
        Ok(Self { path: path.to_owned(), file, length: 0, frames: 0, spelled: HashSet::new(), made })
    }

    pub fn written(&self) -> Written {
        Written { frames: self.frames, bytes: self.length }
    }

    /// Must come first.
    pub fn header(&mut self, header: &Header) -> Result<()> {
        let mut out = wire::preamble().to_vec();
        record(Kind::Header, 0, header, &mut out)?;
        self.append(&out)
    }

    pub fn prompt(&mut self, ids: &[u32], speller: &Speller) -> Result<()> {
        let mut out = Vec::new();
        self.spell(ids.iter().copied(), speller, &mut out)?;
        record(Kind::Prompt, 0, ids, &mut out)?;
        self.append(&out)
    }

    /// A complete frame, with the texts of the tokens that it names for the first time.
    pub fn frame(&mut self, frame: &Frame, speller: &Speller) -> Result<()> {
        let mut out = Vec::new();
        let ids = frame.lanes.iter().flat_map(|lane| {
            let candidates = lane.candidates.iter().map(|c| c.id);
            let lens = lane.lens.iter().flat_map(|l| l.top.iter().map(|(id, _)| *id));
            let runner_up = lane.pick.and_then(|pick| pick.runner_up);
            lane.fed.iter().copied().chain(lane.next).chain(runner_up).chain(candidates).chain(lens)
        });
        self.spell(ids, speller, &mut out)?;
        record(Kind::Frame, frame.step, &Packed::new(frame), &mut out)?;
        self.append(&out)?;
        self.frames += 1;
        Ok(())
    }

    pub fn rewound(&mut self, step: u32) -> Result<()> {
        let mut out = Vec::new();
        record(Kind::Rewound, step, &(), &mut out)?;
        self.append(&out)
    }

    pub fn forked(&mut self, fork: Fork) -> Result<()> {
        let mut out = Vec::new();
        record(Kind::Forked, 0, &fork, &mut out)?;
        self.append(&out)
    }

    fn spell(&mut self, ids: impl Iterator<Item = u32>, speller: &Speller, out: &mut Vec<u8>) -> Result<()> {
        let new: Spellings = ids.filter(|id| self.spelled.insert(*id)).map(|id| (id, (speller.0)(id))).collect();
        if new.is_empty() { Ok(()) } else { record(Kind::Spellings, 0, &new, out) }
    }

    /// One write for all of `bytes`; where it fails, what was written of it is taken back.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let regular = self.file.metadata().is_ok_and(|m| m.is_file());
        let mut write = || {
            if self.length == 0 && regular {
                self.file.set_len(0)?;
            }
            self.file.write_all(bytes)
        };
        if let Err(source) = write() {
            if regular && self.file.set_len(self.length).is_ok() {
                let _ = self.file.seek(SeekFrom::Start(self.length));
            }
            return Err(TraceError::Io { doing: "write", path: self.path.clone(), source });
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.made && self.length == 0 {
            // An empty file helps nobody; if it stays all the same, that is no loss either.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Appends one record to `out`.
fn record<T: Serialize + ?Sized>(kind: Kind, step: u32, contents: &T, out: &mut Vec<u8>) -> Result<()> {
    let plain = postcard::to_stdvec(contents).map_err(TraceError::Encode)?;
    if plain.len() > MAX_PLAIN {
        return Err(TraceError::TooLarge { bytes: plain.len() });
    }
    let from = out.len();
    out.resize(from + HEAD, 0);
    let mut codec = Codec::Plain;
    if plain.len() >= WORTH_COMPRESSING {
        let mut encoder = DeflateEncoder::new(&mut *out, Compression::new(LEVEL));
        // Writing to memory cannot fail.
        if encoder.write_all(&plain).and_then(|()| encoder.finish().map(|_| ())).is_ok() {
            codec = Codec::Deflate;
        }
    }
    if codec == Codec::Plain || out.len() - from - HEAD >= plain.len() {
        codec = Codec::Plain;
        out.truncate(from + HEAD);
        out.extend_from_slice(&plain);
    }
    let stored = &out[from + HEAD..];
    let head = Head {
        kind,
        codec,
        step,
        stored: stored.len() as u32,
        plain: plain.len() as u32,
        crc: crc32fast::hash(stored),
    };
    out[from..from + HEAD].copy_from_slice(&head.bytes());
    Ok(())
}
