//! Evicted entries that lane 0 looks at, the moment it does.

use super::core::Core;
use super::frame::{Finding, FindingKind};
use crate::simd::{max, vectorized};

/// Attention of lane 0 above which an evicted entry is regretted, where the user says nothing else.
pub const REGRET_ABOVE: f32 = 0.2;

/// Attention of lane 0's newest query on one entry.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub mass: f32,
    pub layer: usize,
    pub head: usize,
    pub position: u32,
}

/// Probabilities looked at together.
const STRIP: usize = 256;

/// Places of what exceeds `limit`: few in a row of probabilities, so most strips are passed over at once.
pub fn above(row: &[f32], limit: f32) -> Vec<usize> {
    let strips = row.chunks(STRIP).enumerate().filter(|(_, strip)| {
        let most = vectorized(
            #[inline(always)]
            || max(strip),
        );
        most > limit
    });
    let of = |(k, strip): (usize, &[f32])| -> Vec<usize> {
        (0..strip.len()).filter(|&i| strip[i] > limit).map(|i| k * STRIP + i).collect()
    };
    strips.flat_map(of).collect()
}

impl Core {
    /// For every other lane the strongest of lane 0's `looks` at an entry that the lane no longer holds, where that
    /// entry was not regretted before. Before the lanes are cut again.
    pub(super) fn regrets(&self, looks: impl Iterator<Item = Look>) -> Vec<Finding> {
        let mut strongest: Vec<Option<Look>> = vec![None; self.lanes.len()];
        let evicting: Vec<usize> = (1..self.lanes.len()).filter(|&i| self.lanes[i].policy.evicts()).collect();
        let group = self.config().heads / self.config().kv_heads;
        for look in looks {
            let position = look.position as usize;
            for &i in &evicting {
                let held = &self.lanes[i].kept;
                let gone = position < held.positions && !held.contains(look.layer, look.head / group, position);
                let more = strongest[i].is_none_or(|most| look.mass > most.mass);
                if gone && more && !self.regretted(i, look.position) {
                    strongest[i] = Some(look);
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

    fn regret(&self, lane: usize, Look { mass, layer, head, position }: Look) -> Finding {
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
