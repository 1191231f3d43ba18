//! What is gathered while a prompt is read because a policy asks for it: how much each attention turns the residual
//! stream, and what each attention was given.

use super::history::History;
use crate::backend::{Backend, CacheId, Result};
use crate::model::decoder::Decoder;
use crate::policy::watch::Watches;

/// What to gather.
#[derive(Clone, Default, PartialEq)]
pub struct Needs {
    pub cosines: bool,
    pub inputs: bool,
    pub watches: Watches,
}

impl Needs {
    /// Something between an attention and the sublayer before it.
    pub fn between(&self) -> bool {
        self.cosines || self.inputs
    }

    pub fn or(self, other: Self) -> Self {
        let (cosines, inputs) = (self.cosines || other.cosines, self.inputs || other.inputs);
        Self { cosines, inputs, watches: self.watches.or(other.watches) }
    }

    /// Everything that `other` needs is needed here.
    pub fn covers(&self, other: Self) -> bool {
        self.clone().or(other) == *self
    }
}

/// Of the tokens read so far.
#[derive(Default)]
pub struct Facts {
    pub needs: Needs,
    /// Mean cosine between the residual stream before and after each attention [layers].
    pub cosines: Vec<f32>,
    /// What each attention was given, its norm applied [layers][tokens · hidden].
    pub inputs: Vec<Vec<f32>>,
    /// What watches have made of the rows of the whole prompt [watch][layer · H + head][tokens].
    pub watched: Vec<Vec<Vec<f32>>>,
    /// Which entries the prompt's last rows favoured, while a policy that counts them decides about this cache.
    pub marks: Option<(CacheId, History)>,
    sums: Vec<f64>,
    before: Vec<f32>,
}

impl Facts {
    pub fn new(layers: usize, needs: Needs) -> Self {
        let of = |wanted: bool| if wanted { layers } else { 0 };
        let (cosines, inputs) = (vec![0.0; of(needs.cosines)], vec![Vec::new(); of(needs.inputs)]);
        let sums = vec![0.0; of(needs.cosines)];
        Self { needs, cosines, inputs, watched: Vec::new(), marks: None, sums, before: Vec::new() }
    }

    /// Call between the sublayers before an attention and the attention itself.
    pub fn before(&mut self, decoder: &Decoder, b: &mut dyn Backend) -> Result<()> {
        if self.needs.cosines {
            b.run()?;
            self.before = decoder.residual(b);
        }
        Ok(())
    }

    /// Call right after the attention of `layer`, where the pass ends at token `read` of the prompt.
    pub fn after(&mut self, decoder: &Decoder, b: &mut dyn Backend, layer: usize, read: usize) -> Result<()> {
        b.run()?;
        if self.needs.inputs {
            self.inputs[layer].extend(decoder.attention_input(b));
        }
        if self.needs.cosines {
            let hidden = decoder.config().hidden;
            let after = decoder.residual(b);
            let pairs = self.before.chunks_exact(hidden).zip(after.chunks_exact(hidden));
            self.sums[layer] += pairs.map(|(x, y)| cosine(x, y)).sum::<f64>();
            self.cosines[layer] = (self.sums[layer] / read.max(1) as f64) as f32;
        }
        Ok(())
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
