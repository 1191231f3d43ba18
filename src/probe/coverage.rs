//! How much of what lane 0 looks at later a lane still holds, and how well it chose in hindsight.
//!
//! For a later query of the full cache with probabilities p and a kept set K: covered mass Σ_K p_j, which is one minus
//! the lost mass. Recall of K against a set B that knew the future: |K ∩ B| / |B|. Where B holds as many entries as K, a
//! recall of 1 says that the two are the same.

use crate::engine::frame::Kept;
use crate::policy::select::select;
use crate::simd::{LANES, fold_sum, vectorized};

/// Words of bits whose positions are added up in f32 before they join the sum.
const WORDS: usize = 32;

/// Σ p_j over the positions whose bit is set; `row` [n] is dense, `held` is [ceil(n / 64)] words or fewer.
pub fn covered_mass(row: &[f32], held: &[u64]) -> f32 {
    let strips = row.chunks(64 * WORDS).zip(held.chunks(WORDS));
    strips
        .map(|(p, held)| {
            f64::from(vectorized(
                #[inline(always)]
                || masked_sum(p, held),
            ))
        })
        .sum::<f64>() as f32
}

#[inline(always)]
fn masked_sum(row: &[f32], held: &[u64]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (p, &word) in row.chunks(64).zip(held) {
        let mut chunks = p.chunks_exact(LANES);
        let mut bits = word;
        for p in &mut chunks {
            let low = bits as u32;
            let mut masked = [0.0; LANES];
            for i in 0..LANES {
                masked[i] = f32::from_bits(p[i].to_bits() & (low >> i & 1).wrapping_neg());
            }
            (0..LANES).for_each(|i| lanes[i] += masked[i]);
            bits >>= LANES;
        }
        for (i, &p) in chunks.remainder().iter().enumerate() {
            lanes[i] += if bits >> i & 1 == 1 { p } else { 0.0 };
        }
    }
    fold_sum(lanes)
}

/// The `n` entries with the highest `scores`, ascending; equal ones go to the newer.
pub fn best(scores: &[f32], n: usize) -> Vec<u32> {
    select(scores, &vec![false; scores.len()], n)
}

/// |A ∩ B| / |B| of two ascending lists; `None` where B is empty.
pub fn recall(a: &[u32], b: &[u32]) -> Option<f32> {
    let common = b.iter().filter(|p| a.binary_search(p).is_ok()).count();
    (!b.is_empty()).then(|| common as f32 / b.len() as f32)
}

/// Mean recall of `a` against `b` within the first `prompt` positions, over those kv heads of `layers` in which both
/// have evicted some of them; `None` where there is no such head.
pub fn mean_recall(a: &Kept, b: &Kept, prompt: usize, layers: impl Iterator<Item = usize>) -> Option<f32> {
    let (mut sum, mut heads) = (0.0f64, 0u32);
    for layer in layers {
        for head in 0..a.kv_heads.min(b.kv_heads) {
            let span = 0..prompt as u32;
            let (ours, theirs) = (a.held_in(layer, head, span.clone()), b.held_in(layer, head, span.clone()));
            if theirs == 0 || ours == prompt || theirs == prompt {
                continue;
            }
            sum += a.held_by_both(b, layer, head, span) as f64 / theirs as f64;
            heads += 1;
        }
    }
    (heads > 0).then(|| (sum / f64::from(heads)) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(n: usize, held: &[bool]) -> Kept {
        let mut kept = Kept::new(1, 1, n);
        held.iter().enumerate().filter(|(_, held)| **held).for_each(|(p, _)| kept.set(0, 0, p));
        kept
    }

    #[test]
    fn recall_of_known_sets() {
        assert_eq!(recall(&[1, 2, 5], &[1, 2, 5]), Some(1.0));
        assert_eq!(recall(&[1, 2, 5], &[2, 3, 4, 5]), Some(0.5));
        assert_eq!(recall(&[1], &[]), None);
        assert_eq!(best(&[0.1, 0.7, 0.7, 0.2, 0.7], 2), [2, 4]);
    }

    #[test]
    fn only_heads_that_both_cut_count() {
        let (mut a, mut b) = (Kept::new(2, 2, 5), Kept::new(2, 2, 5));
        // generated positions are not looked at: both hold 4
        for (kept, held) in [(&mut a, [0, 1, 4]), (&mut b, [1, 2, 4])] {
            held.into_iter().for_each(|p| kept.set(0, 0, p));
            (0..5).for_each(|p| kept.set(0, 1, p));
        }
        b.set(1, 0, 3);
        a.set(1, 0, 0);
        assert_eq!(mean_recall(&a, &b, 4, 0..1), Some(0.5));
        assert_eq!(mean_recall(&a, &b, 4, 0..2), Some(0.25));
        assert_eq!(mean_recall(&a, &a, 4, 0..1), Some(1.0));
        let full = bits(5, &[true; 5]);
        assert_eq!(mean_recall(&full, &full, 4, 0..1), None);
    }

    proptest! {
        #[test]
        fn covered_mass_is_the_plain_sum(row in prop::collection::vec(0.0f32..1.0, 1..300), seed in any::<u64>()) {
            let held: Vec<bool> = (0..row.len()).map(|i| seed.rotate_left(i as u32 * 7) & 1 == 1).collect();
            let expected: f64 = row.iter().zip(&held).filter(|(_, held)| **held).map(|(&p, _)| f64::from(p)).sum();
            let found = covered_mass(&row, &bits(row.len(), &held).bits);
            prop_assert!((f64::from(found) - expected).abs() < 1e-3, "{} {}", found, expected);
        }
    }
}
