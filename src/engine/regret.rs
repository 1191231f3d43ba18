//! Evicted entries that lane 0 looks at, the moment it does.

use super::core::Core;
use super::frame::{Finding, FindingKind};

/// Attention of lane 0 above which an evicted entry is regretted, where the user says nothing else.
pub const REGRET_ABOVE: f32 = 0.2;

impl Core {
    /// For every other lane the strongest look of lane 0's newest query at an entry that the lane no longer holds,
    /// where it exceeds `regret_above` and that entry was not regretted before. Before the lanes are cut again.
    pub(super) fn regrets(&self) -> Vec<Finding> {
        let config = self.config();
        let (heads, group) = (config.heads, config.heads / config.kv_heads);
        let cache = self.lanes[0].cache;
        let mut strongest: Vec<Option<(f32, usize, usize, u32)>> = vec![None; self.lanes.len()];
        let evicting: Vec<usize> = (1..self.lanes.len()).filter(|&i| self.lanes[i].policy.evicts()).collect();
        if evicting.is_empty() {
            return Vec::new();
        }
        let looks = |&(layer, head): &(usize, usize)| {
            config.layers[layer].window.is_none() && self.backend.strongest(0, layer, head) > self.regret_above
        };
        let all = (0..config.layers.len()).flat_map(|layer| (0..heads).map(move |head| (layer, head)));
        for (layer, head) in all.filter(looks) {
            let row = self.backend.newest_row(cache, layer, head);
            let positions = self.backend.positions(cache, layer, head / group);
            for (&mass, &position) in row.iter().zip(positions).filter(|(mass, _)| **mass > self.regret_above) {
                for &i in &evicting {
                    let held = &self.lanes[i].kept;
                    let gone =
                        (position as usize) < held.positions && !held.contains(layer, head / group, position as usize);
                    if gone && strongest[i].is_none_or(|(most, ..)| mass > most) && !self.regretted(i, position) {
                        strongest[i] = Some((mass, layer, head, position));
                    }
                }
            }
        }
        let found = strongest.iter().enumerate().filter_map(|(i, found)| Some((i, (*found)?)));
        found.map(|(i, found)| self.regret(i, found)).collect()
    }

    fn regretted(&self, lane: usize, position: u32) -> bool {
        let same = |f: &&Finding| f.kind == FindingKind::Regret && f.position == Some(position);
        self.findings.iter().filter(same).any(|f| f.lane as usize == lane)
    }

    fn regret(&self, lane: usize, (mass, layer, head, position): (f32, usize, usize, u32)) -> Finding {
        let spelled = self.tokenizer.as_ref().zip(self.token_at(position)).map(|(words, id)| words.text(id));
        let token = spelled.map(|text| format!("{text:?} at ")).unwrap_or_default();
        let step = self.step;
        Finding {
            kind: FindingKind::Regret,
            lane: lane as u32,
            step,
            title: format!(
                "Lane {lane} has lost {token}position {position}: lane 0 gives it {:.0} % now",
                100.0 * mass
            ),
            evidence: format!(
                "layer {layer}, head {head}: attention {mass:.3} of lane 0's query of step {step} on an entry that {} \
                 evicted there (told above {})",
                self.lanes[lane].spec, self.regret_above
            ),
            advice:
                "Put the cursor on the token and ask why it left (y). A larger budget or window, or protecting its \
                     span, may keep it."
                    .into(),
            layer: Some(layer as u32),
            head: Some(head as u32),
            position: Some(position),
        }
    }

    /// What lane 0 has read at `position`.
    fn token_at(&self, position: u32) -> Option<u32> {
        let at = position as usize;
        let generated = || self.lanes[0].fed.get(at - self.prompt.len());
        self.prompt.get(at).or_else(generated).copied()
    }
}
