//! Plans on scalars: a toy network f(h) = c · h with queries of 0, whose mixes are means.

use super::*;

fn queries(sublayers: usize, bias: f32) -> Vec<Option<DepthQuery>> {
    let query = DepthQuery { key: Vec::new(), bias, gate: None, null: None };
    vec![Some(query); sublayers + 1]
}

fn mixing(dialect: Dialect, starts: Vec<usize>, sublayers: usize) -> DepthMixing {
    DepthMixing { dialect, starts, queries: queries(sublayers, 0.0), eps: 1e-6 }
}

struct Ran {
    /// What each target reads [L + 1].
    h: Vec<f64>,
    stream: Vec<f64>,
}

/// α of queries of 0: uniform, but for the bias of the last source.
fn alphas(n: usize, bias: f32) -> Vec<f64> {
    let last = f64::from(bias).exp();
    let sum = (n - 1) as f64 + last;
    (0..n).map(|i| if i + 1 == n { last / sum } else { 1.0 / sum }).collect()
}

fn run(mixing: &DepthMixing, phases: bool, c: f64) -> Ran {
    let plan = Plan::new(mixing, phases);
    let mut x = vec![f64::NAN; plan.buffers];
    x[plan.embedding] = 1.0;
    let blend = |x: &mut Vec<f64>, b: &Blend| {
        let kept = if b.keep == 0.0 { 0.0 } else { f64::from(b.keep) * x[b.to] };
        x[b.to] = kept + f64::from(b.by) * x[b.from];
    };
    // (Σ v, number) of the finished sources
    let mut ahead = (0.0, 0);
    let find_ahead = |x: &[f64], a: &Option<Ahead>, ahead: &mut (f64, usize)| {
        if let Some(a) = a {
            let sum = a.sources.iter().map(|t| if let Term::Buffer(b) = t { x[*b] } else { 0.0 }).sum();
            *ahead = (sum, a.sources.len());
        }
    };
    let next = |x: &[f64], next: &Next, ahead: (f64, usize)| match next {
        Next::Copy(b) => x[*b],
        Next::Merge { finished, partial, .. } => {
            assert_eq!(*finished, ahead.1);
            (ahead.0 + partial.map_or(0.0, |b| x[b])) / (ahead.1 + usize::from(partial.is_some())) as f64
        }
        Next::Mix(mix) => {
            let value = |t: &Term| if let Term::Buffer(b) = t { x[*b] } else { 0.0 };
            let bias = mixing.queries[mix.target].as_ref().unwrap().bias;
            let weights = alphas(mix.sources.len(), bias);
            let mean: f64 = mix.sources.iter().zip(weights).map(|(t, w)| w * value(t)).sum();
            mix.stream.map_or(0.0, |b| f64::from(mix.keep) * x[b]) + f64::from(mix.by) * mean
        }
    };
    plan.blends.iter().for_each(|b| blend(&mut x, b));
    find_ahead(&x, &plan.ahead, &mut ahead);
    let mut h = vec![next(&x, &plan.first, ahead)];
    let mut stream = vec![1.0];
    for sublayer in &plan.sublayers {
        let out = c * h.last().unwrap();
        let to = &mut x[sublayer.out.buffer];
        *to = if sublayer.out.fresh { out } else { *to + out };
        sublayer.blends.iter().for_each(|b| blend(&mut x, b));
        find_ahead(&x, &sublayer.ahead, &mut ahead);
        h.push(next(&x, &sublayer.next, ahead));
        stream.push(x[sublayer.stream]);
    }
    // what the origins say the sources are gives the same mixes
    for (target, origins) in plan.origins.iter().enumerate().filter(|(_, origins)| !origins.is_empty()) {
        let bias = mixing.queries[target].as_ref().map_or(0.0, |q| q.bias);
        let value = |origin: &Origin| origin.iter().map(|(p, f)| f64::from(*f) * stream[*p]).sum::<f64>();
        let weights = alphas(origins.len(), bias);
        let mean: f64 = origins.iter().zip(weights).map(|(o, w)| w * value(o)).sum();
        let (scale, kept) = match mixing.dialect {
            Dialect::Learned => (origins.len() as f64, 0.0),
            Dialect::Delta | Dialect::DeltaBlock => (1.0, stream[target]),
            Dialect::Faithful | Dialect::Cumulative => (1.0, 0.0),
        };
        if mixing.queries[target].is_some() {
            assert!((scale * mean + kept - h[target]).abs() < 1e-9, "target {target}");
        }
    }
    Ran { h, stream }
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-4, "{found:?}, expected {expected:?}");
    }
}

#[test]
fn full_attention_residuals_over_a_toy_network() {
    let full = run(&mixing(Dialect::Faithful, (0..6).collect(), 6), true, 2.0);
    near(&full.h, &[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]);
    near(&full.stream, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn blocks_in_one_phase_and_in_two() {
    let blocks = mixing(Dialect::Faithful, vec![0, 2, 4], 6);
    for phases in [false, true] {
        let one = run(&blocks, phases, 1.0);
        near(&one.h, &[1.0, 1.0, 1.5, 1.5, 2.0, 2.0, 2.5]);
        near(&[one.stream[0], one.stream[2], one.stream[4], one.stream[6]], &[1.0, 2.0, 3.0, 4.0]);
        let two = run(&blocks, phases, 2.0);
        near(&two.h, &[1.0, 1.5, 3.0, 4.0, 6.6667, 8.3333, 12.5]);
        near(&[two.stream[2], two.stream[4], two.stream[6]], &[5.0, 14.0, 30.0]);
    }
    // blocks of one sublayer are the full form
    let (full, ones) = (mixing(Dialect::Faithful, (0..6).collect(), 6), mixing(Dialect::Faithful, (0..6).collect(), 6));
    assert_eq!(run(&full, true, 1.3).h, run(&ones, false, 1.3).h);
    // a remainder in the last block
    let uneven = mixing(Dialect::Faithful, vec![0, 4], 6);
    near(&run(&uneven, true, 1.0).h, &run(&uneven, false, 1.0).h);
}

#[test]
fn the_cumulative_dialect_over_a_toy_network() {
    let ran = run(&mixing(Dialect::Cumulative, vec![0, 2, 4], 6), true, 1.0);
    near(&ran.h[..6], &[1.0, 1.5, 2.6667, 3.5556, 5.9861, 7.4826]);
    assert!((ran.stream[6] - 23.190972).abs() < 1e-5);
}

#[test]
fn a_strong_recency_bias_is_the_plain_residual() {
    let mut biased = mixing(Dialect::Cumulative, vec![0, 2, 4], 6);
    biased.queries = queries(6, 60.0);
    biased.queries[6] = None;
    let ran = run(&biased, true, 2.0);
    near(&ran.h, &[1.0, 3.0, 9.0, 27.0, 81.0, 243.0, 729.0]);
}

#[test]
fn learned_depth_begins_as_the_plain_model() {
    let ran = run(&mixing(Dialect::Learned, (0..6).collect(), 6), true, 2.0);
    near(&ran.h, &[1.0, 3.0, 9.0, 27.0, 81.0, 243.0, 729.0]);
}

/// By hand, c = 1: t0 h = 1; v0 = 1, stream 2. t1: 2 + mean(1, 1) = 3; v1 = 3, stream 5. t2: 5 + mean(1, 1, 3).
#[test]
fn deltas_are_added_to_the_stream() {
    let mut all = mixing(Dialect::Delta, (0..4).collect(), 4);
    all.queries[4] = None;
    let ran = run(&all, true, 1.0);
    near(&ran.h[..3], &[1.0, 3.0, 5.0 + 5.0 / 3.0]);
    near(&ran.h[4..], &ran.stream[4..]);
    let mut blocks = mixing(Dialect::DeltaBlock, vec![0, 2], 4);
    blocks.queries[4] = None;
    // t1: source 1 (the embedding): h = 2 + 1 = 3; stream 5. t2: 5 + 1 = 6; before it is added 5 − 1 = 4 is a source.
    let ran = run(&blocks, true, 1.0);
    near(&ran.h[..4], &[1.0, 3.0, 6.0, 11.0 + 2.5]);
}

#[test]
fn a_gate_keeps_the_rest_of_the_stream() {
    let mut gated = mixing(Dialect::Cumulative, vec![0, 2], 4);
    gated.queries.iter_mut().flatten().for_each(|q| q.gate = Some(0.25));
    gated.queries[4] = None;
    let Next::Mix(mix) = &Plan::new(&gated, true).sublayers[0].next else { panic!("nothing is mixed") };
    assert_eq!((mix.stream, mix.keep, mix.by), (Some(1), 0.75, 0.25));
}
