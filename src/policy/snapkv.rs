//! SnapKV: the last prompt queries vote for the prefix (Li et al. 2024, arXiv 2404.14469).
//!
//! Votes: mean over the last w rows of A[h, ·, t] for t < T − w (softmax over all T keys, causal inside the window),
//! pooled along t (kernel k, stride 1, same length), then mean over the query heads of a kv head. Budget n, window
//! included: the w newest entries and the n − w highest votes stay. Once, after the prompt; generated tokens stay.
//!
//! Defaults are kvpress' (w = 64, k = 5, average). Average pooling counts the zero padding in its divisor, as
//! PyTorch does; maximum pooling ignores what lies outside. With `window=auto` the window shrinks on prompts where
//! 64 queries would leave little to vote on. A given window is obeyed as far as one entry remains before it; if
//! the budget is smaller than the window, the newest n entries stay. The authors select per query head on repeated
//! keys, which can hold more than the uncompressed grouped cache; here one set per kv head.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Choice, Count, Key, Odd};
use super::part::{LayerView, Moment, Part, Scorer, Scores, group_mean};
use super::registry::REGISTERED;

pub(super) static WINDOW: Key<Auto<Count>> =
    Key::new("window", "last prompt queries that vote; their own entries stay", Auto(Count(1, 1_000_000), AUTO), None);
pub(super) static KERNEL: Key<Odd> = Key::new("kernel", "width of the pooling along the prompt", Odd(1, 255), 5);
pub(super) static POOL: Key<Choice<Pool>> =
    Key::new("pool", "how votes are pooled", Choice(&[("avg", Pool::Average), ("max", Pool::Maximum)]), Pool::Average);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "snapkv",
    family: Family::Scorer,
    idea: "the last prompt queries vote for what stays of the rest of the prompt",
    paper: Some(Paper { title: "SnapKV: LLM Knows What You are Looking for Before Generation", arxiv: "2404.14469" }),
    budget: Some(Amount::percent(50)),
    keys: &[&WINDOW, &KERNEL, &POOL],
    build: |spec| {
        Part::scorer(SnapKv {
            window: spec.get(&WINDOW).map(|w| w as usize),
            kernel: spec.get(&KERNEL) as usize,
            pool: spec.get(&POOL),
        })
    },
};

pub(super) struct SnapKv {
    pub window: Option<usize>,
    pub kernel: usize,
    pub pool: Pool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Pool {
    Average,
    Maximum,
}

impl Scorer for SnapKv {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        voters(self.window, prompt)
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let w = self.window(at.prompt);
        let end = view.newest() + 1;
        let votes = group_mean(view, |head| {
            let n = view.positions(head / view.group()).len();
            let mut votes = vec![0.0; n];
            for row in view.rows(head, end.saturating_sub(w as u32)..end).chunks_exact(n.max(1)) {
                votes.iter_mut().zip(row).for_each(|(v, a)| *v += a);
            }
            votes.iter_mut().for_each(|v| *v /= w as f32);
            // the window's own columns stay as they are: they are forced
            let prefix = n.saturating_sub(w);
            let pooled = self.pool.along(&votes[..prefix], self.kernel);
            votes[..prefix].copy_from_slice(&pooled);
            votes
        });
        Some(Scores::free(votes).keep_newest(w))
    }
}

/// Queries at the end of a prompt of `prompt` tokens that vote: as many as given, or as suits it.
pub(super) fn voters(given: Option<usize>, prompt: usize) -> usize {
    let auto = match prompt {
        256.. => 64,
        100.. => 16,
        24.. => 8,
        _ => 4,
    };
    given.unwrap_or(auto).min(prompt.saturating_sub(1)).max(1)
}

/// What `window=auto` means.
pub(super) const AUTO: &str = "64; 16, 8, 4 for prompts under 256, 100, 24 tokens";

impl Pool {
    /// Centred windows of odd width `kernel`, stride 1 [n] → [n].
    pub fn along(self, x: &[f32], kernel: usize) -> Vec<f32> {
        let half = kernel / 2;
        let around = |t: usize| &x[t.saturating_sub(half)..(t + half + 1).min(x.len())];
        let pooled = |t| match self {
            Self::Average => around(t).iter().sum::<f32>() / kernel as f32,
            Self::Maximum => around(t).iter().copied().fold(f32::NEG_INFINITY, f32::max),
        };
        (0..x.len()).map(pooled).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{after_prompt, close, mean, score, toy};

    #[test]
    fn average_pooled_votes_of_the_toy() {
        let expected = [0.115914, 0.170463, 0.182112, 0.127273];
        close(&score("snapkv@4:window=2,kernel=3", &toy()).values[0][..4], &expected);
    }

    #[test]
    fn maximum_pooled_votes_of_the_toy() {
        // the golden numbers are sums over the two rows
        let sums = [[0.323958, 0.323958, 0.463751, 0.463751], [0.408938; 4]];
        let expected: Vec<f32> = mean(&sums).iter().map(|s| s / 2.0).collect();
        close(&score("snapkv@4:window=2,kernel=3,pool=max", &toy()).values[0][..4], &expected);
    }

    #[test]
    fn window_counts_inside_the_budget() {
        assert_eq!(after_prompt("snapkv@4:window=2,kernel=3", &toy()), [[1, 2, 4, 5]]);
        assert_eq!(after_prompt("snapkv@2:window=4", &toy()), [[4, 5]]);
        assert_eq!(after_prompt("snapkv@5:window=100", &toy()), [[1, 2, 3, 4, 5]]);
    }

    #[test]
    fn window_shrinks_on_short_prompts() {
        let auto = SnapKv { window: None, kernel: 5, pool: Pool::Average };
        let windows = [1, 2, 5, 23, 24, 99, 100, 255, 256, 9000].map(|prompt| auto.window(prompt));
        assert_eq!(windows, [1, 1, 4, 4, 8, 8, 16, 16, 64, 64]);
        let given = SnapKv { window: Some(64), ..auto };
        assert_eq!([1, 40, 65, 9000].map(|prompt| given.window(prompt)), [1, 39, 64, 64]);
    }
}
