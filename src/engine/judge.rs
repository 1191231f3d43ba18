//! How a lane's choices look: what is left of each part of the prompt, how much of lane 0's attention falls on it, and
//! how much of an oracle's choice it shares.

use std::sync::Arc;

use rayon::prelude::*;

use super::core::Core;
use super::error::{EngineError, Result};
use super::frame::{Finding, Kept, PromptSpan, Recall, Survival};
use super::regret::{Look, above};
use crate::policy::Policy;
use crate::probe::coverage::{covered_mass, mean_recall};
use crate::probe::prompt_span::{PromptText, SpanAsk, Unit};
use crate::probe::survival::survival;

/// The policy that knows what will be looked at.
const ORACLE: &str = "oracle";

/// What the user wants to have judged.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Beside the spans that the rule finds.
    pub asked: Vec<SpanAsk>,
    /// Of the prompt that was read last.
    pub spans: Arc<[PromptSpan]>,
}

pub fn is_oracle(policy: &Policy) -> bool {
    policy.spec().parts().iter().any(|part| part.policy().name == ORACLE)
}

impl Core {
    /// Names spans of the prompts to come; what a prompt does not have is left out there.
    pub fn set_spans(&mut self, asked: Vec<SpanAsk>) {
        self.judged.asked = asked;
    }

    /// Named parts of the prompt.
    pub fn spans(&self) -> &Arc<[PromptSpan]> {
        &self.judged.spans
    }

    /// Layers in which policies act.
    pub fn evicting_layers(&self) -> impl Iterator<Item = usize> + use<> {
        let windows: Vec<bool> = self.config().layers.iter().map(|layer| layer.window.is_none()).collect();
        windows.into_iter().enumerate().filter(|(_, full)| *full).map(|(layer, _)| layer)
    }

    fn text_of(&self, ids: &[u32]) -> Option<PromptText> {
        let tokenizer = self.tokenizer.as_ref()?;
        Some(PromptText::new(ids.iter().map(|&id| (tokenizer.bytes(id), tokenizer.is_special(id)))))
    }

    /// Fails with the first span asked for that the prompt `ids` does not have.
    pub fn check_spans(&self, ids: &[u32]) -> Result<()> {
        self.find_asked(&self.judged.asked, ids).map(|_| ())
    }

    /// Where `asked` are in the prompt `ids`; fails with the first that it does not have.
    pub fn find_asked(&self, asked: &[SpanAsk], ids: &[u32]) -> Result<Vec<PromptSpan>> {
        let text = self.text_of(ids);
        let find = |ask: &SpanAsk| {
            let found = ask.find(text.as_ref(), ids.len() as u32);
            found.map_err(|why| EngineError::NoSpan { name: ask.name().into(), why })
        };
        asked.iter().map(find).collect()
    }

    /// Paragraphs or lines of the document in the prompt `ids`, where it has one.
    pub fn document_parts(&self, ids: &[u32], unit: Unit) -> Vec<PromptSpan> {
        self.text_of(ids).map_or_else(Vec::new, |text| text.document_parts(unit))
    }

    /// Those asked for, then those that the rule finds under other names.
    pub(super) fn find_spans(&self, ids: &[u32]) -> Arc<[PromptSpan]> {
        let text = self.text_of(ids);
        let found = |ask: &SpanAsk| ask.find(text.as_ref(), ids.len() as u32).ok();
        let mut spans: Vec<PromptSpan> = self.judged.asked.iter().filter_map(found).collect();
        let by_rule = text.as_ref().map_or_else(Vec::new, PromptText::spans);
        let others: Vec<_> = by_rule.into_iter().filter(|span| spans.iter().all(|s| s.name != span.name)).collect();
        spans.extend(others);
        spans.into()
    }

    /// What lane `i` has left of each span.
    pub(super) fn survival(&self, i: usize) -> Vec<Survival> {
        let kept = &self.lanes[i].kept;
        self.judged.spans.iter().filter_map(|span| survival(kept, span.positions(), self.evicting_layers())).collect()
    }

    /// What lane 0's newest rows say of the lanes that evict: the mass on what each held during the step, and looks at
    /// what one no longer held. Before the lanes are cut again.
    pub(super) fn hindsight(&self) -> (Vec<Option<f32>>, Vec<Finding>) {
        let cut = |i: &usize| *i > 0 && self.lanes[*i].policy.evicts();
        let lanes: Vec<usize> = (0..self.lanes.len()).filter(cut).collect();
        let layers: Vec<usize> = self.evicting_layers().collect();
        let (heads, group) = (self.config().heads, self.config().heads / self.config().kv_heads);
        let mut covered = vec![None; self.lanes.len()];
        if lanes.is_empty() || layers.is_empty() {
            return (covered, Vec::new());
        }
        let first = self.lanes[0].cache;
        // one layer: the sum over its heads, for each of `lanes`, and strong looks
        let of_layer = |&layer: &usize| -> (Vec<f64>, Vec<Look>) {
            let (mut sums, mut looks) = (vec![0.0; lanes.len()], Vec::new());
            for head in 0..heads {
                let row = self.backend.newest_row(first, layer, head);
                for (sum, &lane) in sums.iter_mut().zip(&lanes).filter(|_| self.probes.attention) {
                    let kept = &self.lanes[lane].kept;
                    // What was fed in this step came after `kept`, and every lane holds it.
                    let (old, fed) = row.split_at(kept.positions.min(row.len()));
                    *sum += f64::from(covered_mass(old, kept.head(layer, head / group)));
                    *sum += fed.iter().map(|&p| f64::from(p)).sum::<f64>();
                }
                if self.backend.strongest(0, layer, head) > self.regret_above {
                    let positions = self.backend.positions(first, layer, head / group);
                    let look = |slot: usize| Look { mass: row[slot], layer, head, position: positions[slot] };
                    looks.extend(above(row, self.regret_above).into_iter().map(look));
                }
            }
            (sums, looks)
        };
        // added in the order of the layers, however many threads there are
        let found: Vec<(Vec<f64>, Vec<Look>)> = layers.par_iter().map(of_layer).collect();
        for (at, &lane) in lanes.iter().enumerate().filter(|_| self.probes.attention) {
            let sum: f64 = found.iter().map(|(of_lanes, _)| of_lanes[at]).sum();
            covered[lane] = Some((sum / (layers.len() * heads) as f64) as f32);
        }
        (covered, self.regrets(found.into_iter().flat_map(|(_, looks)| looks)))
    }

    /// Of lane `i`, against the oracle of the nearest size.
    pub(super) fn recall(&self, i: usize) -> Option<Recall> {
        let lane = self.lanes.get(i).filter(|lane| lane.policy.evicts() && !is_oracle(&lane.policy))?;
        let prompt = self.prompt.len();
        let held = |kept: &Kept| -> usize {
            let heads = self.evicting_layers().flat_map(|layer| (0..kept.kv_heads).map(move |head| (layer, head)));
            heads.map(|(layer, head)| kept.held_in(layer, head, 0..prompt as u32)).sum()
        };
        let ours = held(&lane.kept);
        let oracles = self.lanes.iter().enumerate().filter(|(_, other)| is_oracle(&other.policy));
        let (oracle, other) = oracles.min_by_key(|(_, other)| held(&other.kept).abs_diff(ours))?;
        let share = mean_recall(&lane.kept, &other.kept, prompt, self.evicting_layers())?;
        Some(Recall { oracle: oracle as u32, share })
    }
}
