//! Why an entry stays or goes: what was decided about each layer the last time, kept with the lane.

use std::sync::Arc;

use super::core::Core;
use super::message::{Fate, Why};
use crate::backend::{CacheId, Inspect};
use crate::policy::Decision;
use crate::policy::select::rank;

/// The newest decision about one layer, with what was held when it was taken.
pub struct Verdict {
    pub step: u32,
    /// [kv heads][n]
    positions: Vec<Vec<u32>>,
    decision: Decision,
}

/// Of all layers. Cheap to clone: verdicts never change.
pub type Verdicts = Vec<Option<Arc<Verdict>>>;

/// What each layer that was decided about holds [layer][kv head][n]: read before the losing entries leave.
pub fn held(
    decisions: &[Option<Decision>],
    backend: &(impl Inspect + ?Sized),
    cache: CacheId,
) -> Vec<Option<Vec<Vec<u32>>>> {
    let of =
        |layer: usize, heads: usize| (0..heads).map(|head| backend.positions(cache, layer, head).to_vec()).collect();
    decisions.iter().enumerate().map(|(layer, d)| d.as_ref().map(|d| of(layer, d.kept.len()))).collect()
}

/// Puts what was decided at `step` about what was `held` over what was decided before.
pub fn note(verdicts: &mut Verdicts, decisions: Vec<Option<Decision>>, held: Vec<Option<Vec<Vec<u32>>>>, step: u32) {
    verdicts.resize(decisions.len(), None);
    for ((verdict, decision), positions) in verdicts.iter_mut().zip(decisions).zip(held) {
        if let (Some(decision), Some(positions)) = (decision, positions) {
            *verdict = Some(Arc::new(Verdict { step, positions, decision }));
        }
    }
}

impl Verdict {
    fn about(&self, kv_head: usize, position: u32) -> (Fate, Option<u32>, f32, u32, bool) {
        let (scores, forced) = (&self.decision.scores.values[kv_head], &self.decision.scores.forced[kv_head]);
        let Ok(slot) = self.positions[kv_head].binary_search(&position) else {
            let later = self.positions[kv_head].last().is_none_or(|&newest| position > newest);
            return (if later { Fate::Later } else { Fate::LeftBefore }, None, f32::NAN, 0, false);
        };
        let own = rank(scores[slot], forced[slot], slot as u32);
        let ranks = scores.iter().zip(forced).zip(0..).map(|((&score, &forced), slot)| rank(score, forced, slot));
        let better = ranks.filter(|other| *other > own).count() as u32;
        let stays = self.decision.kept[kv_head].binary_search(&(slot as u32)).is_ok();
        let fate = if stays { Fate::Stays } else { Fate::Left };
        (fate, Some(self.step), scores[slot], better + 1, forced[slot])
    }

    /// The lowest score that stayed without protection.
    fn threshold(&self, kv_head: usize) -> f32 {
        let (scores, forced) = (&self.decision.scores.values[kv_head], &self.decision.scores.forced[kv_head]);
        let free = self.decision.kept[kv_head].iter().map(|&slot| slot as usize).filter(|&slot| !forced[slot]);
        free.map(|slot| scores[slot]).min_by(f32::total_cmp).unwrap_or(f32::NAN)
    }
}

impl Core {
    /// About `position` in lane `lane`, of each layer and kv head; empty where there is no such lane or position.
    pub fn why(&self, lane: usize, position: u32) -> Vec<Why> {
        let (layers, kv_heads) = (self.config().layers.len(), self.config().kv_heads);
        let read = self.prompt.len() as u32 + self.step;
        let Some(lane) = self.lanes.get(lane).filter(|_| position < read) else { return Vec::new() };
        let one = |layer: usize, kv_head: usize| {
            let held = self.backend.positions(lane.cache, layer, kv_head).binary_search(&position).is_ok();
            let verdict = lane.verdicts.get(layer).and_then(Option::as_ref);
            let (fate, step, score, rank, forced) = match verdict {
                None => (Fate::Undecided, None, f32::NAN, 0, false),
                Some(verdict) => verdict.about(kv_head, position),
            };
            let about = |of: fn(&Verdict, usize) -> f32, none| verdict.map_or(none, |verdict| of(verdict, kv_head));
            Why {
                layer: layer as u32,
                kv_head: kv_head as u32,
                held,
                fate,
                step,
                score,
                rank,
                of: verdict.map_or(0, |verdict| verdict.positions[kv_head].len() as u32),
                kept: verdict.map_or(0, |verdict| verdict.decision.kept[kv_head].len() as u32),
                threshold: about(Verdict::threshold, f32::NAN),
                forced,
            }
        };
        (0..layers)
            .flat_map(|layer| (0..kv_heads).map(move |kv_head| (layer, kv_head)))
            .map(|(l, g)| one(l, g))
            .collect()
    }
}
