//! What files and comparisons read beyond the frames: whole attention rows, lens logits, a policy's scores.

use std::ops::Range;

use super::core::Core;
use super::error::Result;
use super::view::CacheView;
use crate::policy::Decision;
use crate::policy::part::Moment;

impl Core {
    /// Lane 0's attention rows of one head, from the kept queries [rows, held slots]; 0 where a query does not see a
    /// slot. Fails where a query has been forgotten for the budget.
    pub fn attention_rows(&mut self, layer: usize, head: usize, rows: Range<u32>) -> Result<Vec<f32>> {
        let attention = *self.decoder.attention(layer);
        Ok(self.backend.rows(self.lanes[0].cache, &attention, head, rows)?)
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

    /// What lane `lane`'s policy decides about `layer` of the prompt, with its scores; `None` where it keeps all.
    /// Asked between the prompt and the first step.
    pub fn prompt_decision(&mut self, lane: usize, layer: usize) -> Result<Option<Decision>> {
        let (shape, layers, prompt) = (self.shape(), self.config().layers.len(), self.prompt.len());
        let attention = *self.decoder.attention(layer);
        let policy = self.lanes[lane].policy.clone();
        if attention.window.is_some() || !policy.evicts() {
            return Ok(None);
        }
        let newest = (prompt as u32).saturating_sub(1);
        let view = CacheView::new(&mut *self.backend, self.lanes[0].cache, attention, shape, newest, true);
        let decision = policy.decide(Moment { step: 0, prompt, layers, layer }, &view);
        match view.failure.into_inner() {
            Some(error) => Err(error.into()),
            None => Ok(decision),
        }
    }
}
