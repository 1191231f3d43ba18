//! Traces of a made-up run: two layers, two heads, one kv head; two lanes.

mod damage;
mod file;
mod playing;

use std::path::Path;
use std::sync::Arc;

use super::Trace;
use super::record::{Fork, Header};
use super::writer::Writer;
use crate::engine::frame::*;
use crate::engine::message::{DepthInfo, DepthSources, ModelInfo, Speller};

pub const PROMPT: [u32; 3] = [5, 6, 7];

pub fn model() -> ModelInfo {
    ModelInfo {
        id: "made-up".into(),
        family: "llama".into(),
        sha256: None,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        hidden: 8,
        ff: 16,
        vocab: 100,
        context: 64,
        windows: vec![None, Some(8)],
        weight_types: "F32".into(),
        parameters: 1234,
        device: "cpu".into(),
        precision: "f32".into(),
        kv_type: "f32".into(),
        threads: 1,
        eos: vec![2],
        depth: DepthInfo {
            residual: "plain".into(),
            sources: DepthSources::Sublayers,
            null: false,
            over_stream: false,
            edges: Vec::new(),
        },
    }
}

pub fn speller() -> Speller {
    Speller(Arc::new(|id| format!(" w{id}")))
}

fn numbers(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| seed + i as f32 * 0.25).collect()
}

/// Lane 0 keeps all, lane 1 has lost position 1 of layer 0.
pub fn frame(step: u32) -> Frame {
    let (fed, pos) = if step == 0 { (PROMPT.to_vec(), 0) } else { (vec![10 + step], 2 + step) };
    let (rows, positions) = (fed.len(), pos as usize + fed.len());
    let seed = step as f32;
    let n = |count: usize| numbers(count, seed);
    let residual = Arc::new(ResidualStats {
        points: 5,
        rows,
        l2: n(5 * rows),
        rms: n(5 * rows),
        absmax: n(5 * rows),
        median: n(5 * rows),
        argmax: vec![3; 5 * rows],
    });
    let attention = Arc::new(AttentionStats {
        layers: 2,
        heads: 2,
        rows,
        entropy: n(4 * rows),
        first: n(4 * rows),
        recent: n(4 * rows),
        recent_window: 32,
        distance: n(4 * rows),
    });
    let kv_norms = Arc::new(KvNorms {
        layers: 2,
        kv_heads: 1,
        rows,
        key_l2_pre: n(2 * rows),
        key_l2: n(2 * rows),
        value_l1: n(2 * rows),
        value_l2: n(2 * rows),
    });
    let reads = Arc::new(Reads {
        layers: 2,
        kv_heads: 1,
        heads: 2,
        entries: vec![1, 2],
        seen: vec![3; 2],
        bytes: vec![8, 16],
        bytes_seen: vec![24; 2],
        metadata: vec![4; 2],
        metadata_held: 8,
        covered: n(4),
    });
    let lane = |lane: usize| {
        let mut kept = Kept::new(2, 1, positions);
        for (layer, p) in (0..2).flat_map(|layer| (0..positions).map(move |p| (layer, p))) {
            if (lane, layer, p) != (1, 0, 1) {
                kept.set(layer, 0, p);
            }
        }
        LaneFrame {
            spec: if lane == 0 { "full".into() } else { "knorm@50%".into() },
            fed: fed.as_slice().into(),
            pos,
            next: Some(11 + step),
            on_host: false,
            pick: Some(Pick {
                runner_up: Some(60 + step),
                scores: [3.0, 2.5],
                margin: 0.5,
                survivors: 2,
                dropped: 400,
            }),
            candidates: vec![Candidate { id: 11 + step, logit: 3.0, prob: 0.5, sampled_prob: 1.0 }],
            entropy: 0.5 + lane as f32,
            nll: (step > 0).then_some(0.25),
            residual: residual.clone(),
            stream: Arc::new(ResidualStats::default()),
            depth: Some(Arc::new(Depth {
                counts: vec![1, 2, 3, 4, 5],
                share: (0..15).map(|i| i as f32 / 15.0).collect(),
                weight: Vec::new(),
                gates: None,
            })),
            attention: attention.clone(),
            kv_norms: kv_norms.clone(),
            received: n(positions).into(),
            row: n(positions).into(),
            kept: Arc::new(kept),
            kv: KvBytes { held: 32, full: 64, per_layer: vec![16; 2], slots_per_layer: vec![3; 2] },
            reads: (lane > 0 && step > 0).then(|| reads.clone()),
            against: (lane > 0).then_some(Against { kl: 0.125, top1_agrees: true, same_prefix: true }),
            lens: vec![LensLayer {
                point: 4,
                top: vec![(40 + step, 0.5)],
                token_prob: 0.5,
                token_rank: 1,
                entropy: 1.5,
                kl: 0.25,
            }],
            survival: vec![Survival { share: 0.75, least: 0.5, layer: 0, kv_head: 0 }],
            covered: (lane > 0 && step > 0).then_some(0.5),
            effect: (lane > 0).then_some(Effect {
                tokens: 64,
                nll: 3.5,
                nll_full: 3.0,
                kl: 0.25,
                flips: 0.5,
                sink_rate: 0.25,
                sink_rate_full: 0.75,
            }),
            recall: (lane > 0).then_some(Recall { oracle: 1, share: 0.5 }),
        }
    };
    let op = OpTime {
        name: "matmul".into(),
        calls: 2,
        total_ns: 300,
        ns: vec![100, 200],
        bytes: 64,
        flops: 32,
        product: true,
    };
    Frame {
        step,
        partial: None,
        lanes: vec![lane(0), lane(1)],
        timeline: Timeline { op: vec![0; 2], layer: vec![1, 2], gap_ns: vec![5, 0], bytes: vec![32; 2] },
        ops: vec![op],
        peaks: None,
        graph: step % 2 == 1,
        card: None,
        memory: Memory { weights: 4936, ..Memory::default() },
        wall_ns: 1000,
        findings: Vec::new(),
        spans: [PromptSpan { name: "prompt".into(), from: 0, to: 2 }].into(),
    }
}

/// Prompt, steps 1 to 3, back to step 1, a fork, step 2 again.
pub fn record(path: &Path) {
    let mut writer = Writer::create(path, true).unwrap();
    writer.header(&Header::new(model(), &[])).unwrap();
    writer.prompt(&PROMPT, &speller()).unwrap();
    for step in 0..=3 {
        writer.frame(&frame(step), &speller()).unwrap();
    }
    writer.rewound(1).unwrap();
    writer.forked(Fork { lane: 2, from: 1 }).unwrap();
    writer.frame(&frame(2), &speller()).unwrap();
}

pub fn bytes(frame: &Frame) -> Vec<u8> {
    postcard::to_stdvec(frame).unwrap()
}

/// All frames of a trace, in the order of the file.
pub fn frames(trace: &mut Trace) -> super::error::Result<Vec<Frame>> {
    let is_frame = |i: &usize| matches!(trace.entries[*i], super::reader::Entry::Frame(_));
    let places: Vec<usize> = (0..trace.entries.len()).filter(is_frame).collect();
    places.into_iter().map(|place| trace.frame(place)).collect()
}
