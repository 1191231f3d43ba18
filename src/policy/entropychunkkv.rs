//! ChunkKV with an entropy gate: a chunk that matters for one entry only gives room to others (kvpress).
//!
//! Scores are added up over the kv heads, as in `chunkkv`. Per chunk: the mean, and the entropy of the scores as
//! shares of their sum (shifted to begin at 0 where some are negative), divided by the log of the chunk's length.
//! Chunks are taken from the highest mean down. One whose mean is at least the median and whose entropy is below the
//! median gives its `low` best entries, every other one all; the last one as many as there is room for. What room is
//! left goes to the best entries that remain. The budget is met exactly, the same entries for all heads.
//!
//! chunk = 10, low = 4; medians are the lower ones. kvpress' EntropyGatedChunkKV, with its stand-in for forced entries
//! (see `chunkkv`): they are the best of their chunk, and a spiky chunk can still lose some.

use std::cmp::Reverse;

use linkme::distributed_slice;

use super::chunkkv::{PAPER, Union, mean};
use super::descriptor::{Descriptor, Family};
use super::key::{Count, Key};
use super::part::{Ask, Chooser, LayerView, Part};
use super::registry::REGISTERED;
use super::select::{rank, select};

static CHUNK: Key<Count> = Key::new("chunk", "entries of a chunk", Count(2, 1_000_000), 10);
static LOW: Key<Count> =
    Key::new("low", "entries that stay of an important chunk of low entropy", Count(1, 1_000_000), 4);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "entropychunkkv",
    family: Family::Wrapper,
    idea: "keep whole chunks, but only the best entries of spiky ones",
    paper: Some(PAPER),
    budget: None,
    keys: &[&CHUNK, &LOW],
    build: |spec| Part::chooser(EntropyChunkKv { chunk: spec.get(&CHUNK) as usize, low: spec.get(&LOW) as usize }),
};

struct EntropyChunkKv {
    chunk: usize,
    low: usize,
}

impl Chooser for EntropyChunkKv {
    fn choose(&self, ask: Ask<'_>, view: &dyn LayerView) -> Vec<Vec<u32>> {
        let all = Union::new(ask.scores, view);
        let chunks: Vec<&[f32]> = all.scores.chunks(self.chunk).collect();
        let means: Vec<f32> = chunks.iter().map(|chunk| mean(chunk)).collect();
        let entropies: Vec<f32> = chunks.iter().map(|chunk| entropy(chunk)).collect();
        let (important, spiky) = (median(&means), median(&entropies));
        let mut order: Vec<usize> = (0..chunks.len()).collect();
        order.sort_by_key(|&chunk| Reverse(rank(means[chunk], false, chunk as u32)));
        let mut room = all.share(&ask, all.len()).max(1);
        let mut kept = vec![false; all.len()];
        for chunk in order {
            let gated = means[chunk] >= important && entropies[chunk] < spiky;
            let most = if gated { self.low } else { self.chunk };
            let take = select(chunks[chunk], &vec![false; chunks[chunk].len()], most.min(room));
            room -= take.len();
            take.into_iter().for_each(|slot| kept[chunk * self.chunk + slot as usize] = true);
        }
        // those already taken are out of the race
        let rest: Vec<f32> = all.scores.iter().zip(&kept).map(|(&s, &kept)| if kept { f32::NAN } else { s }).collect();
        let left = kept.iter().filter(|&&kept| !kept).count();
        select(&rest, &vec![false; rest.len()], room.min(left)).into_iter().for_each(|slot| kept[slot as usize] = true);
        all.slots(&(0..all.len()).filter(|&i| kept[i]).collect::<Vec<_>>(), view)
    }
}

/// Of the shares that the scores have in their sum, 0 to 1.
fn entropy(scores: &[f32]) -> f32 {
    const EPSILON: f32 = 1e-8;
    if scores.len() < 2 {
        return 0.0;
    }
    let lowest = scores.iter().copied().fold(0.0, f32::min);
    let sum = scores.iter().map(|s| s - lowest).sum::<f32>() + EPSILON;
    let nats: f32 = scores.iter().map(|s| (s - lowest) / sum).map(|p| -p * (p + EPSILON).ln()).sum();
    (nats / (scores.len() as f32).ln()).clamp(0.0, 1.0)
}

/// The lower of the two middle values of an even number.
fn median(x: &[f32]) -> f32 {
    let mut x = x.to_vec();
    x.sort_by(f32::total_cmp);
    x.get(x.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{after_prompt, close, random_layer};

    #[test]
    fn entropy_of_even_and_of_spiky_chunks() {
        close(&[entropy(&[2.0; 5]), entropy(&[0.0, 0.0, 3.0]), entropy(&[7.0])], &[1.0, 0.0, 0.0]);
        // ½ and ½ of three, once shifted by the lowest
        close(&[entropy(&[0.0, -1.0, 0.0])], &[2f32.ln() / 3f32.ln()]);
        assert_eq!([median(&[3.0, 1.0, 2.0, 4.0]), median(&[5.0])], [2.0, 5.0]);
    }

    #[test]
    fn the_budget_is_met_exactly_by_the_same_entries_in_all_heads() {
        for (seed, budget) in (1..40).enumerate() {
            let kept = after_prompt(
                &format!("entropychunkkv:chunk=6,low=2+tova@{budget}"),
                &random_layer(seed as u64, (2, 2), 4, 40),
            );
            assert!(kept.iter().all(|head| head.len() == budget && head == &kept[0]), "{budget}");
        }
    }

    /// Four chunks of three; the second matters most, but for one entry only.
    #[test]
    fn a_spiky_chunk_gives_room_to_others() {
        let mut layer = random_layer(1, (1, 1), 1, 12);
        // knorm: scores are minus these
        layer.keys[0] = [5., 5., 6., 9., 0.1, 9., 7., 7.3, 7.5, 8., 8., 8.5].to_vec();
        assert_eq!(after_prompt("chunkkv:chunk=3+knorm@6", &layer), [[0, 1, 2, 3, 4, 5]]);
        assert_eq!(after_prompt("entropychunkkv:chunk=3,low=1+knorm@6", &layer), [[0, 1, 2, 4, 6, 7]]);
    }
}
