//! Matrix products over activation buffers, for every kind of weight.

use std::ops::Range;

use crate::backend::{Buf, LowRank, Matrix, Vector};
use crate::model::config::Activation;

use super::elementwise::act;
use super::linear::{Linear, Part, with_f32};
use super::matmul::{TILE, matmul as packed_matmul, matmul_float};
use super::program::{Exec, Items};
use super::shared::Grid;
use super::simd::{dot, vectorized};

/// Up to this many rows the dense product is our own, row by row: a row's result must not depend on how many
/// rows are beside it.
const FEW_ROWS: usize = 16;
/// Weight tiles that a thread takes at a time.
const GRAIN: usize = 4;

pub fn quantize(exec: &Exec<'_>, items: Items<'_>, x: Buf) {
    let Some(q) = &exec.quantized[x.0] else { return };
    items.each(exec.rows.len(), 4, |r| {
        // SAFETY: one thread per row, and nobody multiplies meanwhile.
        unsafe { q.quantize_row_shared(r, exec.buffers[x.0].row(r), exec.isa) };
    });
}

/// out (+)= x · wᵀ + bias
#[allow(clippy::too_many_arguments)]
pub fn matmul(exec: &Exec<'_>, items: Items<'_>, w: Matrix, x: Buf, bias: Option<Vector>, out: Buf, add: bool) {
    let bias = bias.map(|b| exec.vectors[b.0].as_slice());
    let target = &exec.buffers[out.0];
    let put = |r: usize, first: usize, values: &[f32]| {
        // SAFETY: one thread per (row, piece of outputs).
        let to = unsafe { target.part_mut(r, first, first + values.len()) };
        match bias.map(|b| &b[first..first + values.len()]) {
            None if !add => to.copy_from_slice(values),
            None => to.iter_mut().zip(values).for_each(|(o, v)| *o += v),
            Some(bias) if !add => to.iter_mut().zip(values.iter().zip(bias)).for_each(|(o, (v, b))| *o = v + b),
            Some(bias) => to.iter_mut().zip(values.iter().zip(bias)).for_each(|(o, (v, b))| *o += v + b),
        }
    };
    product(exec, items, &exec.matrices[w.0], x, 0..exec.rows.len(), put);
}

/// Hands out x[rows] · wᵀ in pieces `put(row, first output, values)`.
fn product(
    exec: &Exec<'_>,
    items: Items<'_>,
    w: &Linear,
    x: Buf,
    rows: Range<usize>,
    put: impl Fn(usize, usize, &[f32]),
) {
    match w {
        Linear::Stored(parts) => {
            let tiles: usize = parts.iter().map(|(_, p)| p.tiles()).sum();
            items.spans(tiles, GRAIN, |span| {
                let mut before = 0;
                for (first, part) in parts {
                    let own = span.start.max(before)..span.end.min(before + part.tiles());
                    if own.start < own.end {
                        let local = own.start - before..own.end - before;
                        stored(exec, part, x, rows.clone(), local, |tile, r, values| {
                            let n = TILE.min(part.rows() - tile * TILE);
                            for (m, v) in values.iter().enumerate() {
                                put(r + m, first + tile * TILE, &v[..n]);
                            }
                        });
                    }
                    before += part.tiles();
                }
            });
        }
        Linear::Dense(weight) if rows.len() > FEW_ROWS => {
            items.each(1, 1, |_| many_rows(exec, weight, x, rows.clone(), &put));
        }
        Linear::Dense(weight) => {
            let cols = exec.buffers[x.0].width();
            let _ = with_f32(weight, |data| {
                items.spans(data.len() / cols, 16, |span| {
                    for r in rows.clone() {
                        // SAFETY: nobody writes x in this operation.
                        let from = unsafe { exec.buffers[x.0].row(r) };
                        let mut values = [0.0; 16];
                        vectorized(
                            #[inline(always)]
                            || {
                                for (v, o) in values.iter_mut().zip(span.clone()) {
                                    *v = dot(from, &data[o * cols..(o + 1) * cols]);
                                }
                            },
                        );
                        put(r, span.start, &values[..span.len()]);
                    }
                });
            });
        }
        // tiles of gate and up in turn
        Linear::PackedGated(packed, width) => {
            let Some(q) = &exec.quantized[x.0] else { return };
            items.spans(packed.tiles(), GRAIN, |span| {
                packed_matmul(packed, q, rows.clone(), span, exec.isa, &mut |tile, r, values| {
                    let first = tile / 2 * TILE;
                    let n = TILE.min(width - first);
                    for (m, v) in values.iter().enumerate() {
                        put(r + m, tile % 2 * width + first, &v[..n]);
                    }
                });
            });
        }
    }
}

/// Tiles of one stored part.
fn stored(
    exec: &Exec<'_>,
    part: &Part,
    x: Buf,
    rows: Range<usize>,
    tiles: Range<usize>,
    mut put: impl FnMut(usize, usize, &[[f32; TILE]]),
) {
    match part {
        Part::Packed(packed) => {
            if let Some(q) = &exec.quantized[x.0] {
                packed_matmul(packed, q, rows, tiles, exec.isa, &mut put);
            }
        }
        // SAFETY: nobody writes x in this operation.
        Part::Float(float) => matmul_float(float, unsafe { exec.buffers[x.0].all() }, rows, tiles, exec.isa, &mut put),
    }
}

/// The reference: candle's f32 product, which brings its own threads.
fn many_rows(
    exec: &Exec<'_>,
    weight: &candle_core::Tensor,
    x: Buf,
    rows: Range<usize>,
    put: &impl Fn(usize, usize, &[f32]),
) {
    let cols = exec.buffers[x.0].width();
    let values: Vec<f32> = rows
        .clone()
        // SAFETY: nobody writes x in this operation.
        .flat_map(|r| unsafe { exec.buffers[x.0].row(r) })
        .copied()
        .collect();
    let result = candle_core::Tensor::from_vec(values, (rows.len(), cols), &candle_core::Device::Cpu)
        .and_then(|x| x.matmul(&weight.t()?))
        .and_then(|y| y.contiguous());
    match result {
        // A panic in an operation is the pass's error; shapes were checked when the weights were loaded.
        Err(e) => panic!("f32 product: {e}"),
        Ok(y) => {
            let width = y.dim(1).unwrap_or(0);
            let _ = with_f32(&y, |data| {
                for (r, row) in rows.zip(data.chunks_exact(width)) {
                    put(r, 0, row);
                }
            });
        }
    }
}

/// out[.., first..] += x · downᵀ · upᵀ · scale
pub fn low_rank(exec: &Exec<'_>, items: Items<'_>, change: &LowRank, x: Buf, first: usize, out: Buf) {
    let (from, to) = (&exec.buffers[x.0], &exec.buffers[out.0]);
    let outputs = change.up.len() / change.rank;
    items.each(exec.rows.len(), 1, |r| {
        // SAFETY: one thread per row; nobody writes x in this operation.
        let (x, y) = unsafe { (from.row(r), to.part_mut(r, first, first + outputs)) };
        vectorized(
            #[inline(always)]
            || {
                let inner: Vec<f32> = change.down.chunks_exact(from.width()).map(|row| dot(x, row)).collect();
                for (y, row) in y.iter_mut().zip(change.up.chunks_exact(change.rank)) {
                    *y += dot(&inner, row) * change.scale;
                }
            },
        );
    });
}

/// out = act(x · gateᵀ) ⊙ (x · upᵀ)
pub fn gated(exec: &Exec<'_>, items: Items<'_>, w: Matrix, x: Buf, bias: Option<Vector>, kind: Activation, out: Buf) {
    let (Linear::PackedGated(packed, width), Some(q)) = (&exec.matrices[w.0], &exec.quantized[x.0]) else { return };
    let bias = bias.map(|b| exec.vectors[b.0].as_slice());
    let target = &exec.buffers[out.0];
    let rows = exec.rows.len();
    items.spans(packed.tiles() / 2, GRAIN / 2, |span| {
        let mut gates = vec![[0.0; TILE]; rows];
        for pair in span {
            let first = pair * TILE;
            let n = TILE.min(width - first);
            // The even tile is the gate's, the odd one that follows it the up projection's.
            packed_matmul(packed, q, 0..rows, 2 * pair..2 * pair + 2, exec.isa, &mut |tile, r, values| {
                if tile % 2 == 0 {
                    gates[r..r + values.len()].copy_from_slice(values);
                    return;
                }
                for (m, up) in values.iter().enumerate() {
                    let (mut gate, mut up) = (gates[r + m], *up);
                    if let Some(b) = bias {
                        for i in 0..n {
                            gate[i] += b[first + i];
                            up[i] += b[width + first + i];
                        }
                    }
                    let values = vectorized(
                        #[inline(always)]
                        || gate_times_up(kind, &gate, &up),
                    );
                    // SAFETY: one thread per (row, tile).
                    unsafe { target.part_mut(r + m, first, first + n) }.copy_from_slice(&values[..n]);
                }
            });
        }
    });
}

#[inline(always)]
fn gate_times_up(kind: Activation, gate: &[f32; TILE], up: &[f32; TILE]) -> [f32; TILE] {
    let mut out = [0.0; TILE];
    match kind {
        Activation::Silu => (0..TILE).for_each(|i| out[i] = act(Activation::Silu, gate[i]) * up[i]),
        Activation::GeluTanh => (0..TILE).for_each(|i| out[i] = act(Activation::GeluTanh, gate[i]) * up[i]),
        Activation::Gelu => (0..TILE).for_each(|i| out[i] = act(Activation::Gelu, gate[i]) * up[i]),
    }
    out
}

/// logits[i] = x[first + i] · headᵀ for `rows` rows.
pub fn head(exec: &Exec<'_>, items: Items<'_>, w: Option<Matrix>, x: Buf, first: usize, rows: usize) {
    let Some(w) = w else { return };
    let target: &Grid = exec.logits;
    let put = |r: usize, o: usize, values: &[f32]| {
        // SAFETY: one thread per (row, piece of outputs).
        unsafe { target.part_mut(r - first, o, o + values.len()) }.copy_from_slice(values);
    };
    product(exec, items, &exec.matrices[w.0], x, first..first + rows, put);
}
