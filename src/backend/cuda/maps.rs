//! Attention maps from kept queries: rows, and tiles folded into pixels.

use std::ops::Range;

use super::backend::CudaBackend;
use super::cache::DeviceCache;
use super::device::{Arg, Launch};
use super::memory::Memory;
use super::records::{Slots, kv};
use crate::backend::{Attention, BackendError, Result, Tile};
use crate::engine::message::Fold;

/// Rows and slots of a block: SIDE in kernels/viewport.cu.
const SIDE: usize = 32;

fn int(x: usize) -> Arg {
    Arg::Int(x as i32)
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

    fn launch_map(&self, kernel: &'static str, grid: [usize; 2], args: &[Arg]) -> Result<()> {
        let shared = (4 * 2 * SIDE * (self.shape.head_dim + 4)) as u32;
        let grid = [grid[0] as u32, grid[1] as u32, 1];
        self.device.launch(Launch { kernel, grid, block: [256, 1, 1], shared, args })
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
        self.launch_map("map_rows", [n.div_ceil(SIDE), count.div_ceil(SIDE)], &args)?;
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
        let fold = Arg::Int(match tile.fold {
            Fold::Max => 0,
            Fold::Mean => 1,
            Fold::Sum => 2,
        });
        let record = Memory::of(&self.device, &[cache.record(at)])?;
        let sums = Memory::<f32>::new(&self.device, height * n)?;
        let counts = Memory::<i32>::new(&self.device, height * n)?;
        let pixels = Memory::<f32>::new(&self.device, height * width)?;
        let (left, first) = (tile.cols.start as usize, tile.rows.start as usize);
        let mut args = self.map_args(attention, tile.head, &record);
        args.extend([first, tall, height, left, wide].map(int));
        args.extend([fold, sums.arg(), counts.arg()]);
        self.launch_map("map_columns", [n.div_ceil(SIDE), height], &args)?;
        let mut args = vec![record.arg()];
        args.extend([left, wide, width].map(int));
        args.extend([fold, sums.arg(), counts.arg(), pixels.arg()]);
        self.launch_map("map_pixels", [width.div_ceil(8), height], &args)?;
        pixels.read(0, height * width)
    }
}
