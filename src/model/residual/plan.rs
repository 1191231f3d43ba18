//! What each dialect does between the sublayers, as a list of simple operations on matrices [R, d].

use super::{DepthMixing, Dialect};

/// Where a sublayer's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Out {
    pub buffer: usize,
    /// It replaces what is there; else it is added.
    pub fresh: bool,
}

/// to = keep · to + by · from; `keep` 0 overwrites whatever is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blend {
    pub to: usize,
    pub keep: f32,
    pub from: usize,
    pub by: f32,
}

/// A source of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    Buffer(usize),
    /// The target's null source, the same for all rows.
    Null,
}

/// h = keep · stream + by · Σ α_i v_i, α over `sources`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    pub target: usize,
    pub sources: Vec<Term>,
    /// Left out: h = by · Σ α_i v_i.
    pub stream: Option<usize>,
    pub keep: f32,
    pub by: f32,
}

/// The first of two phases: all targets of a block over the sources that are finished when it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Ahead {
    /// First target and how many.
    pub first: usize,
    pub count: usize,
    pub sources: Vec<Term>,
}

/// What becomes h.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    Copy(usize),
    Mix(Mix),
    /// The second phase for the `at`-th target of the last [`Ahead`], of which `finished` sources are known; `partial` is
    /// one source more.
    Merge {
        target: usize,
        at: usize,
        finished: usize,
        partial: Option<usize>,
    },
}

/// What follows a sublayer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sublayer {
    pub out: Out,
    pub blends: Vec<Blend>,
    pub ahead: Option<Ahead>,
    pub next: Next,
    /// What the growth of the stream is measured on.
    pub stream: usize,
}

/// A source as a sum of points of the stream: (point, factor). Point 0 is the embedding, point s + 1 the stream after
/// sublayer s; point L + 1 stands for the target's null source.
pub type Origin = Vec<(usize, f32)>;

#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Matrices [R, d] beside h.
    pub buffers: usize,
    /// Gets the embedding.
    pub embedding: usize,
    /// Before sublayer 0.
    pub blends: Vec<Blend>,
    pub first: Next,
    pub ahead: Option<Ahead>,
    pub sublayers: Vec<Sublayer>,
    /// Of each target [L + 1]: its sources, in order; empty where nothing is mixed.
    pub origins: Vec<Vec<Origin>>,
    /// Null source of each target that has one [L + 1][d].
    pub nulls: Vec<Option<Vec<f32>>>,
}

/// What a target reads is `stream` · the stream + `mixed` · α_i of each source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    pub stream: f32,
    pub mixed: f32,
}

impl Plan {
    /// Most sources of a target.
    pub fn across(&self) -> usize {
        self.origins.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn next(&self, target: usize) -> &Next {
        match target {
            0 => &self.first,
            t => &self.sublayers[t - 1].next,
        }
    }

    /// The running stream is a part of what some target reads, beside the sources.
    pub fn over_stream(&self) -> bool {
        (0..self.origins.len()).any(|target| self.share(target).stream != 0.0)
    }

    pub fn share(&self, target: usize) -> Share {
        match self.next(target) {
            Next::Copy(_) if self.origins[target].is_empty() => Share { stream: 1.0, mixed: 0.0 },
            Next::Copy(_) | Next::Merge { .. } => Share { stream: 0.0, mixed: 1.0 },
            Next::Mix(mix) => Share { stream: mix.stream.map_or(0.0, |_| mix.keep), mixed: mix.by },
        }
    }

    /// Weights come from the backend; else the one source has all.
    pub fn is_mixed(&self, target: usize) -> bool {
        !matches!(self.next(target), Next::Copy(_))
    }

    /// `phases`: blocks are mixed in two where that gives the same.
    pub fn new(mixing: &DepthMixing, phases: bool) -> Self {
        let nulls = mixing.queries.iter().map(|query| query.as_ref().and_then(|query| query.null.clone())).collect();
        let plan = match mixing.dialect {
            Dialect::Faithful | Dialect::Learned => blocks(mixing, phases),
            Dialect::Cumulative => cumulative(mixing),
            Dialect::Delta => delta(mixing),
            Dialect::DeltaBlock => delta_block(mixing),
        };
        Plan { nulls, ..plan }
    }
}

/// Gate and null source as the target's query has them.
fn mix(mixing: &DepthMixing, target: usize, mut sources: Vec<Term>, stream: usize) -> Next {
    let Some(query) = &mixing.queries[target] else { return Next::Copy(stream) };
    if query.null.is_some() {
        sources.insert(0, Term::Null);
    }
    if sources.is_empty() {
        return Next::Copy(stream);
    }
    let additive = matches!(mixing.dialect, Dialect::Delta | Dialect::DeltaBlock);
    let scale = if mixing.dialect == Dialect::Learned { sources.len() as f32 } else { 1.0 };
    // a gated additive mix is (1 − g) · s + g · (s + mix)
    let (stream, keep, by) = match (query.gate, additive) {
        (None, false) => (None, 0.0, scale),
        (None, true) => (Some(stream), 1.0, 1.0),
        (Some(gate), false) => (Some(stream), 1.0 - gate, gate),
        (Some(gate), true) => (Some(stream), 1.0, gate),
    };
    Next::Mix(Mix { target, sources, stream, keep, by })
}

fn point(p: usize) -> Origin {
    vec![(p, 1.0)]
}

/// With the null source before the others; none where nothing is mixed.
fn with_null(mixing: &DepthMixing, target: usize, mut origins: Vec<Origin>) -> Vec<Origin> {
    match &mixing.queries[target] {
        None => return Vec::new(),
        Some(query) if query.null.is_some() => origins.insert(0, point(mixing.queries.len())),
        Some(_) => {}
    }
    origins
}

/// Buffer 0 is the embedding, buffer n ≥ 1 the sum of block n, complete or not.
fn blocks(mixing: &DepthMixing, phases: bool) -> Plan {
    let sublayers = mixing.queries.len() - 1;
    let starts = &mixing.starts;
    // block of a sublayer, from 1
    let block = |s: usize| starts.partition_point(|&start| start <= s);
    let end = |n: usize| starts.get(n).copied().unwrap_or(sublayers);
    let plain = |target: usize| {
        let query = mixing.queries[target].as_ref();
        query.is_some_and(|query| query.gate.is_none() && query.null.is_none() && query.bias == 0.0)
    };
    let all = |count: usize| (0..count).map(Term::Buffer).collect::<Vec<_>>();
    // in two phases where a block has several targets with nothing special about them
    let ahead = |n: usize| {
        // target 0 reads the embedding itself
        let first = if n == 1 { 1 } else { starts[n - 1] };
        let count = end(n) - first;
        let wanted = phases && mixing.dialect == Dialect::Faithful && count > 1 && (first..end(n)).all(plain);
        wanted.then(|| Ahead { first, count, sources: all(n) })
    };
    let origin = |target: usize| match target {
        0 => vec![point(0)],
        _ => {
            let newest = block(target - 1);
            let finished = (0..newest).map(|n| point(if n == 0 { 0 } else { end(n) }));
            finished.chain([point(target)]).collect()
        }
    };
    let after = |s: usize| {
        let (n, target) = (block(s), s + 1);
        let edge = target < sublayers && starts.contains(&target);
        let ahead_now = if edge { ahead(n + 1) } else { None };
        let next = match (&ahead_now, if edge { None } else { ahead(n) }) {
            (Some(now), _) => Next::Merge { target, at: 0, finished: now.sources.len(), partial: None },
            (None, Some(before)) if target < sublayers => {
                let (at, finished) = (target - before.first, before.sources.len());
                Next::Merge { target, at, finished, partial: Some(n) }
            }
            _ => mix(mixing, target, all(n + 1), n),
        };
        let out = Out { buffer: n, fresh: starts.contains(&s) };
        Sublayer { out, blends: Vec::new(), ahead: ahead_now, next, stream: n }
    };
    Plan {
        buffers: starts.len() + 1,
        embedding: 0,
        blends: Vec::new(),
        first: Next::Copy(0),
        ahead: ahead(1),
        sublayers: (0..sublayers).map(after).collect(),
        origins: (0..=sublayers).map(|t| if t == 0 { origin(0) } else { with_null(mixing, t, origin(t)) }).collect(),
        nulls: Vec::new(),
    }
}

/// Buffer 0 is the embedding, 1 the stream, the others its snapshots at the ends of blocks.
fn cumulative(mixing: &DepthMixing) -> Plan {
    const STREAM: usize = 1;
    let sublayers = mixing.queries.len() - 1;
    let starts = &mixing.starts;
    // how many blocks have ended before target t, each with the target that follows it
    let ended =
        |t: usize| -> Vec<usize> { starts[1..].iter().copied().chain([sublayers]).filter(|&e| e <= t).collect() };
    let sources = |t: usize| {
        let snapshots = (0..ended(t).len()).map(|n| Term::Buffer(2 + n));
        [Term::Buffer(0)].into_iter().chain(snapshots).chain([Term::Buffer(STREAM)]).collect::<Vec<_>>()
    };
    let origin = |t: usize| {
        let snapshots = ended(t).into_iter().map(point);
        [point(0)].into_iter().chain(snapshots).chain([point(t)]).collect()
    };
    let after = |s: usize| {
        let target = s + 1;
        let snapshot =
            ended(target).len().checked_sub(ended(s).len()).filter(|&n| n > 0).map(|_| ended(target).len() + 1);
        let blends = snapshot.map(|to| Blend { to, keep: 0.0, from: STREAM, by: 1.0 }).into_iter().collect();
        let next = mix(mixing, target, sources(target), STREAM);
        Sublayer { out: Out { buffer: STREAM, fresh: false }, blends, ahead: None, next, stream: STREAM }
    };
    Plan {
        buffers: 2 + starts.len(),
        embedding: 0,
        blends: vec![Blend { to: STREAM, keep: 0.0, from: 0, by: 1.0 }],
        first: mix(mixing, 0, sources(0), STREAM),
        ahead: None,
        sublayers: (0..sublayers).map(after).collect(),
        origins: (0..=sublayers).map(|t| with_null(mixing, t, origin(t))).collect(),
        nulls: Vec::new(),
    }
}

/// Buffer 0 is the stream, 1 the embedding, 2 + s the output of sublayer s.
fn delta(mixing: &DepthMixing) -> Plan {
    let sublayers = mixing.queries.len() - 1;
    let sources = |t: usize| if t == 0 { Vec::new() } else { (1..t + 2).map(Term::Buffer).collect() };
    let origin = |t: usize| match t {
        0 => Vec::new(),
        _ => [point(0)].into_iter().chain((0..t).map(|s| vec![(s + 1, 1.0), (s, -1.0)])).collect(),
    };
    let after = |s: usize| Sublayer {
        out: Out { buffer: 2 + s, fresh: true },
        blends: vec![Blend { to: 0, keep: 1.0, from: 2 + s, by: 1.0 }],
        ahead: None,
        next: mix(mixing, s + 1, sources(s + 1), 0),
        stream: 0,
    };
    Plan {
        buffers: 2 + sublayers,
        embedding: 1,
        blends: vec![Blend { to: 0, keep: 0.0, from: 1, by: 1.0 }],
        first: mix(mixing, 0, sources(0), 0),
        ahead: None,
        sublayers: (0..sublayers).map(after).collect(),
        origins: (0..=sublayers).map(|t| with_null(mixing, t, origin(t))).collect(),
        nulls: Vec::new(),
    }
}

/// Buffer 0 is the stream, 1 a sublayer's output, 2 + n the n-th source. As published (wdlctc/delta-attention-residuals-code):
/// when the attention of a block's first layer has run, the stream before its output, less the source before, becomes a
/// source.
fn delta_block(mixing: &DepthMixing) -> Plan {
    let sublayers = mixing.queries.len() - 1;
    let starts = &mixing.starts;
    let known = |t: usize| starts.iter().filter(|&&start| start < t).count();
    let sources = |t: usize| (0..known(t)).map(|n| Term::Buffer(2 + n)).collect();
    let origin = |n: usize| -> Origin {
        (0..=n).rev().map(|k| (starts[k], if (n - k).is_multiple_of(2) { 1.0 } else { -1.0 })).collect()
    };
    let after = |s: usize| {
        let mut blends = Vec::new();
        if let Ok(n) = starts.binary_search(&s) {
            blends.push(Blend { to: 2 + n, keep: 0.0, from: 0, by: 1.0 });
            blends.extend((n > 0).then_some(Blend { to: 2 + n, keep: 1.0, from: 1 + n, by: -1.0 }));
        }
        blends.push(Blend { to: 0, keep: 1.0, from: 1, by: 1.0 });
        let next = mix(mixing, s + 1, sources(s + 1), 0);
        Sublayer { out: Out { buffer: 1, fresh: true }, blends, ahead: None, next, stream: 0 }
    };
    Plan {
        buffers: 2 + starts.len(),
        embedding: 0,
        blends: Vec::new(),
        first: mix(mixing, 0, sources(0), 0),
        ahead: None,
        sublayers: (0..sublayers).map(after).collect(),
        origins: (0..=sublayers).map(|t| with_null(mixing, t, (0..known(t)).map(origin).collect())).collect(),
        nulls: Vec::new(),
    }
}
