//! GGUF files, versions 2 and 3, over a memory map.
//!
//! Nothing in the header is believed before it is checked against the length of the file, and nothing is
//! allocated on a count's word: arrays stay in the map until somebody asks for them.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod tensors;
mod value;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use thiserror::Error;

use self::cursor::Cursor;
use self::tensors::TensorInfo;
use super::error::{ModelError, Quoted};
use super::tensor::{Bytes, Tensor};

pub use self::value::{Array, Metadata, Scalar};

/// What is wrong with a GGUF file. Offsets are bytes from its start.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum GgufError {
    #[error("it does not begin with \"GGUF\"")]
    Magic,
    #[error("it is version {0}; versions 2 and 3 can be read")]
    Version(u32),
    #[error("it is big-endian; only little-endian files can be read")]
    BigEndian,
    #[error("it ends too early: {what} at byte {at} needs {need} bytes, {left} are left")]
    Truncated { what: &'static str, at: usize, need: u64, left: usize },
    #[error("its header claims {count} {what}, more than the rest of the file can hold")]
    Count { what: &'static str, count: u64 },
    #[error("{what} at byte {at} is not UTF-8")]
    Utf8 { what: &'static str, at: usize },
    #[error("metadata key {key} has unknown value type {id}")]
    ValueType { key: Quoted, id: u32 },
    #[error("metadata key {0} is an array of arrays")]
    NestedArray(Quoted),
    #[error("metadata key {0} occurs twice")]
    DuplicateKey(Quoted),
    #[error("metadata key {key} must be {wanted}")]
    WrongType { key: String, wanted: &'static str },
    #[error("general.alignment is {0}; it must be a power of two of at least 8")]
    Alignment(u64),
    #[error("tensor {name} has {dims} dimensions; 1 to 4 are possible")]
    Rank { name: Quoted, dims: u32 },
    #[error("tensor {name} has the impossible shape {dims:?}")]
    Shape { name: Quoted, dims: Vec<u64> },
    #[error("tensor {name} is of type {found}; readable types are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K")]
    TensorType { name: Quoted, found: String },
    #[error("tensor {name} begins at {offset}, no multiple of the alignment {alignment}")]
    TensorAlignment { name: Quoted, offset: u64, alignment: u64 },
    #[error("tensor {name} ({need} bytes at {at}) reaches past the end of the file ({len} bytes); the file may be cut short")]
    TensorRange { name: Quoted, at: u64, need: u64, len: usize },
    #[error("tensor {0} occurs twice")]
    DuplicateTensor(Quoted),
}

/// An opened file: its metadata, and tensors that point into the map.
pub struct Gguf {
    pub metadata: Metadata,
    map: Arc<Mmap>,
    tensors: HashMap<String, TensorInfo>,
}

impl Gguf {
    /// Map `path` and check its whole header.
    pub fn open(path: &Path) -> Result<Gguf, ModelError> {
        let read = |source| ModelError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        if file.metadata().map_err(read)?.len() == 0 {
            return Err(ModelError::Gguf { path: path.to_owned(), problem: GgufError::Magic });
        }
        // SAFETY: the map is only read. A file cut short by someone else while it is mapped cannot be guarded against.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(read)?);
        Gguf::from_map(map).map_err(|problem| ModelError::Gguf { path: path.to_owned(), problem })
    }

    fn from_map(map: Arc<Mmap>) -> Result<Gguf, GgufError> {
        let mut cursor = Cursor::new(&map);
        if cursor.take(4, "the magic").map_err(|_| GgufError::Magic)? != b"GGUF" {
            return Err(GgufError::Magic);
        }
        match cursor.u32("the version")? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 2 | 3) => return Err(GgufError::BigEndian),
            version => return Err(GgufError::Version(version)),
        }
        let tensor_count = cursor.u64("the tensor count")?;
        let key_count = cursor.u64("the metadata count")?;
        let values = value::read_all(&mut cursor, key_count)?;
        let metadata = Metadata::new(map.clone(), values);
        let alignment = metadata.unsigned("general.alignment")?.unwrap_or(32);
        if !alignment.is_power_of_two() || alignment < 8 {
            return Err(GgufError::Alignment(alignment));
        }
        let tensors = tensors::read_all(&mut cursor, tensor_count, alignment)?;
        Ok(Gguf { metadata, map, tensors })
    }

    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// The tensor of this name. GGUF lists the fastest dimension first, so `[in, out]` becomes `out` rows of `in`.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let info = self.tensors.get(name)?;
        Some(Tensor {
            name: name.to_owned(),
            dtype: info.dtype,
            rows: info.rows,
            cols: info.cols,
            bytes: Bytes::Mapped(self.map.clone(), info.range.clone()),
        })
    }
}
