//! LagKV: how entries stand out against the block that follows them (Liang et al. 2025, arXiv 2504.04704).
//!
//! After the first `sinks` entries come blocks of `lag`. With lo, hi the extremes of a channel in the *next* block,
//! z = (x − lo)/(hi − lo); σ_t = standard deviation of z over the channels (D − 1 in the divisor); softmax of σ over
//! the block. The mean of that for keys (after rope) and for values is ranked inside the block: score = rank/lag,
//! 0 = lowest. `cross=on` takes the mean itself, so that blocks compete (kvpress offers it for AdaKV). Sinks, the
//! last whole block and what comes after it stay; with less than sinks + 2·lag entries, the sinks and the newest.
//!
//! Defaults are kvpress' (4, 128), where the n highest scores of all blocks stay. The authors keep ⌊share·lag⌋ of
//! every block, so that more than the budget stays: `mode=official,sinks=16,lag=1024`, share = budget/entries. They
//! cut again whenever two blocks have grown; here once, after the prompt. A channel that is constant in the next
//! block tells nothing: z = 0. kvpress divides by that zero (Gemma 3 270M: NaN for two of three layers).

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, SWITCH};
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::registry::REGISTERED;

static SINKS: Key<Count> = Key::new("sinks", "first entries that always stay", Count(0, 1_000_000), 4);
static LAG: Key<Count> = Key::new("lag", "entries in a block", Count(1, 1_000_000), 128);
static CROSS: Key<Choice<bool>> =
    Key::new("cross", "scores of different blocks are compared as they are", SWITCH, false);
static MODE: Key<Choice<bool>> = Key::new(
    "mode",
    "one budget for all blocks, or the authors' share of every block",
    Choice(&[("kvpress", false), ("official", true)]),
    false,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "lagkv",
    family: Family::Scorer,
    idea: "keep entries that stand out against the block after theirs",
    paper: Some(Paper {
        title: "LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important",
        arxiv: "2504.04704",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&SINKS, &LAG, &CROSS, &MODE],
    build: |spec| {
        Part::scorer(LagKv {
            sinks: spec.get(&SINKS) as usize,
            lag: spec.get(&LAG) as usize,
            cross: spec.get(&CROSS),
            official: spec.get(&MODE),
        })
    },
};

struct LagKv {
    sinks: usize,
    lag: usize,
    cross: bool,
    official: bool,
}

impl Scorer for LagKv {
    fn score(&self, _at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let mut scores = Scores::default();
        let mut own = Vec::new();
        for kv_head in 0..view.kv_heads() {
            let n = view.positions(kv_head).len();
            // blocks that have one behind them
            let blocks = (n.saturating_sub(self.sinks) / self.lag).saturating_sub(1);
            let scored = self.sinks.min(n)..self.sinks.min(n) + blocks * self.lag;
            let mut forced = vec![true; n];
            let mut values = vec![1.0; n];
            if blocks == 0 {
                let rest = n.saturating_sub(self.sinks);
                forced[n - rest..].fill(false);
                values[n - rest..].iter_mut().enumerate().for_each(|(i, value)| *value = i as f32 / rest as f32);
            } else {
                forced[scored.clone()].fill(false);
                let (keys, values_of) = (view.keys(kv_head), view.values(kv_head));
                let [k, v] = [keys, values_of].map(|rows| self.standing(&rows, view.head_dim(), blocks));
                let mean: Vec<f64> = k.iter().zip(v).map(|(k, v)| (k + v) / 2.0).collect();
                for (block, out) in mean.chunks(self.lag).zip(values[scored].chunks_mut(self.lag)) {
                    match self.cross && !self.official {
                        true => out.iter_mut().zip(block).for_each(|(out, &mean)| *out = mean as f32),
                        false => ranks(block, out),
                    }
                }
            }
            let share = |whole: usize| (whole * budget.min(n)).checked_div(n).unwrap_or(0);
            own.push(n - blocks * self.lag + blocks * share(self.lag));
            scores.values.push(values);
            scores.forced.push(forced);
        }
        scores.own = self.official.then_some(own);
        Some(scores)
    }
}

impl LagKv {
    /// Softmax inside each block of σ_t, the spread of an entry as the next block sees it; rows [n, dim] →
    /// [blocks · lag].
    fn standing(&self, rows: &[f32], dim: usize, blocks: usize) -> Vec<f64> {
        let rows: Vec<&[f32]> = rows.chunks_exact(dim).skip(self.sinks).collect();
        let mut standing = Vec::with_capacity(blocks * self.lag);
        for (block, next) in rows.chunks(self.lag).zip(rows[self.lag..].chunks(self.lag)).take(blocks) {
            let mut range = vec![(f32::INFINITY, f32::NEG_INFINITY); dim];
            for row in next {
                range.iter_mut().zip(*row).for_each(|(r, &x)| *r = (r.0.min(x), r.1.max(x)));
            }
            let place = |&(lo, hi): &(f32, f32), x: f32| {
                if hi > lo { (x - lo) as f64 / (hi - lo) as f64 } else { 0.0 }
            };
            let spread = |row: &&[f32]| {
                let z: Vec<f64> = range.iter().zip(*row).map(|(range, &x)| place(range, x)).collect();
                let mean = z.iter().sum::<f64>() / dim as f64;
                (z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / dim.saturating_sub(1).max(1) as f64).sqrt()
            };
            let spreads: Vec<f64> = block.iter().map(spread).collect();
            let highest = spreads.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers = spreads.iter().map(|s| (s - highest).exp());
            let sum: f64 = powers.clone().sum();
            standing.extend(powers.map(|power| power / sum));
        }
        standing
    }
}

/// Rank of each entry from 0, as a share of the block; equal ones in their order.
fn ranks(block: &[f64], out: &mut [f32]) {
    let mut order: Vec<usize> = (0..block.len()).collect();
    order.sort_by(|&a, &b| block[a].total_cmp(&block[b]));
    order.into_iter().enumerate().for_each(|(rank, slot)| out[slot] = rank as f32 / block.len() as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{Layer, after_prompt, close, score, toy};

    /// The six keys of the golden numbers, also as values.
    fn blocks() -> Layer {
        let x = vec![0.0, 0.0, 1.0, 3.0, 1.0, 1.0, 2.0, 3.0, 0.0, 1.0, 4.0, 5.0];
        Layer::from_queries(std::slice::from_ref(&x), vec![x.clone()], vec![x.clone()], 2, 6)
    }

    #[test]
    fn standing_of_the_golden_blocks() {
        let lag = LagKv { sinks: 0, lag: 2, cross: true, official: false };
        let standing = lag.standing(&blocks().keys[0], 2, 2);
        let standing: Vec<f32> = standing.iter().map(|&x| x as f32).collect();
        close(&standing, &[0.412521, 0.587479, 0.544079, 0.455921]);
        close(&score("lagkv@3:sinks=0,lag=2,cross=on", &blocks()).values[0][..4], &standing);
    }

    #[test]
    fn ranks_inside_blocks_decide_and_the_last_block_stays() {
        let ranked = score("lagkv@3:sinks=0,lag=2", &blocks());
        assert_eq!(ranked.values[0], [0.0, 0.5, 0.5, 0.0, 1.0, 1.0]);
        assert_eq!(ranked.forced[0], [false, false, false, false, true, true]);
        assert_eq!(after_prompt("lagkv@4:sinks=0,lag=2", &blocks()), [[1, 2, 4, 5]]);
        assert_eq!(after_prompt("lagkv@3:sinks=1,lag=2", &blocks()), [[3, 4, 5]]);
    }

    #[test]
    fn the_official_count_is_per_block() {
        // 5 of 6: one of two in each block before the last
        assert_eq!(score("lagkv@5:sinks=0,lag=2,mode=official", &blocks()).own, Some(vec![4]));
        assert_eq!(after_prompt("lagkv@5:sinks=0,lag=2,mode=official", &blocks()), [[1, 2, 4, 5]]);
        assert_eq!(after_prompt("lagkv@2:sinks=1,lag=2,mode=official", &blocks()), [[0, 3, 4, 5]]);
    }

    #[test]
    fn short_prompts_keep_sinks_and_the_newest() {
        assert_eq!(after_prompt("lagkv@5", &toy()), [[0, 1, 2, 3, 5]]);
        close(&score("lagkv@5", &toy()).values[0], &[1.0, 1.0, 1.0, 1.0, 0.0, 0.5]);
    }

    #[test]
    fn constant_channels_give_numbers() {
        let mut layer = blocks();
        layer.keys[0].fill(1.0);
        assert!(score("lagkv@3:sinks=0,lag=2", &layer).values[0].iter().all(|s| s.is_finite()));
    }
}
