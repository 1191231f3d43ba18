//! What follows from the distribution after a pass: the next token, and how far a lane is from lane 0.

use rayon::prelude::*;

use super::core::Core;
use super::frame::{Against, Candidate, LaneFrame, Pick};
use super::lane::Lane;
use crate::backend::draw::Candidate as Drawable;
use crate::probe::distribution::kl;

/// Candidates that a frame shows.
const SHOWN: usize = 20;

/// Of one lane.
pub struct Outcome {
    next: Option<u32>,
    pick: Pick,
    candidates: Vec<Candidate>,
    entropy: f32,
    against: Option<Against>,
}

/// Of all lanes.
pub fn all(core: &Core) -> Vec<Outcome> {
    let (lanes, step, vocab) = (&core.lanes, core.step, core.config().vocab);
    (0..lanes.len()).into_par_iter().map(|i| of(lanes, i, step, vocab)).collect()
}

fn of(lanes: &[Lane], i: usize, step: u32, vocab: usize) -> Outcome {
    let (lane, first) = (&lanes[i], &lanes[0]);
    let (all, (drawn, dropped)) = (&lane.outlook.all, lane.outlook.draw(&lane.sampler, step, vocab));
    let candidate = |c: &Drawable| Candidate { id: c.id, logit: c.z, prob: (c.z - all.lse).exp(), sampled_prob: c.p };
    let rows = first.outlook.logits().zip(lane.outlook.logits());
    let against = rows.filter(|_| i > 0).map(|(theirs, ours)| Against {
        kl: kl(theirs, ours),
        top1_agrees: first.outlook.all.argmax == all.argmax,
        same_prefix: lane.fed == first.fed,
    });
    Outcome {
        next: drawn.winner,
        pick: Pick {
            runner_up: drawn.runner_up,
            scores: drawn.scores,
            margin: drawn.margin,
            survivors: drawn.survivors,
            dropped,
        },
        candidates: drawn.candidates.iter().take(SHOWN).map(candidate).collect(),
        entropy: all.entropy,
        against,
    }
}

impl Outcome {
    pub fn of(core: &Core, i: usize) -> Self {
        of(&core.lanes, i, core.step, core.config().vocab)
    }

    pub fn put(self, lane: &mut Lane, frame: &mut LaneFrame) {
        frame.entropy = self.entropy;
        frame.candidates = self.candidates;
        frame.next = self.next;
        frame.pick = Some(self.pick);
        frame.against = self.against;
        lane.next = self.next;
    }
}
