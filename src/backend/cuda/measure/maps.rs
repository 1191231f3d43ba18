//! A map of one head over a long context, folded to the pixels of a screen.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::clock::time;
use super::sizes::MapSize;
use super::{Sizes, check};
use crate::backend::Result;
use crate::backend::cuda::device::{Arg, Device};
use crate::backend::cuda::maps::Canvas;
use crate::backend::cuda::memory::Memory;
use crate::backend::cuda::records::{Slots, kv};
use crate::cache::KvType;
use crate::engine::message::Fold;

#[derive(Debug, Serialize)]
pub struct Map {
    pub positions: usize,
    pub dim: usize,
    pub fold: &'static str,
    pub width: usize,
    pub height: usize,
    /// Of the kernels; and with memory got for it and the pixels brought home.
    pub ms: f64,
    pub whole_ms: f64,
    /// Memory beside the kept queries and the cache, for so many positions and for half as many.
    pub bytes: usize,
    pub bytes_of_half: usize,
}

pub fn measure(device: &Arc<dyn Device>, sizes: &Sizes, map: MapSize) -> Result<Vec<Map>> {
    let MapSize { positions: n, heads, dim } = map;
    let [width, height] = sizes.pixels;
    // keys and queries are 0: row r gives each of its r + 1 columns the same
    let queries = Memory::<f32>::new(device, n * heads * dim)?;
    queries.clear()?;
    let lse: Vec<f32> = (0..n).flat_map(|r| std::iter::repeat_n((r as f32 + 1.0).ln(), heads)).collect();
    let lse = Memory::of(device, &lse)?;
    let cells = Memory::<u8>::new(device, n * dim * KvType::F16.bytes())?;
    cells.clear()?;
    let positions = Memory::of(device, &(0..n as u32).collect::<Vec<_>>())?;
    let (keys, places, len) = (cells.at(0), positions.at(0), n as i32);
    let slots = Slots { keys, positions: places, len, capacity: len, ..bytemuck::Zeroable::zeroed() };
    let record = Memory::of(device, &[slots])?;
    let int = |x: usize| Arg::Int(x as i32);
    let mut told = vec![queries.arg(), lse.arg(), record.arg(), int(heads), int(heads - 1), int(dim)];
    told.extend([Arg::Int(kv(KvType::F16)), int(0), Arg::Float(1.0), Arg::Float(0.0)]);
    let all = 0..n as u32;
    let one = |(fold, name): (Fold, &'static str)| {
        let paint = |canvas: &Canvas| canvas.paint(told.clone(), record.arg(), dim, [&all, &all], fold);
        let canvas = Canvas::new(device, n, width, height)?;
        let ms = time(device, sizes, &paint(&canvas).launches())? / 1e6;
        check_pixels(&canvas.read()?, n, sizes.pixels, fold)?;
        let bytes = canvas.bytes();
        drop(canvas);
        let whole = |_| {
            let start = Instant::now();
            let canvas = Canvas::new(device, n, width, height)?;
            paint(&canvas).launches().into_iter().try_for_each(|launch| device.launch(launch))?;
            canvas.read()?;
            Ok(start.elapsed())
        };
        let mut whole = (0..sizes.repeats).map(whole).collect::<Result<Vec<_>>>()?;
        whole.sort_unstable();
        let whole_ms = 1e3 * whole[whole.len() / 2].as_secs_f64();
        let bytes_of_half = Canvas::new(device, n / 2, width, height)?.bytes();
        Ok(Map { positions: n, dim, fold: name, width, height, ms, whole_ms, bytes, bytes_of_half })
    };
    [(Fold::Max, "max"), (Fold::Mean, "mean")].into_iter().map(one).collect()
}

fn check_pixels(found: &[f32], n: usize, [width, height]: [usize; 2], fold: Fold) -> Result<()> {
    // first position of a pixel
    let first = |i: usize, pixels: usize| (i * n).div_ceil(pixels);
    for (y, row) in found.chunks_exact(width).enumerate() {
        for (x, &pixel) in row.iter().enumerate() {
            let (rows, columns) = (first(y, height)..first(y + 1, height), first(x, width)..first(x + 1, width));
            let seen = |r: usize| columns.end.min(r + 1).saturating_sub(columns.start) as f64;
            let (cells, sum, most) = rows.fold((0.0, 0.0, 0.0f64), |(cells, sum, most), r| {
                let (seen, p) = (seen(r), 1.0 / (r as f64 + 1.0));
                (cells + seen, sum + seen * p, if seen > 0.0 { most.max(p) } else { most })
            });
            match (fold, cells > 0.0) {
                (_, false) if pixel.is_nan() => {}
                (Fold::Max, true) => check("a map", pixel, most, 1e-5 * most)?,
                (_, true) => check("a map", pixel, sum / cells, 1e-5 * sum / cells)?,
                _ => check("a map", pixel, f64::NAN, 0.0)?,
            }
        }
    }
    Ok(())
}
