//! What follows from the distribution after a pass: the next token, and how far a lane is from lane 0.

use rayon::prelude::*;

use super::core::Core;
use super::frame::{Against, Candidate, LaneFrame};
use super::lane::Lane;
use crate::probe::distribution::kl;

/// Of one lane.
pub struct Outcome {
    next: u32,
    candidates: Vec<Candidate>,
    entropy: f32,
    against: Option<Against>,
}

/// Of all lanes.
pub fn all(core: &Core) -> Vec<Outcome> {
    let (lanes, step) = (&core.lanes, core.step);
    (0..lanes.len()).into_par_iter().map(|i| of(lanes, i, step)).collect()
}

fn of(lanes: &[Lane], i: usize, step: u32) -> Outcome {
    let (lane, first) = (&lanes[i], &lanes[0]);
    let (next, candidates) = lane.sampler.draw(&lane.logits, i as u32, step);
    let against = (i > 0).then(|| Against {
        kl: kl(&first.logits.values, &lane.logits.values),
        top1_agrees: first.logits.all.argmax == lane.logits.all.argmax,
        same_prefix: lane.fed == first.fed,
    });
    Outcome { next, candidates, entropy: lane.logits.all.entropy, against }
}

impl Outcome {
    pub fn of(core: &Core, i: usize) -> Self {
        of(&core.lanes, i, core.step)
    }

    pub fn put(self, lane: &mut Lane, frame: &mut LaneFrame) {
        frame.entropy = self.entropy;
        frame.candidates = self.candidates;
        frame.next = Some(self.next);
        frame.against = self.against;
        lane.next = self.next;
    }
}
