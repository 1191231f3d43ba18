//! Top-k, then top-p of what is left, then min-p: the order of Hugging Face and vLLM.

use super::{Candidate, Draw};

/// What filters leave of a list of candidates.
pub struct Filtered {
    pub survivors: usize,
    /// Tokens beyond the list may survive, too, or count in what survives.
    pub open: bool,
}

/// Cuts `list`, best first, and gives each candidate its probability. `lse`: of z / T over all tokens; `more`: there are
/// tokens beyond the list.
pub fn filter(list: &mut [Candidate], lse: f32, more: bool, draw: &Draw) -> Filtered {
    let (heat, asked) = (draw.heat(), draw.top_k as usize);
    let limit = if asked == 0 { list.len() } else { asked.min(list.len()) };
    let Some(best) = list.first().map(|first| first.z / heat) else { return Filtered { survivors: 0, open: false } };
    // weights relative to the best
    for (place, candidate) in list.iter_mut().enumerate() {
        candidate.p = if place < limit { (candidate.z / heat - best).exp() } else { 0.0 };
    }
    let total = if asked == 0 { (lse - best).exp() } else { list.iter().map(|c| c.p).sum() };
    let mut before = 0.0;
    let stays = |candidate: &&Candidate| {
        let enough = draw.top_p < 1.0 && before >= draw.top_p * total;
        before += candidate.p;
        candidate.p > 0.0 && !enough && candidate.p >= draw.min_p
    };
    let survivors = list.iter().take_while(stays).count().max(1);
    let mass: f32 = list[..survivors].iter().map(|c| c.p).sum();
    for (place, candidate) in list.iter_mut().enumerate() {
        candidate.p = if place < survivors { candidate.p / mass } else { 0.0 };
    }
    // A full list that all survives may go on beyond it; the mass of a top-k beyond it is not known.
    let wider = asked > list.len();
    let open = more && (asked == 0 || wider) && (survivors == list.len() || (wider && draw.top_p < 1.0));
    Filtered { survivors, open }
}
