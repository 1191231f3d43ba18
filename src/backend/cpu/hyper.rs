//! Residual streams of hyper-connections: see [`crate::backend::hyper`].

use crate::backend::hyper::{GateRows, Gates, StreamOp, width};
use crate::backend::{Buf, Shape};

use super::CpuBackend;
use super::program::{Exec, Items, Op};
use super::simd::{dot, sum_of_squares, vectorized};

/// Columns of the grid of gates.
pub fn gate_width(shape: &Shape) -> usize {
    if shape.streams == 0 { 0 } else { width(shape.streams) }
}

pub fn streams(exec: &Exec<'_>, items: Items<'_>, op: &StreamOp) {
    match op {
        StreamOp::Spread { e, x } => spread(exec, items, *e, *x),
        StreamOp::Gather { gates, x, h } => gather(exec, items, gates, *x, *h),
        StreamOp::Scatter { gates, y, x } => scatter(exec, items, gates, *y, *x),
    }
}

/// Every stream of x [R, n·d] becomes e [R, d].
fn spread(exec: &Exec<'_>, items: Items<'_>, e: Buf, x: Buf) {
    items.each(exec.rows.len(), 4, |r| {
        // SAFETY: one thread per row.
        let (from, to) = unsafe { (exec.buffers[e.0].row(r), exec.buffers[x.0].row_mut(r)) };
        to.chunks_exact_mut(from.len()).for_each(|stream| stream.copy_from_slice(from));
    });
}

/// The gates of a target, and h = H_pre x [R, d].
fn gather(exec: &Exec<'_>, items: Items<'_>, gates: &Gates, x: Buf, h: Buf) {
    let (map, base, n) = (&exec.vectors[gates.map.0], &exec.vectors[gates.base.0], gates.streams);
    let mut p = vec![0.0; base.len()];
    items.each(exec.rows.len(), 1, |r| {
        // SAFETY: one thread per row, and per (target, row).
        let (x, h, out) = unsafe {
            let out = exec.probes.gates.row_mut(gates.target * exec.rows.len() + r);
            (exec.buffers[x.0].row(r), exec.buffers[h.0].row_mut(r), out)
        };
        vectorized(
            #[inline(always)]
            || {
                let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + gates.norm_eps).sqrt();
                p.iter_mut().zip(map.chunks_exact(x.len())).for_each(|(p, row)| *p = dot(row, x) * scale);
                out[n..].fill(0.0);
                gates.of(&p, base, out);
                // until the sublayer has written
                out[norms(n) + n..].fill(f32::NAN);
                h.fill(0.0);
                for (i, stream) in x.chunks_exact(h.len()).enumerate() {
                    h.iter_mut().zip(stream).for_each(|(h, x)| *h = out[i].mul_add(*x, *h));
                    out[norms(n) + i] = sum_of_squares(stream).sqrt();
                }
            },
        );
    });
}

/// Where the norms of streams begin.
const fn norms(n: usize) -> usize {
    n * n + 2 * n
}

/// x = H_res x + H_postᵀ y, with the gates of the target that has written y [R, d].
fn scatter(exec: &Exec<'_>, items: Items<'_>, gates: &Gates, y: Buf, x: Buf) {
    let n = gates.streams;
    let mut old = vec![0.0; exec.buffers[x.0].width()];
    items.each(exec.rows.len(), 1, |r| {
        // SAFETY: one thread per row, and per (target, row).
        let (y, x, row) = unsafe {
            let row = exec.probes.gates.row_mut(gates.target * exec.rows.len() + r);
            (exec.buffers[y.0].row(r), exec.buffers[x.0].row_mut(r), row)
        };
        let (row, lengths) = row.split_at_mut(norms(n) + n);
        let (post, matrix) = (&row[n..2 * n], &row[2 * n..norms(n)]);
        vectorized(
            #[inline(always)]
            || {
                old.copy_from_slice(x);
                x.fill(0.0);
                for (to, by) in x.chunks_exact_mut(y.len()).zip(matrix.chunks_exact(n)) {
                    for (from, by) in old.chunks_exact(y.len()).zip(by) {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = by.mul_add(*from, *to));
                    }
                }
                let (kept, added) = (sum_of_squares(x).sqrt(), (sum_of_squares(post) * sum_of_squares(y)).sqrt());
                for (to, by) in x.chunks_exact_mut(y.len()).zip(post) {
                    to.iter_mut().zip(y).for_each(|(to, y)| *to = by.mul_add(*y, *to));
                }
                lengths.copy_from_slice(&[added, kept]);
            },
        );
    });
}

impl CpuBackend {
    pub(super) fn record_streams(&mut self, op: &StreamOp) {
        let (out, bytes, flops) = match op {
            StreamOp::Spread { e, x } => (*x, self.activation(*e) + self.activation(*x), 0),
            StreamOp::Gather { gates, x, h } => {
                let map = self.vectors[gates.map.0].len() as u64;
                let bytes = 4 * map + self.activation(*x) + self.activation(*h);
                (*h, bytes, 2 * map * self.rows.len() as u64)
            }
            StreamOp::Scatter { gates, y, x } => {
                let numbers = self.activation(*x) / 4;
                (*x, 2 * self.activation(*x) + self.activation(*y), 2 * numbers * (gates.streams as u64 + 1))
            }
        };
        self.written(out);
        self.push("streams", Op::Streams(*op), bytes, flops);
    }

    /// What streams were mixed by.
    pub(super) fn gates_of_pass(&self) -> GateRows {
        let (streams, rows) = (self.shape.streams, self.rows.len());
        let count = self.shape.points() * rows * gate_width(&self.shape);
        match self.probes.gates.as_slice().get(..count) {
            Some(values) if streams > 0 => GateRows { streams, rows, values: values.to_vec() },
            _ => GateRows::default(),
        }
    }
}
