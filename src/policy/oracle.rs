//! Hindsight: keep what the model will look at. The upper bound of all scorers that try to foresee it.
//!
//! After the prompt the full cache writes on, greedily, for `tokens` tokens. Score of an entry: the mean (or the
//! largest) attention that these tokens' rows pay it, mean over the query heads of a kv head. Then the cache is cut and
//! what was written is forgotten. No policy can know this: compare with it, do not deploy it. tokens = 32.

use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family};
use super::key::{Choice, Count, Key};
use super::part::{Ahead, LaneView, LayerView, Moment, Part, Scorer, Scores, Start, group_mean};
use super::registry::REGISTERED;
use super::surveyed::{Surveyed, held};

static TOKENS: Key<Count> = Key::new("tokens", "tokens that are written and looked back from", Count(1, 4096), 32);
static FOLD: Key<Choice<bool>> =
    Key::new("fold", "how an entry's rows count", Choice(&[("mean", false), ("max", true)]), false);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "oracle",
    family: Family::Scorer,
    idea: "hindsight: keep what the full cache's own continuation will look at",
    paper: None,
    budget: Some(Amount::percent(50)),
    keys: &[&TOKENS, &FOLD],
    build: |spec| Part::scorer(Oracle { tokens: spec.get(&TOKENS) as usize, largest: spec.get(&FOLD) }),
};

struct Oracle {
    tokens: usize,
    largest: bool,
}

/// Reads the most probable token `tokens` times, the first of which is `next`.
pub(super) fn write_on(ahead: &mut dyn Ahead, next: u32, tokens: usize) {
    let mut next = next;
    for _ in 0..tokens {
        let logits = ahead.read(&[next]);
        let best = (0..).zip(&logits).reduce(|best, token| if token.1 > best.1 { token } else { best });
        let Some((id, _)) = best else { return };
        next = id;
    }
}

impl Scorer for Oracle {
    fn decodes(&self) -> bool {
        false
    }

    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, at: Moment, _mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        let mut layers = held(lane, at.layers);
        let (next, first) = (lane.next(), lane.tokens().len() as u32);
        lane.ahead(Start::Behind, &mut |ahead| {
            write_on(ahead, next, self.tokens);
            ahead.lane(&mut |lane| {
                for (layer, known) in layers.iter_mut().enumerate() {
                    let Some(known) = known else { continue };
                    lane.layer(layer, &mut |view| {
                        let scores = group_mean(view, |head| self.fold(view, head, first));
                        for (values, scores) in known.scores.values.iter_mut().zip(scores) {
                            values.iter_mut().zip(scores).for_each(|(value, score)| *value = score);
                        }
                    });
                }
            });
        });
        Some(Arc::new(Surveyed { layers }))
    }

    fn score(&self, _: Moment, _: usize, _: &dyn LayerView) -> Option<Scores> {
        None
    }
}

impl Oracle {
    /// Over the rows from position `first` on [n].
    fn fold(&self, view: &dyn LayerView, head: usize, first: u32) -> Vec<f32> {
        let n = view.positions(head / view.group()).len();
        let rows = view.rows(head, first..view.newest() + 1);
        let mut fold = vec![0.0f32; n];
        for row in rows.chunks_exact(n.max(1)) {
            fold.iter_mut().zip(row).for_each(|(f, a)| *f = if self.largest { f.max(*a) } else { *f + a });
        }
        fold
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, random_layer};

    /// Rows 20 to 23 of a layer that has read 20.
    #[test]
    fn what_the_next_rows_look_at_stays() {
        let mut layer = random_layer(5, (2, 2), 4, 24);
        layer.held = vec![(0..20).collect(); 2];
        layer.newest = 19;
        let kept = after_prompt("oracle@25%:tokens=4", &layer);
        for (kv_head, kept) in kept.iter().enumerate() {
            let mut sums: Vec<(f32, u32)> = (0..20)
                .map(|t| {
                    let heads = [2 * kv_head, 2 * kv_head + 1];
                    let mean = |i: usize| heads.iter().map(|&h| layer.attention[h][i * 24 + t]).sum::<f32>();
                    ((20..24).map(mean).sum(), t as u32)
                })
                .collect();
            sums.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut expected: Vec<u32> = sums[..5].iter().map(|s| s.1).collect();
            expected.sort_unstable();
            assert_eq!(kept, &expected);
        }
        assert_eq!(layer.held[0].len(), 20, "the lane itself has not moved");
    }
}
