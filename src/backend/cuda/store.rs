//! Compiled kernels on disk, so that each is compiled once on a machine. Nothing here is needed: what is damaged or
//! cannot be written is compiled again.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::nvrtc::Target;
use super::version::Version;
use crate::model::fetch::home;
use crate::model::source::hex;

/// No family's code comes near it.
const LARGEST: u64 = 64 << 20;

/// What an entry is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of the source, see [`super::source::Family::sha256`].
    pub source: String,
    pub target: Target,
    /// Of NVRTC.
    pub nvrtc: Version,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-nvrtc{}", self.source, self.target, self.nvrtc)
    }
}

/// A folder of compiled kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    folder: PathBuf,
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub entries: usize,
    pub bytes: u64,
}

impl Store {
    /// Beside the models; `None` where this system names no folder for data.
    pub fn of_user() -> Option<Store> {
        Some(Store::at(home().ok()?.join("kernels")))
    }

    pub fn at(folder: PathBuf) -> Store {
        Store { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{key}.kernel"))
    }

    /// The first line of an entry: whose it is, and the SHA-256 of what follows.
    fn head(key: &Key, code: &[u8]) -> String {
        format!("attnscope {key} sha256:{}\n", hex(&Sha256::digest(code)))
    }

    /// The code of `key`, if it is here and undamaged.
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        if fs::metadata(&path).ok()?.len() > LARGEST {
            return None;
        }
        let mut bytes = fs::read(path).ok()?;
        let start = bytes.iter().position(|&byte| byte == b'\n')? + 1;
        let code = bytes.split_off(start);
        (bytes == Self::head(key, &code).as_bytes()).then_some(code)
    }

    /// Keep `code`, whole or not at all, whoever else writes at the same time.
    ///
    /// # Errors
    /// Where the folder cannot be made or written; the code is good nevertheless.
    pub fn put(&self, key: &Key, code: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(Self::head(key, code).as_bytes())?;
        file.write_all(code)?;
        file.persist(self.path(key))?;
        Ok(())
    }

    pub fn size(&self) -> Size {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let kernels = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "kernel"));
        kernels.filter_map(|entry| entry.metadata().ok()).fold(Size { entries: 0, bytes: 0 }, |size, metadata| Size {
            entries: size.entries + 1,
            bytes: size.bytes + metadata.len(),
        })
    }
}
