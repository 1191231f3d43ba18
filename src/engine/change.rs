//! Another policy for a lane, as if it had had it from the start.

use super::core::{Core, Pause};
use super::error::{EngineError, Result};
use super::frame::Frame;
use super::lane::LaneSpec;
use super::travel::Keyframe;
use crate::policy::Policy;

impl Core {
    /// Gives lane `lane` another policy. The lane starts again after the prompt and goes on by itself to the present
    /// step; the others are fed what they were fed before and come out as they were. `tell` gets the frames of all
    /// steps anew. Forked lanes end. If the new policy cannot decide about this prompt, all stays as it was.
    pub fn change(&mut self, lane: u32, policy: Policy, mut tell: impl FnMut(Frame)) -> Result<()> {
        let lanes = self.lanes.len();
        if lane == 0 {
            return Err(EngineError::Yardstick);
        }
        if lane as usize >= lanes {
            return Err(EngineError::NoLane { lane, lanes });
        }
        super::lane::fits(&policy, self.config())?;
        let now = self.step;
        let at = lane as usize;
        let later: Vec<(Vec<u32>, Option<u32>)> = self.lanes.iter().map(|lane| (lane.fed.clone(), lane.next)).collect();
        self.rewind(0)?;
        let opened = match self.lanes.get(at) {
            None => Err(EngineError::ForkedLane { lane }),
            Some(old) => {
                let spec = LaneSpec { policy, sampler: old.sampler.clone() };
                self.reopen(at, spec)
            }
        };
        if let (Ok(()), Some(first)) = (&opened, &self.first) {
            tell(first.clone());
        }
        for step in 0..now {
            for (i, (fed, _)) in later.iter().enumerate().take(self.lanes.len()) {
                if i != at || opened.is_err() {
                    self.lanes[i].next = Some(fed[step as usize]);
                }
            }
            let frame = self.step()?;
            if opened.is_ok() {
                tell(frame);
            }
        }
        for (i, (_, next)) in later.iter().enumerate().take(self.lanes.len()) {
            if i != at || opened.is_err() {
                self.lanes[i].next = *next;
            }
        }
        opened
    }

    /// At step 0: a new lane in the place of lane `at`.
    fn reopen(&mut self, at: usize, spec: LaneSpec) -> Result<()> {
        let (cache, outlook) = (self.lanes[0].cache, self.lanes[0].outlook.clone());
        self.gather_for(&spec.policy)?;
        let opened = self.open_lane(&spec, cache, outlook, &mut |_, _| Pause::Continue)?;
        let Some((lane, read)) = opened else { return Ok(()) };
        let old = std::mem::replace(&mut self.lanes[at], lane);
        self.backend.free(old.cache);
        self.specs[at] = spec;
        self.lanes[at].kept = super::assemble::kept(self, at).into();
        super::assemble::renew_first(self, at, read)?;
        self.keyframes.clear();
        self.keyframes.push_back(Keyframe::of(self));
        Ok(())
    }
}
