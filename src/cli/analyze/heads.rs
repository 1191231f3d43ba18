//! Ranks and likeness of the heads of one layer.

use super::report::{Alike, Layer, Ranks};
use crate::probe::head_similarity::{cka, token_cosines};
use crate::probe::latent::LatentBytes;
use crate::probe::spectrum::Spectrum;

/// What a layer cached for some tokens.
pub struct Cached {
    /// [kv heads][n, D], after rope.
    pub keys: Vec<Vec<f32>>,
    /// Before rope.
    pub plain: Vec<Vec<f32>>,
    pub values: Vec<Vec<f32>>,
    pub dim: usize,
    /// Bytes of one cached number.
    pub cell: usize,
    pub residual_cosine: f32,
    pub maps_in_group: Vec<f32>,
}

impl Cached {
    pub fn layer(self) -> Layer {
        let Self { keys, plain, values, dim, cell, residual_cosine, maps_in_group } = self;
        let all = |heads: &[&[Vec<f32>]]| {
            let heads: Vec<&Vec<f32>> = heads.iter().copied().flatten().collect();
            Spectrum::of(&beside(&heads, dim), heads.len() * dim)
        };
        let each = |heads: &[Vec<f32>]| heads.iter().map(|head| Spectrum::of(head, dim)).collect();
        let rank = Ranks {
            keys_of_head: each(&keys),
            values_of_head: each(&values),
            keys: all(&[&keys]),
            keys_before_rope: all(&[&plain]),
            values: all(&[&values]),
            both: all(&[&scaled(&plain, &values), &values]),
        };
        let bytes = LatentBytes::new(&rank.keys_before_rope, &rank.values, &rank.both, keys.len(), dim, cell);
        let alike = Alike {
            maps_in_group,
            keys: token_cosines(&keys, dim),
            values: token_cosines(&values, dim),
            keys_cka: cka(&plain, dim),
            values_cka: cka(&values, dim),
        };
        Layer { residual_cosine, rank, bytes_per_token: bytes, alike }
    }
}

/// `keys` times the factor that gives them the Σ x² of `values`.
fn scaled(keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let energy = |heads: &[Vec<f32>]| heads.iter().flatten().map(|&x| x as f64 * x as f64).sum::<f64>();
    let factor = (energy(values) / energy(keys)).sqrt();
    let factor = if factor.is_finite() { factor as f32 } else { 1.0 };
    keys.iter().map(|head| head.iter().map(|x| x * factor).collect()).collect()
}

/// Heads [n, dim] side by side: [n, heads · dim].
fn beside(heads: &[&Vec<f32>], dim: usize) -> Vec<f32> {
    let n = heads.first().map_or(0, |head| head.len() / dim);
    (0..n).flat_map(|row| heads.iter().flat_map(move |head| &head[row * dim..(row + 1) * dim])).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_weigh_the_same() {
        let scaled = scaled(&[vec![10.0, 0.0], vec![0.0, 10.0]], &[vec![1.0, 1.0]]);
        assert_eq!(scaled, [[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(super::scaled(&[vec![0.0]], &[vec![1.0]]), [[0.0]]);
    }

    #[test]
    fn a_layer_whose_heads_say_the_same_needs_one_of_them() {
        let x: Vec<f32> = (0..40).map(|i| (i as f32 * 1.3).sin()).collect();
        let heads = vec![x.clone(), x.iter().map(|v| 2.0 * v).collect()];
        let cached = Cached {
            keys: heads.clone(),
            plain: heads.clone(),
            values: heads,
            dim: 2,
            cell: 2,
            residual_cosine: 0.5,
            maps_in_group: vec![1.0, 1.0],
        };
        let layer = cached.layer();
        assert_eq!((layer.rank.keys.singular.len(), layer.rank.both.singular.len()), (4, 8));
        // every column is one of two
        assert!(layer.rank.both.ranks[2] <= 2 && layer.rank.keys.singular[2] < 1e-3 * layer.rank.keys.singular[0]);
        assert!((layer.alike.keys.at(0, 1) - 1.0).abs() < 1e-6 && (layer.alike.values_cka.at(0, 1) - 1.0).abs() < 1e-6);
        assert_eq!(layer.bytes_per_token.gqa, 16);
        assert_eq!(beside(&[&vec![1.0, 2.0], &vec![3.0, 4.0]], 1), [1.0, 3.0, 2.0, 4.0]);
    }
}
