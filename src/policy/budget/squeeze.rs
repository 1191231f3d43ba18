//! SqueezeAttention: layers that change the residual stream little keep less (Wang et al. 2024, arXiv 2404.04793).
//!
//! Per layer, the mean over the prompt's tokens of the cosine between the residual stream before and after its
//! attention. The layers' cosines fall into three clusters (k-means); the n₃ layers of the cluster with the highest
//! ones keep p · b entries, all others (L · b − n₃ · p · b)/(L − n₃), b the even budget. What a layer cannot hold goes
//! to the others.
//!
//! p = 0.35, in the middle of the paper's 0.3 to 0.4. The clusters are the exact ones: in one dimension all splits of
//! the sorted cosines can be tried, where the authors' code starts k-means at random. Fewer than three different
//! cosines make fewer clusters; with one, all stay even. Layers that policies leave alone are not clustered.

use linkme::distributed_slice;

use super::{acting, divide};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Key, Real};
use crate::policy::part::{Allocator, Divide, Level, Part, Scores};
use crate::policy::registry::REGISTERED;
use crate::policy::spec::PartSpec;

static P: Key<Real> =
    Key::new("p", "part of an even budget that the layers get which change least", Real(0.0, 1.0), 0.35);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "squeeze",
    family: Family::Budget,
    idea: "layers whose attention changes the residual stream least keep less",
    paper: Some(Paper {
        title: "SqueezeAttention: 2D Management of KV-Cache in LLM Inference via Layer-wise Optimal Budget",
        arxiv: "2404.04793",
    }),
    budget: None,
    keys: &[&P],
    build: |spec: &PartSpec| Part::allocator(Squeeze { p: spec.get(&P) }),
};

struct Squeeze {
    p: f64,
}

impl Allocator for Squeeze {
    fn level(&self) -> Level {
        Level::Layers
    }

    fn needs_cosines(&self) -> bool {
        true
    }

    fn allocate(&self, ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]) {
        let all = ask.lane.cosines();
        let cosines: Option<Vec<f64>> = acting(budgets).map(|layer| all.get(layer).map(|&c| c as f64)).collect();
        if let Some(weights) = cosines.and_then(|cosines| self.weights(&cosines)) {
            divide(&weights, scores, budgets);
        }
    }
}

impl Squeeze {
    /// Budgets relative to an even one; `None` where all are alike.
    fn weights(&self, cosines: &[f64]) -> Option<Vec<f64>> {
        let least = highest_cluster(cosines)?;
        let (all, few) = (cosines.len() as f64, cosines.iter().filter(|&&c| c >= least).count() as f64);
        let others = (all - few * self.p) / (all - few);
        Some(cosines.iter().map(|&c| if c >= least { self.p } else { others }).collect())
    }
}

/// The lowest number of the highest of three clusters with the least sum of squares; `None` if all are equal.
fn highest_cluster(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cuts: Vec<usize> = (1..sorted.len()).filter(|&i| sorted[i] > sorted[i - 1]).collect();
    let spread = |part: &[f64]| {
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        part.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>()
    };
    let pairs = cuts.iter().enumerate().flat_map(|(i, &low)| cuts[i + 1..].iter().map(move |&high| (low, high)));
    let cost =
        |&(low, high): &(usize, usize)| spread(&sorted[..low]) + spread(&sorted[low..high]) + spread(&sorted[high..]);
    let best = pairs.map(|pair| (cost(&pair), pair.1)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, high)| high);
    best.or(cuts.first().copied()).map(|first| sorted[first])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::part::Moment;
    use crate::policy::testing::{Lane, moment, random_layer};

    #[test]
    fn the_numbers_of_the_notes() {
        let cosines: Vec<f64> = (0..32)
            .map(|l| {
                if l < 12 {
                    0.95
                } else if l < 20 {
                    0.5
                } else {
                    0.7
                }
            })
            .collect();
        let weights = Squeeze { p: 0.35 }.weights(&cosines).unwrap();
        let scores = vec![Some(Scores::free(vec![vec![0.0; 4000]])); 32];
        let mut budgets = vec![vec![1000]; 32];
        divide(&weights, &scores, &mut budgets);
        assert!(budgets.iter().enumerate().all(|(l, b)| b == &[if l < 12 { 350 } else { 1390 }]), "{budgets:?}");
    }

    #[test]
    fn clusters_are_the_best_of_all_splits() {
        assert_eq!(highest_cluster(&[0.1, 0.9, 0.11, 0.5, 0.52, 0.88]), Some(0.88));
        assert_eq!(highest_cluster(&[0.9, 0.1, 0.95, 0.5]), Some(0.9));
        assert_eq!(highest_cluster(&[0.2, 0.7, 0.2]), Some(0.7));
        assert_eq!(highest_cluster(&[0.2, 0.2]), None);
        assert_eq!(highest_cluster(&[]), None);
    }

    /// The lane's cosines are .5 .96 .7 .93: two layers in the highest cluster.
    #[test]
    fn layers_of_a_lane_are_squeezed() {
        let layers: Vec<_> = (0..4).map(|seed| random_layer(seed, (2, 1), 4, 40)).collect();
        let policy = Policy::parse("squeeze:p=0.4+knorm@50%").unwrap();
        assert!(policy.needs_cosines());
        let decisions = policy.decide(0, Moment { layers: 4, ..moment(40, 0) }, &Lane(&layers));
        let budgets: Vec<usize> = decisions.iter().flatten().map(|decision| decision.budget[0]).collect();
        assert_eq!(budgets, [32, 8, 32, 8]);
    }
}
