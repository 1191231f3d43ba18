//! Hugging Face checkpoints: `model.safetensors`, or shards listed in `model.safetensors.index.json`, memory-mapped.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::error::{ModelError, Quoted};
use super::tensor::{Bytes, DType, Tensor};
use super::weights::TensorStore;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// In the shard's file.
    range: std::ops::Range<usize>,
}

enum Shard {
    Mapped(Arc<Mmap>),
    Static(&'static [u8]),
}

impl Shard {
    fn bytes(&self) -> &[u8] {
        match self {
            Shard::Mapped(map) => map,
            Shard::Static(bytes) => bytes,
        }
    }

    fn part(&self, range: &std::ops::Range<usize>) -> Bytes {
        match self {
            Shard::Mapped(map) => Bytes::Mapped(map.clone(), range.clone()),
            Shard::Static(bytes) => Bytes::Static(&bytes[range.clone()]),
        }
    }
}

/// All tensors of one folder.
pub struct Checkpoint {
    shards: Vec<(PathBuf, Shard)>,
    tensors: HashMap<String, Place>,
}

impl Checkpoint {
    /// Map every shard in `folder` and check its header.
    pub fn open(folder: &Path) -> Result<Checkpoint, ModelError> {
        let mut checkpoint = Checkpoint { shards: Vec::new(), tensors: HashMap::new() };
        for file in shard_files(folder)? {
            checkpoint.map(file)?;
        }
        Ok(checkpoint)
    }

    /// A file that is a part of the program; `name` is what errors call it.
    pub fn of_program(name: PathBuf, bytes: &'static [u8]) -> Result<Checkpoint, ModelError> {
        let mut checkpoint = Checkpoint { shards: Vec::new(), tensors: HashMap::new() };
        checkpoint.add(name, Shard::Static(bytes))?;
        Ok(checkpoint)
    }

    /// The files that were mapped, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|(path, _)| path.as_path())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn map(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let read = |source| ModelError::Io { path: path.clone(), source };
        let wrong = |problem: String| ModelError::Safetensors { path: path.clone(), problem };
        let file = File::open(&path).map_err(read)?;
        if file.metadata().map_err(read)?.len() < 8 {
            return Err(wrong("it is shorter than its header".into()));
        }
        // SAFETY: the map is only read. A file cut short by someone else while it is mapped cannot be guarded against.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(read)?);
        self.add(path, Shard::Mapped(map))
    }

    fn add(&mut self, path: PathBuf, data: Shard) -> Result<(), ModelError> {
        let wrong = |problem: String| ModelError::Safetensors { path: path.clone(), problem };
        let (header, metadata) =
            SafeTensors::read_metadata(data.bytes()).map_err(|e| wrong(Quoted::new(&e.to_string()).to_string()))?;
        let start = header + 8;
        let shard = self.shards.len();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let range = match (start.checked_add(from), start.checked_add(to)) {
                (Some(from), Some(to)) if from <= to && to <= data.bytes().len() => from..to,
                _ => return Err(wrong(format!("tensor {} reaches past the end", Quoted::new(&name)))),
            };
            let place = Place { shard, dtype: info.dtype, shape: info.shape.clone(), range };
            if self.tensors.insert(name.clone(), place).is_some() {
                return Err(wrong(format!("tensor {} is already in another shard", Quoted::new(&name))));
            }
        }
        self.shards.push((path, data));
        Ok(())
    }
}

impl TensorStore for Checkpoint {
    fn tensor(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let Some(place) = self.tensors.get(name) else { return Ok(None) };
        let (path, shard) = &self.shards[place.shard];
        let wrong = |problem: String| ModelError::Safetensors { path: path.clone(), problem };
        let dtype = match place.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(wrong(format!("tensor {} is {other:?}; F32, F16 and BF16 can be read", Quoted::new(name))));
            }
        };
        let (rows, cols) = match place.shape.as_slice() {
            [cols] => (Some(1), *cols),
            [outer @ .., cols] => (outer.iter().try_fold(1usize, |rows, n| rows.checked_mul(*n)), *cols),
            [] => (None, 0),
        };
        match rows.and_then(|rows| Some((rows, dtype.bytes(rows, cols)?))) {
            Some((rows, bytes)) if bytes == place.range.len() && bytes > 0 => {
                let bytes = shard.part(&place.range);
                Ok(Some(Tensor { name: name.to_owned(), dtype, rows, cols, bytes }))
            }
            _ => Err(wrong(format!("tensor {} has the impossible shape {:?}", Quoted::new(name), place.shape))),
        }
    }
}

/// The shards in order of name; an index wins over a single file.
fn shard_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let index = folder.join(INDEX);
    if !index.exists() {
        return Ok(vec![folder.join(SINGLE)]);
    }
    let wrong = |problem: &str| ModelError::Json { path: index.clone(), problem: problem.to_owned() };
    let json = super::json::read(&index)?;
    let map = json.get("weight_map").and_then(Value::as_object).ok_or_else(|| wrong("it has no `weight_map`"))?;
    let mut names: Vec<&str> = map
        .values()
        .map(Value::as_str)
        .collect::<Option<_>>()
        .ok_or_else(|| wrong("`weight_map` must hold file names"))?;
    names.sort_unstable();
    names.dedup();
    // A shard lies beside its index: a name that leads elsewhere would open files that nobody asked for.
    if names.iter().any(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(wrong("`weight_map` names a file outside the folder"));
    }
    if names.is_empty() {
        return Err(wrong("`weight_map` is empty"));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
