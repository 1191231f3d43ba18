//! Numbers that a policy brings along in a safetensors file, checked before anything is believed: one small tensor
//! ([`read`]), or the weights of networks ([`Weights`]).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::error::printable;

/// Largest file that is read whole, bytes: some thousand times what the heads of any model need.
const LIMIT: u64 = 64 << 20;

const NO_FILE: &str = "not a safetensors file";

/// Shape and numbers of the tensor `name`, all finite; `axes` says in words what its N dimensions are. Fails with a sentence about the file, which it
/// does not name.
pub fn read<const N: usize>(path: &Path, name: &str, axes: &str) -> Result<([usize; N], Vec<f32>), String> {
    let bytes = bytes(path)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|_| NO_FILE.to_owned())?;
    let tensor = tensors.tensor(name).map_err(|_| format!("there is no tensor `{name}`"))?;
    let shape: [usize; N] = tensor.shape().try_into().map_err(|_| format!("`{name}` is not {axes}"))?;
    if tensor.dtype() != Dtype::F32 || shape.contains(&0) {
        return Err(format!("`{name}` is empty or not f32"));
    }
    let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    match values.iter().all(|x| x.is_finite()) {
        true => Ok((shape, values)),
        false => Err(format!("`{name}` holds numbers that are not finite")),
    }
}

/// All of a file of sensible size.
pub fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    // before opening: a pipe would wait for its writer
    let about = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !about.is_file() || about.len() > LIMIT {
        return Err(format!("not a plain file of at most {} MiB (a folder is no file)", LIMIT >> 20));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(LIMIT).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// A file of any size, of which only the tensors that are asked for are read.
pub struct Weights {
    map: Mmap,
}

/// What such a file holds.
pub struct Tensors<'a> {
    all: SafeTensors<'a>,
    bytes: &'a [u8],
}

impl Weights {
    /// Fails with a sentence about the file, which it does not name.
    pub fn open(path: &Path) -> Result<Self, String> {
        let about = std::fs::metadata(path).map_err(|e| e.to_string())?;
        if !about.is_file() {
            return Err("not a plain file".into());
        }
        let file = File::open(path).map_err(|e| e.to_string())?;
        // SAFETY: whoever changes the file while it is read gets wrong numbers or a bus error, as with model weights.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| e.to_string())?;
        Ok(Self { map })
    }

    pub fn tensors(&self) -> Result<Tensors<'_>, String> {
        let all = SafeTensors::deserialize(&self.map).map_err(|_| NO_FILE.to_owned())?;
        Ok(Tensors { all, bytes: &self.map })
    }
}

impl Tensors<'_> {
    /// In no order.
    pub fn names(&self) -> Vec<&str> {
        self.all.names()
    }

    pub fn has(&self, name: &str) -> bool {
        self.all.tensor(name).is_ok()
    }

    /// An entry of the file's metadata.
    pub fn note(&self, key: &str) -> Option<String> {
        let (_, header) = SafeTensors::read_metadata(self.bytes).ok()?;
        header.metadata().as_ref()?.get(key).cloned()
    }

    /// Shape and numbers of a tensor of f32, f16 or bf16, all finite. Fails with a sentence.
    pub fn numbers(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
        let shown = printable(name);
        let tensor = self.all.tensor(name).map_err(|_| format!("there is no tensor `{shown}`"))?;
        let data = tensor.data();
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            other => return Err(format!("`{shown}` is {other:?}, not f32, f16 or bf16")),
        };
        match values.iter().all(|x| x.is_finite()) {
            true => Ok((tensor.shape().to_vec(), values)),
            false => Err(format!("`{shown}` holds numbers that are not finite")),
        }
    }

    /// The same of a matrix with something in it: rows, columns, numbers by rows.
    pub fn matrix(&self, name: &str) -> Result<(usize, usize, Vec<f32>), String> {
        let (shape, values) = self.numbers(name)?;
        match shape[..] {
            [rows, cols] if !values.is_empty() => Ok((rows, cols, values)),
            _ => Err(format!("`{}` has shape {shape:?}, not [rows, columns]", printable(name))),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::HashMap;

    use super::*;
    use safetensors::tensor::{TensorView, serialize_to_file};

    /// A file of f32 tensors with metadata, gone when dropped.
    pub fn file(tensors: &[(&str, &[usize], &[f32])], notes: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(.., values)| values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            (name.to_string(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        let notes: HashMap<String, String> = notes.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        serialize_to_file(views, Some(notes), file.path()).unwrap();
        file
    }

    #[test]
    fn what_weights_lack_is_said() {
        let file = file(&[("a", &[2, 1], &[1.0, 2.0]), ("b", &[1], &[f32::INFINITY])], &[("alpha", "3")]);
        let weights = Weights::open(file.path()).unwrap();
        let tensors = weights.tensors().unwrap();
        assert_eq!(tensors.matrix("a"), Ok((2, 1, vec![1.0, 2.0])));
        assert!(tensors.matrix("b").unwrap_err().contains("not finite"));
        assert!(tensors.numbers("c\x1b[2J").unwrap_err().contains("no tensor `c?[2J`"));
        assert_eq!((tensors.note("alpha").as_deref(), tensors.note("beta")), (Some("3"), None));
        assert!(Weights::open(Path::new("/")).err().unwrap().contains("not a plain file"));
        let damaged = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(damaged.path(), [255u8; 40]).unwrap();
        assert!(Weights::open(damaged.path()).unwrap().tensors().err().unwrap().contains("not a safetensors file"));
    }
}
