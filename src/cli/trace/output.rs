//! A safetensors file whose size is known before its contents: mapped, filled in any order, renamed when complete.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use miette::Result;
use serde_json::{Map, Value, json};

use super::layout::{Layout, Number};
use crate::cli::exit::Io;
use crate::cli::output::part_in;

pub struct Output {
    path: PathBuf,
    /// Removed when dropped before `finish`.
    part: tempfile::TempPath,
    map: MmapMut,
    /// First byte, number type and length in numbers of each tensor.
    places: HashMap<String, (usize, Number, usize)>,
}

impl Output {
    pub fn create(path: &Path, layout: &Layout, metadata: &[(&str, String)]) -> Result<Self> {
        let mut header = Map::new();
        let words: Map<String, Value> = metadata.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        header.insert("__metadata__".into(), Value::Object(words));
        let mut places = HashMap::new();
        let mut end = 0;
        for tensor in &layout.tensors {
            let count: usize = tensor.shape.iter().product();
            let start = end;
            end += count * tensor.number.bytes();
            let entry = json!({ "dtype": tensor.number.name(), "shape": tensor.shape, "data_offsets": [start, end] });
            header.insert(tensor.name.clone(), entry);
            places.insert(tensor.name.clone(), (start, tensor.number, count));
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        // Data begin at a multiple of 8, as the format asks for.
        header.resize(header.len().next_multiple_of(8), b' ');
        let data = 8 + header.len();
        places.values_mut().for_each(|place| place.0 += data);
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let wrong = || Io::while_(format!("write {path:?}"));
        let part = part_in(folder).map_err(wrong())?;
        let mut file = OpenOptions::new().read(true).write(true).open(&part).map_err(wrong())?;
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(wrong())?;
        file.write_all(&header).map_err(wrong())?;
        reserve(&mut file, data + end).map_err(wrong())?;
        // SAFETY: the file was just made under a name that nobody else knows.
        let map = unsafe { MmapMut::map_mut(&file) }.map_err(wrong())?;
        Ok(Self { path: path.to_owned(), part, map, places })
    }

    /// Writes `values` at index `at` of the flattened tensor; what lies outside of it is left out.
    pub fn floats(&mut self, name: &str, at: usize, values: &[f32]) {
        self.put(name, Number::F32, at, values.iter().map(|v| v.to_le_bytes()));
    }

    pub fn integers(&mut self, name: &str, at: usize, values: impl Iterator<Item = i64>) {
        self.put(name, Number::I64, at, values.map(i64::to_le_bytes));
    }

    fn put<const B: usize>(&mut self, name: &str, number: Number, at: usize, values: impl Iterator<Item = [u8; B]>) {
        let place = self.places.get(name).filter(|place| place.1 == number);
        debug_assert!(place.is_some(), "{name}");
        let Some(&(start, _, count)) = place else { return };
        let bytes = &mut self.map[start + at.min(count) * B..start + count * B];
        for (to, value) in bytes.chunks_exact_mut(B).zip(values) {
            to.copy_from_slice(&value);
        }
    }

    /// `values` [rows, count] of the positions from `first` on, for a tensor [rows, positions].
    pub fn columns(&mut self, name: &str, positions: usize, first: usize, count: usize, values: &[f32]) {
        for (row, values) in values.chunks_exact(count.max(1)).enumerate() {
            self.floats(name, row * positions + first, values);
        }
    }

    /// Gives the file its name. Returns its size, bytes.
    pub fn finish(self) -> Result<u64> {
        let wrong = || Io::while_(format!("write {:?}", self.path));
        let size = self.map.len() as u64;
        self.map.flush().map_err(wrong())?;
        self.part.persist(&self.path).map_err(|e| wrong()(e.error))?;
        Ok(size)
    }
}

/// Writes zeros up to `size`: a full disk is an error here, and not a signal in the middle of the run.
fn reserve(file: &mut std::fs::File, size: usize) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 16];
    let mut left = size as u64 - file.metadata()?.len();
    while left > 0 {
        let now = left.min(zeros.len() as u64) as usize;
        file.write_all(&zeros[..now])?;
        left -= now as u64;
    }
    file.flush()
}
