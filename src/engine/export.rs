//! What files and comparisons read beyond the frames: whole attention rows, lens logits, a policy's scores.

use std::ops::Range;

use super::core::Core;
use super::error::Result;
use crate::policy::Decision;

impl Core {
    /// Lane 0's attention rows of one head, from the kept queries [rows, held slots]; 0 where a query does not see a
    /// slot. Fails where a query has been forgotten for the budget.
    pub fn attention_rows(&mut self, layer: usize, head: usize, rows: Range<u32>) -> Result<Vec<f32>> {
        self.attention_rows_over(0, layer, head, rows)
    }

    /// The same over the slots that lane `lane` holds, as it stores them: exp(s − lse), the log-sum-exp being lane 0's.
    pub fn attention_rows_over(
        &mut self,
        lane: usize,
        layer: usize,
        head: usize,
        rows: Range<u32>,
    ) -> Result<Vec<f32>> {
        let attention = *self.decoder.attention(layer);
        Ok(self.backend.rows(self.lanes[lane].cache, &attention, head, rows)?)
    }

    /// Logit lens of residual vectors [rows, d]: logits [rows, V]. What the last pass left in the backend is gone.
    pub fn lens_logits(&mut self, residual: &[f32]) -> Result<&[f32]> {
        self.decoder.lens(&mut *self.backend, residual)?;
        Ok(self.backend.logits())
    }

    /// Logits after the prompt's positions `rows` [rows, V], at most 64 at once. What the last pass left in the
    /// backend is gone.
    pub fn prompt_logits(&mut self, rows: Range<usize>) -> Result<&[f32]> {
        let hidden = self.config().hidden;
        let states = &self.prompt_hidden[rows.start * hidden..rows.end * hidden];
        self.decoder.logits_of_normed(&mut *self.backend, states)?;
        Ok(self.backend.logits())
    }

    /// What the first stage of lane `lane`'s policy decides about the prompt, with its scores [layer]; `None` where
    /// it keeps all. Asked between the prompt and the first step.
    pub fn prompt_decisions(&mut self, lane: usize) -> Result<Vec<Option<Decision>>> {
        let (policy, cache) = (self.lanes[lane].policy.clone(), self.lanes[0].cache);
        if !policy.evicts() {
            return Ok(vec![None; self.config().layers.len()]);
        }
        self.decide(&policy, 0, cache, 0)
    }
}
