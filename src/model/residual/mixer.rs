//! A plan on a backend: its matrices, queries and operations.

use super::plan::{Ahead, Blend, Next, Plan, Sublayer, Term};
use super::{DepthMixing, Out};
use crate::backend::mixing::{Mix, MixAhead, MixMerge, Source};
use crate::backend::{Backend, BackendError, Buf, Result, Vector};

enum Step {
    Copy(Buf),
    Mix(Mix),
    Merge(MixMerge),
}

/// What follows a sublayer, or comes before the first one.
struct Between {
    blends: Vec<(Buf, f32, Buf, f32)>,
    ahead: Option<MixAhead>,
    next: Step,
    stream: Buf,
}

pub struct Mixer {
    plan: Plan,
    buffers: Vec<Buf>,
    /// Before sublayer 0, then after each.
    between: Vec<Between>,
    /// Residual points of what sublayers read.
    points: usize,
}

struct Loader<'a> {
    mixing: &'a DepthMixing,
    backend: &'a mut dyn Backend,
    buffers: &'a [Buf],
    /// Of each target.
    keys: Vec<Option<Vector>>,
    nulls: Vec<Option<Vector>>,
    state: Option<Buf>,
    /// The first phase that the following merges belong to.
    ahead: Option<MixAhead>,
}

impl Loader<'_> {
    fn key(&self, target: usize) -> Result<Vector> {
        self.keys[target].ok_or_else(|| failed(format!("target {target} has no query")))
    }

    fn source(&self, target: usize, term: Term) -> Result<Source> {
        match term {
            Term::Buffer(n) => Ok(Source::Rows(self.buffers[n])),
            Term::Null => {
                let null = self.nulls[target].ok_or_else(|| failed(format!("target {target} has no null source")))?;
                Ok(Source::Same(null))
            }
        }
    }

    fn ahead(&mut self, ahead: &Ahead) -> Result<MixAhead> {
        let sources: Vec<Source> =
            ahead.sources.iter().map(|&term| self.source(ahead.first, term)).collect::<Result<_>>()?;
        let queries = &self.mixing.queries[ahead.first..ahead.first + ahead.count];
        let keys: Vec<f32> = queries.iter().flatten().flat_map(|query| query.key.iter().copied()).collect();
        let state = self.state.ok_or_else(|| failed("a first phase has nowhere to go".into()))?;
        let (sources, keys) = (self.backend.sources(&sources), self.backend.numbers(&keys)?);
        Ok(MixAhead { first: ahead.first, count: ahead.count, sources, keys, eps: self.mixing.eps, state })
    }

    fn next(&mut self, next: &Next) -> Result<Step> {
        Ok(match next {
            Next::Copy(n) => Step::Copy(self.buffers[*n]),
            Next::Mix(mix) => {
                let sources: Vec<Source> =
                    mix.sources.iter().map(|&term| self.source(mix.target, term)).collect::<Result<_>>()?;
                let bias = self.mixing.queries[mix.target].as_ref().map_or(0.0, |query| query.bias);
                Step::Mix(Mix {
                    target: mix.target,
                    sources: self.backend.sources(&sources),
                    key: self.key(mix.target)?,
                    eps: self.mixing.eps,
                    bias,
                    stream: mix.stream.map(|n| self.buffers[n]),
                    keep: mix.keep,
                    by: mix.by,
                })
            }
            Next::Merge { target, finished, partial, .. } => {
                let ahead = self.ahead.ok_or_else(|| failed("a second phase without a first".into()))?;
                let partial = partial.map(|n| self.buffers[n]);
                Step::Merge(MixMerge { ahead, target: *target, finished: *finished, partial, key: self.key(*target)? })
            }
        })
    }

    fn between(&mut self, blends: &[Blend], ahead: Option<&Ahead>, next: &Next, stream: usize) -> Result<Between> {
        let ahead = ahead.map(|ahead| self.ahead(ahead)).transpose()?;
        self.ahead = ahead.or(self.ahead);
        let blends = blends.iter().map(|b| (self.buffers[b.to], b.keep, self.buffers[b.from], b.by)).collect();
        Ok(Between { blends, ahead, next: self.next(next)?, stream: self.buffers[stream] })
    }
}

fn failed(why: String) -> BackendError {
    BackendError::Failed { what: "mixing depth".into(), why }
}

impl Mixer {
    pub fn load(mixing: &DepthMixing, hidden: usize, backend: &mut dyn Backend) -> Result<Self> {
        let plan = Plan::new(mixing, true);
        let buffers: Vec<Buf> = (0..plan.buffers).map(|_| backend.buffer(hidden)).collect();
        let all = || [&plan.ahead].into_iter().chain(plan.sublayers.iter().map(|s| &s.ahead)).flatten();
        let widest = all().map(|ahead| ahead.count).max();
        let state = widest.map(|count| backend.buffer(count * (hidden + 2)));
        let mut vector = |values: Option<&Vec<f32>>| values.map(|values| backend.numbers(values)).transpose();
        let queries = &mixing.queries;
        let keys = queries.iter().map(|q| vector(q.as_ref().map(|q| &q.key))).collect::<Result<_>>()?;
        let nulls = queries.iter().map(|q| vector(q.as_ref().and_then(|q| q.null.as_ref()))).collect::<Result<_>>()?;
        let mut loader = Loader { mixing, backend, buffers: &buffers, keys, nulls, state, ahead: None };
        let stream = plan.sublayers.first().map_or(plan.embedding, |s| s.stream);
        // before the first sublayer of a block the stream is still the embedding
        let before = if plan.blends.is_empty() { plan.embedding } else { stream };
        let mut between = vec![loader.between(&plan.blends, plan.ahead.as_ref(), &plan.first, before)?];
        for Sublayer { blends, ahead, next, stream, .. } in &plan.sublayers {
            between.push(loader.between(blends, ahead.as_ref(), next, *stream)?);
        }
        let points = plan.sublayers.len() + 1;
        Ok(Self { plan, buffers, between, points })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Gets the embedding.
    pub fn embedding(&self) -> Buf {
        self.buffers[self.plan.embedding]
    }

    /// Where a sublayer's output goes, and whether it replaces what is there.
    pub fn out(&self, sublayer: usize) -> (Buf, bool) {
        let Out { buffer, fresh } = self.plan.sublayers[sublayer].out;
        (self.buffers[buffer], fresh)
    }

    /// What target `target` reads, once the sublayer before it has run.
    pub fn enter(&self, b: &mut dyn Backend, target: usize, h: Buf) {
        let between = &self.between[target];
        for &(to, keep, from, by) in &between.blends {
            b.blend(to, keep, from, by);
        }
        b.residual_point(between.stream, self.points + target);
        between.ahead.iter().for_each(|ahead| b.mix_ahead(ahead));
        match &between.next {
            Step::Copy(from) => b.blend(h, 0.0, *from, 1.0),
            Step::Mix(mix) => b.mix(mix, h),
            Step::Merge(merge) => b.mix_merge(merge, h),
        }
    }
}
