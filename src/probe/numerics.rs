//! What attention loses in narrower arithmetic, or in another order, next to f64.
//!
//! One head reads q [D], K and V [n, D] as they are kept: f16, but for a run in f32, and what that lost is not seen here.
//! s = scale · K q (softcap c: c · tanh(s / c)), p = softmax(s), o = pᵀ V.
//! - exact: all of it in f64.
//! - f16, bf16: as frameworks compute it eagerly on 16-bit hardware. Rounded to 16 bits are q, K, V; the products K q
//!   (summed in f32, as tensor cores do), and again after scale, division, tanh and product with c; the probabilities,
//!   whose softmax is in f32; the output pᵀ V (summed in f32).
//! - flash: nothing is rounded below f32, but the softmax is taken online over tiles of 64 keys (FlashAttention-2, arXiv
//!   2307.08691): running maximum m and sum l, the output scaled by e^(m_old − m_new) from tile to tile, divided by l in
//!   the end. What it would give as probabilities: e^(s − m) / l.

use half::{bf16, f16};

/// Keys in a tile.
const TILE: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    F16,
    Bf16,
    Flash,
}

impl Arithmetic {
    pub const ALL: [Self; 3] = [Self::F16, Self::Bf16, Self::Flash];

    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Flash => "flash",
        }
    }

    fn round(self, x: f32) -> f32 {
        match self {
            Self::F16 => f16::from_f32(x).to_f32(),
            Self::Bf16 => bf16::from_f32(x).to_f32(),
            Self::Flash => x,
        }
    }
}

/// What one kv head holds, and how its queries look at it.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    /// [n, D]
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub dim: usize,
    pub scale: f32,
    pub softcap: Option<f32>,
}

/// What a query makes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Attended<T> {
    /// [n]
    pub probs: Vec<T>,
    /// [D]
    pub out: Vec<T>,
}

impl Entries<'_> {
    /// Those in slots `from..to`.
    pub fn of_slots(&self, from: usize, to: usize) -> Entries<'_> {
        let cells = from * self.dim..to * self.dim;
        Entries { keys: &self.keys[cells.clone()], values: &self.values[cells], ..*self }
    }

    pub fn exactly(&self, query: &[f32]) -> Attended<f64> {
        let score = |key: &[f32]| {
            let s = key.iter().zip(query).map(|(k, q)| *k as f64 * *q as f64).sum::<f64>() * self.scale as f64;
            self.softcap.map_or(s, |cap| cap as f64 * (s / cap as f64).tanh())
        };
        let mut probs: Vec<f64> = self.keys.chunks_exact(self.dim).map(score).collect();
        let most = probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        probs.iter_mut().for_each(|s| *s = (*s - most).exp());
        let sum: f64 = probs.iter().sum();
        probs.iter_mut().for_each(|p| *p /= sum);
        let mut out = vec![0.0; self.dim];
        for (p, value) in probs.iter().zip(self.values.chunks_exact(self.dim)) {
            out.iter_mut().zip(value).for_each(|(o, v)| *o += p * *v as f64);
        }
        Attended { probs, out }
    }

    /// The same with keys and values rounded, so that several queries share the work.
    pub fn rounded(&self, arithmetic: Arithmetic) -> (Vec<f32>, Vec<f32>) {
        let all = |x: &[f32]| x.iter().map(|&x| arithmetic.round(x)).collect();
        (all(self.keys), all(self.values))
    }

    /// Keys and values must have been rounded.
    pub fn attend(&self, query: &[f32], arithmetic: Arithmetic) -> Attended<f32> {
        match arithmetic {
            Arithmetic::Flash => self.in_tiles(query),
            narrow => self.eagerly(query, |x| narrow.round(x)),
        }
    }

    fn eagerly(&self, query: &[f32], round: impl Fn(f32) -> f32) -> Attended<f32> {
        let query: Vec<f32> = query.iter().map(|&q| round(q)).collect();
        let mut probs: Vec<f32> = self.scores(&query, &round);
        let most = probs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        probs.iter_mut().for_each(|s| *s = (*s - most).exp());
        let sum: f32 = probs.iter().sum();
        probs.iter_mut().for_each(|p| *p = round(*p / sum));
        let mut out = vec![0.0; self.dim];
        add(&mut out, &probs, self.values);
        out.iter_mut().for_each(|o| *o = round(*o));
        Attended { probs, out }
    }

    fn scores(&self, query: &[f32], round: impl Fn(f32) -> f32) -> Vec<f32> {
        let score = |key: &[f32]| {
            let product = round(key.iter().zip(query).map(|(k, q)| k * q).sum::<f32>());
            let s = round(product * self.scale);
            self.softcap.map_or(s, |cap| round(round(round(s / cap).tanh()) * cap))
        };
        self.keys.chunks_exact(self.dim).map(score).collect()
    }

    fn in_tiles(&self, query: &[f32]) -> Attended<f32> {
        let n = self.keys.len() / self.dim;
        let (mut most, mut sum, mut out) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; self.dim]);
        let mut scores = Vec::with_capacity(n);
        for from in (0..n).step_by(TILE) {
            let tile = self.of_slots(from, (from + TILE).min(n));
            let of_tile = tile.scores(query, |x| x);
            let now = of_tile.iter().copied().fold(most, f32::max);
            let weights: Vec<f32> = of_tile.iter().map(|s| (s - now).exp()).collect();
            let shrink = (most - now).exp();
            sum = sum * shrink + weights.iter().sum::<f32>();
            out.iter_mut().for_each(|o| *o *= shrink);
            add(&mut out, &weights, tile.values);
            most = now;
            scores.extend(of_tile);
        }
        out.iter_mut().for_each(|o| *o /= sum);
        Attended { probs: scores.iter().map(|s| (s - most).exp() / sum).collect(), out }
    }
}

/// out += weightsᵀ · values
fn add(out: &mut [f32], weights: &[f32], values: &[f32]) {
    for (w, value) in weights.iter().zip(values.chunks_exact(out.len())) {
        out.iter_mut().zip(value).for_each(|(o, v)| *o += w * v);
    }
}

/// How far results lie from the exact ones; grows query by query.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Error {
    off: f64,
    size: f64,
    worst: f64,
}

impl Error {
    pub fn add(&mut self, found: &Attended<f32>, exact: &Attended<f64>) {
        for (o, e) in found.out.iter().zip(&exact.out) {
            self.off += (*o as f64 - e).powi(2);
            self.size += e * e;
        }
        self.add_probs(&found.probs, &exact.probs);
    }

    pub fn add_probs(&mut self, found: &[f32], exact: &[f64]) {
        for (p, e) in found.iter().zip(exact) {
            let off = (*p as f64 - e).abs();
            // A number that is none stays.
            self.worst = if off > self.worst || off.is_nan() { off } else { self.worst };
        }
    }

    pub fn joined(self, other: Self) -> Self {
        let worst = if other.worst > self.worst || other.worst.is_nan() { other.worst } else { self.worst };
        Self { off: self.off + other.off, size: self.size + other.size, worst }
    }

    /// ‖o − o_exact‖ / ‖o_exact‖ over all outputs; NaN where something overflowed.
    pub fn of_output(&self) -> f32 {
        if self.size > 0.0 { (self.off / self.size).sqrt() as f32 } else { self.off.sqrt() as f32 }
    }

    /// max |p − p_exact|
    pub fn of_probs(&self) -> f32 {
        self.worst as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIM: usize = 16;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) as f32 * 0.618).sin() * 2.0).collect()
    }

    fn error(query: &[f32], keys: &[f32], values: &[f32], softcap: Option<f32>, arithmetic: Arithmetic) -> Error {
        let entries = Entries { keys, values, dim: DIM, scale: 0.25, softcap };
        let (keys, values) = entries.rounded(arithmetic);
        let rounded = Entries { keys: &keys, values: &values, ..entries };
        let mut error = Error::default();
        error.add(&rounded.attend(query, arithmetic), &entries.exactly(query));
        error
    }

    #[test]
    fn fewer_bits_lose_more_and_another_order_next_to_nothing() {
        let (keys, values, query) = (numbers(300 * DIM, 1), numbers(300 * DIM, 2), numbers(DIM, 3));
        for softcap in [None, Some(2.0)] {
            let [f16, bf16, flash] = Arithmetic::ALL.map(|a| error(&query, &keys, &values, softcap, a));
            assert!(flash.of_output() < 3e-6 && flash.of_probs() < 1e-6, "{flash:?}");
            assert!(f16.of_output() > 1e-5 && f16.of_output() < 5e-3, "{f16:?}");
            assert!(bf16.of_output() > 3.0 * f16.of_output() && bf16.of_probs() > f16.of_probs(), "{bf16:?}");
        }
    }

    #[test]
    fn the_exact_one_is_the_definition() {
        let entries =
            Entries { keys: &[1.0, 0.0, 0.0, 1.0], values: &[2.0, 0.0, 0.0, 4.0], dim: 2, scale: 1.0, softcap: None };
        let attended = entries.exactly(&[3f32.ln(), 0.0]);
        assert!((attended.probs[0] - 0.75).abs() < 1e-7 && (attended.out[1] - 1.0).abs() < 1e-7);
        // Numbers that 16 bits hold exactly lose nothing but the rounding of probabilities.
        let even = entries.attend(&[0.0, 0.0], Arithmetic::F16);
        assert_eq!((even.probs, even.out), (vec![0.5, 0.5], vec![1.0, 2.0]));
    }

    #[test]
    fn f16_overflows_where_bf16_does_not() {
        let keys: Vec<f32> = (0..4 * DIM).map(|i| 300.0 + (i / DIM) as f32).collect();
        let query = vec![300.0; DIM];
        assert!(error(&query, &keys, &numbers(4 * DIM, 1), None, Arithmetic::F16).of_probs().is_nan());
        let wide = error(&query, &keys, &numbers(4 * DIM, 1), None, Arithmetic::Bf16);
        assert!(wide.of_probs() < 1.0 && wide.of_output().is_finite());
    }
}
