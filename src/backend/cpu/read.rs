//! Reading what passes left behind: activations, probes, caches.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::backend::draw::Drawn;
use crate::backend::hyper::GateRows;
use crate::backend::mixing::DepthWeights;
use crate::backend::{Attention, Buf, CacheId, Inspect, PositionMeans, Result, Tile};
use crate::cache::{HeadCache, Packing, Queries, Saved, Strand, Wiring};
use crate::engine::frame::{AttentionStats, KvNorms, OpSpan, OpTime, ResidualStats};
use crate::model::tensor::Tensor;
use crate::policy::delta::Sparse;
use crate::policy::part::{Norm, Rewritten};
use crate::policy::reader::Readers;
use crate::policy::watch::Watches;

use super::attend_sparse::SparseRead;
use super::linear::failed;
use super::pool::Shares;
use super::program::Items;
use super::shared::Alone;
use super::simd::vectorized;
use super::{CpuBackend, means, project, tile};

impl CpuBackend {
    /// Column `field` of a probe grid with `n` rows.
    fn field(grid: &super::shared::Grid, n: usize, field: usize) -> Vec<f32> {
        grid.as_slice().chunks_exact(grid.width()).take(n).map(|row| row[field]).collect()
    }

    /// Statistics of `points` residual points from `first` on.
    fn stats_of(&self, first: usize, points: usize) -> ResidualStats {
        let rows = self.rows.len();
        if !self.probes_on.residual || points == 0 {
            return ResidualStats::default();
        }
        let field = |f| Self::field(&self.probes.residual, (first + points) * rows, f).split_off(first * rows);
        let argmax = field(4).into_iter().map(f32::to_bits).collect();
        ResidualStats { points, rows, l2: field(0), rms: field(1), absmax: field(2), median: field(3), argmax }
    }

    /// `work` on the heads of a cache that there is an order for [layer · G + kv head], with all threads.
    fn each_head<T: Sync>(
        &mut self,
        what: &str,
        cache: CacheId,
        orders: &[Option<T>],
        work: impl Fn(&mut HeadCache, &T) + Sync,
    ) -> Result<()> {
        let heads: Vec<(Alone<HeadCache>, &T)> = (self.caches[cache.0].iter_mut().zip(orders))
            .filter_map(|(head, order)| Some((Alone::new(head), order.as_ref()?)))
            .collect();
        let shares = Shares::new(1, self.pool.threads());
        self.pool
            .run(&|worker| {
                Items::new(worker, shares.of(0)).each(heads.len(), 1, |i| {
                    // SAFETY: one thread per head.
                    work(unsafe { heads[i].0.get() }, heads[i].1);
                });
            })
            .map_err(|why| failed(what, why))
    }
}

impl Inspect for CpuBackend {
    fn logits(&self) -> &[f32] {
        &self.logits.as_slice()[..self.logit_rows * self.shape.vocab]
    }

    fn drawn(&self) -> &[Drawn] {
        &self.drawn
    }

    fn read(&self, x: Buf) -> Vec<f32> {
        let grid = &self.buffers[x.0];
        grid.as_slice()[..self.rows.len() * grid.width()].to_vec()
    }

    fn residual(&self, point: usize) -> &[f32] {
        let n = self.saved_rows() * self.shape.hidden;
        &self.probes.points.as_slice()[point * n..(point + 1) * n]
    }

    fn residual_stats(&self) -> ResidualStats {
        self.stats_of(0, self.points_seen)
    }

    fn stream_stats(&self) -> ResidualStats {
        self.stats_of(self.shape.points(), self.stream_seen)
    }

    fn depth_weights(&self) -> DepthWeights {
        self.weights_of_depth()
    }

    fn gates(&self) -> GateRows {
        self.gates_of_pass()
    }

    fn attention_stats(&self) -> AttentionStats {
        let (layers, heads, rows) = (self.shape.layers, self.shape.heads, self.rows.len());
        if !self.probes_on.attention {
            return AttentionStats::default();
        }
        let field = |f| Self::field(&self.probes.attention, layers * heads * rows, f);
        let recent_window = self.shape.recent_window;
        let (entropy, first, recent, distance) = (field(1), field(2), field(3), field(4));
        AttentionStats { layers, heads, rows, entropy, first, recent, recent_window, distance }
    }

    fn strongest(&self, row: usize, layer: usize, head: usize) -> f32 {
        let at = (layer * self.shape.heads + head) * self.rows.len() + row;
        self.probes.attention.as_slice()[at * self.probes.attention.width() + 5]
    }

    fn kv_norms(&self) -> KvNorms {
        let (layers, kv_heads, rows) = (self.shape.layers, self.shape.kv_heads, self.rows.len());
        if !self.probes_on.kv_norms {
            return KvNorms::default();
        }
        let field = |f| Self::field(&self.probes.norms, layers * kv_heads * rows, f);
        let (key_l2_pre, key_l2, value_l1, value_l2) = (field(0), field(1), field(2), field(3));
        KvNorms { layers, kv_heads, rows, key_l2_pre, key_l2, value_l1, value_l2 }
    }

    fn op_times(&self) -> Vec<OpTime> {
        let one = |(name, record): (&&'static str, &super::OpRecord)| OpTime {
            name: Arc::from(*name),
            calls: record.ns.len() as u32,
            total_ns: record.ns.iter().map(|&ns| ns as u64).sum(),
            ns: record.ns.clone(),
            bytes: record.bytes,
            flops: record.flops,
            product: record.product,
        };
        let mut times: Vec<OpTime> = self.times.iter().map(one).collect();
        times.sort_by_key(|t| std::cmp::Reverse(t.total_ns));
        times
    }

    fn timeline(&self) -> Vec<OpSpan> {
        self.spans.clone()
    }

    fn activation_bytes(&self) -> u64 {
        let p = &self.probes;
        let probes = [&p.residual, &p.points, &p.attention, &p.norms, &p.received, &self.logits];
        self.buffers.iter().chain(probes).map(|g| g.bytes()).sum()
    }

    fn cache(&mut self) -> CacheId {
        let (l, h, g, d) = (self.shape.layers, self.shape.heads, self.shape.kv_heads, self.shape.head_dim);
        self.caches.push((0..l * g).map(|_| HeadCache::new(self.shape.kv, d, h / g)).collect());
        self.wirings.push(None);
        CacheId(self.caches.len() - 1)
    }

    fn wire(&mut self, cache: CacheId, wiring: &Wiring) -> Result<()> {
        let (h, g, d) = (self.shape.heads, self.shape.kv_heads, self.shape.head_dim);
        let holding = |i: usize| HeadCache::holding(wiring.holds(i / g), self.shape.kv, d, h / g);
        self.caches[cache.0] = (0..self.shape.layers * g).map(holding).collect();
        self.wirings[cache.0] = wiring.readers().next().map(|_| wiring.clone());
        Ok(())
    }

    fn wiring(&self, cache: CacheId) -> Option<&Wiring> {
        self.wirings[cache.0].as_ref()
    }

    fn fork(&mut self, from: CacheId, keep: &dyn Fn(usize, usize) -> Option<Vec<u32>>) -> Result<CacheId> {
        let g = self.shape.kv_heads;
        let wanted: Vec<Option<Vec<u32>>> =
            (0..self.shape.layers * g).map(|i| keep(self.keys_of(from, i / g), i % g)).collect();
        let copy = |(head, keep): (&HeadCache, Option<Vec<u32>>)| match keep {
            Some(keep) => head.gather(&keep),
            None => head.clone(),
        };
        let heads = self.caches[from.0].par_iter().zip(wanted).map(copy).collect();
        self.caches.push(heads);
        self.wirings.push(self.wirings[from.0].clone());
        Ok(CacheId(self.caches.len() - 1))
    }

    fn free(&mut self, cache: CacheId) {
        self.caches[cache.0] = Vec::new();
        self.readers.remove(&cache);
        self.sparse.remove(&cache);
    }

    fn retain(&mut self, cache: CacheId, keep: &[Option<&[u32]>]) -> Result<()> {
        let Some(wiring) = &self.wirings[cache.0] else {
            return self.each_head("evicting", cache, keep, |head, keep| head.retain(keep));
        };
        let g = self.shape.kv_heads;
        let of = |i: usize| keep.get(wiring.keys(i / g) * g + i % g).copied().flatten();
        let keep: Vec<Option<&[u32]>> = (0..self.shape.layers * g).map(of).collect();
        // a layer that has only its rows here goes by the cells of the one whose keys it reads
        self.each_head("evicting", cache, &keep, |head, keep| {
            head.retain(keep);
            head.settle();
        })
    }

    fn pack(&mut self, cache: CacheId, packing: &[Option<Packing>]) -> Result<()> {
        self.each_head("packing", cache, packing, HeadCache::pack)
    }

    fn packed(&self, cache: CacheId, layer: usize, kv_head: usize) -> (usize, usize) {
        self.cache_ref(cache, layer, kv_head).packed()
    }

    fn overwrite(&mut self, cache: CacheId, layer: usize, kv_head: usize, new: &Rewritten) -> Result<()> {
        let at = self.head_index(layer, kv_head);
        let head = &mut self.caches[cache.0][at];
        let n = head.len() * head.dim;
        let wrong = |new: &Option<Vec<f32>>, n| new.as_ref().is_some_and(|new| new.len() != n);
        if wrong(&new.keys, n) || wrong(&new.values, n) || wrong(&new.offsets, head.len()) {
            return Err(failed("rewriting a cache", format!("layer {layer}, kv head {kv_head} holds {n} numbers")));
        }
        if head.packed() != (0, 0) && (new.keys.is_some() || new.values.is_some()) {
            return Err(failed("rewriting a cache", format!("layer {layer}, kv head {kv_head} is packed")));
        }
        head.overwrite(new.keys.as_deref(), new.values.as_deref());
        if let Some(offsets) = &new.offsets {
            head.offsets.clone_from(offsets);
        }
        Ok(())
    }

    fn save(&self, cache: CacheId, append_only: bool) -> Vec<Saved> {
        self.caches[cache.0].par_iter().map(|head| head.save(append_only)).collect()
    }

    fn restore(&mut self, cache: CacheId, saved: &[Saved]) -> Result<()> {
        for (head, saved) in self.caches[cache.0].iter_mut().zip(saved) {
            head.restore(saved);
        }
        Ok(())
    }

    fn positions(&self, cache: CacheId, layer: usize, kv_head: usize) -> &[u32] {
        &self.cache_ref(cache, layer, kv_head).positions
    }

    fn keys(&self, cache: CacheId, layer: usize, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(self.cache_ref(cache, self.keys_of(cache, layer), kv_head).keys())
    }

    fn values(&self, cache: CacheId, layer: usize, kv_head: usize) -> Cow<'_, [f32]> {
        let layer = self.wiring(cache).map_or(layer, |wiring| wiring.values(layer));
        Cow::Owned(self.cache_ref(cache, layer, kv_head).values())
    }

    fn projected(&self, cache: CacheId, layer: usize, output: &Tensor, norm: Norm) -> Result<Vec<Vec<f32>>> {
        let group = self.shape.heads / self.shape.kv_heads;
        let values = |head: usize| Cow::Owned(self.cache_ref(cache, layer, head / group).values());
        project::projected(self.shape.heads, output, norm, values)
    }

    fn offsets(&self, cache: CacheId, layer: usize, kv_head: usize) -> &[f32] {
        &self.cache_ref(cache, self.keys_of(cache, layer), kv_head).offsets
    }

    fn received(&self, cache: CacheId, layer: usize, head: usize) -> &[f32] {
        let group = self.shape.heads / self.shape.kv_heads;
        let cache = self.cache_ref(cache, layer, head / group);
        &cache.received[head % group][..cache.len()]
    }

    fn newest_row(&self, cache: CacheId, layer: usize, head: usize) -> &[f32] {
        let group = self.shape.heads / self.shape.kv_heads;
        let cache = self.cache_ref(cache, layer, head / group);
        &cache.row[head % group][..cache.len()]
    }

    fn position_means(&mut self, caches: &[CacheId], positions: usize) -> Result<Vec<PositionMeans>> {
        means::position_means(self, caches, positions)
    }

    fn set_readers(&mut self, cache: CacheId, readers: Option<Readers>) -> Result<()> {
        match readers {
            Some(readers) => self.readers.insert(cache, readers),
            None => self.readers.remove(&cache),
        };
        Ok(())
    }

    fn readers(&self, cache: CacheId) -> Option<&Readers> {
        self.readers.get(&cache)
    }

    fn set_sparse(&mut self, cache: CacheId, sparse: Option<(Sparse, usize)>) -> Result<()> {
        match sparse {
            Some((rule, prompt)) => self.sparse.insert(cache, SparseRead { rule, prompt: prompt as u32 }),
            None => self.sparse.remove(&cache),
        };
        Ok(())
    }

    fn covered(&self) -> Vec<f32> {
        let (sparse, n) = (&self.sparse, self.shape.layers * self.shape.heads * self.rows.len());
        match self.pass_caches.iter().any(|cache| sparse.contains_key(cache)) {
            true => self.probes.covered.as_slice()[..n].to_vec(),
            false => Vec::new(),
        }
    }

    fn cache_bytes(&self, cache: CacheId, layer: usize) -> u64 {
        (0..self.shape.kv_heads).map(|g| self.cache_ref(cache, layer, g).live_bytes()).sum()
    }

    fn kept_queries(&self) -> Range<u32> {
        self.queries.range()
    }

    fn query_bytes(&self) -> u64 {
        self.queries.bytes()
    }

    fn truncate_queries(&mut self, end: u32) {
        self.queries.truncate(end);
    }

    fn shelve_queries(&mut self, first: u32) {
        let (l, h, d) = (self.shape.layers, self.shape.heads, self.shape.head_dim);
        let fresh = Queries::new(l, h, d, self.exact, self.shape.queries_budget, first);
        self.shelf = Some(std::mem::replace(&mut self.queries, fresh));
    }

    fn restore_queries(&mut self) {
        if let Some(queries) = self.shelf.take() {
            self.queries = queries;
        }
    }

    fn watch(&mut self, watches: &Watches) {
        let planes = self.shape.layers * self.shape.heads;
        let sums = watches.0.iter().map(|_| (0..planes).map(|_| Strand::default()).collect()).collect();
        (self.watches, self.watched) = (watches.clone(), sums);
    }

    fn take_watched(&mut self) -> Vec<Vec<Vec<f32>>> {
        self.watches = Watches::default();
        let watched = std::mem::take(&mut self.watched);
        watched.iter().map(|heads| heads.iter().map(|sums| sums.to_vec()).collect()).collect()
    }

    fn queries(&self, layer: usize, head: usize, positions: Range<u32>) -> Vec<f32> {
        let mut out = vec![0.0; positions.len() * self.shape.head_dim];
        vectorized(
            #[inline(always)]
            || {
                for (query, position) in out.chunks_exact_mut(self.shape.head_dim).zip(positions) {
                    self.queries.get(layer, head, position, query);
                }
            },
        );
        out
    }

    fn rows(&self, cache: CacheId, attention: &Attention, head: usize, rows: Range<u32>) -> Result<Vec<f32>> {
        tile::rows(self, cache, attention, head, rows)
    }

    fn tile(&mut self, cache: CacheId, attention: &Attention, tile: &Tile) -> Result<Vec<f32>> {
        tile::tile(self, cache, attention, tile)
    }
}
