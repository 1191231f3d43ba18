//! What each source of the stream gives to what each target reads, from what a pass left behind.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::core::{Core, Pause};
use super::error::Result;
use super::frame::{Depth, Gates};
use super::message::{DepthInfo, DepthSources};
use crate::backend::Backend;
use crate::backend::hyper::GateRows;
use crate::backend::mixing::DepthWeights;
use crate::model::residual::{Dialect, Origin, Plan, Residual};
use crate::probe::depth::{Sources, shares};
use crate::probe::hyper;

/// What the screen is told about depth.
pub fn info(residual: &Residual, plan: Option<&Plan>) -> DepthInfo {
    let Some(mixing) = residual.mixing() else {
        let sources = DepthSources::Sublayers;
        return DepthInfo {
            residual: residual.describe(),
            sources,
            null: false,
            over_stream: false,
            edges: Vec::new(),
        };
    };
    let sources = match mixing.dialect {
        Dialect::Learned | Dialect::Delta => DepthSources::Sublayers,
        Dialect::Faithful => DepthSources::Blocks,
        Dialect::Cumulative => DepthSources::Snapshots,
        Dialect::DeltaBlock => DepthSources::Differences,
    };
    DepthInfo {
        residual: mixing.describe(),
        sources,
        null: mixing.queries.iter().flatten().any(|query| query.null.is_some()),
        over_stream: plan.is_some_and(Plan::over_stream),
        edges: mixing.starts.iter().map(|&start| start as u32).collect(),
    }
}

/// Points of the last pass, by row of those that were copied.
pub struct Points<'a> {
    backend: &'a dyn Backend,
    plan: Option<&'a Plan>,
    sources: &'a Sources,
    weights: DepthWeights,
    gates: GateRows,
    /// The stream is measured apart.
    mixed: bool,
    hidden: usize,
    /// Rows of the pass before the first one copied.
    skipped: usize,
}

impl<'a> Points<'a> {
    /// `rows` of the pass.
    pub fn new(core: &'a Core, rows: usize) -> Self {
        let (backend, hidden): (&dyn Backend, usize) = (&*core.backend, core.config().hidden);
        let skipped = rows - backend.residual(0).len() / hidden;
        let (plan, sources) = (core.decoder.depth_plan(), &core.depth_sources);
        let (weights, gates, mixed) = (backend.depth_weights(), backend.gates(), core.mixes_depth());
        Self { backend, plan, sources, weights, gates, mixed, hidden, skipped }
    }

    /// Row `row` of the pass has been copied.
    pub fn has(&self, row: usize) -> bool {
        row >= self.skipped
    }

    fn point(&self, point: usize, row: usize) -> &'a [f32] {
        let from = (row - self.skipped) * self.hidden;
        &self.backend.residual(point)[from..from + self.hidden]
    }

    /// What the streams of a row were mixed by, up to a target; `None` without streams.
    fn gates(&self, row: usize, targets: usize) -> Option<Gates> {
        let streams = u32::try_from(self.gates.streams).ok().filter(|n| *n > 0)?;
        let values = (0..targets).flat_map(|target| self.gates.at(target, row)).copied().collect();
        Some(Gates { streams, values })
    }

    /// Weights of the sources of a target, the stream left out.
    pub fn weights(&self, target: usize, row: usize) -> Vec<f32> {
        let count = self.sources.origins[target].len();
        if let Some(gates) = self.gates(row, target + 1) {
            return hyper::weights(&gates, target);
        }
        match self.plan {
            Some(plan) if plan.is_mixed(target) => self.weights.of(target, row, count).collect(),
            _ => vec![1.0; count],
        }
    }

    /// Shares of the sources of a target, the stream the last one where it is one.
    pub fn shares(&self, target: usize, row: usize) -> Vec<f32> {
        let origins = &self.sources.origins[target];
        let (weights, targets) = (self.weights(target, row), self.sources.origins.len());
        let Some(plan) = self.plan else {
            let all: Vec<(&Origin, f32)> = origins.iter().zip(weights).collect();
            let first = if self.mixed { targets } else { 0 };
            return shares(self.point(target, row), |p| self.point(first + p, row), &all);
        };
        let (of, running) = (plan.share(target), vec![(target, 1.0)]);
        let mut all: Vec<(&Origin, f32)> = origins.iter().zip(&weights).map(|(o, w)| (o, of.mixed * w)).collect();
        all.extend(self.sources.over_stream.then_some((&running, of.stream)));
        let stream = |p: usize| match (&plan.nulls[target], p == targets) {
            (Some(null), true) => null.as_slice(),
            _ => self.point(targets + p, row),
        };
        shares(self.point(target, row), stream, &all)
    }

    /// Of one row, targets below `reached`.
    pub fn depth(&self, row: usize, reached: usize) -> Depth {
        let mut depth = Depth { counts: self.sources.counts(), ..Depth::default() };
        depth.counts.truncate(reached);
        depth.gates = self.gates(row, depth.counts.len());
        for target in 0..depth.counts.len() {
            depth.share.extend(self.shares(target, row));
            if self.mixed {
                depth.weight.extend(self.weights(target, row));
                depth.weight.extend(self.sources.over_stream.then_some(0.0));
            }
        }
        depth
    }
}

impl Core {
    pub fn depth_sources(&self) -> &Sources {
        &self.depth_sources
    }

    /// What sublayers read is mixed over depth, not one stream.
    pub fn mixes_depth(&self) -> bool {
        self.decoder.mixes_depth()
    }

    /// Of a row of the last pass, which had `rows`; `None` where it was not copied or is not measured.
    pub(super) fn depth(&self, row: usize, rows: usize, reached: usize) -> Option<Arc<Depth>> {
        if !self.probes.residual {
            return None;
        }
        let points = Points::new(self, rows);
        points.has(row).then(|| Arc::new(points.depth(row, reached)))
    }

    /// Of every row of the last pass.
    pub(super) fn depths(&self, rows: usize, reached: usize) -> Vec<Option<Arc<Depth>>> {
        if !self.probes.residual {
            return vec![None; rows];
        }
        let points = Points::new(self, rows);
        let of = |row: usize| points.has(row).then(|| Arc::new(points.depth(row, reached)));
        (0..rows).into_par_iter().map(of).collect()
    }

    /// The mean over `span` of the prompt, which is read once more for it.
    pub fn depth_of_span(&mut self, span: Range<usize>) -> Result<Depth> {
        let cache = self.backend.cache();
        self.backend.shelve_queries(0);
        self.backend.save_all_points(true);
        let (prompt, targets) = (self.prompt.clone(), self.depth_sources.origins.len());
        let (mut sum, mut read) = (Depth::default(), 0);
        let facts = std::mem::take(&mut self.facts);
        let outcome = prompt[..span.end].chunks(self.max_rows).try_for_each(|chunk| {
            self.read_rows(chunk, read, cache, None, &mut |_, _| Pause::Continue)?;
            let points = Points::new(self, chunk.len());
            let rows = (0..chunk.len()).filter(|row| span.contains(&(read + row))).collect::<Vec<_>>();
            let all: Vec<Depth> = rows.into_par_iter().map(|row| points.depth(row, targets)).collect();
            all.into_iter().for_each(|depth| sum.add(depth));
            read += chunk.len();
            Ok(())
        });
        self.facts = facts;
        self.backend.save_all_points(false);
        self.backend.restore_queries();
        self.backend.free(cache);
        outcome.map(|()| sum.over(span.len()))
    }
}

impl Depth {
    fn add(&mut self, other: Depth) {
        if self.counts.is_empty() {
            *self = other;
            return;
        }
        self.share.iter_mut().zip(other.share).for_each(|(sum, x)| *sum += x);
        self.weight.iter_mut().zip(other.weight).for_each(|(sum, x)| *sum += x);
    }

    fn over(mut self, count: usize) -> Self {
        let by = 1.0 / count.max(1) as f32;
        self.share.iter_mut().chain(&mut self.weight).for_each(|x| *x *= by);
        self.gates = None;
        self
    }
}
