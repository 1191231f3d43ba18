//! Attention maps from kept queries: rows, and tiles folded into pixels.

use std::ops::Range;
use std::sync::Arc;

use super::backend::CudaBackend;
use super::cache::DeviceCache;
use super::device::{Arg, Device, Launch};
use super::memory::Memory;
use super::records::{Slots, kv};
use crate::backend::{Attention, BackendError, Result, Tile};
use crate::engine::message::Fold;

/// Rows and slots of a block: SIDE in kernels/viewport.cu.
const SIDE: usize = 32;

fn int(x: usize) -> Arg {
    Arg::Int(x as i32)
}

/// Dynamic shared memory of the kernels that multiply, bytes.
fn shared(dim: usize) -> u32 {
    (4 * 2 * SIDE * (dim + 4)) as u32
}

/// Memory in which a tile becomes pixels [height, width]: none of the size rows × slots.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    slots: usize,
    /// [height, slots] each
    sums: Memory<f32>,
    counts: Memory<i32>,
    pixels: Memory<f32>,
}

/// What the kernels of a tile are told.
pub(super) struct Painting {
    args: [Vec<Arg>; 2],
    grids: [[u32; 3]; 2],
    shared: u32,
}

impl Canvas {
    pub fn new(device: &Arc<dyn Device>, slots: usize, width: usize, height: usize) -> Result<Self> {
        let (sums, counts) = (Memory::new(device, height * slots)?, Memory::new(device, height * slots)?);
        Ok(Self { width, height, slots, sums, counts, pixels: Memory::new(device, height * width)? })
    }

    pub fn bytes(&self) -> usize {
        4 * (self.sums.len() + self.counts.len() + self.pixels.len())
    }

    /// `map`: what the kernels of maps are told first, of a head of `dim` channels; `record` is in it, too.
    pub fn paint(&self, map: Vec<Arg>, record: Arg, dim: usize, cells: [&Range<u32>; 2], fold: Fold) -> Painting {
        let [(first, tall), (left, wide)] = cells.map(|of| (of.start as usize, of.len()));
        let fold = Arg::Int(match fold {
            Fold::Max => 0,
            Fold::Mean => 1,
            Fold::Sum => 2,
        });
        let mut columns = map;
        columns.extend([first, tall, self.height, left, wide].map(int));
        columns.extend([fold, self.sums.arg(), self.counts.arg()]);
        let mut pixels = vec![record];
        pixels.extend([left, wide, self.width].map(int));
        pixels.extend([fold, self.sums.arg(), self.counts.arg(), self.pixels.arg()]);
        let grids = [self.slots.div_ceil(SIDE), self.width.div_ceil(8)].map(|x| [x as u32, self.height as u32, 1]);
        Painting { args: [columns, pixels], grids, shared: shared(dim) }
    }

    pub fn read(&self) -> Result<Vec<f32>> {
        self.pixels.read(0, self.pixels.len())
    }
}

impl Painting {
    pub fn launches(&self) -> [Launch<'_>; 2] {
        let ([columns, pixels], block) = (&self.args, [256, 1, 1]);
        [
            Launch { kernel: "map_columns", grid: self.grids[0], block, shared: self.shared, args: columns },
            Launch { kernel: "map_pixels", grid: self.grids[1], block, shared: 0, args: pixels },
        ]
    }
}

impl CudaBackend {
    pub(super) fn check_rows(&self, rows: &Range<u32>) -> Result<()> {
        let kept = self.queries.range();
        if rows.start < kept.start || rows.end > kept.end {
            let why = format!("queries {}..{} are kept, {}..{} asked for", kept.start, kept.end, rows.start, rows.end);
            return Err(BackendError::Failed { what: "attention map".into(), why });
        }
        Ok(())
    }

    /// What the kernels of maps are told first; the record must live as long as they run.
    fn map_args(&self, attention: &Attention, head: usize, record: &Memory<Slots>) -> Vec<Arg> {
        let mut args = self.queries.args(attention.layer).to_vec();
        args.push(record.arg());
        args.extend([int(self.shape.heads), int(head), int(self.shape.head_dim), Arg::Int(kv(self.shape.kv))]);
        args.push(int(attention.window.unwrap_or(0)));
        args.extend([Arg::Float(attention.scale), Arg::Float(attention.softcap.unwrap_or(0.0))]);
        args
    }

    /// Rows [rows, n] over all slots of a cache.
    pub(super) fn rows_here(
        &self,
        cache: &DeviceCache,
        attention: &Attention,
        head: usize,
        rows: Range<u32>,
    ) -> Result<Vec<f32>> {
        self.check_rows(&rows)?;
        let at = self.head_index(attention.layer, head * self.shape.kv_heads / self.shape.heads);
        let (n, count) = (cache.len(at), rows.len());
        if n * count == 0 {
            return Ok(Vec::new());
        }
        let record = Memory::of(&self.device, &[cache.record(at)])?;
        let found = Memory::<f32>::new(&self.device, count * n)?;
        let mut args = self.map_args(attention, head, &record);
        args.extend([int(rows.start as usize), int(count), found.arg()]);
        let (grid, shared) = ([n, count].map(|x| x.div_ceil(SIDE) as u32), shared(self.shape.head_dim));
        let [grid, block] = [[grid[0], grid[1], 1], [256, 1, 1]];
        self.device.launch(Launch { kernel: "map_rows", grid, block, shared, args: &args })?;
        found.read(0, count * n)
    }

    /// Pixels [height, width]: each the fold of its cells, NaN where no cell is visible or held.
    pub(super) fn tile_here(&self, cache: &DeviceCache, attention: &Attention, tile: &Tile) -> Result<Vec<f32>> {
        self.check_rows(&tile.rows)?;
        let at = self.head_index(tile.layer, tile.head * self.shape.kv_heads / self.shape.heads);
        let (n, tall, wide) = (cache.len(at), tile.rows.len(), tile.cols.len());
        let (height, width) = (tile.height.min(tall).max(1), tile.width.min(wide).max(1));
        if n == 0 || tall == 0 || wide == 0 {
            return Ok(vec![f32::NAN; height * width]);
        }
        let record = Memory::of(&self.device, &[cache.record(at)])?;
        let canvas = Canvas::new(&self.device, n, width, height)?;
        let map = self.map_args(attention, tile.head, &record);
        let painting = canvas.paint(map, record.arg(), self.shape.head_dim, [&tile.rows, &tile.cols], tile.fold);
        painting.launches().into_iter().try_for_each(|launch| self.device.launch(launch))?;
        canvas.read()
    }
}
