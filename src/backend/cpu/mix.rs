//! Mixing depth: see [`crate::backend::mixing`]. The reference of kernels/mix.cu.

use crate::backend::Buf;
use crate::backend::mixing::{DepthWeights, Mix, MixAhead, MixMerge, Source};

use super::CpuBackend;
use super::program::{Exec, Items, Op};
use super::simd::{dot, sum_of_squares, vectorized};

/// # Safety
/// Nobody writes the source meanwhile.
#[inline(always)]
unsafe fn row_of<'a>(exec: &'a Exec<'_>, source: Source, row: usize) -> &'a [f32] {
    match source {
        // SAFETY: by the caller's word.
        Source::Rows(x) => unsafe { exec.buffers[x.0].row(row) },
        Source::Same(vector) => &exec.vectors[vector.0],
    }
}

#[inline(always)]
fn inverse_rms(v: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(v) / v.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn add_scaled(to: &mut [f32], v: &[f32], by: f32) {
    to.iter_mut().zip(v).for_each(|(o, x)| *o = by.mul_add(*x, *o));
}

/// x becomes e^(x − top); gives (top, sum).
#[inline(always)]
fn exponentials(x: &mut [f32]) -> (f32, f32) {
    let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - top).exp());
    (top, x.iter().sum())
}

/// out = keep · out + by · x
pub fn blend(exec: &Exec<'_>, items: Items<'_>, out: Buf, keep: f32, x: Buf, by: f32) {
    items.each(exec.rows.len(), 4, |r| {
        // SAFETY: one thread per row.
        let (from, to) = unsafe { (exec.buffers[x.0].row(r), exec.buffers[out.0].row_mut(r)) };
        vectorized(
            #[inline(always)]
            || match keep {
                0.0 => to.iter_mut().zip(from).for_each(|(o, x)| *o = by * x),
                _ => to.iter_mut().zip(from).for_each(|(o, x)| *o = by.mul_add(*x, keep * *o)),
            },
        );
    });
}

pub fn mix(exec: &Exec<'_>, items: Items<'_>, op: &Mix, out: Buf) {
    let sources = &exec.sources[op.sources.0];
    let key = &exec.vectors[op.key.0];
    let mut alpha = vec![0.0; sources.len()];
    items.each(exec.rows.len(), 1, |r| {
        // SAFETY: one thread per row, and sources are not written by this operation.
        let to = unsafe { exec.buffers[out.0].row_mut(r) };
        vectorized(
            #[inline(always)]
            || {
                for (score, &source) in alpha.iter_mut().zip(sources) {
                    // SAFETY: as above.
                    let v = unsafe { row_of(exec, source, r) };
                    *score = dot(key, v) * inverse_rms(v, op.eps);
                }
                if let Some(last) = alpha.last_mut() {
                    *last += op.bias;
                }
                let (_, sum) = exponentials(&mut alpha);
                alpha.iter_mut().for_each(|a| *a /= sum);
                match op.stream {
                    None => to.fill(0.0),
                    // SAFETY: as above.
                    Some(stream) => {
                        let stream = unsafe { exec.buffers[stream.0].row(r) };
                        to.iter_mut().zip(stream).for_each(|(o, x)| *o = op.keep * x);
                    }
                }
                for (&a, &source) in alpha.iter().zip(sources) {
                    // SAFETY: as above.
                    add_scaled(to, unsafe { row_of(exec, source, r) }, op.by * a);
                }
            },
        );
        // SAFETY: one thread per row.
        unsafe { put(exec, op.target, r, &alpha) };
    });
}

/// # Safety
/// One thread per (target, row).
unsafe fn put(exec: &Exec<'_>, target: usize, row: usize, values: &[f32]) {
    // SAFETY: by the caller's word.
    unsafe { exec.probes.depth.part_mut(target * exec.rows.len() + row, 0, values.len()) }.copy_from_slice(values);
}

/// A row of the state: mixes [count][d], tops [count], sums [count].
fn parts(state: &mut [f32], count: usize, d: usize) -> (&mut [f32], &mut [f32], &mut [f32]) {
    let (mixed, rest) = state.split_at_mut(count * d);
    let (tops, rest) = rest.split_at_mut(count);
    (mixed, tops, &mut rest[..count])
}

pub fn ahead(exec: &Exec<'_>, items: Items<'_>, op: &MixAhead) {
    let sources = &exec.sources[op.sources.0];
    let (keys, d) = (&exec.vectors[op.keys.0], exec.hidden);
    let mut inverse = vec![0.0; sources.len()];
    let mut scores = vec![0.0; sources.len()];
    items.each(exec.rows.len(), 1, |r| {
        // SAFETY: one thread per row, and sources are not written by this operation.
        let state = unsafe { exec.buffers[op.state.0].row_mut(r) };
        let (mixed, tops, sums) = parts(state, op.count, d);
        vectorized(
            #[inline(always)]
            || {
                for (inverse, &source) in inverse.iter_mut().zip(sources) {
                    // SAFETY: as above.
                    *inverse = inverse_rms(unsafe { row_of(exec, source, r) }, op.eps);
                }
                for (t, (key, mixed)) in keys.chunks_exact(d).zip(mixed.chunks_exact_mut(d)).enumerate() {
                    for ((score, &source), inverse) in scores.iter_mut().zip(sources).zip(&inverse) {
                        // SAFETY: as above.
                        *score = dot(key, unsafe { row_of(exec, source, r) }) * inverse;
                    }
                    // SAFETY: one thread per row.
                    unsafe { put(exec, op.first + t, r, &scores) };
                    (tops[t], sums[t]) = exponentials(&mut scores);
                    mixed.fill(0.0);
                    for (&e, &source) in scores.iter().zip(sources) {
                        // SAFETY: as above.
                        add_scaled(mixed, unsafe { row_of(exec, source, r) }, e);
                    }
                }
            },
        );
    });
}

pub fn merge(exec: &Exec<'_>, items: Items<'_>, op: &MixMerge, out: Buf) {
    let (d, at, count) = (exec.hidden, op.target - op.ahead.first, op.ahead.count);
    let key = &exec.vectors[op.key.0];
    items.each(exec.rows.len(), 1, |r| {
        // SAFETY: one thread per row, and the state is not written by this operation.
        let (state, to) = unsafe { (exec.buffers[op.ahead.state.0].row(r), exec.buffers[out.0].row_mut(r)) };
        // SAFETY: one thread per (target, row).
        let weights = unsafe { exec.probes.depth.row_mut(op.target * exec.rows.len() + r) };
        let (mixed, old, sum) = (&state[at * d..][..d], state[count * d + at], state[count * (d + 1) + at]);
        vectorized(
            #[inline(always)]
            || {
                // SAFETY: the partial sum is not written by this operation.
                let partial = op.partial.map(|x| unsafe { exec.buffers[x.0].row(r) });
                let score = partial.map(|v| dot(key, v) * inverse_rms(v, op.ahead.eps));
                let top = score.map_or(old, |score| score.max(old));
                let (before, now) = ((old - top).exp(), score.map_or(0.0, |score| (score - top).exp()));
                let whole = before * sum + now;
                to.iter_mut().zip(mixed).for_each(|(o, m)| *o = m * (before / whole));
                partial.iter().for_each(|v| add_scaled(to, v, now / whole));
                weights[..op.finished].iter_mut().for_each(|s| *s = (*s - top).exp() / whole);
                if partial.is_some() {
                    weights[op.finished] = now / whole;
                }
            },
        );
    });
}

impl CpuBackend {
    pub(super) fn record_blend(&mut self, out: Buf, keep: f32, x: Buf, by: f32) {
        self.written(out);
        self.push("blend", Op::Blend { out, keep, x, by }, 3 * self.activation(x), self.activation(x));
    }

    pub(super) fn record_mix(&mut self, mix: &Mix, out: Buf) {
        self.written(out);
        let count = self.sources[mix.sources.0].len() as u64;
        let (bytes, flops) = ((count + 1) * self.activation(out), 2 * count * self.activation(out));
        self.push("depth mix", Op::Mix { mix: *mix, out }, bytes, flops);
    }

    pub(super) fn record_ahead(&mut self, ahead: &MixAhead) {
        let (count, targets) = (self.sources[ahead.sources.0].len() as u64, ahead.count as u64);
        let row = (self.rows.len() * self.shape.hidden * 4) as u64;
        self.push("depth mix", Op::MixAhead { ahead: *ahead }, (count + targets) * row, count * targets * row);
    }

    pub(super) fn record_merge(&mut self, merge: &MixMerge, out: Buf) {
        self.written(out);
        let cost = self.activation(out);
        self.push("depth mix", Op::MixMerge { merge: *merge, out }, 3 * cost, 2 * cost);
    }

    /// What each target weighed its sources with.
    pub(super) fn weights_of_depth(&self) -> DepthWeights {
        let (sources, rows, targets) = (self.shape.depth_sources, self.rows.len(), 2 * self.shape.layers + 1);
        if sources == 0 {
            return DepthWeights::default();
        }
        let all = self.probes.depth.as_slice();
        let mut values = vec![0.0; targets * sources * rows];
        for (at, weights) in all.chunks_exact(sources).take(targets * rows).enumerate() {
            let (target, row) = (at / rows, at % rows);
            for (source, &weight) in weights.iter().enumerate() {
                values[(target * sources + source) * rows + row] = weight;
            }
        }
        DepthWeights { targets, sources, rows, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backend, Inspect, Row, Shape, Vector};
    use crate::cache::KvType;
    use crate::engine::message::Probes;

    fn backend(d: usize, sources: usize) -> CpuBackend {
        let shape = Shape {
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 2,
            hidden: d,
            vocab: 4,
            max_rows: 8,
            ropes: vec![vec![1.0]],
            kv: KvType::F32,
            queries_budget: 0,
            recent_window: 4,
            stream_points: false,
            depth_sources: sources,
            streams: 0,
        };
        CpuBackend::new(shape, true, 2).unwrap()
    }

    /// Rows of the sources; each mixed with `key` in one phase, and, but for the last one, ahead.
    fn mixed(values: &[Vec<f32>], key: &[f32], eps: f32) -> [(Vec<f32>, Vec<f32>); 2] {
        let d = key.len();
        let mut b = backend(d, values.len());
        let buffers: Vec<Buf> = values.iter().map(|_| b.buffer(d)).collect();
        let (out, state) = (b.buffer(d), b.buffer(d + 2));
        let list: Vec<Source> = buffers.iter().map(|&x| Source::Rows(x)).collect();
        let (all, finished) = (b.sources(&list), b.sources(&list[..list.len() - 1]));
        let key: Vector = b.numbers(key).unwrap();
        let cache = b.cache();
        let mut run = |record: &dyn Fn(&mut CpuBackend)| {
            let row = Row { token: 0, position: 0, turned: 0, cache };
            b.begin(&[row], Probes::default(), None).unwrap();
            values.iter().zip(&buffers).for_each(|(v, &x)| b.fill(v, x));
            record(&mut b);
            b.run().unwrap();
            (b.read(out), b.depth_weights().of(1, 0, values.len()).collect::<Vec<_>>())
        };
        let mix = Mix { target: 1, sources: all, key, eps, bias: 0.0, stream: None, keep: 0.0, by: 1.0 };
        let one = run(&|b| b.mix(&mix, out));
        let ahead = MixAhead { first: 1, count: 1, sources: finished, keys: key, eps, state };
        let partial = buffers.last().copied();
        let merge = MixMerge { ahead, target: 1, finished: values.len() - 1, partial, key };
        let two = run(&|b| {
            b.mix_ahead(&ahead);
            b.mix_merge(&merge, out);
        });
        [one, two]
    }

    fn near(found: &[f32], expected: &[f32]) {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 2e-6, "{found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn a_mix_of_three_sources_in_one_phase_and_in_two() {
        let sources = [vec![1.0, 0.0, -1.0, 2.0], vec![0.5; 4], vec![3.0, -4.0, 0.0, 0.0]];
        let (w, norm) = ([0.5, -0.25, 0.0, 1.0], [1.0, 1.0, 2.0, 0.5]);
        let key: Vec<f32> = w.iter().zip(norm).map(|(w, n)| w * n).collect();
        for (out, alpha) in mixed(&sources, &key, 1e-6) {
            near(&alpha, &[0.413093, 0.256962, 0.329946]);
            near(&out, &[1.53141, -1.191302, -0.284612, 0.954666]);
        }
        for (out, alpha) in mixed(&sources, &[0.0; 4], 1e-6) {
            near(&alpha, &[1.0 / 3.0; 3]);
            near(&out, &[1.5, -1.166667, -0.166667, 0.833333]);
        }
    }

    #[test]
    fn weights_do_not_depend_on_the_length_of_a_source_but_the_mix_does() {
        let sources = [vec![1.0, 0.0, -1.0, 2.0], vec![0.5, 0.1, -0.5, 0.5], vec![3.0, -4.0, 0.0, 0.0]];
        let mut longer = sources.clone();
        longer[0].iter_mut().for_each(|x| *x *= 40.0);
        let key = [0.7, -0.3, 0.1, 0.9];
        for ((out, alpha), (other, same)) in mixed(&sources, &key, 1e-12).iter().zip(mixed(&longer, &key, 1e-12)) {
            near(&same, alpha);
            assert!((other[0] - out[0]).abs() > 1.0);
        }
        // another order of finished sources changes nothing
        let turned = [sources[1].clone(), sources[0].clone(), sources[2].clone()];
        for ((out, alpha), (same, moved)) in mixed(&sources, &key, 1e-6).iter().zip(mixed(&turned, &key, 1e-6)) {
            near(&same, out);
            near(&[moved[1], moved[0], moved[2]], alpha);
        }
    }
}
