//! What a policy sees of one layer of a lane.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

use super::view::{About, Rows, note};
use crate::backend::{Attention, BackendError};
use crate::policy::part::{LayerView, Norm};
use crate::policy::watch::{Watch, again};
use crate::simd::sum_of_squares;

/// One layer of a cache.
pub struct LayerCaches<'a> {
    about: About<'a>,
    attention: Attention,
    /// Of each query head in each norm, computed when first asked for.
    projected: [OnceCell<Vec<Vec<f32>>>; 2],
}

impl<'a> LayerCaches<'a> {
    pub(super) fn new(about: About<'a>, layer: usize) -> Self {
        Self { about, attention: *about.decoder.attention(layer), projected: Default::default() }
    }

    fn heads(&self) -> usize {
        self.about.decoder.config().heads
    }

    fn or<T>(&self, read: Result<T, BackendError>, empty: impl FnOnce() -> T) -> T {
        read.unwrap_or_else(|error| {
            note(self.about.failure, error);
            empty()
        })
    }
}

impl LayerView for LayerCaches<'_> {
    fn kv_heads(&self) -> usize {
        self.about.decoder.config().kv_heads
    }

    fn group(&self) -> usize {
        self.heads() / self.kv_heads()
    }

    fn head_dim(&self) -> usize {
        self.about.decoder.config().head_dim
    }

    fn scale(&self) -> f32 {
        self.attention.scale
    }

    fn positions(&self, kv_head: usize) -> &[u32] {
        self.about.backend.positions(self.about.cache, self.attention.layer, kv_head)
    }

    fn keys(&self, kv_head: usize) -> Cow<'_, [f32]> {
        self.about.backend.keys(self.about.cache, self.attention.layer, kv_head)
    }

    fn values(&self, kv_head: usize) -> Cow<'_, [f32]> {
        self.about.backend.values(self.about.cache, self.attention.layer, kv_head)
    }

    fn key_norms(&self, kv_head: usize) -> Vec<f32> {
        self.keys(kv_head).chunks_exact(self.head_dim()).map(|k| sum_of_squares(k).sqrt()).collect()
    }

    fn rows(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        let About { backend, cache, .. } = self.about;
        match self.about.rows {
            Rows::OfQueries => {
                let n = self.positions(head / self.group()).len();
                self.or(backend.rows(cache, &self.attention, head, rows.clone()), || vec![0.0; rows.len() * n])
            }
            Rows::Newest(_) => backend.newest_row(cache, self.attention.layer, head).to_vec(),
        }
    }

    fn newest(&self) -> u32 {
        (self.about.tokens.len() as u32).saturating_sub(1)
    }

    fn received(&self, head: usize) -> &[f32] {
        self.about.backend.received(self.about.cache, self.attention.layer, head)
    }

    fn above_average(&self, head: usize, rows: usize) -> Vec<u32> {
        let positions = self.positions(head / self.group());
        let counted = match (self.about.rows, &self.about.facts.marks) {
            (Rows::Newest(history), _) => Some(history),
            (Rows::OfQueries, Some((cache, history))) if *cache == self.about.cache => Some(history),
            (Rows::OfQueries, _) => None,
        };
        match counted {
            Some(history) => history.counts(self.attention.layer * self.heads() + head, positions, rows),
            None => {
                let end = self.about.tokens.len() as u32;
                let first = end.saturating_sub(rows as u32);
                let mut counts = vec![0; positions.len()];
                for (query, row) in (first..end).zip(self.rows(head, first..end).chunks_exact(positions.len().max(1))) {
                    let seen = positions.partition_point(|&p| p <= query);
                    let above = row[..seen].iter().map(|&a| a >= 1.0 / seen as f32);
                    counts.iter_mut().zip(above).for_each(|(count, above)| *count += above as u32);
                }
                counts
            }
        }
    }

    fn inputs(&self) -> &[f32] {
        self.about.facts.inputs.get(self.attention.layer).map_or(&[], Vec::as_slice)
    }

    fn input(&self, position: u32) -> Option<&[f32]> {
        let Rows::Newest(history) = self.about.rows else { return None };
        history.inputs.of(self.attention.layer, self.newest().checked_sub(position)? as usize)
    }

    fn offsets(&self, kv_head: usize) -> &[f32] {
        self.about.backend.offsets(self.about.cache, self.attention.layer, kv_head)
    }

    fn queries(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        self.about.backend.queries(self.attention.layer, head, rows)
    }

    fn turns(&self) -> &[f32] {
        self.about.decoder.turns(self.attention.layer)
    }

    fn watched(&self, layer: usize, head: usize, watch: &dyn Watch) -> Vec<f32> {
        let facts = self.about.facts;
        let sums = facts.needs.watches.place(&watch.name()).and_then(|place| facts.watched.get(place));
        let sums = sums.and_then(|heads| heads.get(layer * self.heads() + head));
        let positions = self.positions(head / self.group());
        let whole = |sums: &&Vec<f32>| {
            positions.len() == sums.len() && positions.last().is_some_and(|&last| last as usize + 1 == positions.len())
        };
        sums.filter(whole).cloned().unwrap_or_else(|| again(self, layer, head, watch))
    }

    fn projected(&self, head: usize, norm: Norm) -> Vec<f32> {
        let layer = self.attention.layer;
        let read = || {
            let output = self.about.decoder.output(layer);
            self.or(self.about.backend.projected(self.about.cache, layer, output, norm), || {
                (0..self.heads()).map(|head| vec![0.0; self.positions(head / self.group()).len()]).collect()
            })
        };
        self.projected[norm as usize].get_or_init(read)[head].clone()
    }
}
