//! DynamicKV: layers compete for the budget while the prompt is read (Zhou et al. 2024, arXiv 2412.14838).
//!
//! w entries per kv head are forced by the scorer (SnapKV's window); base = budget − w. A layer at first keeps its
//! `most` · base best free entries in each head. After every `layers` layers, and after the last: the base · H · n best
//! scores of all that the n layers so far still keep are counted per layer, the counts scaled to base · n, and every
//! layer is cut to its number, the same for its heads. A layer that lost entries at one such moment does not get them
//! back later. In the end each keeps its number + w.
//!
//! layers = 4, most = 10: the authors'. Their scorer is SnapKV's with a window of 8: `dynamickv+snapkv:window=8`. They
//! keep one set per query head on repeated keys, and round each number down; here the numbers add up.

use linkme::distributed_slice;

use super::{acting, apportion, no_empty};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Count, Key};
use crate::policy::part::{Allocator, Divide, Level, Part, Scores};
use crate::policy::registry::REGISTERED;
use crate::policy::spec::PartSpec;

static LAYERS: Key<Count> = Key::new("layers", "layers from one division to the next", Count(1, 10_000), 4);
static MOST: Key<Count> = Key::new("most", "most that a layer keeps, in even budgets", Count(1, 1000), 10);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "dynamickv",
    family: Family::Budget,
    idea: "layers compete for the budget by their scores, a few at a time",
    paper: Some(Paper {
        title: "DynamicKV: Task-Aware Adaptive KV Cache Compression for Long Context LLMs",
        arxiv: "2412.14838",
    }),
    budget: None,
    keys: &[&LAYERS, &MOST],
    build: |spec: &PartSpec| {
        Part::allocator(DynamicKv { layers: spec.get(&LAYERS) as usize, most: spec.get(&MOST) as usize })
    },
};

struct DynamicKv {
    layers: usize,
    most: usize,
}

impl Allocator for DynamicKv {
    fn level(&self) -> Level {
        Level::Layers
    }

    fn allocate(&self, _ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]) {
        let acting: Vec<usize> = acting(budgets).collect();
        let counts = scores.iter().flatten().flat_map(|scores| &scores.forced);
        let forced = counts.map(|forced| forced.iter().filter(|&&forced| forced).count()).max().unwrap_or(0);
        let Some(base) = acting.first().and_then(|&layer| budgets[layer][0].checked_sub(forced)) else { return };
        let of_layers: Vec<&Scores> = acting.iter().filter_map(|&layer| scores[layer].as_ref()).collect();
        let mut shares = self.divide(&of_layers, base);
        if forced == 0 {
            no_empty(&mut shares);
        }
        acting.iter().zip(shares).for_each(|(&layer, share)| budgets[layer].fill(share + forced));
    }
}

impl DynamicKv {
    /// Free entries that the kv heads of each layer keep.
    fn divide(&self, layers: &[&Scores], base: usize) -> Vec<usize> {
        // of each layer and head, the best first
        let mut left: Vec<Vec<Vec<f32>>> = Vec::new();
        let mut shares = Vec::new();
        for (i, scores) in layers.iter().enumerate() {
            left.push(self.best(scores, base));
            if (i + 1) % self.layers != 0 && i + 1 < layers.len() {
                continue;
            }
            let heads: usize = left.iter().map(Vec::len).sum();
            let counts = winners(&left, base * heads);
            let held: Vec<usize> = left.iter().map(|heads| heads.iter().map(Vec::len).max().unwrap_or(0)).collect();
            shares = apportion(base * left.len(), &counts, &held);
            // layers without a winner take what the others cannot hold
            let lack = base * left.len() - shares.iter().sum::<usize>();
            let room: Vec<usize> = held.iter().zip(&shares).map(|(held, share)| held - share).collect();
            let more = apportion(lack, &vec![1.0; room.len()], &room);
            shares.iter_mut().zip(more).for_each(|(share, more)| *share += more);
            for (heads, &share) in left.iter_mut().zip(&shares) {
                heads.iter_mut().for_each(|head| head.truncate(share));
            }
        }
        shares
    }

    fn best(&self, scores: &Scores, base: usize) -> Vec<Vec<f32>> {
        let head = |(values, forced): (&Vec<f32>, &Vec<bool>)| {
            let free = values.iter().zip(forced).filter(|(_, forced)| !**forced);
            let mut free: Vec<f32> =
                free.map(|(&value, _)| if value.is_nan() { f32::NEG_INFINITY } else { value }).collect();
            free.sort_by(|a, b| b.total_cmp(a));
            free.truncate(self.most * base);
            free
        };
        scores.values.iter().zip(&scores.forced).map(head).collect()
    }
}

/// How many of the `count` highest scores each layer has, per kv head.
fn winners(layers: &[Vec<Vec<f32>>], count: usize) -> Vec<f64> {
    let mut all: Vec<(f32, usize)> =
        layers.iter().enumerate().flat_map(|(layer, heads)| heads.iter().flatten().map(move |&s| (s, layer))).collect();
    let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if (1..all.len()).contains(&count) {
        all.select_nth_unstable_by(count - 1, order);
    }
    let mut counts = vec![0.0; layers.len()];
    all.iter().take(count).for_each(|&(_, layer)| counts[layer] += 1.0 / layers[layer].len() as f64);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::part::Moment;
    use crate::policy::testing::{Lane, moment, random_layer};

    const TOY: [&[f32]; 3] = [&[0.9, 0.8, 0.7, 0.1], &[0.6, 0.2, 0.05, 0.01], &[0.15, 0.12, 0.0, 0.0]];

    fn divide(layers: usize, most: usize, base: usize) -> Vec<usize> {
        let scores: Vec<Scores> = TOY.iter().map(|v| Scores::free(vec![v.to_vec()])).collect();
        DynamicKv { layers, most }.divide(&scores.iter().collect::<Vec<_>>(), base)
    }

    /// Two of four each. Together the six best lie 3, 2, 1; divided after two layers, the second layer's .2 is gone
    /// before the third comes.
    #[test]
    fn what_left_early_does_not_come_back() {
        assert_eq!(divide(3, 10, 2), [3, 2, 1]);
        assert_eq!(divide(2, 10, 2), [3, 1, 2]);
        assert_eq!(divide(1, 10, 2), [2, 2, 2]);
        assert_eq!(divide(3, 1, 2), [2, 2, 2]);
    }

    #[test]
    fn windows_are_kept_beside_it() {
        let layers: Vec<_> = (0..4).map(|seed| random_layer(seed, (2, 2), 4, 60)).collect();
        let policy = Policy::parse("dynamickv:layers=2+snapkv@30%:window=8").unwrap();
        let decisions = policy.decide(0, Moment { layers: 4, ..moment(60, 0) }, &Lane(&layers));
        let budgets: Vec<usize> = decisions.iter().flatten().map(|decision| decision.budget[0]).collect();
        assert!(budgets.iter().sum::<usize>() == 4 * 18 && budgets.iter().all(|&b| b >= 8), "{budgets:?}");
        assert!(budgets.iter().any(|&b| b != 18), "{budgets:?}");
    }
}
