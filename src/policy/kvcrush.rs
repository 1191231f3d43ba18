//! KVCrush: part of the budget goes to representatives of what leaves (Jha et al. 2025, arXiv 2503.00022).
//!
//! Every entry has one bit per kv head: whether its score lies in the upper half of that head's. The scorer's choice
//! fills the budget up to `crush` of it; what it would evict is ordered by the Hamming distance of its bits to an anchor
//! (equal ones by position), and of this order evenly spaced ones stay: number ⌊i · left/k⌋ for i < k. Forced entries
//! stay first.
//!
//! anchor: `random` (the default of the only public code, OpenVINO's; by seed and layer), `zeros`, `ones`, `mean` (the
//! bit that most entries have), `alternate` (0 1 0 1 …). crush = 25 % is ours. Bits are of kv heads, since scorers rate
//! these: a model with one kv head has a single bit, and representatives are then merely spaced out. OpenVINO works on
//! blocks of 16 or 32 tokens and takes the bits along the tokens of a block.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, OfBudget};
use super::part::{Ask, Chooser, LayerView, Part};
use super::random::mix;
use super::registry::REGISTERED;
use super::select::select;

static CRUSH: Key<OfBudget> =
    Key::new("crush", "part of the budget for representatives of what leaves", OfBudget, Amount::percent(25));
static ANCHOR: Key<Choice<Anchor>> = Key::new(
    "anchor",
    "bits that distances are taken from",
    Choice(&[
        ("random", Anchor::Random),
        ("zeros", Anchor::Zeros),
        ("ones", Anchor::Ones),
        ("mean", Anchor::Mean),
        ("alternate", Anchor::Alternate),
    ]),
    Anchor::Random,
);
static SEED: Key<Count> = Key::new("seed", "which of the random anchors", Count(0, u64::MAX), 0).spelled_out();

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "kvcrush",
    family: Family::Wrapper,
    idea: "spend part of the budget on representatives of what leaves",
    paper: Some(Paper {
        title: "KVCrush: Key value cache size-reduction using similarity in head-behaviour",
        arxiv: "2503.00022",
    }),
    budget: None,
    keys: &[&CRUSH, &ANCHOR, &SEED],
    build: |spec| Part::chooser(KvCrush { crush: spec.get(&CRUSH), anchor: spec.get(&ANCHOR), seed: spec.get(&SEED) }),
};

#[derive(Clone, Copy, PartialEq)]
enum Anchor {
    Random,
    Zeros,
    Ones,
    Mean,
    Alternate,
}

struct KvCrush {
    crush: Amount,
    anchor: Anchor,
    seed: u64,
}

impl Chooser for KvCrush {
    fn choose(&self, ask: Ask<'_>, view: &dyn LayerView) -> Vec<Vec<u32>> {
        let bits = Bits::new(&ask.scores.values, view);
        let anchor = self.anchor(&bits, ask.at.layer as u64);
        let mut chosen = Vec::new();
        for (kv_head, (values, forced)) in ask.scores.values.iter().zip(&ask.scores.forced).enumerate() {
            let budget = ask.budgets[kv_head];
            let protected = forced.iter().filter(|&&forced| forced).count();
            let own = budget.saturating_sub(self.crush.of(budget)).max(protected.min(budget));
            let mut kept = select(values, forced, own);
            let mut stays = kept.iter().peekable();
            let left = (0..values.len() as u32).filter(|slot| stays.next_if_eq(&slot).is_none());
            let distance = |slot: u32| bits.distance(view.positions(kv_head)[slot as usize], &anchor);
            let mut left: Vec<(usize, u32)> = left.map(|slot| (distance(slot), slot)).collect();
            left.sort_unstable();
            let more = budget.saturating_sub(own).min(left.len());
            kept.extend((0..more).map(|i| left[i * left.len() / more].1));
            kept.sort_unstable();
            chosen.push(kept);
        }
        chosen
    }
}

impl KvCrush {
    fn anchor(&self, bits: &Bits, layer: u64) -> Vec<bool> {
        let heads = 0..bits.heads;
        match self.anchor {
            Anchor::Zeros => vec![false; bits.heads],
            Anchor::Ones => vec![true; bits.heads],
            Anchor::Alternate => heads.map(|head| head % 2 == 1).collect(),
            Anchor::Random => heads.map(|head| mix(mix(mix(self.seed) ^ layer) ^ head as u64) >> 63 == 1).collect(),
            Anchor::Mean => {
                let count = |head| bits.rows.chunks_exact(bits.heads).filter(|row| row[head]).count();
                heads.map(|head| 2 * count(head) > bits.positions.len()).collect()
            }
        }
    }
}

/// Of all positions that any kv head holds.
struct Bits {
    heads: usize,
    /// Ascending [m]
    positions: Vec<u32>,
    /// [m, heads]
    rows: Vec<bool>,
}

impl Bits {
    fn new(scores: &[Vec<f32>], view: &dyn LayerView) -> Self {
        let heads = scores.len();
        let mut positions: Vec<u32> = (0..heads).flat_map(|head| view.positions(head)).copied().collect();
        positions.sort_unstable();
        positions.dedup();
        let mut rows = vec![false; positions.len() * heads];
        for (head, values) in scores.iter().enumerate() {
            for slot in select(values, &vec![false; values.len()], values.len() / 2) {
                if let Ok(at) = positions.binary_search(&view.positions(head)[slot as usize]) {
                    rows[at * heads + head] = true;
                }
            }
        }
        Self { heads, positions, rows }
    }

    fn distance(&self, position: u32, anchor: &[bool]) -> usize {
        let at = self.positions.partition_point(|&p| p < position);
        self.rows[at * self.heads..][..self.heads].iter().zip(anchor).filter(|(a, b)| a != b).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::part::{Moment, Scorer, Scores};
    use crate::policy::testing::{Layer, moment};

    struct Fixed;
    impl Scorer for Fixed {
        fn score(&self, _: Moment, _: usize, _: &dyn LayerView) -> Option<Scores> {
            None
        }
    }

    /// Three heads of eight entries. Bits (head 0, 1, 2) by position:
    /// 0: 110, 1: 111, 2: 100, 3: 101, 4: 010, 5: 001, 6: 010, 7: 001.
    const SCORES: [[f32; 8]; 3] = [
        [9.0, 8.0, 7.0, 6.0, 3.0, 2.0, 1.0, 0.0],
        [9.0, 8.0, 0.0, 1.0, 7.0, 2.0, 6.0, 3.0],
        [0.0, 8.0, 1.0, 9.0, 2.0, 7.0, 3.0, 6.0],
    ];

    fn choose(anchor: Anchor, crush: u32, budget: usize, newest: usize) -> Vec<Vec<u32>> {
        let numbers = vec![0.0; 16];
        let layer = Layer::from_queries(&vec![numbers.clone(); 3], vec![numbers.clone(); 3], vec![numbers; 3], 2, 8);
        let scores = Scores::free(SCORES.map(Vec::from).to_vec()).keep_newest(newest);
        let crush = KvCrush { crush: Amount::Tokens(crush), anchor, seed: 0 };
        let budgets = [budget; 3];
        let ask =
            Ask { at: moment(8, 0), scorer: &Fixed, scores: &scores, budgets: &budgets, amount: Amount::Tokens(4) };
        crush.choose(ask, &layer)
    }

    #[test]
    fn representatives_are_spaced_along_the_distances() {
        // head 0 keeps 0 and 1; distances to 000 of 2…7: 1 2 1 1 1 1, so the order 2 4 5 6 7 3, of which the first
        // and the fourth stay
        assert_eq!(choose(Anchor::Zeros, 2, 4, 0)[0], [0, 1, 2, 6]);
        // to 111: 2 1 2 2 2 2, the order 3 2 4 5 6 7
        assert_eq!(choose(Anchor::Ones, 2, 4, 0)[0], [0, 1, 3, 5]);
        // 010: 2: 2, 3: 3, 4: 0, 5: 2, 6: 0, 7: 2, the order 4 6 2 5 7 3
        assert_eq!(choose(Anchor::Alternate, 3, 5, 0)[0], [0, 1, 2, 4, 7]);
        // half of the entries are in each upper half: no majority, as zeros
        assert_eq!(choose(Anchor::Mean, 2, 4, 0), choose(Anchor::Zeros, 2, 4, 0));
    }

    #[test]
    fn without_a_share_the_scorer_decides_and_forced_entries_come_first() {
        assert_eq!(choose(Anchor::Random, 0, 4, 0), [[0, 1, 2, 3], [0, 1, 4, 6], [1, 3, 5, 7]]);
        assert_eq!(choose(Anchor::Zeros, 4, 3, 3), [[5, 6, 7]; 3]);
        assert!(choose(Anchor::Zeros, 4, 4, 3).iter().all(|kept| kept.ends_with(&[5, 6, 7]) && kept.len() == 4));
    }
}
