//! Numbers that a policy brings along: one f32 tensor of a safetensors file, checked before anything is believed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// Largest file that is read, bytes: some thousand times what the heads of any model need.
const LIMIT: u64 = 64 << 20;

/// Shape and numbers of the tensor `name`, all finite; `axes` says in words what its N dimensions are. Fails with a sentence about the file, which it
/// does not name.
pub fn read<const N: usize>(path: &Path, name: &str, axes: &str) -> Result<([usize; N], Vec<f32>), String> {
    let bytes = bytes(path)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|_| "not a safetensors file".to_owned())?;
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
