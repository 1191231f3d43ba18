//! FlashSampling against the product alone that stores the logits, which other kernels would have to read again.

use std::sync::Arc;

use half::f16;
use serde::Serialize;

use super::clock::time;
use super::sizes::HeadSize;
use super::{Sizes, check};
use crate::backend::Result;
use crate::backend::cuda::device::{Arg, Device, Launch};
use crate::backend::cuda::memory::Memory;
use crate::backend::cuda::record::product_kernel;
use crate::backend::cuda::records::F16;

/// Tokens of a tile, and rows that the widest kernel takes.
const TILE: usize = 128;
const MOST_ROWS: usize = 16;
/// The one token whose logit is not 0, and that logit: more than any noise.
const HOT: usize = 3;
const LOGIT: f32 = 64.0;

#[derive(Debug, Serialize)]
pub struct Sampling {
    pub vocab: usize,
    pub width: usize,
    pub batch: usize,
    /// Head and draw in one, and merging; and the product alone.
    pub flash_us: f64,
    pub product_us: f64,
    /// Of the logits, which are not stored.
    pub bytes_saved: usize,
}

fn kernel(rows: usize) -> &'static str {
    match rows {
        0..=1 => "sample_tiles_1",
        2 => "sample_tiles_2",
        3..=4 => "sample_tiles_4",
        5..=8 => "sample_tiles_8",
        _ => "sample_tiles_16",
    }
}

/// Rows that the kernel keeps logits of.
fn room(rows: usize) -> usize {
    rows.next_power_of_two().min(MOST_ROWS)
}

fn int(x: usize) -> Arg {
    Arg::Int(x as i32)
}

struct Case<'a> {
    device: &'a Arc<dyn Device>,
    sizes: &'a Sizes,
    head: HeadSize,
    weights: Memory<f16>,
    batch: usize,
    x: Memory<f32>,
}

pub fn measure(device: &Arc<dyn Device>, sizes: &Sizes, head: HeadSize) -> Result<Vec<Sampling>> {
    let one = |&batch: &usize| {
        let weights = Memory::<f16>::new(device, head.vocab * head.width)?;
        weights.clear()?;
        weights.write(HOT * head.width, &vec![f16::ONE; head.width])?;
        let x = Memory::of(device, &vec![LOGIT / head.width as f32; batch * head.width])?;
        let case = Case { device, sizes, head, weights, batch, x };
        let (product_us, flash_us) = (case.product()?, case.flash()?);
        let HeadSize { vocab, width } = head;
        Ok(Sampling { vocab, width, batch, flash_us, product_us, bytes_saved: 4 * vocab * batch })
    };
    sizes.batches.iter().map(one).collect()
}

impl Case<'_> {
    /// Microseconds.
    fn product(&self) -> Result<f64> {
        let (vocab, batch) = (self.head.vocab, self.batch);
        let logits = Memory::<f32>::new(self.device, batch * vocab)?;
        let args = [self.x.arg(), int(batch), int(self.head.width), self.weights.arg(), Arg::Int(F16), int(vocab)];
        let args = [&args[..], &[Arg::Pointer(0), logits.arg(), int(vocab), int(0), int(0)]].concat();
        let (kernel, grid, block) = product_kernel(batch, vocab);
        let launch = Launch { kernel, grid, block: [block, 1, 1], shared: 0, args: &args };
        let ns = time(self.device, self.sizes, &[launch])?;
        for row in logits.read(0, batch * vocab)?.chunks_exact(vocab) {
            for (id, &logit) in row.iter().enumerate() {
                check(kernel, logit, if id == HOT { f64::from(LOGIT) } else { 0.0 }, 1e-3)?;
            }
        }
        Ok(ns / 1e3)
    }

    /// Microseconds.
    fn flash(&self) -> Result<f64> {
        let (device, batch, vocab) = (self.device, self.batch, self.head.vocab);
        let tiles = vocab.div_ceil(TILE);
        let temperature = Memory::of(device, &vec![1.0f32; batch])?;
        let draws: Vec<[u32; 5]> = (0..batch as u32).map(|row| [1, 0, 0, row, 0]).collect();
        let draws = Memory::of(device, draws.as_flattened())?;
        let (keys, sums) =
            (Memory::<u64>::new(device, batch * tiles * 2)?, Memory::<f32>::new(device, batch * tiles * 3)?);
        let (ids, numbers) = (Memory::<i32>::new(device, batch * 2)?, Memory::<f32>::new(device, batch * 6)?);
        let part = |first: usize| {
            let rows = (batch - first).min(MOST_ROWS);
            let mut args = vec![Arg::Pointer(self.x.at(first * self.head.width)), int(rows), int(self.head.width)];
            args.extend([self.weights.arg(), Arg::Int(F16), int(vocab), Arg::Float(0.0), Arg::Pointer(0), int(0)]);
            args.extend([temperature.at(first), draws.at(first * 5)].map(Arg::Pointer));
            args.extend([int(TILE), int(0)]);
            args.extend([keys.at(first * tiles * 2), sums.at(first * tiles * 3)].map(Arg::Pointer));
            (rows, args)
        };
        let parts: Vec<(usize, Vec<Arg>)> = (0..batch).step_by(MOST_ROWS).map(part).collect();
        let merge = [int(tiles), int(0), keys.arg(), sums.arg(), ids.arg(), numbers.arg()];
        let mut launches: Vec<Launch<'_>> = parts
            .iter()
            .map(|(rows, args)| {
                let shared = (4 * TILE * room(*rows)) as u32;
                Launch { kernel: kernel(*rows), grid: [tiles as u32, 1, 1], block: [128, 1, 1], shared, args }
            })
            .collect();
        let (grid, block) = ([batch as u32, 1, 1], [256, 1, 1]);
        launches.push(Launch { kernel: "sample_merge", grid, block, shared: tiles as u32, args: &merge });
        let ns = time(device, self.sizes, &launches)?;
        for (ids, numbers) in ids.read(0, batch * 2)?.chunks_exact(2).zip(numbers.read(0, batch * 6)?.chunks_exact(6)) {
            check("sample_merge", ids[0] as f32, HOT as f64, 0.0)?;
            check("sample_merge", numbers[4], f64::from(LOGIT), 1e-3)?;
        }
        Ok(ns / 1e3)
    }
}
