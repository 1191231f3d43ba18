//! What is read off a row of logits.

// Lanes are written as plain counted loops: that is the form which the compiler turns into vectors.
#![allow(clippy::needless_range_loop)]

use crate::simd::{LANES, exp, first_equal, fold_sum, max, vectorized};

/// So far below the largest a logit adds nothing to sums in f32.
const FAR: f32 = -87.0;

/// The next-token distribution of one row of logits [V]. −∞ and what is no number has no part in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distribution {
    /// The largest logit; −∞ without any.
    pub max: f32,
    /// ln Σ eˡ, nats.
    pub lse: f32,
    /// Nats; NaN without any logit.
    pub entropy: f32,
    /// The token with the largest logit (the smallest id of equals).
    pub argmax: u32,
}

impl Distribution {
    pub fn of(logits: &[f32]) -> Self {
        Self::at(logits, 1.0)
    }

    /// Of logits / temperature.
    pub fn at(logits: &[f32], temperature: f32) -> Self {
        vectorized(
            #[inline(always)]
            || {
                let most = max(logits);
                let m = most / temperature;
                let (mut sums, mut moments) = ([0.0f32; LANES], [0.0f32; LANES]);
                let (chunks, rest) = logits.as_chunks::<LANES>();
                let mut add = |i: usize, l: f32| {
                    let less = l / temperature - m;
                    // a masked one is not below, as no comparison with NaN holds
                    let less = if less >= FAR { less } else { FAR };
                    let e = if less > FAR { exp(less) } else { 0.0 };
                    sums[i] += e;
                    moments[i] = e.mul_add(less, moments[i]);
                };
                for chunk in chunks {
                    for i in 0..LANES {
                        add(i, chunk[i]);
                    }
                }
                for (i, &l) in rest.iter().enumerate() {
                    add(i, l);
                }
                let sum = fold_sum(sums);
                let argmax = first_equal(logits, most) as u32;
                Self { max: m, lse: m + sum.ln(), entropy: sum.ln() - fold_sum(moments) / sum, argmax }
            },
        )
    }

    /// −ln p(token), nats.
    pub fn nll(&self, logits: &[f32], token: u32) -> f32 {
        self.lse - logits[token as usize]
    }
}

/// KL(p ‖ q) of two rows of logits, nats: Σ p·(ln p − ln q), summed in f64 since the terms nearly cancel.
pub fn kl(p: &[f32], q: &[f32]) -> f32 {
    if p == q {
        return 0.0;
    }
    vectorized(
        #[inline(always)]
        || {
            let (mp, mq) = (max(p), max(q));
            let (mut zp, mut zq, mut cross) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
            let ((a, a_rest), (b, b_rest)) = (p.as_chunks::<LANES>(), q.as_chunks::<LANES>());
            for (a, b) in a.iter().zip(b) {
                for i in 0..LANES {
                    let (da, db) = (a[i] - mp, b[i] - mq);
                    let e = exp(da) as f64;
                    zp[i] += e;
                    zq[i] += exp(db) as f64;
                    cross[i] += e * (da as f64 - db as f64);
                }
            }
            for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
                let (da, db) = (a - mp, b - mq);
                let e = exp(da) as f64;
                zp[i] += e;
                zq[i] += exp(db) as f64;
                cross[i] += e * (da as f64 - db as f64);
            }
            let sum = |lanes: [f64; LANES]| lanes.iter().sum::<f64>();
            let (zp, zq) = (sum(zp), sum(zq));
            (sum(cross) / zp - zp.ln() + zq.ln()).max(0.0) as f32
        },
    )
}

/// The `k` largest logits, best first; the smaller id of equals first. What is no number is not among them.
pub fn top_k(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let k = k.min(logits.len());
    if k == 0 {
        return Vec::new();
    }
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(k + 1);
    let mut floor = f32::NEG_INFINITY;
    for (base, chunk) in logits.chunks(64).enumerate() {
        if best.len() == k
            && vectorized(
                #[inline(always)]
                || max(chunk),
            ) <= floor
        {
            continue;
        }
        for (i, &l) in chunk.iter().enumerate() {
            if l > floor || (best.len() < k && !l.is_nan()) {
                let at = best.partition_point(|&(_, other)| other >= l);
                best.insert(at, ((base * 64 + i) as u32, l));
                best.truncate(k);
                floor = best[best.len() - 1].1;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_plain_f64(p in prop::collection::vec(-20.0f32..20.0, 2..400), shift in -3.0f32..3.0) {
            let q: Vec<f32> = p.iter().enumerate().map(|(i, l)| l + shift * (i % 5) as f32).collect();
            let softmax = |x: &[f32]| -> Vec<f64> {
                let m = x.iter().copied().fold(f32::MIN, f32::max) as f64;
                let z: f64 = x.iter().map(|&l| (l as f64 - m).exp()).sum();
                x.iter().map(|&l| (l as f64 - m).exp() / z).collect()
            };
            let (pp, qq) = (softmax(&p), softmax(&q));
            let d = Distribution::of(&p);
            let entropy: f64 = -pp.iter().map(|v| v * v.max(1e-300).ln()).sum::<f64>();
            prop_assert!((d.entropy as f64 - entropy).abs() < 1e-4);
            let nll = -pp[0].ln();
            prop_assert!((d.nll(&p, 0) as f64 - nll).abs() < 1e-4);
            let exact: f64 = pp.iter().zip(&qq).map(|(a, b)| a * (a.ln() - b.ln())).sum();
            prop_assert!((kl(&p, &q) as f64 - exact).abs() < 1e-5 * (1.0 + exact));
            let mut sorted: Vec<(u32, f32)> = p.iter().enumerate().map(|(i, &l)| (i as u32, l)).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(7);
            prop_assert_eq!(top_k(&p, 7), sorted);
        }
    }
}
