//! ChunkKV: whole chunks stay or leave, for all heads alike (Liu et al. 2025, arXiv 2502.00299).
//!
//! The scores of all kv heads are added up by position; a chunk's score is its mean. Of C chunks (the last may be
//! short) the ⌊C · budget/T⌋ best stay, at least one. So what is held differs from the budget by up to a chunk, as in
//! kvpress. A prompt shorter than one chunk is left to the scorer itself.
//!
//! chunk = 20, kvpress' default. A forced entry counts as the highest score of its layer + 1, kvpress'
//! SnapKV rule, since a mean needs numbers; chunks with a forced entry come before those without, which kvpress does
//! not promise. Where an earlier stage left the heads different entries, chunks are cut from their union.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::part::{Ask, Chooser, LayerView, Part, Scores};
use super::registry::REGISTERED;
use super::select::select;

static CHUNK: Key<Count> = Key::new("chunk", "entries of a chunk", Count(1, 1_000_000), 20);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "chunkkv",
    family: Family::Wrapper,
    idea: "keep whole chunks of text, the same for all heads",
    paper: Some(PAPER),
    budget: None,
    keys: &[&CHUNK],
    build: |spec| Part::chooser(ChunkKv { chunk: spec.get(&CHUNK) as usize }),
};

pub(super) const PAPER: Paper = Paper {
    title: "ChunkKV: Semantic-Preserving KV Cache Compression for Efficient Long-Context LLM Inference",
    arxiv: "2502.00299",
};

struct ChunkKv {
    chunk: usize,
}

impl Chooser for ChunkKv {
    fn choose(&self, ask: Ask<'_>, view: &dyn LayerView) -> Vec<Vec<u32>> {
        let all = Union::new(ask.scores, view);
        if all.len() < self.chunk {
            return by_score(&ask);
        }
        let chunks = all.scores.chunks(self.chunk).zip(all.forced.chunks(self.chunk));
        let (means, forced): (Vec<f32>, Vec<bool>) =
            chunks.map(|(scores, forced)| (mean(scores), forced.contains(&true))).unzip();
        let best = select(&means, &forced, all.share(&ask, means.len()).max(1));
        let kept = best.iter().flat_map(|&chunk| {
            let from = chunk as usize * self.chunk;
            from..(from + self.chunk).min(all.len())
        });
        all.slots(&kept.collect::<Vec<_>>(), view)
    }
}

/// Without any chunks.
pub(super) fn by_score(ask: &Ask<'_>) -> Vec<Vec<u32>> {
    let heads = ask.scores.values.iter().zip(&ask.scores.forced).zip(ask.budgets);
    heads.map(|((values, forced), &budget)| select(values, forced, budget)).collect()
}

pub(super) fn mean(x: &[f32]) -> f32 {
    x.iter().sum::<f32>() / x.len() as f32
}

/// The entries that any kv head holds, once each, ascending [m].
pub(super) struct Union {
    positions: Vec<u32>,
    /// Added up over the kv heads.
    pub scores: Vec<f32>,
    /// By any of them.
    pub forced: Vec<bool>,
}

impl Union {
    pub fn new(scores: &Scores, view: &dyn LayerView) -> Self {
        let heads = 0..view.kv_heads();
        let mut positions: Vec<u32> = heads.clone().flat_map(|head| view.positions(head)).copied().collect();
        positions.sort_unstable();
        positions.dedup();
        let free = scores.values.iter().flatten().zip(scores.forced.iter().flatten()).filter(|(_, forced)| !**forced);
        let highest = free.map(|(&score, _)| score).fold(f32::NEG_INFINITY, f32::max);
        let stand_in = if highest.is_finite() { highest + 1.0 } else { 1.0 };
        let mut union = Self { scores: vec![0.0; positions.len()], forced: vec![false; positions.len()], positions };
        for head in heads {
            let mut at = 0;
            for ((&position, &score), &forced) in
                view.positions(head).iter().zip(&scores.values[head]).zip(&scores.forced[head])
            {
                at += union.positions[at..].partition_point(|&p| p < position);
                union.scores[at] += if forced { stand_in } else { score };
                union.forced[at] |= forced;
            }
        }
        union
    }

    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Of `some` things that make up the union, as many as the budget is of all that is held.
    pub fn share(&self, ask: &Ask<'_>, some: usize) -> usize {
        let held = ask.scores.values.iter().map(Vec::len);
        let alike = ask.budgets.iter().all(|budget| *budget == ask.budgets[0]) && held.clone().all(|n| n == self.len());
        match alike {
            true => ask.share(0, self.len(), some),
            false => some * ask.budgets.iter().sum::<usize>() / held.sum::<usize>().max(1),
        }
    }

    /// Members `kept` of the union, ascending, as slots of each kv head.
    pub fn slots(&self, kept: &[usize], view: &dyn LayerView) -> Vec<Vec<u32>> {
        let head = |head| {
            let held = view.positions(head);
            kept.iter().filter_map(|&i| held.binary_search(&self.positions[i]).ok()).map(|slot| slot as u32).collect()
        };
        (0..view.kv_heads()).map(head).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, random_layer, score, toy};

    #[test]
    fn whole_chunks_of_the_toy() {
        // tova: .33 in the first pair, .32 in the second, .35 in the last
        assert_eq!(after_prompt("chunkkv:chunk=2+tova@2:recent=0", &toy()), [[4, 5]]);
        assert_eq!(after_prompt("chunkkv:chunk=2+tova@4:recent=0", &toy()), [[0, 1, 4, 5]]);
        // a short chunk at the end; one chunk of four even if the budget is less
        assert_eq!(after_prompt("chunkkv:chunk=4+knorm@1", &toy()), [[4, 5]]);
        assert_eq!(after_prompt("chunkkv:chunk=7+knorm@2", &toy()), after_prompt("knorm@2", &toy()));
    }

    #[test]
    fn heads_keep_the_same_and_forced_entries_decide() {
        let layer = random_layer(5, (3, 2), 4, 50);
        let kept = after_prompt("chunkkv:chunk=8+snapkv@40%:window=3", &layer);
        assert!(kept.iter().all(|head| head == &kept[0]));
        // seven chunks, two stay: the window lies in both of the last
        assert_eq!(kept[0], (40..50).collect::<Vec<u32>>());
    }

    #[test]
    fn heads_that_hold_different_entries_share_chunks_of_their_union() {
        let mut layer = random_layer(6, (2, 1), 4, 12);
        layer.held = vec![vec![0, 1, 4, 5, 8, 11], vec![2, 3, 4, 5, 6, 11]];
        let scores = score("knorm@3", &layer);
        let sum = |head: usize, p: u32| {
            layer.held[head].iter().position(|&q| q == p).map_or(0.0, |slot| scores.values[head][slot])
        };
        let union = [0, 1, 2, 3, 4, 5, 6, 8, 11];
        let means: Vec<f32> =
            union.chunks(3).map(|c| c.iter().map(|&p| sum(0, p) + sum(1, p)).sum::<f32>() / 3.0).collect();
        let best = (0..3).max_by(|&a, &b| means[a].total_cmp(&means[b])).unwrap();
        let chunk = &union[best * 3..best * 3 + 3];
        for (held, kept) in layer.held.iter().zip(after_prompt("chunkkv:chunk=3+knorm@3", &layer)) {
            let kept: Vec<u32> = kept.into_iter().map(|slot| held[slot as usize]).collect();
            assert_eq!(kept, held.iter().copied().filter(|p| chunk.contains(p)).collect::<Vec<_>>());
        }
    }
}
