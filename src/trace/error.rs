//! What can be wrong with a trace file.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TraceError {
    #[error("cannot {doing} {path:?}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{path:?} is no trace file")]
    #[diagnostic(help("traces are written by `attnscope run --record FILE`"))]
    Foreign { path: PathBuf },
    #[error("{path:?} is a trace of version {version}, this program reads version {known}")]
    #[diagnostic(help("open it with the release that wrote it, or record the run again"))]
    Version { path: PathBuf, version: u32, known: u32 },
    #[error("{path:?} is damaged at byte {offset}: {what}")]
    #[diagnostic(help("the file was changed after it was recorded; copy it again from where it was made"))]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error("{path:?} holds no complete step")]
    #[diagnostic(help("the run was ended before its prompt had been read; record it again"))]
    Empty { path: PathBuf },
    #[error("{path:?} exists already")]
    #[diagnostic(help("choose another name for --record, or overwrite it with --force"))]
    Exists { path: PathBuf },
    #[error("a frame of {bytes} bytes is more than a trace file takes")]
    #[diagnostic(help("use a shorter prompt"))]
    TooLarge { bytes: usize },
    #[error("the recording ends after {frames} frames: {why}")]
    #[diagnostic(help("the run itself went on; make room, or choose another place, and record it again"))]
    Ended { frames: u64, why: Box<TraceError> },
    #[error("cannot encode a record: {0}")]
    Encode(#[source] postcard::Error),
}

pub type Result<T> = std::result::Result<T, TraceError>;
