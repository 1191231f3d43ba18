//! What a backend on a card uses of this one: attention over caches for which it has no kernel.

use super::CpuBackend;
use crate::backend::{Buf, CacheId};
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
