//! Quest: reads the pages of the cache whose keys could matter most to the query (Tang et al. 2024, arXiv 2406.10774).
//!
//! Pages are `page` held entries that follow each other; of each, the smallest and the largest value of every key
//! channel are known (after rope): m, M [D]. No key of the page can give query q more than u = Σ_c max(q_c m_c, q_c M_c).
//! Each query head reads the max(3, ⌊B / page⌋) pages with the highest u, the last page always among them. Layers
//! before `dense` read everything, as does the prompt.
//!
//! Defaults: B = 1024 (1024 to 4096 in the paper), page 16, two dense layers. In the authors' kernels the last page
//! is read always, as here; in their evaluation script it competes. A page's bounds are taken when it is complete (its
//! keys may be packed later) and weigh what one entry weighs.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::pages::{Pages, slots};
use super::part::{LaneView, Part};
use super::reader::{Choice, HeadReader, Reader, Setting, Sight};
use super::registry::REGISTERED;
use super::select::select;

static PAGE: Key<Count> = Key::new("page", "entries of a page", Count(1, 4096), 16);
pub(super) static DENSE: Key<Count> = Key::new("dense", "first layers that read everything", Count(0, 1024), 2);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "quest",
    family: Family::Reader,
    idea: "read the pages whose keys could answer the query best",
    paper: Some(Paper {
        title: "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
        arxiv: "2406.10774",
    }),
    budget: Some(Amount::Tokens(1024)),
    keys: &[&PAGE, &DENSE],
    build: |spec| Part::reader(Quest { page: spec.get(&PAGE) as usize, dense: spec.get(&DENSE) as usize }),
};

struct Quest {
    page: usize,
    dense: usize,
}

/// Fewest pages that are read, whatever the budget.
const FEWEST: usize = 3;

impl Reader for Quest {
    fn start(&self, setting: Setting, _lane: &dyn LaneView) -> Vec<Box<dyn HeadReader>> {
        let pages = setting.budget.map_or(usize::MAX, |budget| (budget / self.page).max(FEWEST));
        let head =
            HeadQuest { page: self.page, dense: self.dense, pages, layers: vec![Pages::default(); setting.layers] };
        (0..setting.kv_heads).map(|_| head.copy()).collect()
    }
}

#[derive(Clone)]
struct HeadQuest {
    page: usize,
    dense: usize,
    /// Read by each query head.
    pages: usize,
    layers: Vec<Pages>,
}

/// Smallest, then largest value of each channel [2][D] of keys [page, D].
fn bounds(keys: &[f32], dim: usize) -> Vec<f32> {
    let fold = |start: f32, pick: fn(f32, f32) -> f32| {
        keys.chunks_exact(dim).fold(vec![start; dim], |mut all, key| {
            all.iter_mut().zip(key).for_each(|(a, &k)| *a = pick(*a, k));
            all
        })
    };
    [fold(f32::INFINITY, f32::min), fold(f32::NEG_INFINITY, f32::max)].concat()
}

/// The most that any key between `low` and `high` can give the query.
fn bound(query: &[f32], low: &[f32], high: &[f32]) -> f32 {
    query.iter().zip(low).zip(high).map(|((q, low), high)| (q * low).max(q * high)).sum()
}

impl HeadReader for HeadQuest {
    fn read(&mut self, sight: &Sight<'_>) -> Choice {
        let (n, group) = (sight.positions.len(), sight.dense.len());
        let (all, dim) = (n.div_ceil(self.page), sight.queries.len() / group);
        if sight.layer < self.dense || all <= self.pages {
            return Choice::all();
        }
        // The last page, which may be incomplete, does not compete.
        let rivals = all - 1;
        let known = self.layers[sight.layer].numbers(sight, self.page, rivals, |keys| bounds(keys, dim));
        let pick = |query: &[f32]| {
            let most: Vec<f32> = known.iter().map(|b| bound(query, &b[..dim], &b[dim..])).collect();
            let chosen = select(&most, &vec![false; rivals], self.pages - 1);
            chosen.into_iter().chain([rivals as u32]).flat_map(|page| slots(page, self.page, n)).collect()
        };
        Choice::slots(sight.queries.chunks_exact(dim).map(pick), rivals as u64 * sight.entry)
    }

    fn metadata(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes(1.0)).sum()
    }

    fn bytes(&self) -> u64 {
        self.metadata()
    }

    fn copy(&self) -> Box<dyn HeadReader> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::Layer;
    use crate::policy::testing::random_layer;
    use crate::policy::testing::reading::{look, reader};
    use proptest::prelude::*;

    /// Pages of each query head, from the definition.
    fn slow(layer: &Layer, page: usize, pages: usize) -> Vec<Vec<u32>> {
        let (n, dim) = (layer.held[0].len(), layer.dim);
        let all = n.div_ceil(page);
        let key = |slot: usize, c: usize| layer.keys[0][layer.held[0][slot] as usize * dim + c];
        let head = |q: &Vec<f32>| {
            let q = &q[layer.newest as usize * dim..][..dim];
            let most = |p: usize| -> f32 {
                let slots = p * page..((p + 1) * page).min(n);
                let channel = |c: usize| {
                    let reach = slots.clone().map(|slot| q[c] * key(slot, c));
                    reach.fold(f32::NEG_INFINITY, f32::max)
                };
                (0..dim).map(channel).sum()
            };
            let mut order: Vec<usize> = (0..all - 1).collect();
            order.sort_by(|&a, &b| most(b).total_cmp(&most(a)).then(b.cmp(&a)));
            let mut chosen: Vec<usize> = order[..pages - 1].to_vec();
            chosen.push(all - 1);
            chosen.sort();
            chosen.into_iter().flat_map(|p| p * page..((p + 1) * page).min(n)).map(|slot| slot as u32).collect()
        };
        layer.queries.iter().map(head).collect()
    }

    #[test]
    fn the_best_pages_and_the_last_are_read() {
        let mut layer = random_layer(3, (1, 2), 4, 90);
        (layer.newest, layer.held) = (82, vec![(0..83).collect()]);
        let mut quest = reader("quest@20:page=4,dense=1", &layer);
        assert_eq!(look(&layer, 0, |sight| quest.read(sight)), Choice::all());
        for _ in 0..5 {
            layer.step();
            let choice = look(&layer, 1, |sight| quest.read(sight));
            let read: Vec<Vec<u32>> = choice.heads.unwrap().into_iter().map(|head| head.slots).collect();
            assert_eq!(read, slow(&layer, 4, 5));
            assert_eq!(choice.metadata, (layer.held[0].len().div_ceil(4) as u64 - 1) * 16);
            assert_eq!(quest.metadata(), choice.metadata);
        }
        // entries leave: pages are those of what is held
        layer.held[0].retain(|p| p % 3 != 1);
        let choice = look(&layer, 1, |sight| quest.read(sight));
        let read: Vec<Vec<u32>> = choice.heads.unwrap().into_iter().map(|head| head.slots).collect();
        assert_eq!(read, slow(&layer, 4, 5));
    }

    #[test]
    fn three_pages_are_read_at_least_and_a_cache_within_the_budget_whole() {
        let layer = random_layer(4, (1, 2), 4, 65);
        let choice = look(&layer, 0, |sight| reader("quest@1:dense=0", &layer).read(sight));
        assert!(choice.heads.unwrap().iter().all(|head| head.slots.len() == 33));
        for spec in ["quest@80:dense=0", "quest@100%:dense=0"] {
            assert_eq!(look(&layer, 0, |sight| reader(spec, &layer).read(sight)), Choice::all(), "{spec}");
        }
    }

    proptest! {
        #[test]
        fn no_key_of_a_page_gives_more_than_its_bound(
            query in prop::collection::vec(-3.0f32..3.0, 8), keys in prop::collection::vec(-3.0f32..3.0, 8 * 5)
        ) {
            let fold = |pick: fn(f32, f32) -> f32, c: usize| keys.chunks(8).map(|k| k[c]).reduce(pick).unwrap();
            let low: Vec<f32> = (0..8).map(|c| fold(f32::min, c)).collect();
            let high: Vec<f32> = (0..8).map(|c| fold(f32::max, c)).collect();
            for key in keys.chunks(8) {
                let logit: f32 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                prop_assert!(bound(&query, &low, &high) >= logit - 1e-4);
            }
        }
    }
}
