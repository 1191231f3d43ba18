//! Decode attention with its probes, of lanes that hold the same number of slots.

use std::sync::Arc;

use serde::Serialize;

use super::clock::time;
use super::{Sizes, check};
use crate::backend::Result;
use crate::backend::cuda::device::{Arg, Device, Launch};
use crate::backend::cuda::memory::Memory;
use crate::backend::cuda::records::{REDUCTIONS, Run, Slots, kv};
use crate::cache::KvType;

/// Slots of a strip, and splits at most: STRIP and SPLITS in kernels/decode_attention.cu.
const STRIP: usize = 128;
const SPLITS: usize = 64;
const RECENT: usize = 32;

#[derive(Debug, Serialize)]
pub struct Attention {
    pub lanes: usize,
    /// Of each kv head.
    pub slots: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    /// Of the keys and values, which are read once.
    pub bytes: usize,
    /// Of one layer.
    pub us: f64,
    pub gb_s: f64,
    /// Of the bandwidth of copying.
    pub share: f64,
}

pub fn measure(
    device: &Arc<dyn Device>,
    sizes: &Sizes,
    slots: usize,
    lanes: usize,
    copy_bytes_s: f64,
) -> Result<Attention> {
    let (h, g, d) = (sizes.attention.heads, sizes.attention.kv_heads, sizes.attention.dim);
    let (group, all) = (h / g, lanes * g);
    // all logits are 0: each slot gets the same, and the values are 0, too
    let side = slots * d * KvType::F16.bytes();
    let cells = Memory::<u8>::new(device, 2 * all * side)?;
    cells.clear()?;
    let sums = Memory::<f32>::new(device, 2 * all * group * slots)?;
    sums.clear()?;
    let places: Vec<u32> = (0..all).flat_map(|_| 0..slots as u32).collect();
    let places = Memory::of(device, &places)?;
    let record = |head: usize| Slots {
        keys: cells.at(2 * head * side),
        values: cells.at((2 * head + 1) * side),
        positions: places.at(head * slots),
        received: sums.at(2 * head * group * slots),
        row: sums.at((2 * head + 1) * group * slots),
        offsets: 0,
        len: slots as i32,
        capacity: slots as i32,
    };
    let records = Memory::of(device, &(0..all).map(record).collect::<Vec<_>>())?;
    let run = |lane: usize| Run { first: lane as i32, count: 1, cache: lane as i32, queries: 0 };
    let runs = Memory::of(device, &(0..lanes).map(run).collect::<Vec<_>>())?;
    let positions = Memory::of(device, &vec![slots as u32 - 1; lanes])?;
    let queries = Memory::of(device, &vec![1.0f32; lanes * h * d])?;
    let splits = slots.div_ceil(STRIP).min(SPLITS);
    let [stats, partial, out, reductions] =
        [lanes * h * splits * REDUCTIONS, lanes * h * splits * d, lanes * h * d, h * lanes * REDUCTIONS]
            .map(|len| Memory::<f32>::new(device, len));
    let (stats, partial, out, reductions) = (stats?, partial?, out?, reductions?);
    let int = |x: usize| Arg::Int(x as i32);
    let mut first = vec![queries.arg(), int(h * d), runs.arg(), records.arg(), int(g), positions.arg(), int(group)];
    first.extend([int(d), Arg::Int(kv(KvType::F16)), int(0), Arg::Float(1.0), Arg::Float(0.0), int(RECENT)]);
    first.extend([int(splits), stats.arg(), partial.arg()]);
    let mut second = vec![runs.arg(), records.arg(), int(g), positions.arg(), int(group), int(d), int(0), int(splits)];
    second.extend([stats.arg(), partial.arg(), int(lanes), out.arg(), reductions.arg(), Arg::Pointer(0), int(g)]);
    let grids = [[splits, g * group.div_ceil(8), lanes], [splits, h, lanes]].map(|grid| grid.map(|n| n as u32));
    let launches = [
        Launch { kernel: "decode_split", grid: grids[0], block: [256, 1, 1], shared: 0, args: &first },
        Launch { kernel: "decode_merge", grid: grids[1], block: [128, 1, 1], shared: 0, args: &second },
    ];
    let ns = time(device, sizes, &launches)?;
    let (n, found) = (slots as f64, reductions.read(0, reductions.len())?);
    for row in found.chunks_exact(REDUCTIONS) {
        check("decode attention", row[0], n.ln(), 1e-4)?;
        check("decode attention", row[1], n.ln(), 1e-4)?;
        check("decode attention", row[2], 1.0 / n, 1e-5 / n)?;
    }
    for x in out.read(0, out.len())? {
        check("decode attention", x, 0.0, 0.0)?;
    }
    let bytes = cells.len();
    let gb_s = bytes as f64 / ns;
    let share = gb_s * 1e9 / copy_bytes_s;
    Ok(Attention { lanes, slots, heads: h, kv_heads: g, dim: d, bytes, us: ns / 1e3, gb_s, share })
}
