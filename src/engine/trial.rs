//! Reading a text several times at once, each time altered otherwise, to see what that does. What is read here is
//! forgotten again; so is what the last pass left in the backend.

use std::sync::Arc;

use super::core::Core;
use super::error::Result;
use super::message::Probes;
use crate::backend::{CacheId, Row};
use crate::model::alteration::{Alterations, Altered};
use crate::probe::difference::{Difference, Differences};
use crate::probe::sink;
use crate::simd::sum_of_squares;

const SILENT: Probes = Probes { residual: false, attention: false, kv_norms: false, lens: false, timings: false };
/// Rows of logits made at once.
const HEAD_ROWS: usize = 32;

/// What one reading gave.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Final-normed hidden states [T, d].
    pub hidden: Vec<f32>,
    /// α of the text's first token in each head [L · H]; 0 where a window has passed it.
    pub alphas: Vec<f32>,
    /// ‖v‖₂ of the tokens held at the end [L · G][n].
    pub value_norms: Vec<Vec<f32>>,
}

impl Trial {
    /// Share of the heads of which the first token is a sink.
    pub fn sink_rate(&self) -> f32 {
        sink::rate(&self.alphas, sink::EPSILON)
    }
}

/// Shown each residual point of the rows of a pass: point, position of the first row, rows [n, d].
pub type Look<'a> = &'a mut dyn FnMut(usize, u32, &[f32]);

impl Core {
    /// Readings of `tokens` tokens that fit one pass; 1 where one takes several.
    pub fn trials_at_once(&self, tokens: usize) -> usize {
        (self.max_rows / tokens.max(1)).max(1)
    }

    /// Reads `ids` once for each of `by`, all together: see [`Core::trials_at_once`]. `look` sees the residual stream of
    /// the first reading.
    pub fn trials(&mut self, ids: &[u32], by: &[Arc<Alterations>], mut look: Option<Look<'_>>) -> Result<Vec<Trial>> {
        self.check(ids)?;
        let caches: Vec<CacheId> = by.iter().map(|_| self.backend.cache()).collect();
        self.backend.save_all_points(look.is_some());
        let mut hidden = vec![Vec::new(); by.len()];
        let chunk = (self.max_rows / by.len().max(1)).max(1);
        let mut read = 0;
        let outcome = ids.chunks(chunk).try_for_each(|chunk| {
            self.read_altered(chunk, read, by, &caches)?;
            let (all, width) = (self.decoder.normed(&*self.backend), chunk.len() * self.config().hidden);
            hidden.iter_mut().zip(all.chunks_exact(width)).for_each(|(hidden, rows)| hidden.extend_from_slice(rows));
            if let Some(look) = &mut look {
                let points = 1 + self.decoder.sublayers();
                (0..points).for_each(|point| look(point, read as u32, &self.backend.residual(point)[..width]));
            }
            read += chunk.len();
            Ok(())
        });
        self.backend.save_all_points(false);
        let trial = |(hidden, &cache): (Vec<f32>, &CacheId)| Trial {
            hidden,
            alphas: self.alphas(cache, 0, ids.len()),
            value_norms: self.value_norms(cache),
        };
        let trials = if outcome.is_ok() { hidden.into_iter().zip(&caches).map(trial).collect() } else { Vec::new() };
        caches.iter().for_each(|&cache| self.backend.free(cache));
        outcome.map(|()| trials)
    }

    /// One pass over tokens `chunk` behind the `read` before them, once for each of `by`.
    fn read_altered(&mut self, chunk: &[u32], read: usize, by: &[Arc<Alterations>], caches: &[CacheId]) -> Result<()> {
        let of = |&cache: &CacheId| {
            let row = move |(position, &token): (u32, &u32)| Row { token, position, turned: position, cache };
            (read as u32..).zip(chunk).map(row)
        };
        let rows: Vec<Row> = caches.iter().flat_map(of).collect();
        let altered: Vec<Altered> = by
            .iter()
            .enumerate()
            .filter(|(_, by)| !by.is_empty())
            .map(|(i, by)| {
                let rows = i * chunk.len()..(i + 1) * chunk.len();
                Altered { rows, first: read as u32, by: by.clone() }
            })
            .collect();
        let b = &mut *self.backend;
        b.begin(&rows, SILENT, None)?;
        self.decoder.embed_altered(b, &altered);
        (0..self.decoder.sublayers()).for_each(|index| self.decoder.sublayer_altered(b, index, &altered));
        self.decoder.head(b, 0..0);
        b.run()?;
        Ok(())
    }

    /// α of the token at position `first`, the first of `tokens` that `cache` has read [L · H].
    pub(super) fn alphas(&self, cache: CacheId, first: u32, tokens: usize) -> Vec<f32> {
        let (layers, heads, group) =
            (self.config().layers.len(), self.config().heads, self.config().heads / self.config().kv_heads);
        let alpha = |(layer, head): (usize, usize)| match self.backend.positions(cache, layer, head / group).first() {
            Some(&position) if position == first => {
                sink::alpha(self.backend.received(cache, layer, head)[0], tokens, 0)
            }
            _ => 0.0,
        };
        (0..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).map(alpha).collect()
    }

    /// ‖v‖₂ of what `cache` holds [L · G][n].
    fn value_norms(&self, cache: CacheId) -> Vec<Vec<f32>> {
        let (layers, kv_heads, dim) = (self.config().layers.len(), self.config().kv_heads, self.config().head_dim);
        let norms = |(layer, head): (usize, usize)| {
            let values = self.backend.values(cache, layer, head);
            values.chunks_exact(dim).map(|v| sum_of_squares(v).sqrt()).collect()
        };
        (0..layers).flat_map(|layer| (0..kv_heads).map(move |head| (layer, head))).map(norms).collect()
    }

    /// Logits [n, V] of final-normed states [n, d].
    pub fn logits_of(&mut self, normed: &[f32]) -> Result<Vec<f32>> {
        let hidden = self.config().hidden;
        let mut logits = Vec::with_capacity(normed.len() / hidden * self.config().vocab);
        for rows in normed.chunks(HEAD_ROWS * hidden) {
            self.decoder.logits_of_normed(&mut *self.backend, rows)?;
            logits.extend_from_slice(self.backend.logits());
        }
        Ok(logits)
    }

    /// How far predictions from `altered` [n, d] are from those of logits `before` [n, V], which come before `targets` [n].
    pub fn difference(&mut self, before: &[f32], altered: &[f32], targets: &[u32]) -> Result<Difference> {
        let (hidden, vocab) = (self.config().hidden, self.config().vocab);
        let mut differences = Differences::default();
        let rows =
            before.chunks(HEAD_ROWS * vocab).zip(altered.chunks(HEAD_ROWS * hidden)).zip(targets.chunks(HEAD_ROWS));
        for ((before, altered), targets) in rows {
            self.decoder.logits_of_normed(&mut *self.backend, altered)?;
            let logits = self.backend.logits().chunks_exact(vocab);
            for ((before, altered), &target) in before.chunks_exact(vocab).zip(logits).zip(targets) {
                differences.add(before, altered, target);
            }
        }
        Ok(differences.means())
    }
}
