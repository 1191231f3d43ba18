//! Which heads find a needle: a calibration with texts of the model's own tokenizer.
//!
//! A text of plain sentences hides one that names six words; a question at the end asks for them, and the answer is
//! given word for word. Every query head is judged at the positions whose next token is one of the answer.

use std::ops::Range;

use super::part::{LaneView, LayerView, Start, Text};
use super::random::mix;
use super::select::select;

#[derive(Debug, Clone, Copy)]
pub struct Needle {
    pub measure: Measure,
    /// Texts, with needles at even depths.
    pub runs: usize,
    /// Tokens around each needle, fewer where the context ends.
    pub length: usize,
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// How often the most attended token lies in the needle and is the next one of the answer (Wu et al. 2024, arXiv
    /// 2404.15574).
    Retrieval,
    /// Attention on the needle among as many most attended entries as it has tokens.
    Reasoning,
}

const HAY: &str = "The road went along the river and over a small bridge. Some children played with a ball in the yard. \
                   It had rained in the night, and the grass was still wet. A baker opened his shop and swept the floor. \
                   Two birds sat on the roof and looked at the square. Later in the day the wind came from the west. ";
const WORDS: [&str; 24] = [
    "copper", "lemon", "ladder", "winter", "candle", "garden", "silver", "button", "pepper", "castle", "needle",
    "orange", "pocket", "rabbit", "saddle", "timber", "velvet", "wagon", "anchor", "basket", "dragon", "forest",
    "hammer", "island",
];
const SAID: &str = "The six secret words of the harbour are";
const ASKED: &str = "\nWhat are the six secret words of the harbour?\n";

/// One text to be read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Without the last token of the answer: nothing follows it.
    pub tokens: Vec<u32>,
    /// Positions of the needle.
    pub needle: Range<usize>,
    pub answer: Vec<u32>,
}

impl Needle {
    /// Mean over the runs [layers][H], none for layers that policies leave alone; `None` where the needle alone does
    /// not fit into the context or could not be read.
    pub fn importance(&self, lane: &dyn LaneView, layers: usize) -> Option<Vec<Vec<f32>>> {
        let mut sums: Vec<Vec<f32>> = vec![Vec::new(); layers];
        for run in 0..self.runs {
            let plan = self.plan(lane, run)?;
            let mut read = false;
            lane.ahead(Start::Nothing, &mut |ahead| {
                read = !ahead.read(&plan.tokens).is_empty();
                if !read {
                    return;
                }
                ahead.lane(&mut |lane| {
                    for (layer, sums) in sums.iter_mut().enumerate() {
                        lane.layer(layer, &mut |view| {
                            sums.resize(view.kv_heads() * view.group(), 0.0);
                            let heads = sums.iter_mut().enumerate();
                            heads.for_each(|(head, sum)| *sum += self.judge(&plan, view, head) / self.runs as f32);
                        });
                    }
                });
            });
            if !read {
                return None;
            }
        }
        Some(sums)
    }

    pub(super) fn plan(&self, lane: &dyn LaneView, run: usize) -> Option<Plan> {
        let text = lane.text();
        let word = |i: usize| WORDS[(mix(mix(mix(self.seed) ^ run as u64) ^ i as u64) % WORDS.len() as u64) as usize];
        let answer: Vec<u32> = (0..6).flat_map(|i| text.encode(&format!(" {}", word(i)))).collect();
        let (said, asked) = (text.encode(SAID), text.encode(ASKED));
        let needle = [&said[..], &answer, &text.encode(". ")].concat();
        let begin = lane.tokens().first().filter(|&&id| text.is_special(id));
        let fixed = begin.is_some() as usize + needle.len() + asked.len() + said.len() + answer.len();
        let hay = hay(text, self.length.min(lane.context().checked_sub(fixed)?));
        let (before, behind) = hay.split_at(hay.len() * (2 * run + 1) / (2 * self.runs));
        let mut tokens: Vec<u32> = begin.into_iter().chain(before).copied().collect();
        let from = tokens.len();
        tokens.extend(&needle);
        tokens.extend(behind);
        tokens.extend([&asked[..], &said, &answer[..answer.len().checked_sub(1)?]].concat());
        Some(Plan { tokens, needle: from..from + needle.len(), answer })
    }

    fn judge(&self, plan: &Plan, view: &dyn LayerView, head: usize) -> f32 {
        let (end, count) = (plan.tokens.len(), plan.answer.len());
        let rows = view.rows(head, (end - count) as u32..end as u32);
        let judged = rows.chunks_exact(end).zip(&plan.answer).map(|(row, &next)| match self.measure {
            Measure::Retrieval => {
                let top = select(row, &vec![false; end], 1)[0] as usize;
                (plan.needle.contains(&top) && plan.tokens[top] == next) as u8 as f32
            }
            Measure::Reasoning => {
                let top = select(row, &vec![false; end], plan.needle.len());
                let inside = top.into_iter().map(|slot| slot as usize).filter(|slot| plan.needle.contains(slot));
                inside.map(|slot| row[slot]).sum()
            }
        });
        judged.sum::<f32>() / count as f32
    }
}

/// `count` tokens of plain sentences.
fn hay(text: &dyn Text, count: usize) -> Vec<u32> {
    let once = text.encode(HAY);
    if once.is_empty() { Vec::new() } else { once.into_iter().cycle().take(count).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{Layer, toy};

    fn needle(measure: Measure) -> Needle {
        Needle { measure, runs: 2, length: 40, seed: 3 }
    }

    /// One layer of three heads that can read 400 tokens: the first looks at the answer's next token in the needle, the
    /// second half at the needle's second token and half at itself, the third at itself.
    fn layer(plan: &Plan) -> Layer {
        const P: usize = 400;
        let (end, count) = (plan.tokens.len(), plan.answer.len());
        let answer = plan.needle.start + SAID.len();
        let row = |to: Option<usize>, i: usize, t: usize| match to {
            Some(to) if to < i => (t == to) as u8 as f32 * 0.6 + (t == i) as u8 as f32 * 0.4,
            _ => (t == i) as u8 as f32,
        };
        let map = |to: &dyn Fn(usize) -> Option<usize>| {
            (0..P * P).map(|cell| row(to(cell / P), cell / P, cell % P)).collect::<Vec<f32>>()
        };
        let next = |i: usize| (i + count).checked_sub(end).filter(|&j| j < count).map(|j| answer + j);
        let maps = vec![map(&next), map(&|_| Some(plan.needle.start + 1)), map(&|_| None)];
        Layer::new(maps, vec![vec![0.0; P * 2]], vec![vec![0.0; P * 2]], 2, 4)
    }

    #[test]
    fn texts_hide_and_ask_for_the_words() {
        let long = Layer::new(vec![vec![0.0; 400 * 400]], vec![vec![0.0; 800]], vec![vec![0.0; 800]], 2, 4);
        let plan = |run| needle(Measure::Retrieval).plan(&long.alone(), run).unwrap();
        let (first, second) = (plan(0), plan(1));
        let text = |plan: &Plan| plan.tokens.iter().filter_map(|&id| char::from_u32(id)).collect::<String>();
        let said = text(&first)[first.needle.clone()].to_owned();
        assert!(said.starts_with(SAID) && said.ends_with(". "), "{said}");
        let words = &said[SAID.len()..said.len() - 2];
        assert!(text(&first).ends_with(&words[..words.len() - 1]) && words.split(' ').count() == 7, "{words}");
        // begin token and a quarter of the hay, or three quarters
        assert_eq!((first.needle.start, second.needle.start), (11, 31));
        assert_ne!(first.answer, second.answer);
        assert_eq!(plan(0), first);
        assert_eq!(needle(Measure::Retrieval).plan(&toy().alone(), 0), None);
    }

    #[test]
    fn heads_that_copy_are_told_from_heads_that_look() {
        let long = Layer::new(vec![vec![0.0; 400 * 400]], vec![vec![0.0; 800]], vec![vec![0.0; 800]], 2, 4);
        let measured = |measure| {
            let one = Needle { runs: 1, ..needle(measure) };
            let layer = layer(&one.plan(&long.alone(), 0).unwrap());
            one.importance(&layer.alone(), 1).unwrap().remove(0)
        };
        assert_eq!(measured(Measure::Retrieval), [1.0, 0.0, 0.0]);
        let reasoning = measured(Measure::Reasoning);
        assert!((reasoning[0] - 0.6).abs() < 1e-5 && (reasoning[1] - 0.6).abs() < 1e-5 && reasoning[2] == 0.0);
    }
}
