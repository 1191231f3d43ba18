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
        let at = lane as usize;
        let open = |core: &mut Core| match core.lanes.get(at) {
            None => Err(EngineError::ForkedLane { lane }),
            Some(old) => {
                let spec = LaneSpec { policy, sampler: old.sampler.clone() };
                core.reopen(at, spec)
            }
        };
        self.again(at, open, &mut tell)
    }

    /// A lane more with `policy`, as if it had been there from the start and had been fed lane 0's tokens up to the present
    /// step; it is the last one. `tell` gets the frames of all steps anew. Forked lanes end.
    pub fn open_beside(&mut self, policy: Policy, mut tell: impl FnMut(Frame)) -> Result<u32> {
        if !self.has_prompt() {
            return Err(EngineError::NoPrompt);
        }
        super::lane::fits(&policy, self.config())?;
        let forked = self.lanes.iter().filter(|lane| lane.born > 0).count();
        let at = self.lanes.len() - forked;
        if at >= self.max_rows {
            return Err(EngineError::TooManyLanes { lanes: at });
        }
        let sampler = self.lanes[0].sampler.clone();
        self.again(at, |core| core.reopen(at, LaneSpec { policy, sampler }), &mut tell)?;
        Ok(at as u32)
    }

    /// Back to the prompt, `open` for lane `at`, and forward again on what was fed: a lane that was not there before is
    /// fed lane 0's tokens, one that was chooses its own. If opening fails, all stays as it was.
    fn again(
        &mut self,
        at: usize,
        open: impl FnOnce(&mut Core) -> Result<()>,
        tell: &mut dyn FnMut(Frame),
    ) -> Result<()> {
        let now = self.step;
        let later: Vec<(Vec<u32>, Option<u32>)> = self.lanes.iter().map(|lane| (lane.fed.clone(), lane.next)).collect();
        self.rewind(0)?;
        let lanes = self.lanes.len();
        let opened = open(self);
        if let (Ok(()), Some(first)) = (&opened, &self.first) {
            tell(first.clone());
        }
        let new = at >= lanes;
        for step in 0..now {
            if let Some(lane) = self.lanes.get_mut(at).filter(|_| new && opened.is_ok()) {
                lane.next = Some(later[0].0[step as usize]);
            }
            for (i, (fed, _)) in later.iter().enumerate().take(lanes) {
                if i != at || opened.is_err() {
                    self.lanes[i].next = Some(fed[step as usize]);
                }
            }
            let frame = self.step()?;
            if opened.is_ok() {
                tell(frame);
            }
        }
        for (i, (_, next)) in later.iter().enumerate().take(lanes) {
            if i != at || opened.is_err() {
                self.lanes[i].next = *next;
            }
        }
        opened
    }

    /// At step 0: a new lane in the place of lane `at`, or behind the last one.
    fn reopen(&mut self, at: usize, spec: LaneSpec) -> Result<()> {
        let (cache, outlook) = (self.lanes[0].cache, self.lanes[0].outlook.clone());
        self.gather_for(&spec.policy)?;
        let opened = self.open_lane(&spec, cache, outlook, &mut |_, _| Pause::Continue)?;
        let Some((lane, read)) = opened else { return Ok(()) };
        match self.lanes.get_mut(at) {
            Some(old) => {
                let old = std::mem::replace(old, lane);
                self.backend.free(old.cache);
                self.specs[at] = spec;
            }
            None => {
                self.lanes.push(lane);
                self.specs.push(spec);
            }
        }
        self.lanes[at].kept = super::assemble::kept(self, at).into();
        super::assemble::renew_first(self, at, read)?;
        self.keyframes.clear();
        self.keyframes.push_back(Keyframe::of(self));
        Ok(())
    }
}
