//! A recorded run for other programs: what stood at its end, frame by frame.

mod chrome;
mod csv;
mod json;

use std::io::{self, Write};

use super::error::TraceError;
use super::reader::Trace;
use super::standing::Standing;

pub use chrome::chrome;
pub use csv::csv;
pub use json::json;

/// Reading the trace went wrong, or writing what becomes of it.
#[derive(Debug)]
pub enum Failed {
    Read(TraceError),
    Write(io::Error),
}

impl From<TraceError> for Failed {
    fn from(error: TraceError) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<serde_json::Error> for Failed {
    fn from(error: serde_json::Error) -> Self {
        Self::Write(error.into())
    }
}

/// Frames of the last prompt, one at a time, in the order of their steps.
fn frames(
    trace: &mut Trace,
    mut take: impl FnMut(&crate::engine::frame::Frame) -> Result<(), Failed>,
) -> Result<(), Failed> {
    for (_, entry) in Standing::of(trace).frames {
        take(&trace.frame(entry)?)?;
    }
    Ok(())
}

/// Writes items of a JSON list with commas between them.
struct List<'a, W> {
    out: &'a mut W,
    empty: bool,
}

impl<'a, W: Write> List<'a, W> {
    fn new(out: &'a mut W) -> Self {
        Self { out, empty: true }
    }

    fn put(&mut self, item: &impl serde::Serialize) -> Result<(), Failed> {
        self.out.write_all(if self.empty { b"\n" } else { b",\n" })?;
        self.empty = false;
        Ok(serde_json::to_writer(&mut *self.out, item)?)
    }
}
