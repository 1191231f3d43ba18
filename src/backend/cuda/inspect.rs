//! Reading what passes left behind, and what happens to caches between them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::backend::{CudaBackend, Place};
use super::cache::DeviceCache;
use super::device::{Arg, Launch};
use super::exchange::{all_to_host, to_device};
use super::memory::Memory;
use super::queries::DeviceQueries;
use super::record::FEW;
use super::records::{MOST, NORMS, REDUCTIONS, Slots};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::project::projected;
use crate::backend::draw::Drawn;
use crate::backend::mixing::DepthWeights;
use crate::backend::{Attention, BackendError, Buf, CacheId, Inspect, PositionMeans, Result, Tile};
use crate::cache::{HeadCache, Packing, Saved, Wiring};
use crate::engine::frame::{AttentionStats, KvNorms, OpSpan, OpTime, ResidualStats};
use crate::model::tensor::Tensor;
use crate::policy::delta::Sparse;
use crate::policy::part::{Norm, Rewritten};
use crate::policy::reader::Readers;
use crate::policy::watch::Watches;

/// A cache where it is: on the device, or with the CPU.
enum At<'a> {
    Device(&'a DeviceCache),
    Host(&'a CpuBackend, CacheId),
    Nowhere,
}

fn mixed(what: &str) -> BackendError {
    let why =
        "the cache is on one side, the card or the CPU, and its queries on the other: run with --device cpu".into();
    BackendError::Failed { what: what.into(), why }
}

fn column(all: &[f32], columns: usize, of: usize) -> Vec<f32> {
    all.chunks_exact(columns).map(|row| row[of]).collect()
}

impl CudaBackend {
    fn at_cache(&self, cache: CacheId) -> At<'_> {
        match (&self.caches[cache.0], self.host.cpu()) {
            (Place::Device(held), _) => At::Device(held),
            (Place::Host(id), Some(cpu)) => At::Host(cpu, *id),
            _ => At::Nowhere,
        }
    }

    /// The CPU and its name for a cache that lies there.
    fn with_host(&mut self, cache: CacheId) -> Option<(&mut CpuBackend, CacheId)> {
        match &self.caches[cache.0] {
            Place::Host(id) => {
                let id = *id;
                self.host.cpu_mut().map(|cpu| (cpu, id))
            }
            Place::Device(_) | Place::Freed => None,
        }
    }

    /// The cache's place with the CPU from now on, where its attention has no kernel.
    fn moved_to_host(&mut self, cache: CacheId) -> Result<Option<(&mut CpuBackend, CacheId)>> {
        if let Place::Device(held) = &self.caches[cache.0] {
            let heads = all_to_host(held, self.kind(), self.shape.layers * self.shape.kv_heads)?;
            self.caches[cache.0] = Place::Host(self.host.adopt(heads)?);
        }
        Ok(self.with_host(cache))
    }

    fn add(&mut self, place: Place) -> CacheId {
        self.caches.push(place);
        CacheId(self.caches.len() - 1)
    }

    fn empty(&self) -> DeviceCache {
        DeviceCache::new(&self.device, self.kind(), self.shape.layers * self.shape.kv_heads)
    }

    fn sums(&self, cache: CacheId, layer: usize, head: usize, newest: bool) -> &[f32] {
        let group = self.shape.heads / self.shape.kv_heads;
        match self.at_cache(cache) {
            At::Device(held) => {
                let found = held.sums(self.head_index(layer, head / group), head % group, newest);
                self.note(found).unwrap_or_default()
            }
            At::Host(cpu, id) if newest => cpu.newest_row(id, layer, head),
            At::Host(cpu, id) => cpu.received(id, layer, head),
            At::Nowhere => &[],
        }
    }

    fn numbers(&self, cache: CacheId, layer: usize, kv_head: usize, values: bool) -> Cow<'_, [f32]> {
        match self.at_cache(cache) {
            At::Device(held) => {
                let at = self.head_index(layer, kv_head);
                let missing = || vec![f32::NAN; held.len(at) * self.shape.head_dim];
                Cow::Owned(self.note(held.numbers(at, values)).unwrap_or_else(missing))
            }
            At::Host(cpu, id) if values => cpu.values(id, layer, kv_head),
            At::Host(cpu, id) => cpu.keys(id, layer, kv_head),
            At::Nowhere => Cow::Borrowed(&[]),
        }
    }

    /// Column sums and newest rows of a cache on the device [2][positions].
    fn means_here(&self, held: &DeviceCache, positions: usize) -> Result<PositionMeans> {
        let records: Vec<Slots> = held.records(0);
        let at = Memory::of(&self.device, &records)?;
        let found = Memory::<f32>::new(&self.device, 2 * positions)?;
        let group = self.shape.heads / self.shape.kv_heads;
        let ints = [records.len(), group, positions].map(|x| Arg::Int(x as i32));
        let places = [found.arg(), Arg::Pointer(found.at(positions))];
        let args = [&[at.arg()][..], &ints, &places].concat();
        let grid = [positions.div_ceil(256) as u32, 1, 1];
        self.device.launch(Launch { kernel: "position_means", grid, block: [256, 1, 1], shared: 0, args: &args })?;
        let all = found.read(0, 2 * positions)?;
        Ok(PositionMeans { received: all[..positions].into(), row: all[positions..].into() })
    }

    /// The queries kept are those of a cache that lies with the CPU.
    fn queries_on_host(&self) -> Option<&CpuBackend> {
        self.host.cpu().filter(|cpu| !cpu.kept_queries().is_empty())
    }
}

impl Inspect for CudaBackend {
    fn check(&self) -> Result<()> {
        self.told()
    }

    fn attends_on_host(&self, cache: CacheId) -> bool {
        matches!(self.caches[cache.0], Place::Host(_))
    }

    fn logits(&self) -> &[f32] {
        self.fetched_logits()
    }

    fn read(&self, x: Buf) -> Vec<f32> {
        let buffer = &self.buffers[x.0];
        let count = self.rows.count() * buffer.width;
        self.note(buffer.memory.read(0, count)).unwrap_or_else(|| vec![f32::NAN; count])
    }

    fn residual(&self, point: usize) -> &[f32] {
        let n = self.saved_rows() * self.shape.hidden;
        &self.fetched_points()[point * n..(point + 1) * n]
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

    fn attention_stats(&self) -> AttentionStats {
        if !self.rows.probes.attention {
            return AttentionStats::default();
        }
        let all = self.fetched_attention();
        let of = |field| column(all, REDUCTIONS, field);
        let (layers, heads, rows) = (self.shape.layers, self.shape.heads, self.rows.count());
        let (entropy, first, recent, distance) = (of(1), of(2), of(3), of(4));
        let recent_window = self.shape.recent_window;
        AttentionStats { layers, heads, rows, entropy, first, recent, recent_window, distance }
    }

    fn strongest(&self, row: usize, layer: usize, head: usize) -> f32 {
        let at = (layer * self.shape.heads + head) * self.rows.count() + row;
        self.fetched_attention()[at * REDUCTIONS + MOST]
    }

    fn kv_norms(&self) -> KvNorms {
        if !self.rows.probes.kv_norms {
            return KvNorms::default();
        }
        let all = self.fetched_norms();
        let of = |field| column(all, NORMS, field);
        let (layers, kv_heads, rows) = (self.shape.layers, self.shape.kv_heads, self.rows.count());
        KvNorms { layers, kv_heads, rows, key_l2_pre: of(0), key_l2: of(1), value_l1: of(2), value_l2: of(3) }
    }

    fn op_times(&self) -> Vec<OpTime> {
        self.program.times()
    }

    fn timeline(&self) -> Vec<OpSpan> {
        if self.rows.count() > FEW { Vec::new() } else { self.program.spans() }
    }

    fn ran_as_graph(&self) -> bool {
        self.program.whole()
    }

    fn drawn(&self) -> &[Drawn] {
        self.fetched_drawn()
    }

    fn activation_bytes(&self) -> u64 {
        let (g, b) = (&self.grids, &self.between);
        let rooms = [&g.residual, &g.points, &g.attention, &g.norms, &g.logits, &b.stats, &b.partial, &b.lse];
        let here: u64 = self.buffers.iter().map(|buffer| &buffer.memory).chain(rooms).map(|room| room.bytes()).sum();
        here + self.host.cpu().map_or(0, |cpu| cpu.activation_bytes())
    }

    fn cache(&mut self) -> CacheId {
        let empty = self.empty();
        self.add(Place::Device(empty))
    }

    fn wire(&mut self, cache: CacheId, wiring: &Wiring) -> Result<()> {
        let place = match wiring.readers().next() {
            None => Place::Device(self.empty()),
            Some(_) => Place::Host(self.host.cache()?),
        };
        self.free(cache);
        self.caches[cache.0] = place;
        self.with_host(cache).map_or(Ok(()), |(cpu, id)| cpu.wire(id, wiring))
    }

    fn wiring(&self, cache: CacheId) -> Option<&Wiring> {
        match self.at_cache(cache) {
            At::Host(cpu, id) => cpu.wiring(id),
            At::Device(_) | At::Nowhere => None,
        }
    }

    fn fork(&mut self, from: CacheId, keep: &dyn Fn(usize, usize) -> Option<Vec<u32>>) -> Result<CacheId> {
        if let Some((cpu, id)) = self.with_host(from) {
            let copy = cpu.fork(id, keep)?;
            return Ok(self.add(Place::Host(copy)));
        }
        let g = self.shape.kv_heads;
        let keep: Vec<Option<Vec<u32>>> = (0..self.shape.layers * g).map(|i| keep(i / g, i % g)).collect();
        let keep: Vec<Option<&[u32]>> = keep.iter().map(Option::as_deref).collect();
        let Place::Device(held) = &self.caches[from.0] else { return Ok(self.add(Place::Freed)) };
        let copy = held.gather(&mut self.moves, &keep)?;
        Ok(self.add(Place::Device(copy)))
    }

    fn free(&mut self, cache: CacheId) {
        if let Some((cpu, id)) = self.with_host(cache) {
            cpu.free(id);
        }
        self.caches[cache.0] = Place::Freed;
    }

    fn retain(&mut self, cache: CacheId, keep: &[Option<&[u32]>]) -> Result<()> {
        if let Place::Device(held) = &mut self.caches[cache.0] {
            return held.retain(&mut self.moves, keep);
        }
        self.with_host(cache).map_or(Ok(()), |(cpu, id)| cpu.retain(id, keep))
    }

    fn overwrite(&mut self, cache: CacheId, layer: usize, kv_head: usize, new: &Rewritten) -> Result<()> {
        let (at, dim) = (self.head_index(layer, kv_head), self.shape.head_dim);
        if let Some((cpu, id)) = self.with_host(cache) {
            return cpu.overwrite(id, layer, kv_head, new);
        }
        let Place::Device(held) = &mut self.caches[cache.0] else { return Ok(()) };
        let n = held.len(at);
        let wrong = |new: &Option<Vec<f32>>, n| new.as_ref().is_some_and(|new| new.len() != n);
        if wrong(&new.keys, n * dim) || wrong(&new.values, n * dim) || wrong(&new.offsets, n) {
            let why = format!("layer {layer}, kv head {kv_head} holds {} numbers", n * dim);
            return Err(BackendError::Failed { what: "rewriting a cache".into(), why });
        }
        new.keys.iter().try_for_each(|keys| held.put_numbers(at, false, keys))?;
        new.values.iter().try_for_each(|values| held.put_numbers(at, true, values))?;
        new.offsets.iter().try_for_each(|offsets| held.put_offsets(at, offsets))
    }

    fn pack(&mut self, cache: CacheId, packing: &[Option<Packing>]) -> Result<()> {
        if packing.iter().all(Option::is_none) {
            return Ok(());
        }
        self.moved_to_host(cache)?.map_or(Ok(()), |(cpu, id)| cpu.pack(id, packing))
    }

    fn packed(&self, cache: CacheId, layer: usize, kv_head: usize) -> (usize, usize) {
        match self.at_cache(cache) {
            At::Host(cpu, id) => cpu.packed(id, layer, kv_head),
            At::Device(_) | At::Nowhere => (0, 0),
        }
    }

    fn save(&self, cache: CacheId, append_only: bool) -> Vec<Saved> {
        let held = match self.at_cache(cache) {
            At::Device(held) => held,
            At::Host(cpu, id) => return cpu.save(id, append_only),
            At::Nowhere => return Vec::new(),
        };
        let (kind, heads) = (self.kind(), self.shape.layers * self.shape.kv_heads);
        let saved = || -> Result<Vec<Saved>> {
            if !append_only {
                let copy = |head| Saved::Copy(Box::new(head));
                return Ok(all_to_host(held, kind, heads)?.into_iter().map(copy).collect());
            }
            let of = |head: usize, newest: bool| -> Result<Vec<Vec<f32>>> {
                (0..kind.group).map(|member| Ok(held.sums(head, member, newest)?.to_vec())).collect()
            };
            let length =
                |head| Ok(Saved::Length { slots: held.len(head), received: of(head, false)?, row: of(head, true)? });
            (0..heads).map(length).collect()
        };
        self.note(saved()).unwrap_or_default()
    }

    fn restore(&mut self, cache: CacheId, saved: &[Saved]) -> Result<()> {
        if let Some((cpu, id)) = self.with_host(cache) {
            return cpu.restore(id, saved);
        }
        let copies: Vec<&HeadCache> = saved.iter().filter_map(Saved::copy).collect();
        if !copies.is_empty() {
            self.caches[cache.0] = Place::Device(to_device(&self.device, self.kind(), &copies)?);
            return Ok(());
        }
        let Place::Device(held) = &mut self.caches[cache.0] else { return Ok(()) };
        for (head, saved) in saved.iter().enumerate() {
            if let Saved::Length { slots, received, row } = saved {
                held.truncate(head, *slots);
                held.put_sums(head, received, row)?;
            }
        }
        Ok(())
    }

    fn positions(&self, cache: CacheId, layer: usize, kv_head: usize) -> &[u32] {
        match self.at_cache(cache) {
            At::Device(held) => held.positions(self.head_index(layer, kv_head)),
            At::Host(cpu, id) => cpu.positions(id, layer, kv_head),
            At::Nowhere => &[],
        }
    }

    fn keys(&self, cache: CacheId, layer: usize, kv_head: usize) -> Cow<'_, [f32]> {
        self.numbers(cache, layer, kv_head, false)
    }

    fn values(&self, cache: CacheId, layer: usize, kv_head: usize) -> Cow<'_, [f32]> {
        self.numbers(cache, layer, kv_head, true)
    }

    fn projected(&self, cache: CacheId, layer: usize, output: &Tensor, norm: Norm) -> Result<Vec<Vec<f32>>> {
        let group = self.shape.heads / self.shape.kv_heads;
        match self.at_cache(cache) {
            At::Host(cpu, id) => cpu.projected(id, layer, output, norm),
            At::Device(_) | At::Nowhere => {
                projected(self.shape.heads, output, norm, |head| self.values(cache, layer, head / group))
            }
        }
    }

    fn offsets(&self, cache: CacheId, layer: usize, kv_head: usize) -> &[f32] {
        match self.at_cache(cache) {
            At::Device(held) => held.offsets(self.head_index(layer, kv_head)),
            At::Host(cpu, id) => cpu.offsets(id, layer, kv_head),
            At::Nowhere => &[],
        }
    }

    fn received(&self, cache: CacheId, layer: usize, head: usize) -> &[f32] {
        self.sums(cache, layer, head, false)
    }

    fn newest_row(&self, cache: CacheId, layer: usize, head: usize) -> &[f32] {
        self.sums(cache, layer, head, true)
    }

    fn position_means(&mut self, caches: &[CacheId], positions: usize) -> Result<Vec<PositionMeans>> {
        let mut means = Vec::with_capacity(caches.len());
        for &cache in caches {
            if let Place::Device(held) = &self.caches[cache.0] {
                means.push(self.means_here(held, positions)?);
            } else if let Some((cpu, id)) = self.with_host(cache) {
                means.extend(cpu.position_means(&[id], positions)?);
            } else {
                means.push(PositionMeans { received: Arc::from([]), row: Arc::from([]) });
            }
        }
        Ok(means)
    }

    fn set_readers(&mut self, cache: CacheId, readers: Option<Readers>) -> Result<()> {
        let place = if readers.is_some() { self.moved_to_host(cache)? } else { self.with_host(cache) };
        place.map_or(Ok(()), |(cpu, id)| cpu.set_readers(id, readers))
    }

    fn readers(&self, cache: CacheId) -> Option<&Readers> {
        match self.at_cache(cache) {
            At::Host(cpu, id) => cpu.readers(id),
            At::Device(_) | At::Nowhere => None,
        }
    }

    fn set_sparse(&mut self, cache: CacheId, sparse: Option<(Sparse, usize)>) -> Result<()> {
        let place = if sparse.is_some() { self.moved_to_host(cache)? } else { self.with_host(cache) };
        place.map_or(Ok(()), |(cpu, id)| cpu.set_sparse(id, sparse))
    }

    fn covered(&self) -> Vec<f32> {
        match self.host.cpu() {
            Some(cpu) if self.host.has_rows() => cpu.covered(),
            _ => Vec::new(),
        }
    }

    fn cache_bytes(&self, cache: CacheId, layer: usize) -> u64 {
        match self.at_cache(cache) {
            At::Device(held) => (0..self.shape.kv_heads).map(|head| held.bytes(self.head_index(layer, head))).sum(),
            At::Host(cpu, id) => cpu.cache_bytes(id, layer),
            At::Nowhere => 0,
        }
    }

    fn kept_queries(&self) -> Range<u32> {
        self.queries_on_host().map_or(self.queries.range(), |cpu| cpu.kept_queries())
    }

    fn query_bytes(&self) -> u64 {
        self.queries.bytes() + self.host.cpu().map_or(0, |cpu| cpu.query_bytes())
    }

    fn truncate_queries(&mut self, end: u32) {
        self.queries.truncate(end);
        self.host.cpu_mut().iter_mut().for_each(|cpu| cpu.truncate_queries(end));
    }

    fn shelve_queries(&mut self, first: u32) {
        let Self { device, shape, .. } = self;
        let sizes = [shape.layers, shape.heads, shape.head_dim];
        let fresh = DeviceQueries::new(device, sizes, shape.queries_budget, first);
        self.shelf = Some(std::mem::replace(&mut self.queries, fresh));
        self.host.shelve_queries(first);
    }

    fn restore_queries(&mut self) {
        if let Some(queries) = self.shelf.take() {
            self.queries = queries;
        }
        self.host.restore_queries();
    }

    /// Nothing is watched on the way: what is asked for is computed from kept queries (see [`crate::policy::watch`]).
    fn watch(&mut self, _watches: &Watches) {}

    fn take_watched(&mut self) -> Vec<Vec<Vec<f32>>> {
        Vec::new()
    }

    fn queries(&self, layer: usize, head: usize, positions: Range<u32>) -> Vec<f32> {
        if let Some(cpu) = self.queries_on_host() {
            return cpu.queries(layer, head, positions);
        }
        let count = positions.len() * self.shape.head_dim;
        self.note(self.queries.of(layer, head, positions)).unwrap_or_else(|| vec![f32::NAN; count])
    }

    fn rows(&self, cache: CacheId, attention: &Attention, head: usize, rows: Range<u32>) -> Result<Vec<f32>> {
        match (self.at_cache(cache), self.queries_on_host()) {
            (At::Device(held), None) => self.rows_here(held, attention, head, rows),
            (At::Host(cpu, id), Some(_)) => cpu.rows(id, attention, head, rows),
            (At::Host(cpu, id), None) => {
                self.check_rows(&rows)?;
                cpu.rows_of(id, attention, head, rows.clone(), |layer| {
                    Ok((self.queries.of(layer, head, rows.clone())?, self.queries.lse(layer, head, rows)?))
                })
            }
            (At::Device(_), Some(_)) => Err(mixed("attention rows")),
            (At::Nowhere, _) => Ok(Vec::new()),
        }
    }

    fn tile(&mut self, cache: CacheId, attention: &Attention, tile: &Tile) -> Result<Vec<f32>> {
        if let At::Device(held) = self.at_cache(cache) {
            return self.tile_here(held, attention, tile);
        }
        Err(mixed("attention map"))
    }
}
