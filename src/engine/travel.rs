//! Going back, forward again, and sideways. The state after a step is restored from the nearest keyframe before it
//! and recomputed from there; the engine is deterministic, so the frames come out bit for bit as before.

use std::sync::Arc;

use super::core::Core;
use super::error::{EngineError, Result};
use super::frame::Kept;
use super::history::History;
use super::lane::{Lane, LaneSpec};
use super::outlook::Outlook;
use super::verdict::Verdicts;
use crate::cache::Saved;
use crate::policy::reader::Readers;

/// Steps between two keyframes.
pub const INTERVAL: u32 = 32;
/// Keyframes are thinned out beyond this, bytes.
const BUDGET: u64 = 256 << 20;

/// The state after a step.
pub struct Keyframe {
    pub step: u32,
    lanes: Vec<LaneState>,
}

struct LaneState {
    saved: Vec<Saved>,
    fed: usize,
    next: Option<u32>,
    kept: Arc<Kept>,
    shift: u32,
    history: History,
    verdicts: Verdicts,
    readers: Option<Readers>,
    outlook: Arc<Outlook>,
}

impl Keyframe {
    pub fn of(core: &Core) -> Self {
        let state = |lane: &Lane| LaneState {
            saved: core.backend.save(lane.cache, !lane.policy.acts_in_decode()),
            fed: lane.fed.len(),
            next: lane.next,
            kept: lane.kept.clone(),
            shift: lane.shift,
            history: lane.history.clone(),
            verdicts: lane.verdicts.clone(),
            readers: core.backend.readers(lane.cache).cloned(),
            outlook: lane.outlook.clone(),
        };
        Self { step: core.step, lanes: core.lanes.iter().map(state).collect() }
    }

    pub fn bytes(&self) -> u64 {
        let rest = |l: &LaneState| l.outlook.bytes() + l.history.bytes() + l.readers.as_ref().map_or(0, Readers::bytes);
        self.lanes.iter().map(|l| l.saved.iter().map(Saved::bytes).sum::<u64>() + rest(l)).sum()
    }
}

/// Keeps a keyframe of the present; thins out the older ones where they take too much.
pub fn remember(core: &mut Core) {
    let now = Keyframe::of(core);
    core.keyframes.push_back(now);
    while core.keyframes.len() > 4 && core.keyframes.iter().map(Keyframe::bytes).sum::<u64>() > BUDGET {
        let mut place = 0;
        core.keyframes.retain(|_| {
            place += 1;
            place % 2 == 1
        });
    }
}

impl Core {
    /// Restores the state after `step`. Lanes born later are gone.
    pub fn rewind(&mut self, step: u32) -> Result<()> {
        if !self.has_prompt() {
            return Err(EngineError::NoPrompt);
        }
        if step > self.step {
            return Err(EngineError::NoStep { step, now: self.step });
        }
        if step == self.step && self.pass.is_none() {
            return Ok(());
        }
        // The fed tokens are known; a keyframe only has to say how many of them were fed.
        self.pass = None;
        while self.lanes.last().is_some_and(|lane| lane.born > step) {
            if let Some(lane) = self.lanes.pop() {
                self.backend.free(lane.cache);
                self.specs.pop();
            }
        }
        self.keyframes.retain(|k| k.step <= step);
        let probes = self.probes;
        self.backend.check()?;
        let outcome = self.restore_last_keyframe().and_then(|later| self.replay(step, later));
        self.probes = probes;
        outcome
    }

    /// Back to the newest keyframe. Returns the tokens that each lane was fed after it.
    fn restore_last_keyframe(&mut self) -> Result<Vec<Vec<u32>>> {
        let Some(keyframe) = self.keyframes.back() else { return Err(EngineError::NoPrompt) };
        self.step = keyframe.step;
        let mut later = Vec::new();
        for (lane, state) in self.lanes.iter_mut().zip(&keyframe.lanes) {
            self.backend.restore(lane.cache, &state.saved)?;
            self.backend.set_readers(lane.cache, state.readers.clone())?;
            later.push(lane.fed.split_off(state.fed.min(lane.fed.len())));
            lane.next = state.next;
            lane.kept = state.kept.clone();
            lane.shift = state.shift;
            lane.history = state.history.clone();
            lane.verdicts = state.verdicts.clone();
            lane.outlook = state.outlook.clone();
        }
        self.backend.truncate_queries(self.prompt.len() as u32 + self.step);
        let step = self.step;
        self.findings.retain(|f| f.step <= step);
        Ok(later)
    }

    /// Feeds the tokens fed before, so that forced ones stay forced.
    fn replay(&mut self, step: u32, later: Vec<Vec<u32>>) -> Result<()> {
        for i in 0..(step - self.step) as usize {
            for (lane, fed) in self.lanes.iter_mut().zip(&later) {
                if let Some(&token) = fed.get(i) {
                    lane.next = Some(token);
                }
            }
            self.step()?;
        }
        let at = (step - self.keyframes.back().map_or(0, |k| k.step)) as usize;
        for (lane, fed) in self.lanes.iter_mut().zip(&later) {
            if let Some(&token) = fed.get(at) {
                lane.next = Some(token);
            }
        }
        Ok(())
    }

    /// Replaces the token that `lane` feeds next.
    pub fn force(&mut self, lane: u32, token: u32) -> Result<()> {
        let (lanes, vocab) = (self.lanes.len(), self.config().vocab);
        if token as usize >= vocab {
            return Err(EngineError::TokenOutOfRange { id: token, place: 0, vocab });
        }
        let lane = self.lanes.get_mut(lane as usize).ok_or(EngineError::NoLane { lane, lanes })?;
        lane.next = Some(token);
        Ok(())
    }

    /// A new lane that continues `lane` from after `step` with its own copy of the cache.
    pub fn fork(&mut self, lane: u32, step: u32) -> Result<()> {
        let lanes = self.lanes.len();
        if lane as usize >= lanes {
            return Err(EngineError::NoLane { lane, lanes });
        }
        self.rewind(step)?;
        let Some(from) = self.lanes.get(lane as usize) else { return Err(EngineError::NoLane { lane, lanes }) };
        let spec = LaneSpec { policy: from.policy.clone(), sampler: from.sampler.clone() };
        let (fed, next, kept, outlook) = (from.fed.clone(), from.next, from.kept.clone(), from.outlook.clone());
        let (shift, history, verdicts) = (from.shift, from.history.clone(), from.verdicts.clone());
        let (shared, alterations) = (from.shared.clone(), from.alterations.clone());
        let (first, effect) = (from.first, from.effect);
        let cache = from.cache;
        let own = self.backend.fork(cache, &|_, _| None)?;
        let readers = self.backend.readers(cache).cloned();
        self.backend.set_readers(own, readers)?;
        let lane = Lane::new(&spec, own, self.step, outlook);
        self.lanes.push(Lane { fed, next, kept, shift, history, shared, alterations, first, effect, verdicts, ..lane });
        self.specs.push(spec);
        // The new lane has no place in older keyframes.
        self.keyframes.retain(|k| k.step < step);
        self.keyframes.push_back(Keyframe::of(self));
        Ok(())
    }
}
