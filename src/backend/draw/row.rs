//! Drawing from a row of logits.

use super::noise::{gumbel, of_token, uniform, words};
use super::{Candidate, Draw, Drawn, filter};
use crate::probe::distribution::{Distribution, top_k};
use crate::simd::{LANES, exp, vectorized};

/// Longer lists are sorted instead of inserted into.
const INSERTED: usize = 256;

/// The two best scores so far; of equals the smaller id.
#[derive(Clone, Copy)]
struct Best {
    ids: [Option<u32>; 2],
    scores: [f32; 2],
}

impl Best {
    const NONE: Self = Self { ids: [None; 2], scores: [f32::NEG_INFINITY; 2] };

    /// Ids come in any order.
    fn add(&mut self, id: u32, score: f32) {
        let above = |place: usize| match self.ids[place] {
            Some(other) => score > self.scores[place] || (score == self.scores[place] && id < other),
            None => true,
        };
        if above(0) {
            (self.ids, self.scores) = ([Some(id), self.ids[0]], [score, self.scores[0]]);
        } else if above(1) {
            (self.ids[1], self.scores[1]) = (Some(id), score);
        }
    }
}

fn masked(z: f32) -> bool {
    z.is_nan() || z == f32::NEG_INFINITY
}

/// The `k` largest that are not masked, best first.
fn candidates(logits: &[f32], k: usize) -> Vec<Candidate> {
    let listed = if k <= INSERTED {
        top_k(logits, k)
    } else {
        let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).filter(|(_, z)| !masked(*z)).collect();
        all.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(k);
        all
    };
    listed.into_iter().filter(|(_, z)| !masked(*z)).map(|(id, z)| Candidate { id, z, p: 0.0 }).collect()
}

/// Of all tokens, with noise.
fn noisy_best(logits: &[f32], draw: &Draw) -> Best {
    const CHUNK: usize = 4 * LANES;
    let mut best = Best::NONE;
    for (chunk, z) in logits.chunks(CHUNK).enumerate() {
        let floor = best.scores[1];
        let (words, reached) = vectorized(
            #[inline(always)]
            || look(z, draw, (chunk * LANES) as u32, floor),
        );
        if !reached {
            continue;
        }
        for (i, &z) in z.iter().enumerate().filter(|(_, z)| !masked(**z)) {
            best.add((chunk * CHUNK + i) as u32, z / draw.heat() + gumbel(words[i / 4][i % 4]));
        }
    }
    best
}

/// Words of up to 64 tokens, and whether one of their scores may be above `floor`: −ln(1 − t) ≥ t, so g ≤ −ln t.
#[inline(always)]
fn look(z: &[f32], draw: &Draw, group: u32, floor: f32) -> ([[u32; 4]; LANES], bool) {
    let words = words::<LANES>(draw, group);
    // more than any score is off by
    let slack = 1e-3 + floor.abs() * 1e-6;
    let mut reached = floor == f32::NEG_INFINITY;
    for (z, word) in z.iter().zip(words.as_flattened()) {
        reached |= uniform(*word) <= exp(z / draw.heat() - floor + slack);
    }
    (words, reached)
}

impl Drawn {
    /// Draws from `logits` [V] as the kernels do, with the `k` best candidates.
    pub fn of(logits: &[f32], draw: &Draw, k: usize) -> Self {
        Self::given(logits, &Distribution::at(logits, draw.heat()), draw, k)
    }

    /// `all`: of the logits at the draw's temperature.
    fn given(logits: &[f32], all: &Distribution, draw: &Draw, k: usize) -> Self {
        let mut list = candidates(logits, k.max(2));
        // both are what greedy takes
        let greedy: Vec<(u32, f32)> = list.iter().take(2).map(|c| (c.id, c.z)).collect();
        list.truncate(k);
        let (mut best, mut survivors, mut exact) = (Best::NONE, logits.len(), true);
        if draw.greedy() {
            greedy.iter().for_each(|&(id, z)| best.add(id, z));
            list.iter_mut().take(1).for_each(|c| c.p = 1.0);
            survivors = greedy.len().min(1);
        } else if draw.filters() {
            let more = list.len() == k && k < logits.len();
            let filtered = filter::filter(&mut list, all.lse, more, draw);
            (survivors, exact) = (filtered.survivors, !filtered.open);
            for c in &list[..survivors] {
                best.add(c.id, c.z / draw.heat() + of_token(draw, c.id));
            }
        } else {
            best = noisy_best(logits, draw);
            list.iter_mut().for_each(|c| c.p = (c.z / draw.heat() - all.lse).exp());
        }
        Self {
            winner: best.ids[0],
            runner_up: best.ids[1],
            scores: best.scores,
            margin: if best.ids[1].is_some() { best.scores[0] - best.scores[1] } else { f32::INFINITY },
            max: all.max,
            lse: all.lse,
            entropy: all.entropy,
            candidates: list,
            survivors: survivors as u32,
            exact,
        }
    }

    /// The same with as many candidates as the filters ask for, of which `k` are left: always exact. `at_1`: of the logits
    /// at temperature 1, which most are drawn at.
    pub fn exactly(logits: &[f32], at_1: &Distribution, draw: &Draw, k: usize) -> Self {
        let all = if draw.heat() == 1.0 { *at_1 } else { Distribution::at(logits, draw.heat()) };
        let drawn = Self::given(logits, &all, draw, k);
        if drawn.exact {
            return drawn;
        }
        let mut drawn = Self::given(logits, &all, draw, logits.len());
        drawn.candidates.truncate(k);
        drawn
    }
}
