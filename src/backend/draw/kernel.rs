//! What the kernels leave of a row, as a draw.

use super::{Candidate, Draw, Drawn};

/// One row of what kernels/sampling.cu writes, k candidates wide.
#[derive(Debug, Clone, Copy)]
pub struct KernelRow<'a> {
    /// From `sample_merge` [2 + k] and [6 + k].
    pub ids: &'a [i32],
    pub numbers: &'a [f32],
    /// From `sample_survivors` [4] and [3 + k]; looked at only where the draw has filters.
    pub chosen: &'a [i32],
    pub scores: &'a [f32],
}

fn id(id: i32) -> Option<u32> {
    u32::try_from(id).ok()
}

impl Drawn {
    /// `vocab`: tokens of the row.
    pub fn from_kernel(row: KernelRow, draw: &Draw, vocab: usize) -> Self {
        let KernelRow { ids, numbers, chosen, scores } = row;
        let (max, lse, entropy) = (numbers[3], numbers[4], numbers[5]);
        let listed = ids[2..].iter().zip(&numbers[6..]).map_while(|(&of, &z)| Some((id(of)?, z)));
        let p = |place: usize, z: f32| match () {
            () if draw.greedy() => f32::from(place == 0),
            () if draw.filters() => scores[3 + place],
            () => (z / draw.heat() - lse).exp(),
        };
        let candidates: Vec<Candidate> =
            listed.enumerate().map(|(place, (id, z))| Candidate { id, z, p: p(place, z) }).collect();
        let (best, best_scores) = if draw.filters() { (chosen, scores) } else { (ids, numbers) };
        let (winner, runner_up) = (id(best[0]), id(best[1]));
        Self {
            winner,
            runner_up,
            scores: [best_scores[0], best_scores[1]],
            margin: if runner_up.is_some() { best_scores[2] } else { f32::INFINITY },
            max,
            lse,
            entropy,
            candidates,
            survivors: match () {
                () if draw.greedy() => u32::from(winner.is_some()),
                () if draw.filters() => id(chosen[2]).unwrap_or(0),
                () => vocab as u32,
            },
            exact: !draw.filters() || chosen[3] == 0,
        }
    }
}
