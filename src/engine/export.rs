//! What files and comparisons read beyond the frames: whole attention rows, lens logits, a policy's scores.

use std::ops::Range;

use super::core::Core;
use super::error::Result;
use crate::backend::BackendError;
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

    /// Probabilities that lane 0's newest query of head `head` in layer `queries` would give the entries of layer `keys`
    /// [held slots]. Fails where the query has been forgotten for the budget.
    pub fn foreign_row(&mut self, queries: usize, keys: usize, head: usize) -> Result<Vec<f32>> {
        let (attention, cache) = (*self.decoder.attention(queries), self.lanes[0].cache);
        let config = self.config();
        let (kv_head, dim) = (head * config.kv_heads / config.heads, config.head_dim);
        let newest = (self.prompt.len() + self.step as usize) as u32 - 1;
        if !self.backend.kept_queries().contains(&newest) {
            let why = "the newest query has been forgotten".to_owned();
            return Err(BackendError::Failed { what: "attention row".into(), why }.into());
        }
        let query = self.backend.queries(queries, head, newest..newest + 1);
        let score = |(key, &position): (&[f32], &u32)| {
            let dot: f64 = key.iter().zip(&query).map(|(k, q)| *k as f64 * *q as f64).sum();
            let s = dot * attention.scale as f64;
            let s = attention.softcap.map_or(s, |cap| cap as f64 * (s / cap as f64).tanh());
            let seen = attention.window.is_none_or(|window| position as usize + window > newest as usize);
            if seen { s } else { f64::NEG_INFINITY }
        };
        let positions = self.backend.positions(cache, keys, kv_head);
        let held = self.backend.keys(cache, keys, kv_head);
        let scores: Vec<f64> = held.chunks_exact(dim).zip(positions).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        Ok(scores.iter().map(|s| ((s - most).exp() / sum) as f32).collect())
    }

    /// Logit lens of residual vectors [rows, d]: logits [rows, V]. What the last pass left in the backend is gone.
    pub fn lens_logits(&mut self, residual: &[f32]) -> Result<&[f32]> {
        self.decoder.lens(&mut *self.backend, residual)?;
        Ok(self.backend.logits())
    }

    /// Logits [L + 1, V] of lane 0's newest token after 0, 1, …, L layers; right after a step of that lane alone. What the
    /// step left in the backend is gone.
    pub fn logits_by_layer(&mut self) -> Result<&[f32]> {
        super::assemble::lens_logits(self, 1)
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
    /// it keeps all, or where the lane's layers share: the queries of its own prompt are gone. Asked between the prompt
    /// and the first step.
    pub fn prompt_decisions(&mut self, lane: usize) -> Result<Vec<Option<Decision>>> {
        let (policy, cache) = (self.lanes[lane].policy.clone(), self.lanes[0].cache);
        if !policy.evicts() || policy.sharing().is_some() || policy.intervenes() {
            return Ok(vec![None; self.config().layers.len()]);
        }
        self.decide(&policy, 0, cache, 0)
    }
}
