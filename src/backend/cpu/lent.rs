//! What a backend on a card uses of this one: attention over caches for which it has no kernel.

use std::ops::Range;

use super::{CpuBackend, tile};
use crate::backend::{Attention, Buf, CacheId, Result};
use crate::cache::HeadCache;

impl CpuBackend {
    /// Norm weights and biases, by the names that they were given there.
    pub(in crate::backend) fn set_vectors(&mut self, vectors: Vec<Vec<f32>>) {
        self.vectors = vectors;
    }

    /// A cache with these heads [layer · G + kv head], wired as nothing else.
    pub(in crate::backend) fn adopt(&mut self, heads: Vec<HeadCache>) -> CacheId {
        self.caches.push(heads);
        self.wirings.push(None);
        CacheId(self.caches.len() - 1)
    }

    /// x = values [rows of the pass, width]
    pub(in crate::backend) fn put(&mut self, x: Buf, values: &[f32]) {
        self.written(x);
        self.buffers[x.0].as_mut_slice()[..values.len()].copy_from_slice(values);
    }

    /// Attention rows [rows, n] over a cache, of queries [rows, D] and their log-sum-exps that `of(layer)` gives.
    pub(in crate::backend) fn rows_of(
        &self,
        cache: CacheId,
        attention: &Attention,
        head: usize,
        rows: Range<u32>,
        of: impl FnOnce(usize) -> Result<(Vec<f32>, Vec<f32>)>,
    ) -> Result<Vec<f32>> {
        let layer = self.wirings[cache.0].as_ref().map_or(attention.layer, |wiring| wiring.queries(attention.layer));
        let group = self.shape.heads / self.shape.kv_heads;
        let held = self.cache_ref(cache, self.keys_of(cache, attention.layer), head / group);
        let (queries, lse) = of(layer)?;
        Ok(tile::rows_of(held, attention, rows, &queries, &lse))
    }

    /// Of the last pass [L · H][rows][6].
    pub(in crate::backend) fn attention_probe(&self) -> &[f32] {
        let n = self.shape.layers * self.shape.heads * self.rows.len();
        &self.probes.attention.as_slice()[..n * self.probes.attention.width()]
    }

    /// Of the last pass [L · G][rows][4].
    pub(in crate::backend) fn norms_probe(&self) -> &[f32] {
        let n = self.shape.layers * self.shape.kv_heads * self.rows.len();
        &self.probes.norms.as_slice()[..n * self.probes.norms.width()]
    }
}
