//! Finch: the question at the end of the prompt chooses (Corallo and Papotti 2024, arXiv 2408.00167).
//!
//! Score of entry t before the last w positions: mean over the last w queries i of A[i, t] · i, i.e. times the
//! number of entries before the query, so that rows that spread over more entries weigh as much; mean over the
//! query heads of a kv head, no pooling. The window stays, inside the budget. Once, after the prompt.
//!
//! The authors take the question as the window and read the context in chunks; kvpress finds the question by a
//! delimiter token. Here `window` says how many tokens it has (`auto` as for SnapKV). Both turn the keys that stay
//! to positions 0 … n − 1; here they keep their own: the kept set is the same, what it costs is not.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Count, Key};
use super::part::{LayerView, Moment, Part, Scorer, Scores, group_mean};
use super::registry::REGISTERED;
use super::snapkv::{AUTO, voters};

static WINDOW: Key<Auto<Count>> = Key::new(
    "window",
    "tokens of the question at the end of the prompt; they stay",
    Auto(Count(1, 1_000_000), AUTO),
    None,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "finch",
    family: Family::Scorer,
    idea: "keep what the question at the end of the prompt attends to",
    paper: Some(Paper { title: "FINCH: Prompt-guided Key-Value Cache Compression", arxiv: "2408.00167" }),
    budget: Some(Amount::percent(50)),
    keys: &[&WINDOW],
    build: |spec| Part::scorer(Finch { window: spec.get(&WINDOW).map(|w| w as usize) }),
};

struct Finch {
    window: Option<usize>,
}

impl Scorer for Finch {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        voters(self.window, prompt)
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let w = self.window(at.prompt);
        let end = view.newest() + 1;
        let from = end.saturating_sub(w as u32);
        let votes = group_mean(view, |head| {
            let n = view.positions(head / view.group()).len();
            let mut votes = vec![0.0; n];
            for (i, row) in (from..end).zip(view.rows(head, from..end).chunks_exact(n.max(1))) {
                votes.iter_mut().zip(row).for_each(|(v, a)| *v += a * i as f32);
            }
            votes.iter_mut().for_each(|v| *v /= w as f32);
            votes
        });
        Some(Scores::free(votes).keep_newest(w))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, mean, score, toy};

    #[test]
    fn rows_weigh_by_what_lies_before_them() {
        let layer = toy();
        let row = |head: usize, i: usize| &layer.attention[head][i * 6..];
        let vote = |head: usize| std::array::from_fn(|t| (row(head, 4)[t] * 4.0 + row(head, 5)[t] * 5.0) / 2.0);
        close(&score("finch@4:window=2", &layer).values[0][..4], &mean(&[vote(0), vote(1)] as &[[f32; 4]]));
        // the last row alone: the heads' mean times 5
        let last = [0.182732, 0.147576, 0.136688, 0.182732, 0.194695].map(|a: f32| a * 5.0);
        let found = score("finch@4:window=1", &layer).values[0][..5].to_vec();
        assert!(found.iter().zip(last).all(|(a, e)| (a - e).abs() < 1e-5), "{found:?}");
    }

    #[test]
    fn the_question_stays() {
        assert_eq!(after_prompt("finch@3:window=2", &toy())[0][1..], [4, 5]);
        assert_eq!(after_prompt("finch@2:window=4", &toy()), [[4, 5]]);
    }
}
