//! How alike the heads of one layer are: what fewer kv heads (MHA to GQA, GQA to fewer) would have to average away.

use rayon::prelude::*;

use super::map_row::{MapRow, dot};
use super::square::Square;

/// Cosines of the attention rows of query heads that share a kv head; sums over the rows seen so far.
pub struct GroupSimilarity {
    group: usize,
    /// Of each kv head of each layer `[layer · G + kv head]`: Σ and count over rows and pairs, without position 0.
    sums: Vec<(f64, u32)>,
}

impl GroupSimilarity {
    /// `heads` query heads on `kv_heads` in each of `layers`.
    pub fn new(layers: usize, heads: usize, kv_heads: usize) -> Self {
        Self { group: heads / kv_heads.max(1), sums: vec![(0.0, 0); layers * kv_heads] }
    }

    /// One row of every map `[layer · H + head]`, all over the same columns, position 0 first.
    pub fn add(&mut self, maps: &[&[f32]]) {
        let group = self.group.max(1);
        self.sums.par_iter_mut().zip(maps.par_chunks(group)).for_each(|(sums, maps)| {
            let rows: Vec<MapRow<'_>> = maps.iter().map(|map| MapRow::new(map)).collect();
            for (i, row) in rows.iter().enumerate() {
                for cosine in rows[i + 1..].iter().filter_map(|other| row.cosine(other).rest) {
                    sums.0 += cosine;
                    sums.1 += 1;
                }
            }
        });
    }

    /// Mean cosine over the pairs of each group `[layer · G + kv head]`; NaN where a group has one head.
    pub fn finish(&self) -> Vec<f32> {
        self.sums.iter().map(|&(sum, count)| (sum / count as f64) as f32).collect()
    }
}

/// Mean over tokens of cos(x_g[t], x_g'[t]) for all pairs of heads: what averaging the heads as they are would keep.
/// `heads` [G][n, dim].
pub fn token_cosines(heads: &[Vec<f32>], dim: usize) -> Square {
    Square::of(heads.len(), |a, b| {
        let (mut sum, mut count) = (0.0, 0);
        for (x, y) in heads[a].chunks_exact(dim).zip(heads[b].chunks_exact(dim)) {
            let norms = dot(x, x) * dot(y, y);
            if norms > 0.0 {
                sum += dot(x, y) / norms.sqrt();
                count += 1;
            }
        }
        (sum / count as f64) as f32
    })
}

/// Linear CKA of all pairs of heads: ‖X_cᵀY_c‖² / (‖X_cᵀX_c‖ · ‖Y_cᵀY_c‖), columns centred. A rotation of a head's
/// channels changes nothing: what could be shared after turning one head into the other's basis. `heads` [G][n, dim].
pub fn cka(heads: &[Vec<f32>], dim: usize) -> Square {
    let centred: Vec<Vec<f64>> = heads.iter().map(|x| centred(x, dim)).collect();
    let own: Vec<f64> = centred.par_iter().map(|x| cross(x, x, dim).sqrt()).collect();
    Square::of(heads.len(), |a, b| {
        if a == b { 1.0 } else { (cross(&centred[a], &centred[b], dim) / (own[a] * own[b])) as f32 }
    })
}

fn centred(x: &[f32], dim: usize) -> Vec<f64> {
    let mut mean = vec![0.0f64; dim];
    let rows = x.chunks_exact(dim);
    let n = rows.len().max(1) as f64;
    rows.for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &x)| *m += x as f64 / n));
    x.chunks_exact(dim).flat_map(|row| row.iter().zip(&mean).map(|(&x, m)| x as f64 - m)).collect()
}

/// ‖XᵀY‖² (Frobenius).
fn cross(x: &[f64], y: &[f64], dim: usize) -> f64 {
    let mut product = vec![0.0f64; dim * dim];
    for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact(dim)) {
        for (row, &x) in product.chunks_exact_mut(dim).zip(x) {
            row.iter_mut().zip(y).for_each(|(p, y)| *p += x * y);
        }
    }
    product.iter().map(|p| p * p).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_apart() {
        // Two layers, four heads on two kv heads.
        let mut similarity = GroupSimilarity::new(2, 4, 2);
        let (x, y): (&[f32], &[f32]) = (&[0.5, 0.5, 0.0], &[0.5, 0.3, 0.4]);
        similarity.add(&[x, x, x, y, y, y, y, x]);
        let found = similarity.finish();
        for (found, expected) in found.iter().zip([1.0, 0.6, 1.0, 0.6]) {
            assert!((found - expected).abs() < 1e-6);
        }
        assert!(GroupSimilarity::new(1, 2, 2).finish()[0].is_nan());
    }

    #[test]
    fn a_turned_head_is_another_head_token_by_token_but_the_same_to_cka() {
        let x: Vec<f32> = (0..40).map(|i| (i as f32 * 1.7).sin() + (i % 2) as f32).collect();
        // a quarter turn of each channel pair
        let y: Vec<f32> = x.chunks(2).flat_map(|p| [-p[1], p[0]]).collect();
        let heads = [x, y];
        assert!(token_cosines(&heads, 2).at(0, 1).abs() < 1e-6);
        assert!((cka(&heads, 2).at(0, 1) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn cka_of_single_channels_is_the_squared_correlation() {
        let (x, y) = (vec![1.0f32, 2.0, 3.0], vec![1.0f32, 3.0, 2.0]);
        assert!((cka(&[x, y], 1).at(0, 1) - 0.25).abs() < 1e-6);
    }
}
