//! Reading the JSON files of a Hugging Face folder.

use std::path::Path;

use serde_json::Value;

use super::error::{ModelError, Quoted};

/// Configuration files are small; a tokenizer of 262,144 pieces is 34 MB.
const LONGEST: u64 = 256 << 20;

pub(super) fn read(path: &Path) -> Result<Value, ModelError> {
    parse(path, &read_bytes(path)?)
}

/// `path` is what errors call the bytes.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Value, ModelError> {
    serde_json::from_slice(bytes).map_err(|error| ModelError::Json {
        path: path.to_owned(),
        problem: Quoted::new(&error.to_string()).to_string(),
    })
}

/// The file as bytes, refused where it is larger than any of its kind.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, ModelError> {
    let read = |source| ModelError::Io { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > LONGEST {
        return Err(ModelError::Json { path: path.to_owned(), problem: format!("it is {size} bytes long") });
    }
    std::fs::read(path).map_err(read)
}
