//! Opening a trace: everything but the frames is read at once, those are found and read when wanted.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::DeflateDecoder;
use serde::de::DeserializeOwned;

use super::check;
use super::error::{Result, TraceError};
use super::packed::Packed;
use super::record::{Fork, Header, Prompt, Spellings};
use super::wire::{self, Codec, HEAD, Head, Kind, PREAMBLE, Preamble};
use crate::engine::frame::Frame;
use crate::engine::message::Speller;

/// What happened, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Prompt(Prompt),
    /// See [`Trace::frame`].
    Frame(u32),
    /// Steps after this one were dropped.
    Rewound(u32),
    Forked(Fork),
}

/// The file ends within a record: the run was killed, or the file is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// First byte of the unfinished record.
    pub offset: u64,
    /// Bytes there are of it.
    pub bytes: u64,
}

pub struct Trace {
    path: PathBuf,
    file: BufReader<File>,
    length: u64,
    pub header: Header,
    pub entries: Vec<Entry>,
    /// Where each entry's record begins.
    offsets: Vec<u64>,
    /// The prompt that each entry belongs to, as an index into `entries`.
    prompts: Vec<usize>,
    pub spellings: Arc<HashMap<u32, String>>,
    pub tail: Option<Tail>,
}

impl Tail {
    pub fn words(self) -> String {
        let Self { offset, bytes } = self;
        format!("the trace is cut off at byte {}, in a record that begins at byte {offset}", offset + bytes)
    }
}

impl Trace {
    /// Reads the whole file once, checks every record's sum, and decodes all but the frames.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |source| TraceError::Io { doing: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(wrong)?;
        let metadata = file.metadata().map_err(wrong)?;
        if metadata.is_dir() {
            return Err(wrong(ErrorKind::IsADirectory.into()));
        }
        let mut raw = Raw { path, file: BufReader::new(file), length: metadata.len() };
        raw.preamble()?;
        let mut offset = PREAMBLE as u64;
        let (mut header, mut entries, mut offsets, mut prompts) = (None, Vec::new(), Vec::new(), Vec::new());
        let mut spellings = HashMap::new();
        let mut prompt = None;
        let mut tail = None;
        while offset < raw.length {
            let Some((head, stored)) = raw.record(offset)? else {
                tail = Some(Tail { offset, bytes: raw.length - offset });
                break;
            };
            let damaged = |what: String| raw.damaged(offset, what);
            let entry = match (head.kind, &header) {
                (Kind::Header, None) => {
                    let found: Header = raw.contents(offset, &head, &stored)?;
                    check::model(&found.model).map_err(damaged)?;
                    header = Some(found);
                    None
                }
                (Kind::Header, Some(_)) => return Err(damaged("there is a second header".into())),
                (_, None) => return Err(damaged("the first record is no header".into())),
                (Kind::Spellings, _) => {
                    spellings.extend(raw.contents::<Spellings>(offset, &head, &stored)?);
                    None
                }
                (Kind::Prompt, _) => {
                    prompt = Some(entries.len());
                    Some(Entry::Prompt(raw.contents(offset, &head, &stored)?))
                }
                (_, _) if prompt.is_none() => return Err(damaged("a frame comes before any prompt".into())),
                (Kind::Frame, _) => Some(Entry::Frame(head.step)),
                (Kind::Rewound, _) => Some(Entry::Rewound(head.step)),
                (Kind::Forked, _) => Some(Entry::Forked(raw.contents(offset, &head, &stored)?)),
            };
            if let (Some(entry), Some(prompt)) = (entry, prompt) {
                entries.push(entry);
                offsets.push(offset);
                prompts.push(prompt);
            }
            offset += HEAD as u64 + u64::from(head.stored);
        }
        let header = header.ok_or_else(|| TraceError::Empty { path: path.to_owned() })?;
        let Raw { file, length, .. } = raw;
        let spellings = Arc::new(spellings);
        Ok(Self { path: path.to_owned(), file, length, header, entries, offsets, prompts, spellings, tail })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn has_frames(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Entry::Frame(_)))
    }

    /// The frame of entry `index`, checked against the model and the prompt. Fails where that entry is no frame.
    pub fn frame(&mut self, index: usize) -> Result<Frame> {
        let (offset, prompt) = match (self.offsets.get(index), self.prompts.get(index)) {
            (Some(&offset), Some(&prompt)) => (offset, prompt),
            _ => return Err(TraceError::Empty { path: self.path.clone() }),
        };
        let mut raw = Raw { path: &self.path, file: &mut self.file, length: self.length };
        let Some((head, stored)) = raw.record(offset)? else {
            return Err(raw.damaged(offset, "the record is not there any more".into()));
        };
        let damaged = |what| raw.damaged(offset, what);
        if head.kind != Kind::Frame {
            return Err(damaged("the record is no frame".into()));
        }
        let frame = raw.contents::<Packed>(offset, &head, &stored)?.unpack();
        let Some(Entry::Prompt(ids)) = self.entries.get(prompt) else {
            return Err(damaged("the frame has no prompt".into()));
        };
        if frame.step != head.step {
            return Err(damaged(format!("a frame of step {} stands where step {} should", frame.step, head.step)));
        }
        check::frame(&frame, &self.header.model, ids).map_err(damaged)?;
        Ok(frame)
    }

    /// Spells the ids that the trace names; others as numbers.
    pub fn speller(&self) -> Speller {
        let spellings = self.spellings.clone();
        Speller(Arc::new(move |id| spellings.get(&id).cloned().unwrap_or_else(|| format!("⟨{id}⟩"))))
    }
}

/// The file's bytes, believed only after their sums have been checked.
struct Raw<'a, F> {
    path: &'a Path,
    file: F,
    length: u64,
}

impl<F: Read + Seek> Raw<'_, F> {
    fn damaged(&self, offset: u64, what: String) -> TraceError {
        TraceError::Damaged { path: self.path.to_owned(), offset, what }
    }

    fn wrong(&self, source: std::io::Error) -> TraceError {
        TraceError::Io { doing: "read", path: self.path.to_owned(), source }
    }

    fn preamble(&mut self) -> Result<()> {
        let mut bytes = [0; PREAMBLE];
        match self.file.read_exact(&mut bytes) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(TraceError::Foreign { path: self.path.to_owned() }),
            Err(e) => Err(self.wrong(e)),
            Ok(()) => match wire::read_preamble(&bytes) {
                Preamble::Version(wire::VERSION) => Ok(()),
                Preamble::Version(version) => {
                    Err(TraceError::Version { path: self.path.to_owned(), version, known: wire::VERSION })
                }
                Preamble::Foreign => Err(TraceError::Foreign { path: self.path.to_owned() }),
                Preamble::Damaged => Err(self.damaged(8, "the check sum of the preamble is wrong".into())),
            },
        }
    }

    /// Head and stored bytes of the record at `offset`; `None` where the file ends within it.
    fn record(&mut self, offset: u64) -> Result<Option<(Head, Vec<u8>)>> {
        let left = self.length.saturating_sub(offset);
        if left < HEAD as u64 {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| self.wrong(e))?;
        let mut bytes = [0; HEAD];
        self.file.read_exact(&mut bytes).map_err(|e| self.wrong(e))?;
        let head = Head::read(&bytes).map_err(|what| self.damaged(offset, what))?;
        if u64::from(head.stored) > left - HEAD as u64 {
            return Ok(None);
        }
        // No more than the file holds.
        let mut stored = Vec::new();
        (&mut self.file).take(u64::from(head.stored)).read_to_end(&mut stored).map_err(|e| self.wrong(e))?;
        if stored.len() != head.stored as usize {
            return Ok(None);
        }
        if crc32fast::hash(&stored) != head.crc {
            return Err(self.damaged(offset + HEAD as u64, "the check sum of a record is wrong".into()));
        }
        Ok(Some((head, stored)))
    }

    /// The contents of a record, decoded.
    fn contents<T: DeserializeOwned>(&self, offset: u64, head: &Head, stored: &[u8]) -> Result<T> {
        let damaged = |what: &str| self.damaged(offset + HEAD as u64, what.to_owned());
        let mut plain = Vec::new();
        let bytes = match head.codec {
            Codec::Plain => stored,
            Codec::Deflate => {
                // One byte more than promised is enough to see the lie.
                let read = DeflateDecoder::new(stored).take(u64::from(head.plain) + 1).read_to_end(&mut plain);
                if read.is_err() || plain.len() != head.plain as usize {
                    return Err(damaged("a record cannot be decompressed"));
                }
                &plain
            }
        };
        match postcard::take_from_bytes::<T>(bytes) {
            Ok((value, [])) => Ok(value),
            _ => Err(damaged("a record does not hold what its kind asks for")),
        }
    }
}
