//! Which heads look back to where the text was the same before: echo and induction scores.

use super::amount::Amount;
use super::part::{LaneView, Start};
use super::random::mix;

/// Times that the random tokens are read.
const TIMES: usize = 4;

/// Echo and induction score of every query head [layers][H], none of layers that policies leave alone: attention of the
/// queries of the second and later readings to the same token in earlier ones, and to the token after it; mean over the
/// queries. `tokens` random ones, as far as four times as many fit into the context behind the lane's first token.
/// `None` where they cannot be read.
pub(super) fn calibrate(lane: &dyn LaneView, layers: usize, tokens: usize, seed: u64) -> Option<Vec<Vec<[f32; 2]>>> {
    let period = tokens.min(lane.context().saturating_sub(1) / TIMES);
    let first = *lane.tokens().first().filter(|_| period > 1)?;
    let mut scores = None;
    lane.ahead(Start::Nothing, &mut |ahead| {
        let vocabulary = ahead.read(&[first]).len() as u64;
        if vocabulary == 0 {
            return;
        }
        let random = |i: usize| {
            let draws = (0..64).map(|again| (mix(mix(mix(seed) ^ i as u64) ^ again) % vocabulary) as u32);
            // a vocabulary of special tokens only has to do
            draws.into_iter().find(|&id| !lane.text().is_special(id)).unwrap_or(first)
        };
        let drawn: Vec<u32> = (0..period).map(random).collect();
        if ahead.read(&drawn.repeat(TIMES)).is_empty() {
            return;
        }
        ahead.lane(&mut |lane| scores = Some((0..layers).map(|layer| of_layer(lane, layer, period)).collect()));
    });
    scores
}

/// Of each query head [H]; the random tokens lie at positions 1, 2, ….
fn of_layer(lane: &dyn LaneView, layer: usize, period: usize) -> Vec<[f32; 2]> {
    let mut scores = Vec::new();
    lane.layer(layer, &mut |view| {
        let (from, end) = (1 + period, 1 + TIMES * period);
        let of_head = |head: usize| {
            let rows = view.rows(head, from as u32..end as u32);
            let mut sums = [0.0f64; 2];
            for (query, row) in (from..end).zip(rows.chunks_exact(end)) {
                for same in (1..query).rev().skip(period - 1).step_by(period) {
                    sums[0] += row[same] as f64;
                    sums[1] += row[same + 1] as f64;
                }
            }
            sums.map(|sum| (sum / (end - from) as f64) as f32)
        };
        scores = (0..view.kv_heads() * view.group()).map(of_head).collect();
    });
    scores
}

/// The heads (layer, head) with the highest score number `kind`: `share` of all, rounded, at least one unless none is
/// asked for; equal ones in order.
pub(super) fn best(scores: &[Vec<[f32; 2]>], kind: usize, share: Amount) -> Vec<(usize, usize)> {
    let heads = scores.iter().enumerate().flat_map(|(layer, heads)| (0..heads.len()).map(move |head| (layer, head)));
    let mut order: Vec<(usize, usize)> = heads.collect();
    let count = (share.mean(order.len()).round_ties_even() as usize).max(!share.is_zero() as usize);
    order.sort_by(|a, b| scores[b.0][b.1][kind].total_cmp(&scores[a.0][a.1][kind]));
    order.truncate(count);
    order
}
