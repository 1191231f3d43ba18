//! Chunk by chunk: every stretch of the cache keeps the same share of itself (kvpress' ChunkPress; after FINCH).
//!
//! Each `size` entries of a kv head are shown to the scorer alone, as if there were nothing else; of c entries the
//! ⌊c · budget/T⌋ best stay, at least one. Rounding down in every chunk, the whole may stay a little below the budget;
//! a short last chunk, or a budget of less than one entry a chunk, can exceed it.
//!
//! size = 64 (kvpress: 1024, which leaves shorter prompts to the scorer itself). Scorers that look at attention see
//! the rows of the chunk's own last queries over the chunk; kvpress' SnapKV inside a chunk turns those queries by the
//! rope of the prompt's end, so it differs there. Sums over all rows (`h2o`) stay those of the whole prompt.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family};
use super::key::{Count, Key};
use super::part::{Ask, Chooser, LayerView, Moment, Part};
use super::registry::REGISTERED;
use super::select::select;
use super::subset::Subset;

static SIZE: Key<Count> = Key::new("size", "entries of a chunk", Count(1, 1_000_000), 64);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "chunk",
    family: Family::Wrapper,
    idea: "score each chunk alone and keep the same share of each",
    paper: None,
    budget: None,
    keys: &[&SIZE],
    build: |spec| Part::chooser(Chunk { size: spec.get(&SIZE) as usize }),
};

struct Chunk {
    size: usize,
}

impl Chooser for Chunk {
    fn choose(&self, ask: Ask<'_>, view: &dyn LayerView) -> Vec<Vec<u32>> {
        let held: Vec<usize> = (0..view.kv_heads()).map(|head| view.positions(head).len()).collect();
        let most = held.iter().copied().max().unwrap_or(0);
        let mut kept = vec![Vec::new(); held.len()];
        for from in (0..most).step_by(self.size) {
            let chunk = |n: usize| from.min(n)..(from + self.size).min(n);
            let slots = held.iter().map(|&n| chunk(n).map(|slot| slot as u32).collect()).collect();
            let shares = held.iter().enumerate().map(|(head, &n)| ask.share(head, n, chunk(n).len()).max(1));
            let best = best_of(ask, view, slots, &shares.collect::<Vec<_>>());
            kept.iter_mut().zip(best).for_each(|(kept, best)| kept.extend(best));
        }
        kept
    }

    fn window(&self, prompt: usize, scorers: usize) -> usize {
        whole_prompt(prompt, scorers)
    }
}

/// Rows of any query may be asked for as soon as rows are asked for at all.
pub(super) fn whole_prompt(prompt: usize, scorers: usize) -> usize {
    if scorers > 0 { prompt } else { 0 }
}

/// The best of some slots, scored as if there were no others; `budgets` [kv heads]. Heads with nothing to leave keep
/// what they have.
pub(super) fn best_of(ask: Ask<'_>, view: &dyn LayerView, slots: Vec<Vec<u32>>, budgets: &[usize]) -> Vec<Vec<u32>> {
    if slots.iter().zip(budgets).all(|(slots, &budget)| slots.len() <= budget) {
        return slots;
    }
    // a head that shows nothing would be a case that scorers know from nowhere else
    let shown = slots.iter().enumerate().map(|(head, slots)| match (slots.is_empty(), view.positions(head).len()) {
        (true, n) => (n.saturating_sub(1)..n).map(|slot| slot as u32).collect(),
        _ => slots.clone(),
    });
    let shown: Vec<Vec<u32>> = shown.collect();
    let last = |(head, slots): (usize, &Vec<u32>)| slots.last().map(|&slot| view.positions(head)[slot as usize]);
    let newest = slots.iter().enumerate().filter_map(last).max().unwrap_or(view.newest());
    // after a step there is but one row; after the prompt the part is a prompt of its own
    let (newest, at) = match ask.at.step {
        0 => (newest, Moment { prompt: slots.iter().map(Vec::len).max().unwrap_or(0), ..ask.at }),
        _ => (view.newest(), ask.at),
    };
    let most = budgets.iter().copied().max().unwrap_or(0);
    let Some(scores) = ask.scorer.score(at, most, &Subset::new(view, shown, newest)) else { return slots };
    let heads = slots.iter().zip(scores.values.iter().zip(&scores.forced)).zip(budgets);
    let best = heads.map(|((slots, (values, forced)), &budget)| match slots.is_empty() {
        true => Vec::new(),
        false => select(values, forced, budget).into_iter().map(|i| slots[i as usize]).collect(),
    });
    best.collect()
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::testing::{Layer, after_prompt, random_layer, toy};

    #[test]
    fn every_chunk_of_the_toy_keeps_its_share() {
        assert_eq!(after_prompt("chunk:size=3+knorm@33.4%", &toy()), [[1, 5]]);
        assert_eq!(after_prompt("chunk:size=4+knorm@3", &toy()), [[1, 2, 5]]);
        assert_eq!(after_prompt("chunk:size=2+knorm@1", &toy()), [[1, 2, 5]]);
        assert_eq!(after_prompt("chunk:size=9+knorm@2", &toy()), after_prompt("knorm@2", &toy()));
    }

    /// A chunk's answer is that of a prompt which is nothing but the chunk: its own queries, keys and window.
    #[test]
    fn a_chunk_is_a_prompt_of_its_own() {
        let whole = random_layer(9, (2, 2), 4, 30);
        let part = |rows: &[Vec<f32>]| rows.iter().map(|x| x[10 * 4..20 * 4].to_vec()).collect::<Vec<_>>();
        let alone = Layer::from_queries(&part(&whole.queries), part(&whole.keys), part(&whole.values), 4, 10);
        for scorer in ["snapkv@40%:window=3", "tova@40%", "snapkv@40%"] {
            let kept = after_prompt(&format!("chunk:size=10+{scorer}"), &whole);
            for (kept, expected) in kept.iter().zip(after_prompt(scorer, &alone)) {
                let middle: Vec<u32> = kept.iter().filter(|slot| (10..20).contains(*slot)).map(|s| s - 10).collect();
                assert_eq!(middle, expected, "{scorer}");
            }
        }
        assert_eq!(Policy::parse("chunk+tova@40%").unwrap().window(30), 30);
        assert_eq!(Policy::parse("chunk+knorm@40%").unwrap().window(30), 0);
    }
}
