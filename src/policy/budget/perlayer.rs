//! Per layer: budgets in a given proportion.
//!
//! `keep=3/2/1`: weights of the layers from first to last, each entry for an equal stretch of layers (layer l of L
//! takes entry ⌊l · k/L⌋ of k). The budget is the mean over the layers that evict; a layer's part of it is
//! proportional to its weight, never more than it holds (the rest goes to the others), and fractions go to the
//! largest remainders. kvpress' PerLayerCompressionPress takes absolute shares, one for each layer: those are weights
//! too, if their mean is written as the budget.

use linkme::distributed_slice;

use super::{acting, divide};
use crate::policy::descriptor::{Descriptor, Family};
use crate::policy::key::{Domain, Key};
use crate::policy::part::{Allocator, Divide, Level, Part, Scores};
use crate::policy::registry::REGISTERED;
use crate::policy::spec::PartSpec;

static KEEP: Key<Weights> = Key::new("keep", "weights of the layers, from first to last", Weights, Vec::new());

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "perlayer",
    family: Family::Budget,
    idea: "layers share the budget in a given proportion",
    paper: None,
    budget: None,
    keys: &[&KEEP],
    build: |spec: &PartSpec| Part::allocator(PerLayer { weights: spec.get(&KEEP) }),
};

/// Numbers from 1 to 1000 with slashes between them; none at all is one weight of 1.
struct Weights;

impl Domain for Weights {
    type Value = Vec<u32>;
    fn read(&self, text: &str) -> Option<Vec<u32>> {
        let weight = |text: &str| text.parse().ok().filter(|n| (1..=1000).contains(n));
        text.split('/').map(weight).collect()
    }
    fn show(&self, value: Vec<u32>) -> String {
        match value.as_slice() {
            [] => "1".into(),
            some => some.iter().map(u32::to_string).collect::<Vec<_>>().join("/"),
        }
    }
    fn allowed(&self) -> String {
        "whole numbers from 1 to 1000, such as 3/2/1".into()
    }
}

struct PerLayer {
    weights: Vec<u32>,
}

impl Allocator for PerLayer {
    fn level(&self) -> Level {
        Level::Layers
    }

    fn allocate(&self, ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]) {
        if self.weights.is_empty() {
            return;
        }
        let weight = |layer: usize| self.weights[layer * self.weights.len() / ask.at.layers] as f64;
        let weights: Vec<f64> = acting(budgets).map(weight).collect();
        divide(&weights, scores, budgets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{Lane, moment};

    fn layers(keep: &str, budget: usize, held: usize, layers: usize) -> Vec<usize> {
        let mut scores = vec![Some(Scores::free(vec![vec![0.0; held]; 2])); layers];
        let mut budgets = vec![vec![budget; 2]; layers];
        let at = crate::policy::part::Moment { layers, ..moment(held, 0) };
        PerLayer { weights: Weights.read(keep).unwrap() }.allocate(
            Divide { at, mean: budget as f64, lane: &Lane(&[]) },
            &mut scores,
            &mut budgets,
        );
        assert!(budgets.iter().all(|heads| heads[0] == heads[1]));
        budgets.iter().map(|heads| heads[0]).collect()
    }

    #[test]
    fn stretched_over_the_layers_with_the_same_mean() {
        assert_eq!(layers("3/1", 50, 100, 4), [75, 75, 25, 25]);
        assert_eq!(layers("1/2/3", 20, 100, 3), [10, 20, 30]);
        assert_eq!(layers("7", 20, 100, 3), [20, 20, 20]);
        assert_eq!(layers("1/9/1/9", 20, 100, 2), [20, 20]);
    }

    #[test]
    fn no_layer_gets_more_than_it_holds_or_nothing() {
        assert_eq!(layers("8/1/1", 50, 100, 3), [100, 25, 25]);
        assert_eq!(layers("5/2/1", 1, 100, 3), [1, 1, 1]);
    }

    #[test]
    fn other_lists_are_refused() {
        assert!(["", "/", "1/", "0", "1001", "1.5", "50%"].iter().all(|text| Weights.read(text).is_none()));
        assert_eq!(KEEP.value(Some("03/2")), [3, 2]);
    }
}
