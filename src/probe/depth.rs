//! How much each source of the residual stream contributes to what a sublayer reads.
//!
//! Sources are sums of points of the stream: point 0 is the embedding, point s + 1 the stream after sublayer s. In a plain
//! model source 0 is the embedding and source s + 1 what sublayer s added: point s + 1 less point s.

use crate::model::residual::{Origin, Plan};
use crate::simd::{self, vectorized};

/// Numbers whose products are summed in f32: few enough that a share is off by some 1e-6 even where a point is a hundred
/// times as long as what it is compared with.
const STRETCH: usize = 64;

/// Sources of each target, and what they are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    /// [targets][sources of the target]
    pub origins: Vec<Vec<Origin>>,
    /// A last source of each target is the running stream itself.
    pub over_stream: bool,
}

impl Sources {
    /// Of a model of so many sublayers whose stream is a sum.
    pub fn plain(sublayers: usize) -> Self {
        let source = |i: usize| if i == 0 { vec![(0, 1.0)] } else { vec![(i, 1.0), (i - 1, -1.0)] };
        let origins = (0..=sublayers).map(|target| (0..=target).map(source).collect()).collect();
        Self { origins, over_stream: false }
    }

    /// Of a model whose points of the stream are what was written, each by itself.
    fn apart(sublayers: usize) -> Self {
        let origins = (0..=sublayers).map(|target| (0..=target).map(|i| vec![(i, 1.0)]).collect()).collect();
        Self { origins, over_stream: false }
    }

    /// Of a model that mixes depth: by a plan, or in streams of hyper-connections.
    pub fn of(plan: Option<&Plan>, sublayers: usize) -> Self {
        match plan {
            None => Self::apart(sublayers),
            Some(plan) => Self { origins: plan.origins.clone(), over_stream: plan.over_stream() },
        }
    }

    /// Most sources of a target, the stream counted.
    pub fn across(&self) -> usize {
        self.counts().into_iter().max().unwrap_or(0) as usize
    }

    /// Of each target [targets], the stream counted.
    pub fn counts(&self) -> Vec<u32> {
        self.origins.iter().map(|sources| (sources.len() + usize::from(self.over_stream)) as u32).collect()
    }
}

/// ⟨a, b⟩: products are summed in f32, 16 at a time, stretches of [`STRETCH`] numbers in f64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    vectorized(
        #[inline(always)]
        || a.chunks(STRETCH).zip(b.chunks(STRETCH)).map(|(a, b)| f64::from(simd::dot(a, b))).sum(),
    )
}

/// Signed shares c_i = f_i ⟨v_i, h⟩ / ‖h‖² of one token and target: h [d] = Σ f_i v_i, so that they sum to 1. `stream(p)`:
/// point p [d]. An h of length 0 has no shares: they are 0.
pub fn shares<'a>(h: &[f32], stream: impl Fn(usize) -> &'a [f32], sources: &[(&Origin, f32)]) -> Vec<f32> {
    let length = dot(h, h);
    if length == 0.0 {
        return vec![0.0; sources.len()];
    }
    let most = sources.iter().flat_map(|(origin, _)| origin.iter().map(|(p, _)| p + 1)).max().unwrap_or(0);
    // ⟨point, h⟩ of those that are asked for
    let mut along: Vec<Option<f64>> = vec![None; most];
    let mut share = |(origin, factor): &(&Origin, f32)| {
        let part = |(p, by): &(usize, f32)| {
            let along = along[*p].get_or_insert_with(|| dot(stream(*p), h));
            *along * f64::from(*by)
        };
        let sum: f64 = origin.iter().map(part).sum();
        (f64::from(*factor) * sum / length) as f32
    };
    sources.iter().map(&mut share).collect()
}

/// Entropy of weights that sum to 1, nats.
pub fn entropy(weights: &[f32]) -> f32 {
    // of a single weight it is 0, not −0
    weights.iter().filter(|w| **w > 0.0).map(|w| -w * w.ln()).sum::<f32>() + 0.0
}

/// Mean distance Σ w_i (last − i) of sources from the newest, in sources.
pub fn distance(weights: &[f32]) -> f32 {
    weights.iter().rev().enumerate().map(|(far, w)| far as f32 * w).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_definition_and_sum_to_one() {
        // Points e, e + a, e + a + b.
        let (e, a, b) = ([1.0f32, 2.0], [0.5f32, -1.0], [-3.0f32, 0.25]);
        let h1 = [e[0] + a[0], e[1] + a[1]];
        let h2 = [h1[0] + b[0], h1[1] + b[1]];
        let points = [e, h1, h2];
        let plain = Sources::plain(2);
        assert_eq!(plain.counts(), [1, 2, 3]);
        for (target, origins) in plain.origins.iter().enumerate() {
            let sources: Vec<(&Origin, f32)> = origins.iter().map(|origin| (origin, 1.0)).collect();
            let found = shares(&points[target], |p| &points[p], &sources);
            assert!((found.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            let h = points[target];
            let length = h[0] * h[0] + h[1] * h[1];
            for (v, found) in [e, a, b].iter().zip(&found) {
                assert!(((v[0] * h[0] + v[1] * h[1]) / length - found).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn factors_weigh_what_they_belong_to() {
        let points = [[1.0f32, 0.0], [1.0, 2.0]];
        let (first, second): (Origin, Origin) = (vec![(0, 1.0)], vec![(1, 1.0)]);
        let h = [0.25 + 0.75, 1.5];
        let found = shares(&h, |p| &points[p], &[(&first, 0.25), (&second, 0.75)]);
        assert!((found[0] - 0.25 / 3.25).abs() < 1e-6 && (found[0] + found[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_stream_of_zeros_has_no_shares() {
        let zero = [0.0f32; 3];
        assert_eq!(shares(&zero, |_| &zero, &[(&vec![(0, 1.0)], 1.0)]), [0.0]);
    }

    #[test]
    fn entropy_and_distance_of_known_weights() {
        assert!((entropy(&[0.25; 4]) - 4f32.ln()).abs() < 1e-6);
        assert_eq!(entropy(&[0.0, 1.0]), 0.0);
        assert_eq!((distance(&[0.0, 0.0, 1.0]), distance(&[1.0, 0.0, 0.0])), (0.0, 2.0));
    }
}
