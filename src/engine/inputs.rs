//! What the attentions of a lane were last given, for policies that judge entries a while after they came.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::Core;
use super::error::Result;
use crate::policy::Policy;

/// Of the newest positions, the oldest first. Cheap to clone: rows never change.
#[derive(Clone, Default)]
pub struct RecentInputs {
    /// [layers · hidden] each.
    rows: VecDeque<Arc<[f32]>>,
    hidden: usize,
    most: usize,
    /// Of the pass on its way down, as far as it has come.
    coming: Vec<f32>,
}

impl RecentInputs {
    /// The last `most` positions of a prompt, `inputs` [layers][tokens · hidden].
    fn of_prompt(inputs: &[Vec<f32>], hidden: usize, most: usize) -> Self {
        let tokens = inputs.first().map_or(0, |layer| layer.len() / hidden);
        let row = |t: usize| inputs.iter().flat_map(|layer| &layer[t * hidden..(t + 1) * hidden]).copied().collect();
        let rows = (tokens - most.min(tokens)..tokens).map(row).collect();
        Self { rows, hidden, most, coming: Vec::new() }
    }

    fn note(&mut self, layer: usize, input: &[f32]) {
        self.coming.truncate(layer * self.hidden);
        self.coming.extend_from_slice(input);
    }

    /// The pass is done.
    pub fn push(&mut self) {
        if self.most == 0 {
            return;
        }
        if self.rows.len() == self.most {
            self.rows.pop_front();
        }
        self.rows.push_back(std::mem::take(&mut self.coming).into());
    }

    /// Of layer `layer`, `back` positions before the newest [hidden].
    pub fn of(&self, layer: usize, back: usize) -> Option<&[f32]> {
        let row = self.rows.get(self.rows.len().checked_sub(back + 1)?)?;
        row.get(layer * self.hidden..(layer + 1) * self.hidden)
    }

    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.len() as u64 * 4).sum()
    }
}

impl Core {
    /// What `policy` will ask for of the prompt that was just read.
    pub(super) fn recent_inputs(&self, policy: &Policy) -> RecentInputs {
        match policy.recent_inputs() {
            0 => RecentInputs::default(),
            most => RecentInputs::of_prompt(&self.facts.inputs, self.config().hidden, most),
        }
    }

    /// Keeps what the attention of `layer`, recorded last, is given in this step, for the lanes that ask for it.
    pub(super) fn note_inputs(&mut self, layer: usize) -> Result<()> {
        if self.lanes.iter().all(|lane| lane.history.inputs.most == 0) {
            return Ok(());
        }
        self.backend.run()?;
        let (inputs, hidden) = (self.decoder.attention_input(&*self.backend), self.config().hidden);
        for (lane, input) in self.lanes.iter_mut().zip(inputs.chunks_exact(hidden)) {
            if lane.history.inputs.most > 0 {
                lane.history.inputs.note(layer, input);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_a_pass_begun_again_starts_anew() {
        // two layers of width 1, tokens 10 20 30 and 11 21 31
        let mut inputs = RecentInputs::of_prompt(&[vec![10.0, 20.0, 30.0], vec![11.0, 21.0, 31.0]], 1, 2);
        assert_eq!((inputs.of(0, 0), inputs.of(1, 1), inputs.of(0, 2)), (Some(&[30.0][..]), Some(&[21.0][..]), None));
        inputs.note(0, &[5.0]);
        inputs.note(0, &[40.0]);
        inputs.note(1, &[41.0]);
        inputs.push();
        assert_eq!((inputs.of(1, 0), inputs.of(0, 1), inputs.of(0, 2)), (Some(&[41.0][..]), Some(&[30.0][..]), None));
        assert_eq!(inputs.bytes(), 16);
    }
}
