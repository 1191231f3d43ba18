//! How far apart the caches of two layers are, as KVSharer ranks pairs of layers (Yang et al. 2024, arXiv 2410.18517).
//!
//! Keys and values are averaged over calibration pieces first, position by position. Distance of layers l, m: the
//! Euclidean length of the difference of their averaged vectors, mean over heads and positions, mean of keys and values,
//! as the authors' code takes it.

use super::square::Square;

/// Averaged caches of all layers.
#[derive(Debug, Clone, Default)]
pub struct MeanCaches {
    /// Σ over pieces [layer][G · positions · D].
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
    pieces: usize,
}

impl MeanCaches {
    pub fn new(layers: usize) -> Self {
        Self { keys: vec![Vec::new(); layers], values: vec![Vec::new(); layers], pieces: 0 }
    }

    /// Another piece, all of one length. `of(layer)`: its keys and values, all heads [G · positions · D].
    pub fn add(&mut self, of: impl Fn(usize) -> (Vec<f32>, Vec<f32>)) {
        self.pieces += 1;
        for layer in 0..self.keys.len() {
            let (keys, values) = of(layer);
            for (sum, new) in [(&mut self.keys[layer], keys), (&mut self.values[layer], values)] {
                sum.resize(new.len(), 0.0);
                sum.iter_mut().zip(new).for_each(|(sum, x)| *sum += x as f64);
            }
        }
    }

    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// Distances [layers, layers]; `dim` = D.
    pub fn distances(&self, dim: usize) -> Square {
        let pieces = self.pieces.max(1) as f64;
        let apart = |x: &[f64], y: &[f64]| {
            let vectors = x.chunks_exact(dim).zip(y.chunks_exact(dim));
            let length = |(x, y): (&[f64], &[f64])| x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt();
            vectors.map(length).sum::<f64>() / (x.len() / dim.max(1)).max(1) as f64 / pieces
        };
        Square::of(self.keys.len(), |a, b| {
            let keys = apart(&self.keys[a], &self.keys[b]);
            ((keys + apart(&self.values[a], &self.values[b])) / 2.0) as f32
        })
    }
}

/// Which pairs of layers come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// KVSharer's.
    Dissimilar,
    /// The contrast.
    Similar,
}

/// Pairs (lower layer, higher layer, distance) in order; equal distances: the lower layers first.
pub fn ranked(distances: &Square, order: Order) -> Vec<(usize, usize, f32)> {
    let mut pairs: Vec<_> = distances.pairs().collect();
    match order {
        Order::Dissimilar => pairs.sort_by(|a, b| b.2.total_cmp(&a.2)),
        Order::Similar => pairs.sort_by(|a, b| a.2.total_cmp(&b.2)),
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_averaged_before_they_are_compared() {
        // Two pieces of two positions, one head of two channels; layer 2 differs by (6, 8) at one of two positions.
        let mut caches = MeanCaches::new(3);
        let layer = |l: usize, sign: f32| match l {
            0 => vec![0.0, 0.0, 1.0, 1.0],
            1 => vec![sign, 0.0, 1.0, 1.0],
            _ => vec![6.0, 8.0, 1.0, 1.0],
        };
        for sign in [-5.0, 5.0] {
            caches.add(|l| (layer(l, sign), vec![0.0; 4]));
        }
        let distances = caches.distances(2);
        // Layer 1's two pieces cancel. 10 at one of two positions, values alike: 10 / 2 / 2.
        assert_eq!((distances.at(0, 1), distances.at(0, 2), caches.pieces()), (0.0, 2.5, 2));
        let order = |order| ranked(&distances, order).iter().map(|(a, b, _)| (*a, *b)).collect::<Vec<_>>();
        assert_eq!(order(Order::Dissimilar), [(0, 2), (1, 2), (0, 1)]);
        assert_eq!(order(Order::Similar), [(0, 1), (0, 2), (1, 2)]);
    }
}
