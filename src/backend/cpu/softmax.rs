//! Softmax of one attention row and what is read off it on the way.

use super::simd::{LANES, exp, fold_sum, map_max, max, vectorized};

/// Reductions of one attention row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RowReductions {
    /// ln Σ eˢ, nats.
    pub lse: f32,
    /// Entropy, nats.
    pub entropy: f32,
    /// Probability on position 0.
    pub first: f32,
    /// Probability on the `window` newest positions up to the query's own.
    pub recent: f32,
    /// Σ p·(query position − key position), tokens.
    pub distance: f32,
    /// The largest probability.
    pub most: f32,
}

/// Scales (and caps) the raw scores, adds `offsets` (none, or one a slot) of the visible slots and turns them into probabilities.
/// H = ln Σ e^(s−m) − Σ p·(s−m) needs no logarithm per slot.
#[inline(always)]
pub fn softmax(
    s: &mut [f32],
    positions: &[u32],
    query: u32,
    scale: f32,
    softcap: Option<f32>,
    offsets: &[f32],
    recent_window: usize,
) -> RowReductions {
    let mut m = match softcap {
        None => map_max(
            s,
            #[inline(always)]
            |v| v * scale,
        ),
        Some(cap) => map_max(
            s,
            #[inline(always)]
            |v| cap * (v * scale / cap).tanh(),
        ),
    };
    if !offsets.is_empty() {
        s.iter_mut().zip(offsets).for_each(|(v, offset)| *v += offset);
        m = max(s);
    }
    let (mut sums, mut moments) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut chunks = s.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            let d = chunk[i] - m;
            let e = exp(d);
            chunk[i] = e;
            sums[i] += e;
            moments[i] = e.mul_add(d, moments[i]);
        }
    }
    for (i, v) in chunks.into_remainder().iter_mut().enumerate() {
        let d = *v - m;
        *v = exp(d);
        sums[i] += *v;
        moments[i] = v.mul_add(d, moments[i]);
    }
    let sum = fold_sum(sums);
    let inverse = 1.0 / sum;
    let log = sum.ln();
    let moment = fold_sum(moments) * inverse;

    let mut weighted = [0.0f32; LANES];
    let (mut pc, mut sc) = (positions.chunks_exact(LANES), s.chunks_exact_mut(LANES));
    for (p, chunk) in (&mut pc).zip(&mut sc) {
        // Copies: the compiler must not fear that writing one changes the other.
        let (mut far, mut values) = ([0.0; LANES], [0.0; LANES]);
        for i in 0..LANES {
            far[i] = query.wrapping_sub(p[i]) as f32;
            values[i] = chunk[i] * inverse;
        }
        for i in 0..LANES {
            weighted[i] = values[i].mul_add(far[i], weighted[i]);
        }
        chunk.copy_from_slice(&values);
    }
    for (i, (&p, v)) in pc.remainder().iter().zip(sc.into_remainder()).enumerate() {
        *v *= inverse;
        weighted[i] = v.mul_add(query.wrapping_sub(p) as f32, weighted[i]);
    }
    let first = if positions.first() == Some(&0) { s[0] } else { 0.0 };
    // The newest slots are the last ones; at most `recent_window` of them.
    let from = positions.len().saturating_sub(recent_window);
    let oldest = (query + 1).saturating_sub(recent_window as u32);
    let recent = s[from..].iter().zip(&positions[from..]).filter(|(_, p)| **p >= oldest).map(|(v, _)| v).sum();
    RowReductions { lse: m + log, entropy: log - moment, first, recent, distance: fold_sum(weighted), most: inverse }
}

/// The same of a row [n] of which only `slots` (ascending) count: the others become 0. `more` is added to the logits
/// of those, none or one each.
#[allow(clippy::too_many_arguments)]
pub fn softmax_part(
    row: &mut [f32],
    slots: &[u32],
    more: &[f32],
    positions: &[u32],
    query: u32,
    scale: f32,
    softcap: Option<f32>,
    offsets: &[f32],
    recent_window: usize,
) -> RowReductions {
    let each = || slots.iter().map(|&slot| slot as usize);
    let mut scores: Vec<f32> = each().map(|slot| row[slot]).collect();
    let positions: Vec<u32> = each().map(|slot| positions[slot]).collect();
    let mut added = more.to_vec();
    if !offsets.is_empty() {
        added.resize(scores.len(), 0.0);
        added.iter_mut().zip(each()).for_each(|(sum, slot)| *sum += offsets[slot]);
    }
    let reductions = vectorized(
        #[inline(always)]
        || softmax(&mut scores, &positions, query, scale, softcap, &added, recent_window),
    );
    row.fill(0.0);
    each().zip(scores).for_each(|(slot, p)| row[slot] = p);
    reductions
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_part_of_a_row_is_a_row_of_that_part() {
        let raw = [0.4, -0.2, 1.1, 0.9, -1.0];
        let mut row = raw;
        let part = softmax_part(&mut row, &[0, 2, 4], &[0.0, 0.5, 0.0], &[0, 3, 5, 6, 9], 9, 0.5, None, &[0.1; 5], 4);
        let mut alone = [0.4, 1.1, -1.0];
        let expected = softmax(&mut alone, &[0, 5, 9], 9, 0.5, None, &[0.1, 0.6, 0.1], 4);
        assert_eq!((part, row), (expected, [alone[0], 0.0, alone[1], 0.0, alone[2]]));
        let (mut all, mut whole) = (raw, raw);
        let everything = softmax_part(&mut all, &[0, 1, 2, 3, 4], &[], &[0, 3, 5, 6, 9], 9, 0.5, None, &[], 4);
        assert_eq!((everything, all), (softmax(&mut whole, &[0, 3, 5, 6, 9], 9, 0.5, None, &[], 4), whole));
    }

    #[test]
    fn an_offset_of_ln_m_is_worth_m_slots() {
        let (mut one, mut three) = (vec![0.4, -0.2, 1.1], vec![0.4, -0.2, 1.1, 1.1, 1.1]);
        let a = softmax(&mut one, &[0, 3, 5], 6, 0.5, None, &[0.0, 0.0, 3f32.ln()], 4);
        let b = softmax(&mut three, &[0, 3, 5, 5, 5], 6, 0.5, None, &[], 4);
        assert!((a.lse - b.lse).abs() < 1e-6 && (a.distance - b.distance).abs() < 1e-5);
        assert!((one[2] - 3.0 * three[2]).abs() < 1e-6 && (one[0] - three[0]).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn reductions_equal_their_definitions(raw in prop::collection::vec(-30.0f32..30.0, 1..200), cap in prop::option::of(5.0f32..50.0)) {
            let positions: Vec<u32> = (0..raw.len() as u32).map(|p| p * 2).collect();
            let query = positions[raw.len() - 1] + 1;
            let mut p = raw.clone();
            let r = softmax(&mut p, &positions, query, 0.5, cap, &[], 10);
            let s: Vec<f64> = raw.iter().map(|&v| {
                let v = v as f64 * 0.5;
                cap.map_or(v, |c| c as f64 * (v / c as f64).tanh())
            }).collect();
            let m = s.iter().copied().fold(f64::MIN, f64::max);
            let z: f64 = s.iter().map(|v| (v - m).exp()).sum();
            let q: Vec<f64> = s.iter().map(|v| (v - m).exp() / z).collect();
            for (a, b) in p.iter().zip(&q) {
                prop_assert!((*a as f64 - b).abs() < 1e-5);
            }
            let entropy: f64 = -q.iter().map(|v| if *v > 0.0 { v * v.ln() } else { 0.0 }).sum::<f64>();
            prop_assert!((r.entropy as f64 - entropy).abs() < 2e-5, "{} {}", r.entropy, entropy);
            prop_assert!((r.most as f64 - q.iter().copied().fold(0.0, f64::max)).abs() < 1e-5);
            prop_assert!((r.lse as f64 - m - z.ln()).abs() < 1e-4);
            prop_assert!((r.first as f64 - q[0]).abs() < 1e-5);
            let recent: f64 = q.iter().zip(&positions).filter(|(_, p)| query - **p < 10).map(|(v, _)| v).sum();
            prop_assert!((r.recent as f64 - recent).abs() < 1e-5);
            let distance: f64 = q.iter().zip(&positions).map(|(v, p)| v * (query - p) as f64).sum();
            prop_assert!((r.distance as f64 - distance).abs() < 1e-3 * (1.0 + distance));
        }
    }
}
