//! Answers to the screen's questions, between operations.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::error::Result;
use super::message::{Answer, Query};
use crate::backend::Tile;
use crate::probe::distribution::Distribution;

/// Rows of the head's product taken at once for the prompt's NLL.
const HEAD_ROWS: usize = 64;

impl Core {
    pub fn answer(&mut self, query: &Query) -> Answer {
        match self.try_answer(query) {
            Ok(answer) => answer,
            Err(error) => Answer::Nothing(error.to_string()),
        }
    }

    fn try_answer(&mut self, query: &Query) -> Result<Answer> {
        if !self.has_prompt() && *query != Query::Peaks {
            return Ok(Answer::Nothing("the prompt has not been read yet".into()));
        }
        let (heads, layers) = (self.config().heads, self.config().layers.len());
        let exists = |layer: u32, head: u32| (layer as usize) < layers && (head as usize) < heads;
        match *query {
            Query::Tile { layer, head, rows, cols, height, width, fold } => {
                if !exists(layer, head) {
                    return Ok(Answer::Nothing(format!("there is no layer {layer}, head {head}")));
                }
                let started = Instant::now();
                let kept = self.backend.kept_queries();
                let rows = (rows.0.max(kept.start), rows.1.min(kept.end));
                let cols = (cols.0, cols.1.min(kept.end));
                if rows.0 >= rows.1 || cols.0 >= cols.1 {
                    let why = format!("queries of positions {}..{} are kept; none is in sight", kept.start, kept.end);
                    return Ok(Answer::Nothing(why));
                }
                let (height, width) = (height.clamp(1, rows.1 - rows.0), width.clamp(1, cols.1 - cols.0));
                let attention = *self.decoder.attention(layer as usize);
                let tile = Tile {
                    layer: layer as usize,
                    head: head as usize,
                    rows: rows.0..rows.1,
                    cols: cols.0..cols.1,
                    height: height as usize,
                    width: width as usize,
                    fold,
                };
                let values = self.backend.tile(self.lanes[0].cache, &attention, &tile)?;
                let micros = started.elapsed().as_micros().min(u32::MAX as u128) as u32;
                Ok(Answer::Tile { rows, cols, height, width, values: values.into(), micros })
            }
            Query::Row { lane, layer, head } | Query::Column { lane, layer, head } => {
                let Some(lane) = self.lanes.get(lane as usize).filter(|_| exists(layer, head)) else {
                    return Ok(Answer::Nothing(format!("there is no lane {lane}, layer {layer}, head {head}")));
                };
                let (layer, head) = (layer as usize, head as usize);
                let group = heads / self.config().kv_heads;
                let positions = self.backend.positions(lane.cache, layer, head / group);
                let values = match query {
                    Query::Row { .. } => self.backend.newest_row(lane.cache, layer, head),
                    _ => self.backend.received(lane.cache, layer, head),
                };
                let slots: Vec<(u32, f32)> = positions.iter().copied().zip(values.iter().copied()).collect();
                Ok(Answer::Slots(slots.into()))
            }
            Query::Why { lane, position } => match self.why(lane as usize, position) {
                why if why.is_empty() => Ok(Answer::Nothing(format!("there is no lane {lane} or position {position}"))),
                why => Ok(Answer::Why(why.into())),
            },
            Query::PromptNll => self.prompt_nll().map(Answer::PromptNll),
            Query::Peaks => self.peaks().map(Answer::Peaks),
            Query::Depth { from, to } => {
                let to = (to as usize).min(self.prompt.len());
                if from as usize >= to {
                    return Ok(Answer::Nothing("there are no such positions in the prompt".into()));
                }
                if self.pass.is_some() {
                    return Ok(Answer::Nothing("the step has to be finished first".into()));
                }
                self.depth_of_span(from as usize..to).map(|depth| Answer::Depth(Arc::new(depth)))
            }
            Query::Drift => {
                // While a pass is stopped between layers: of the last whole one.
                let newest = self.prompt.len() as u32 + self.step - 1;
                Ok(Answer::Drift(self.drift(&[newest])?.into()))
            }
        }
    }

    /// −ln p of every prompt token given those before it [P]; NaN for the first.
    pub fn prompt_nll(&mut self) -> Result<Arc<[f32]>> {
        let vocab = self.config().vocab;
        let mut out = vec![f32::NAN; self.prompt.len()];
        let wanted = self.prompt.len() - 1;
        for from in (0..wanted).step_by(HEAD_ROWS) {
            let prompt = self.prompt.clone();
            let logits = self.prompt_logits(from..(from + HEAD_ROWS).min(wanted))?;
            for (r, row) in logits.chunks_exact(vocab).enumerate() {
                out[from + r + 1] = Distribution::of(row).nll(row, prompt[from + r + 1]);
            }
        }
        Ok(out.into())
    }
}
