//! Recording mixes of depth: kernels/mix.cu.

use super::backend::CudaBackend;
use super::device::Arg;
use super::records::STATS;
use super::stage::Stage;
use crate::backend::mixing::{DepthWeights, Mix, MixAhead, MixMerge, Source};
use crate::backend::{Buf, Result};
use crate::engine::frame::ResidualStats;

/// Targets that a block of `mix_finished` takes: TARGETS in kernels/mix.cu.
const TARGETS: usize = 8;

/// Where the addresses of some sources and the distances of their rows stand.
#[derive(Debug, Clone, Copy)]
pub struct SourcesAt {
    addresses: u64,
    strides: u64,
    count: usize,
}

/// The same while they have not been sent yet.
pub struct Staged(super::stage::Place, super::stage::Place, usize);

impl Staged {
    pub fn on(&self, base: u64) -> SourcesAt {
        SourcesAt { addresses: self.0.on(base), strides: self.1.on(base), count: self.2 }
    }
}

impl CudaBackend {
    /// Addresses of all sources of all mixes, for the pass that begins.
    pub(super) fn stage_sources(&self, stage: &mut Stage) -> Vec<Staged> {
        let address = |source: &Source| match source {
            Source::Rows(x) => self.at(*x),
            Source::Same(vector) => self.vectors[vector.0].at(0),
        };
        let stride = |source: &Source| match source {
            Source::Rows(x) => self.width(*x) as i32,
            Source::Same(_) => 0,
        };
        let put = |list: &Vec<Source>| {
            let addresses = stage.put(&list.iter().map(address).collect::<Vec<u64>>());
            Staged(addresses, stage.put(&list.iter().map(stride).collect::<Vec<i32>>()), list.len())
        };
        self.sources.iter().map(put).collect()
    }

    /// Room for weights and their place of one target.
    fn weights_at(&self, target: usize) -> Arg {
        self.grids.depth.arg(target * self.shape.depth_sources * self.rows.count())
    }

    pub(super) fn reserve_depth(&mut self) -> Result<()> {
        let count = self.shape.points() * self.shape.depth_sources * self.rows.count();
        if count == 0 { Ok(()) } else { self.grids.depth.reserve(&self.device, count) }
    }

    fn matrix_bytes(&self) -> u64 {
        (self.rows.count() * self.shape.hidden * 4) as u64
    }

    pub(super) fn record_blend(&mut self, out: Buf, keep: f32, x: Buf, by: f32) {
        self.settle_point();
        let count = self.rows.count() * self.width(out);
        self.program.op("blend", 3 * self.matrix_bytes(), self.matrix_bytes());
        let (to, from) = (Arg::Pointer(self.at(out)), Arg::Pointer(self.at(x)));
        let args = vec![to, Arg::Float(keep), from, Arg::Float(by), Arg::Int(count as i32)];
        self.program.launch("blend", [count.div_ceil(256), 1, 1], 256, 0, args);
    }

    pub(super) fn record_mix(&mut self, mix: &Mix, out: Buf) {
        self.settle_point();
        let Some(&from) = self.rows.sources.get(mix.sources.0) else { return };
        let (rows, width) = (self.rows.count(), self.width(out));
        self.program.op("depth mix", (from.count as u64 + 1) * self.matrix_bytes(), 0);
        // the kernel scales only what is added to a stream: an unused one serves
        let first = match self.sources[mix.sources.0].first() {
            Some(Source::Rows(x)) if mix.by != 1.0 => Some(*x),
            _ => None,
        };
        let stream = mix.stream.or(first).map_or(0, |x| self.at(x));
        let args = vec![
            Arg::Pointer(from.addresses),
            Arg::Pointer(from.strides),
            Arg::Int(from.count as i32),
            self.vectors[mix.key.0].arg(),
            Arg::Float(mix.eps),
            Arg::Float(mix.bias),
            Arg::Pointer(stream),
            Arg::Float(mix.keep),
            Arg::Float(mix.by),
            Arg::Int(width as i32),
            Arg::Pointer(self.at(out)),
            self.weights_at(mix.target),
        ];
        self.program.launch("mix", [rows, 1, 1], 256, 4 * from.count, args);
    }

    /// Places in a state of `count` targets: mixes [count, rows, d], tops and sums [count, rows].
    fn state(&self, ahead: &MixAhead) -> [u64; 3] {
        let (at, rows) = (self.at(ahead.state), self.rows.count() * ahead.count);
        let mixes = (4 * rows * self.shape.hidden) as u64;
        [at, at + mixes, at + mixes + (4 * rows) as u64]
    }

    pub(super) fn record_ahead(&mut self, ahead: &MixAhead) {
        self.settle_point();
        let Some(&from) = self.rows.sources.get(ahead.sources.0) else { return };
        let rows = self.rows.count();
        self.program.op("depth mix", (from.count + ahead.count) as u64 * self.matrix_bytes(), 0);
        let [mixed, tops, sums] = self.state(ahead).map(Arg::Pointer);
        let args = vec![
            Arg::Pointer(from.addresses),
            Arg::Pointer(from.strides),
            Arg::Int(from.count as i32),
            self.vectors[ahead.keys.0].arg(),
            Arg::Int(ahead.count as i32),
            Arg::Float(ahead.eps),
            Arg::Int(self.shape.hidden as i32),
            mixed,
            tops,
            sums,
            self.weights_at(ahead.first),
            Arg::Int(self.shape.depth_sources as i32),
        ];
        let grid = [rows, ahead.count.div_ceil(TARGETS), 1];
        self.program.launch("mix_finished", grid, 256, 4 * TARGETS * from.count, args);
    }

    pub(super) fn record_merge(&mut self, merge: &MixMerge, out: Buf) {
        self.settle_point();
        let (rows, width) = (self.rows.count(), self.shape.hidden);
        self.program.op("depth mix", 3 * self.matrix_bytes(), 0);
        let at = merge.target - merge.ahead.first;
        let [mixed, tops, sums] = self.state(&merge.ahead);
        let args = vec![
            Arg::Pointer(mixed + (4 * at * rows * width) as u64),
            Arg::Pointer(tops + (4 * at * rows) as u64),
            Arg::Pointer(sums + (4 * at * rows) as u64),
            Arg::Pointer(merge.partial.map_or(0, |x| self.at(x))),
            self.vectors[merge.key.0].arg(),
            Arg::Float(merge.ahead.eps),
            Arg::Float(0.0),
            Arg::Int(merge.finished as i32),
            Arg::Pointer(0),
            Arg::Float(0.0),
            Arg::Float(1.0),
            Arg::Int(width as i32),
            Arg::Pointer(self.at(out)),
            self.weights_at(merge.target),
        ];
        self.program.launch("mix_partial", [rows, 1, 1], 256, 0, args);
    }

    pub(super) fn weights_of_depth(&self) -> DepthWeights {
        let (targets, sources, rows) = (self.shape.points(), self.shape.depth_sources, self.rows.count());
        let count = targets * sources * rows;
        if count == 0 {
            return DepthWeights::default();
        }
        let values = self.note(self.grids.depth.read(0, count)).unwrap_or_else(|| vec![f32::NAN; count]);
        DepthWeights { targets, sources, rows, values }
    }

    /// Statistics of `points` residual points from `first` on.
    pub(super) fn stats_of(&self, first: usize, points: usize) -> ResidualStats {
        let rows = self.rows.count();
        if !self.rows.probes.residual || points == 0 {
            return ResidualStats::default();
        }
        let all = &self.fetched_residual()[first * rows * STATS..(first + points) * rows * STATS];
        let of = |field: usize| all.iter().skip(field).step_by(STATS).copied().collect::<Vec<f32>>();
        let argmax = of(4).into_iter().map(f32::to_bits).collect();
        ResidualStats { points, rows, l2: of(0), rms: of(1), absmax: of(2), median: of(3), argmax }
    }

    /// Points of the last pass, those between what was reached and the stream's counted.
    pub(super) fn all_points_seen(&self) -> usize {
        if self.stream_seen > 0 { self.shape.points() + self.stream_seen } else { self.points_seen }
    }
}
