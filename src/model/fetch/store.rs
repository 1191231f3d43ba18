//! Where models lie on this machine, and how a finished one is told from an unfinished one.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use directories::ProjectDirs;
use serde::{Deserialize, Serialize};

use super::{FetchError, Progress};
use crate::model::catalog::Entry;
use crate::model::source::sha256_of;

/// `$ATTNSCOPE_HOME`, or the platform's data folder for this program.
pub fn home() -> Result<PathBuf, FetchError> {
    match std::env::var_os("ATTNSCOPE_HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(PathBuf::from(home)),
        None => ProjectDirs::from("", "", "attnscope").map(|dirs| dirs.data_dir().to_owned()).ok_or(FetchError::NoHome),
    }
}

/// What was verified: hashing 98 MB at every start would cost more than opening the model.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    path: PathBuf,
    size: u64,
    /// Time of the file's last change, since 1970.
    modified: Duration,
    sha256: String,
}

impl Marker {
    fn of(path: &Path, sha256: &str) -> std::io::Result<Marker> {
        let metadata = fs::metadata(path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Marker { path: path.to_owned(), size: metadata.len(), modified, sha256: sha256.to_owned() })
    }
}

/// The folder of all models.
pub(super) struct Store(PathBuf);

impl Store {
    pub fn of_user() -> Result<Store, FetchError> {
        Ok(Store::at(&home()?))
    }

    pub fn at(home: &Path) -> Store {
        Store(home.join("models"))
    }

    /// The folder of one model, made if need be.
    pub fn folder(&self, entry: &Entry) -> Result<PathBuf, FetchError> {
        let folder = self.0.join(&entry.name);
        fs::create_dir_all(&folder).map_err(|e| FetchError::disk(&folder, e))?;
        Ok(folder)
    }

    fn marker(&self, entry: &Entry) -> PathBuf {
        self.0.join(&entry.name).join("verified.json")
    }

    /// The file that a marker vouches for, unless it has changed since.
    pub fn verified(&self, entry: &Entry) -> Option<PathBuf> {
        let marker: Marker = serde_json::from_slice(&fs::read(self.marker(entry)).ok()?).ok()?;
        let now = Marker::of(&marker.path, &entry.sha256).ok()?;
        (now == marker && now.size == entry.size).then_some(marker.path)
    }

    /// Note that `path` has this entry's sha256.
    pub fn mark(&self, entry: &Entry, path: &Path) -> Result<(), FetchError> {
        let marker_path = self.marker(entry);
        let failed = |e| FetchError::disk(&marker_path, e);
        let marker = Marker::of(path, &entry.sha256).map_err(failed)?;
        let part = marker_path.with_extension("part");
        let json = serde_json::to_vec(&marker).map_err(|e| failed(e.into()))?;
        fs::write(&part, json).and_then(|()| fs::rename(&part, &marker_path)).map_err(failed)
    }

    /// Take a whole file that lies in this model's folder without a marker, if its sha256 is right.
    pub fn adopt(&self, entry: &Entry, progress: &mut dyn Progress) -> Result<Option<PathBuf>, FetchError> {
        let path = self.folder(entry)?.join(&entry.file);
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == entry.size) {
            return Ok(None);
        }
        progress.note(&format!("checking the sha256 of {}", path.display()));
        if sha256_of(&path).map_err(|e| FetchError::disk(&path, e))? != entry.sha256 {
            return Ok(None);
        }
        self.mark(entry, &path)?;
        Ok(Some(path))
    }

    /// One process fetches a model at a time; the others wait here. Released when dropped.
    pub fn lock(&self, entry: &Entry, progress: &mut dyn Progress) -> Result<File, FetchError> {
        let path = self.folder(entry)?.join("lock");
        let failed = |e| FetchError::disk(&path, e);
        let file = File::create(&path).map_err(failed)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if progress.cancelled() => return Err(FetchError::Cancelled),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        progress.note(&format!("waiting for another process that fetches {}", entry.name));
                        told = true;
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }
}

/// Give a finished `.part` file its name, once its bytes are on the disk.
pub(super) fn finish(file: &mut File, part: &Path, path: &Path) -> Result<(), FetchError> {
    file.flush().and_then(|()| file.sync_all()).map_err(|e| FetchError::disk(part, e))?;
    fs::rename(part, path).map_err(|e| FetchError::disk(path, e))
}
