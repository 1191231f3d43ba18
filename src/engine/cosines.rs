//! How much each layer's attention turns the residual stream, for policies that give such layers less.

use crate::backend::{Backend, Result};
use crate::model::decoder::Decoder;

/// Sums over the tokens read so far.
pub struct Cosines {
    before: Vec<f32>,
    sums: Vec<f64>,
}

impl Cosines {
    pub fn new(layers: usize) -> Self {
        Self { before: Vec::new(), sums: vec![0.0; layers] }
    }

    /// Call between the sublayers before an attention and the attention itself.
    pub fn before(&mut self, decoder: &Decoder, b: &mut dyn Backend) -> Result<()> {
        b.run()?;
        self.before = decoder.residual(b);
        Ok(())
    }

    /// Call right after the attention of `layer`.
    pub fn after(&mut self, decoder: &Decoder, b: &mut dyn Backend, layer: usize) -> Result<()> {
        b.run()?;
        let hidden = decoder.config().hidden;
        let after = decoder.residual(b);
        let pairs = self.before.chunks_exact(hidden).zip(after.chunks_exact(hidden));
        self.sums[layer] += pairs.map(|(x, y)| cosine(x, y)).sum::<f64>();
        Ok(())
    }

    /// Means over `tokens` [layers].
    pub fn mean(&self, tokens: usize) -> Vec<f32> {
        self.sums.iter().map(|sum| (sum / tokens.max(1) as f64) as f32).collect()
    }
}

/// 0 where one of the two is nothing.
fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    let norms = (dot(x, x) * dot(y, y)).sqrt();
    if norms > 0.0 { dot(x, y) / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_directions_not_of_lengths() {
        assert!((cosine(&[1.0, 0.0], &[3.0, 3.0]) - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(cosine(&[1.0, 2.0], &[-2.0, 1.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 1.0]), 0.0);
    }
}
