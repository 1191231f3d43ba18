//! Row-wise operations: embedding, norms, activations, statistics of the residual stream.

use crate::backend::{Buf, Vector};
use crate::model::config::Activation;

use super::linear::dequantize_row;
use super::program::{Exec, Items};
use super::simd::{exp, sum_of_squares, vectorized};
use super::stats::row_stats;

/// out[r] = table[token of r] · scale; out [rows, hidden]
pub fn embed(exec: &Exec<'_>, items: Items<'_>, scale: f32, out: Buf) {
    let Some(table) = exec.table else { return };
    items.each(exec.rows.len(), 4, |r| {
        // SAFETY: one thread per row.
        let to = unsafe { exec.buffers[out.0].row_mut(r) };
        dequantize_row(table, exec.rows[r].token as usize, to);
        to.iter_mut().for_each(|x| *x *= scale);
    });
}

/// out = values [rows, width of out]
pub fn fill(exec: &Exec<'_>, items: Items<'_>, values: &[f32], out: Buf) {
    let to = &exec.buffers[out.0];
    items.each(exec.rows.len(), 4, |r| {
        // SAFETY: one thread per row.
        unsafe { to.row_mut(r) }.copy_from_slice(&values[r * to.width()..(r + 1) * to.width()]);
    });
}

pub fn residual_point(exec: &Exec<'_>, items: Items<'_>, x: Buf, point: usize) {
    let rows = exec.rows.len();
    let first_saved = rows - exec.saved_rows;
    let mut scratch = vec![0.0; exec.hidden];
    items.each(rows, 4, |r| {
        // SAFETY: one thread per row; x is not written by this operation.
        unsafe {
            let from = exec.buffers[x.0].row(r);
            if r >= first_saved {
                let to = point * exec.saved_rows + r - first_saved;
                exec.probes.points.row_mut(to).copy_from_slice(from);
            }
            if first_saved > 0 && exec.probe_residual {
                put_stats(exec, from, point * rows + r, &mut scratch);
            }
        }
    });
}

pub fn saved_stats(exec: &Exec<'_>, items: Items<'_>, points: &[usize]) {
    let mut scratch = vec![0.0; exec.hidden];
    items.each(points.len() * exec.saved_rows, 4, |i| {
        let row = points[i / exec.saved_rows] * exec.saved_rows + i % exec.saved_rows;
        // SAFETY: one thread per row; all rows of the pass are saved, so the numbering is the same.
        unsafe { put_stats(exec, exec.probes.points.row(row), row, &mut scratch) };
    });
}

/// # Safety
/// One thread per `at`.
unsafe fn put_stats(exec: &Exec<'_>, x: &[f32], at: usize, scratch: &mut [f32]) {
    let s = vectorized(
        #[inline(always)]
        || row_stats(x, scratch),
    );
    // SAFETY: by the caller's word.
    let to = unsafe { exec.probes.residual.row_mut(at) };
    to.copy_from_slice(&[s.l2, s.rms, s.absmax, s.median, f32::from_bits(s.argmax)]);
}

#[inline(always)]
pub fn normed(x: &[f32], weight: &[f32], eps: f32, mut put: impl FnMut(usize, f32)) {
    let mean = sum_of_squares(x) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for (i, (&v, &w)) in x.iter().zip(weight).enumerate() {
        put(i, v * scale * w);
    }
}

/// out = x / rms(x) · weight; [rows, width of x]
pub fn rms_norm(exec: &Exec<'_>, items: Items<'_>, x: Buf, weight: Vector, eps: f32, out: Buf) {
    let w = &exec.vectors[weight.0];
    items.each(exec.rows.len(), 4, |r| {
        // SAFETY: one thread per row.
        let (from, to) = unsafe { (exec.buffers[x.0].row(r), exec.buffers[out.0].row_mut(r)) };
        vectorized(
            #[inline(always)]
            || normed(from, w, eps, |i, v| to[i] = v),
        );
    });
}

/// x += y / rms(y) · weight; [rows, width of x]
pub fn add_rms_norm(exec: &Exec<'_>, items: Items<'_>, x: Buf, y: Buf, weight: Vector, eps: f32) {
    let w = &exec.vectors[weight.0];
    items.each(exec.rows.len(), 4, |r| {
        // SAFETY: one thread per row.
        let (to, from) = unsafe { (exec.buffers[x.0].row_mut(r), exec.buffers[y.0].row(r)) };
        vectorized(
            #[inline(always)]
            || normed(from, w, eps, |i, v| to[i] += v),
        );
    });
}

#[inline(always)]
pub fn act(kind: Activation, x: f32) -> f32 {
    match kind {
        Activation::Silu => x / (1.0 + exp(-x)),
        Activation::GeluTanh => {
            let inner = 0.797_884_6 * (0.044_715 * x * x).mul_add(x, x);
            // ½(1 + tanh u) = 1 / (1 + e^(−2u))
            x / (1.0 + exp(-2.0 * inner))
        }
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
    }
}

/// erf to 1.5e-7 (Abramowitz & Stegun 7.1.26, evaluated in f64).
fn erf(x: f32) -> f32 {
    let z = x.abs() as f64;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    (1.0 - poly * (-z * z).exp()).copysign(x as f64) as f32
}

/// out = act(x[.. width]) ⊙ x[width ..]; x [rows, 2 · width], out [rows, width]
pub fn activate(exec: &Exec<'_>, items: Items<'_>, x: Buf, bias: Option<Vector>, kind: Activation, out: Buf) {
    let width = exec.buffers[out.0].width();
    let bias = bias.map(|b| &exec.vectors[b.0]);
    items.each(exec.rows.len(), 2, |r| {
        // SAFETY: one thread per row.
        let (from, to) = unsafe { (exec.buffers[x.0].row(r), exec.buffers[out.0].row_mut(r)) };
        let (gate, up) = from.split_at(width);
        vectorized(
            #[inline(always)]
            || match bias {
                None => to.iter_mut().zip(gate.iter().zip(up)).for_each(|(o, (&g, &u))| *o = act(kind, g) * u),
                Some(b) => {
                    for i in 0..width {
                        to[i] = act(kind, gate[i] + b[i]) * (up[i] + b[width + i]);
                    }
                }
            },
        );
    });
}

/// logits = cap · tanh(logits / cap)
pub fn softcap(exec: &Exec<'_>, items: Items<'_>, cap: f32, rows: usize) {
    let width = exec.logits.width();
    let pieces = width.div_ceil(4096);
    items.each(rows * pieces, 1, |i| {
        let from = i % pieces * 4096;
        // SAFETY: one thread per piece.
        let part = unsafe { exec.logits.part_mut(i / pieces, from, (from + 4096).min(width)) };
        part.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_agree_with_their_formulas() {
        for i in -200..=200 {
            let x = i as f32 * 0.05;
            let d = x as f64;
            let silu = d / (1.0 + (-d).exp());
            let gelu = 0.5 * d * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (d + 0.044715 * d.powi(3))).tanh());
            assert!((act(Activation::Silu, x) as f64 - silu).abs() < 2e-6);
            assert!((act(Activation::GeluTanh, x) as f64 - gelu).abs() < 2e-6);
        }
        // Reference values of the exact form: x·Φ(x).
        for (x, expected) in [(1.0, 0.841_344_7), (-0.5, -0.154_268_77), (2.0, 1.954_499_7)] {
            assert!((act(Activation::Gelu, x) - expected).abs() < 1e-6);
        }
    }
}
