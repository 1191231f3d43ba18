//! The list of tensors: name, shape, type and place, each checked against the file.

use std::collections::HashMap;
use std::ops::Range;

use super::GgufError;
use super::cursor::Cursor;
use crate::model::error::Quoted;
use crate::model::tensor::DType;

/// Bytes of the shortest possible entry: empty name, rank, one dimension, type, offset.
const SHORTEST_ENTRY: u64 = 8 + 4 + 8 + 4 + 8;

#[derive(Debug)]
pub(super) struct TensorInfo {
    pub dtype: DType,
    pub rows: usize,
    pub cols: usize,
    /// In the file.
    pub range: Range<usize>,
}

/// Read `count` entries; their data begins at the next multiple of `alignment`.
pub(super) fn read_all(
    cursor: &mut Cursor<'_>,
    count: u64,
    alignment: u64,
) -> Result<HashMap<String, TensorInfo>, GgufError> {
    cursor.expect(count, SHORTEST_ENTRY, "tensors")?;
    let mut listed = Vec::new();
    for _ in 0..count {
        listed.push(read(cursor, alignment)?);
    }
    let data = (cursor.at as u64).checked_next_multiple_of(alignment).ok_or(GgufError::Alignment(alignment))?;
    let mut tensors = HashMap::with_capacity(listed.len());
    for (name, mut info, offset, bytes) in listed {
        info.range = place(name, data, offset, bytes, cursor.len())?;
        if tensors.insert(name.to_owned(), info).is_some() {
            return Err(GgufError::DuplicateTensor(Quoted::new(name)));
        }
    }
    Ok(tensors)
}

/// One entry: (name, info with an empty range, offset from the data's start, bytes).
fn read<'a>(cursor: &mut Cursor<'a>, alignment: u64) -> Result<(&'a str, TensorInfo, u64, usize), GgufError> {
    let name = cursor.string("a tensor's name")?;
    let rank = cursor.u32("a tensor's rank")?;
    if !(1..=4).contains(&rank) {
        return Err(GgufError::Rank { name: Quoted::new(name), dims: rank });
    }
    let mut dims = Vec::with_capacity(4);
    for _ in 0..rank {
        dims.push(cursor.u64("a tensor's shape")?);
    }
    let id = cursor.u32("a tensor's type")?;
    let dtype = dtype(id).map_err(|found| GgufError::TensorType { name: Quoted::new(name), found })?;
    let (rows, cols, bytes) = layout(dtype, &dims).ok_or_else(|| GgufError::Shape { name: Quoted::new(name), dims })?;
    let offset = cursor.u64("a tensor's offset")?;
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::TensorAlignment { name: Quoted::new(name), offset, alignment });
    }
    Ok((name, TensorInfo { dtype, rows, cols, range: 0..0 }, offset, bytes))
}

/// (rows, columns, bytes) of a shape; `None` for an empty one, one that overflows, or rows of broken blocks.
fn layout(dtype: DType, dims: &[u64]) -> Option<(usize, usize, usize)> {
    let (cols, outer) = dims.split_first()?;
    let cols = usize::try_from(*cols).ok().filter(|n| *n > 0)?;
    let rows = outer.iter().try_fold(1usize, |rows, d| rows.checked_mul(usize::try_from(*d).ok()?)).filter(|n| *n > 0)?;
    rows.checked_mul(cols)?;
    Some((rows, cols, dtype.bytes(rows, cols)?))
}

fn place(name: &str, data: u64, offset: u64, bytes: usize, len: usize) -> Result<Range<usize>, GgufError> {
    let start = data.checked_add(offset);
    let end = start.and_then(|s| s.checked_add(bytes as u64)).filter(|end| *end <= len as u64);
    match (start, end) {
        (Some(start), Some(end)) => Ok(start as usize..end as usize),
        _ => {
            let at = start.unwrap_or(u64::MAX);
            Err(GgufError::TensorRange { name: Quoted::new(name), at, need: bytes as u64, len })
        }
    }
}

/// ggml's type numbers; `Err` names a type that cannot be read.
fn dtype(id: u32) -> Result<DType, String> {
    Ok(match id {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        3 => DType::Q4_1,
        6 => DType::Q5_0,
        7 => DType::Q5_1,
        8 => DType::Q8_0,
        12 => DType::Q4K,
        13 => DType::Q5K,
        14 => DType::Q6K,
        30 => DType::BF16,
        10 => return Err("Q2_K".into()),
        11 => return Err("Q3_K".into()),
        16..=23 | 29 => return Err(format!("IQ (ggml type {id})")),
        34 | 35 => return Err(format!("ternary (ggml type {id})")),
        39 => return Err("MXFP4".into()),
        id => return Err(format!("ggml type {id}")),
    })
}
