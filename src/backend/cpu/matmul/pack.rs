//! Quantised weights, reordered once at load so that a read of 64 bytes feeds 16 rows.

use rayon::prelude::*;
use thiserror::Error;

use super::format::{Format, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use super::memory::{WeightBox, WeightMemory};
use crate::model::tensor::{DType, Tensor};

/// Rows of a tile.
pub const TILE: usize = 16;

#[derive(Debug, Error)]
pub enum PackError {
    #[error("no tensor to pack")]
    Empty,
    #[error("tensor {name} is {dtype}, which is not a quantised format: keep it as a float matrix")]
    NotQuantized { name: String, dtype: DType },
    #[error("tensor {name} is {dtype} with {cols} columns, but what it is stacked with is {other} with {other_cols}")]
    Mixed { name: String, dtype: DType, cols: usize, other: DType, other_cols: usize },
    #[error("tensor {name} {dtype} [{rows}, {cols}] has {found} bytes of data: the file is damaged or cut short")]
    Size { name: String, dtype: DType, rows: usize, cols: usize, found: usize },
    #[error("no memory for {bytes} bytes of packed weights")]
    Memory { bytes: usize, source: std::io::Error },
}

/// Weights [rows, cols] as [tiles, cols / block] packed blocks of 16 rows; rows past the end are zero.
pub struct PackedMatrix {
    rows: usize,
    cols: usize,
    pub(super) blocks: Blocks,
}

/// Tile after tile; the tile's blocks are in the order of its columns.
pub(super) enum Blocks {
    Q4_0(WeightBox<Q4_0>),
    Q4_1(WeightBox<Q4_1>),
    Q5_0(WeightBox<Q5_0>),
    Q5_1(WeightBox<Q5_1>),
    Q8_0(WeightBox<Q8_0>),
    Q4K(WeightBox<Q4K>),
    Q5K(WeightBox<Q5K>),
    Q6K(WeightBox<Q6K>),
}

/// Runs `$body` with `$vec` the vector of packed blocks, whatever their format.
macro_rules! with_blocks {
    ($blocks:expr, $vec:ident => $body:expr) => {
        match $blocks {
            $crate::backend::cpu::matmul::pack::Blocks::Q4_0($vec) => $body,
            $crate::backend::cpu::matmul::pack::Blocks::Q4_1($vec) => $body,
            $crate::backend::cpu::matmul::pack::Blocks::Q5_0($vec) => $body,
            $crate::backend::cpu::matmul::pack::Blocks::Q5_1($vec) => $body,
            $crate::backend::cpu::matmul::pack::Blocks::Q8_0($vec) => $body,
            $crate::backend::cpu::matmul::pack::Blocks::Q4K($vec) => $body,
            $crate::backend::cpu::matmul::pack::Blocks::Q5K($vec) => $body,
            $crate::backend::cpu::matmul::pack::Blocks::Q6K($vec) => $body,
        }
    };
}
pub(super) use with_blocks;

impl PackedMatrix {
    /// The rows of all parts, one below the other. One format and width for all.
    pub fn pack(parts: &[&Tensor], memory: &mut WeightMemory) -> Result<Self, PackError> {
        let (dtype, cols) = checked(parts)?;
        let order: Vec<_> =
            parts.iter().enumerate().flat_map(|(p, part)| (0..part.rows).map(move |row| Some((p, row)))).collect();
        Self::from_rows(dtype, cols, parts, &order, memory)
    }

    /// Tile 2t is `even`'s tile t and tile 2t + 1 is `odd`'s, so that a worker who is given an even range of tiles
    /// has both halves of a gated product. Each is padded to whole tiles by itself, the shorter one to as many.
    pub fn pack_interleaved(even: &Tensor, odd: &Tensor, memory: &mut WeightMemory) -> Result<Self, PackError> {
        let (dtype, cols) = checked(&[even, odd])?;
        let tiles = even.rows.max(odd.rows).div_ceil(TILE);
        let order: Vec<Option<(usize, usize)>> = (0..tiles * 2 * TILE)
            .map(|i| {
                let (tile, part) = (i / TILE / 2, i / TILE % 2);
                let row = tile * TILE + i % TILE;
                (row < [even.rows, odd.rows][part]).then_some((part, row))
            })
            .collect();
        Self::from_rows(dtype, cols, &[even, odd], &order, memory)
    }

    /// `order` names (part, row) for each row of the result; `None` is a row of zeros.
    fn from_rows(
        dtype: DType,
        cols: usize,
        parts: &[&Tensor],
        order: &[Option<(usize, usize)>],
        memory: &mut WeightMemory,
    ) -> Result<Self, PackError> {
        let blocks = match dtype {
            DType::Q4_0 => Blocks::Q4_0(pack_rows(cols, parts, order, memory)?),
            DType::Q4_1 => Blocks::Q4_1(pack_rows(cols, parts, order, memory)?),
            DType::Q5_0 => Blocks::Q5_0(pack_rows(cols, parts, order, memory)?),
            DType::Q5_1 => Blocks::Q5_1(pack_rows(cols, parts, order, memory)?),
            DType::Q8_0 => Blocks::Q8_0(pack_rows(cols, parts, order, memory)?),
            DType::Q4K => Blocks::Q4K(pack_rows(cols, parts, order, memory)?),
            DType::Q5K => Blocks::Q5K(pack_rows(cols, parts, order, memory)?),
            DType::Q6K => Blocks::Q6K(pack_rows(cols, parts, order, memory)?),
            DType::F32 | DType::F16 | DType::BF16 => {
                return Err(PackError::NotQuantized { name: parts[0].name.clone(), dtype });
            }
        };
        Ok(Self { rows: order.len(), cols, blocks })
    }

    /// Rows that mean something; the last tile may have more. Interleaved matrices count their padding between tiles.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// Bytes that one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        with_blocks!(&self.blocks, blocks => size_of_val::<[_]>(blocks))
    }
}

fn checked(parts: &[&Tensor]) -> Result<(DType, usize), PackError> {
    let first = parts.first().ok_or(PackError::Empty)?;
    for part in parts {
        let (name, dtype, rows, cols) = (part.name.clone(), part.dtype, part.rows, part.cols);
        if (dtype, cols) != (first.dtype, first.cols) {
            return Err(PackError::Mixed { name, dtype, cols, other: first.dtype, other_cols: first.cols });
        }
        let found = part.data().len();
        // Without columns any number of rows would fit no bytes at all.
        if cols == 0 || dtype.bytes(rows, cols) != Some(found) {
            return Err(PackError::Size { name, dtype, rows, cols, found });
        }
    }
    Ok((first.dtype, first.cols))
}

fn pack_rows<F: Format>(
    cols: usize,
    parts: &[&Tensor],
    order: &[Option<(usize, usize)>],
    memory: &mut WeightMemory,
) -> Result<WeightBox<F>, PackError> {
    let (columns, bytes) = F::DTYPE.block();
    let per_row = cols / columns;
    let count = order.len().div_ceil(TILE).saturating_mul(per_row);
    let mut blocks = memory
        .zeroed::<F>(count)
        .map_err(|source| PackError::Memory { bytes: count.saturating_mul(size_of::<F>()), source })?;
    // A worker per core: packing reads and writes every weight once.
    blocks.par_chunks_mut(per_row).zip(order.par_chunks(TILE)).for_each(|(tile, order)| {
        for (lane, place) in order.iter().enumerate() {
            if let Some((part, row)) = place {
                for (block, file) in tile.iter_mut().zip(parts[*part].row(*row).chunks_exact(bytes)) {
                    block.pack(lane, file);
                }
            }
        }
    });
    Ok(blocks)
}
