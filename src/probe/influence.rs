//! How little sublayers and layers change the residual stream: which of them could be left out.
//!
//! Block influence 1 − cos(h_in, h_out) of each sublayer (ShortGPT, arXiv 2403.03853), angular distance
//! arccos(cos) / π over spans of layers (Gromov et al., 2403.17887); means over tokens.

use rayon::prelude::*;
use serde::Serialize;

use crate::simd::dot;

/// Sums over the tokens read so far.
#[derive(Debug, Clone)]
pub struct Influence {
    layers: usize,
    tokens: usize,
    /// Σ cos(point i, point i + 1) [2L].
    cosines: Vec<f64>,
    /// Σ angle between the streams after a and after b layers, a < b [(L + 1)²].
    angles: Vec<f64>,
}

/// The `layers` layers from `first` on, which together turn the stream least of all spans as long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AlikeSpan {
    pub layers: usize,
    pub first: usize,
    /// 0 = the same direction, 1 = the opposite one.
    pub angle: f32,
}

impl Influence {
    pub fn new(layers: usize) -> Self {
        Self { layers, tokens: 0, cosines: vec![0.0; 2 * layers], angles: vec![0.0; (layers + 1) * (layers + 1)] }
    }

    /// `points` [1 + 2L][rows, d]: the residual stream of some tokens.
    pub fn add(&mut self, points: &[&[f32]], dim: usize) {
        let (rows, layers) = (points[0].len() / dim, self.layers);
        let of_row = |r: usize| {
            let at = |point: usize| &points[point][r * dim..(r + 1) * dim];
            let lengths: Vec<f64> = (0..points.len()).map(|p| (dot(at(p), at(p)) as f64).sqrt()).collect();
            let cosine = |a: usize, b: usize| {
                let lengths = lengths[a] * lengths[b];
                if lengths > 0.0 { (dot(at(a), at(b)) as f64 / lengths).clamp(-1.0, 1.0) } else { 0.0 }
            };
            let cosines: Vec<f64> = (0..2 * layers).map(|i| cosine(i, i + 1)).collect();
            let pair = |i: usize| (i / (layers + 1), i % (layers + 1));
            let angle = |(a, b)| if a < b { cosine(2 * a, 2 * b).acos() / std::f64::consts::PI } else { 0.0 };
            let angles: Vec<f64> = (0..(layers + 1) * (layers + 1)).map(|i| angle(pair(i))).collect();
            (cosines, angles)
        };
        // Added up in the order of the tokens, whatever the threads do.
        let all: Vec<_> = (0..rows).into_par_iter().map(of_row).collect();
        for (cosines, angles) in all {
            self.cosines.iter_mut().zip(cosines).for_each(|(sum, x)| *sum += x);
            self.angles.iter_mut().zip(angles).for_each(|(sum, x)| *sum += x);
        }
        self.tokens += rows;
    }

    /// 1 − mean cosine between what goes into a sublayer and what comes out [2L].
    pub fn influence(&self) -> Vec<f32> {
        self.cosines.iter().map(|sum| (1.0 - sum / self.tokens.max(1) as f64) as f32).collect()
    }

    /// For 1, 2, …, L − 1 layers, the span that turns the stream least.
    pub fn alike_spans(&self) -> Vec<AlikeSpan> {
        let side = self.layers + 1;
        let angle =
            |first: usize, layers: usize| self.angles[first * side + first + layers] / self.tokens.max(1) as f64;
        let best = |layers: usize| {
            let spans = (0..=self.layers - layers).map(|first| (angle(first, layers), first));
            let (angle, first) = spans.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
            AlikeSpan { layers, first, angle: angle as f32 }
        };
        (1..self.layers).map(best).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sublayer_that_turns_nothing_has_no_influence() {
        // Two tokens, two layers: unchanged, scaled, turned by 90°, turned back by 45°, unchanged.
        let (a, b, c) = ([1.0f32, 0.0, 0.0, 2.0], [0.0f32, 3.0, -1.0, 0.0], [2.0f32, 2.0, -1.0, 1.0]);
        let scaled = a.map(|x| 4.0 * x);
        let mut influence = Influence::new(2);
        influence.add(&[&a, &scaled, &b, &c, &c], 2);
        let half = 1.0 - 0.5f32.sqrt();
        for (found, expected) in influence.influence().iter().zip([0.0, 1.0, half, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        let [span] = influence.alike_spans()[..] else { panic!("one length") };
        assert_eq!((span.layers, span.first), (1, 1));
        assert!((span.angle - 0.25).abs() < 1e-6);
    }
}
