//! Hand-made frames for tests and benches of the screen: shapes of a small model, numbers with the look of real
//! ones (a sink at position 0, growth over depth, one massive activation), no meaning.

use std::sync::Arc;

use attnscope::engine::frame::*;
use attnscope::engine::message::*;

pub const LAYERS: usize = 30;
pub const HEADS: usize = 9;
pub const KV_HEADS: usize = 3;

const WORDS: &[&str] = &[
    "The", " capital", " of", " France", " is", " Paris", ".", "\n", " It", " lies", " on", " the", " river", " Seine",
    ",", " and", " was", " founded", " in", " the", " third", " century", " BC", " by", " a", " Celtic", " people",
    " called", " the", " Par", "isi", "i", ".",
];

pub fn speller() -> Speller {
    Speller(Arc::new(|id| match id {
        900 => "\u{1b}[31m\u{202e}evil\u{7}".into(),
        id => WORDS[id as usize % WORDS.len()].into(),
    }))
}

pub fn model() -> ModelInfo {
    ModelInfo {
        id: "smollm2-135m".into(),
        family: "llama".into(),
        sha256: None,
        layers: LAYERS,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: 64,
        hidden: 576,
        ff: 1536,
        vocab: 49152,
        context: 8192,
        windows: vec![None; LAYERS],
        weight_types: "Q4_1".into(),
        parameters: 134_515_008,
        device: "cpu".into(),
        precision: "native".into(),
        kv_type: "f32".into(),
        threads: 2,
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

/// A number in 0..1 that looks random and is the same every time.
pub fn noise(a: usize, b: usize, c: usize) -> f32 {
    let mut h = (a as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (b as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    h ^= (c as u64).wrapping_mul(0x1656_67B1_9E37_79F9);
    h ^= h >> 29;
    h = h.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    h ^= h >> 32;
    (h >> 40) as f32 / (1u64 << 24) as f32
}

pub fn prompt(n: usize) -> Vec<u32> {
    (0..n as u32).collect()
}

fn residual(pos: usize, rows: usize) -> ResidualStats {
    let points = 1 + 2 * LAYERS;
    let mut stats = ResidualStats { points, rows, ..Default::default() };
    for point in 0..points {
        for row in 0..rows {
            let (p, depth) = (pos + row, point as f32 / points as f32);
            let rms = 0.1 * (1.0 + 30.0 * depth * depth) * (0.8 + 0.4 * noise(point, p, 1));
            let massive = p == 0 && (6..56).contains(&point);
            let absmax = if massive { 1400.0 } else { rms * (8.0 + 8.0 * noise(point, p, 2)) };
            stats.l2.push(if massive { 1500.0 } else { rms * 24.0 });
            stats.rms.push(if massive { 62.0 } else { rms });
            stats.absmax.push(absmax);
            stats.median.push(rms * 0.67);
            stats.argmax.push(if massive { 447 } else { (noise(point, p, 3) * 576.0) as u32 });
        }
    }
    stats
}

fn attention(pos: usize, rows: usize) -> AttentionStats {
    let mut stats = AttentionStats { layers: LAYERS, heads: HEADS, rows, recent_window: 16, ..Default::default() };
    for layer in 0..LAYERS {
        for head in 0..HEADS {
            for row in 0..rows {
                let p = (pos + row) as f32;
                let kind = noise(layer, head, 7);
                let sink = (kind * (1.0 - 0.5 * (layer as f32 / LAYERS as f32 - 0.5).abs())).clamp(0.0, 0.99);
                stats.first.push(if p == 0.0 { 1.0 } else { sink });
                stats.entropy.push((1.0 - sink) * (1.0 + p).ln() * (0.6 + 0.4 * noise(layer, head, pos + row)));
                stats.recent.push(((1.0 - sink) * noise(layer, head, 9)).clamp(0.0, 1.0));
                stats.distance.push(p * (0.05 + 0.9 * sink));
            }
        }
    }
    stats
}

fn kept(lane: usize, positions: usize, prompt: usize) -> Kept {
    let mut kept = Kept::new(LAYERS, KV_HEADS, positions);
    for layer in 0..LAYERS {
        for head in 0..KV_HEADS {
            for p in 0..positions {
                let keep = match lane {
                    0 => true,
                    1 => p < 4 || p + prompt / 4 >= positions,
                    2 => p >= prompt || p + 16 >= prompt || noise(layer * 3 + head, p, 11) > 0.6,
                    _ => p == 0 || noise(layer + head, p, 13) > 0.5,
                };
                if keep {
                    kept.set(layer, head, p);
                }
            }
        }
    }
    kept
}

/// Three quarters of the prompt are a document.
fn spans(n: usize) -> [PromptSpan; 2] {
    let border = n as u32 * 3 / 4;
    let span = |name: &str, from, to| PromptSpan { name: name.into(), from, to };
    [span("document", 0, border), span("question", border, n as u32)]
}

fn survival(kept: &Kept, span: &PromptSpan) -> Survival {
    attnscope::probe::survival::survival(kept, span.positions(), 0..LAYERS).expect("positions and layers")
}

const SPECS: [&str; 4] = ["full", "streaming@25%:sinks=4", "snapkv@50%", "oracle@50%"];

/// The first two candidates, greedily; lane 0 without its logits.
fn pick(lane: usize, candidates: &[Candidate]) -> Pick {
    let scores = [candidates[0].logit, candidates[1].logit];
    let (margin, dropped) = (scores[0] - scores[1], if lane == 0 { 49_152 * 4 } else { 0 });
    Pick { runner_up: Some(candidates[1].id), scores, margin, survivors: 1, dropped }
}

/// One lane at one step of a run with a prompt of `n` tokens.
fn lane(index: usize, step: u32, n: usize) -> LaneFrame {
    let (pos, fed): (usize, Vec<u32>) = if step == 0 {
        (0, prompt(n))
    } else {
        // Lane 1 says something else from step 5 on, lane 3 from step 12 on.
        let off = (index == 1 && step >= 5) as u32 * 3 + (index == 3 && step >= 12) as u32 * 7;
        (n + step as usize - 1, vec![n as u32 + step - 1 + off])
    };
    let rows = fed.len();
    let positions = pos + rows;
    let kept = kept(index, positions, n);
    let per_slot = (2 * 64 * 4) as u64;
    let slots: Vec<u32> = (0..LAYERS).map(|l| (0..KV_HEADS).map(|h| kept.count(l, h) as u32).sum()).collect();
    let per_layer: Vec<u64> = slots.iter().map(|&s| s as u64 * per_slot).collect();
    let norms = || vec![1.0; LAYERS * KV_HEADS * rows];
    let kv_norms = KvNorms {
        layers: LAYERS,
        kv_heads: KV_HEADS,
        rows,
        key_l2_pre: norms(),
        key_l2: norms(),
        value_l1: norms(),
        value_l2: norms(),
    };
    let attended = |p: usize| if p == 0 { 0.4 } else { 0.02 * noise(p, 5, 3) + 0.2 / (positions - p) as f32 };
    let mut left = 1.0;
    let candidates: Vec<Candidate> = (0..16)
        .map(|i| {
            let prob = left * (0.35 + 0.3 * noise(step as usize, i, 17));
            left -= prob;
            Candidate {
                id: if i == 0 { positions as u32 } else { 3 * positions as u32 + 5 * i as u32 },
                logit: 18.0 + prob.ln(),
                prob,
                sampled_prob: if i < 6 { prob } else { 0.0 },
            }
        })
        .collect();
    LaneFrame {
        spec: SPECS[index % 4].into(),
        fed: fed.into(),
        pos: pos as u32,
        next: Some(positions as u32),
        on_host: false,
        pick: Some(pick(index, &candidates)),
        candidates,
        entropy: 1.0 + noise(step as usize, index, 4),
        nll: (step > 0).then(|| 6.0 * noise(step as usize, index, 6).powi(2)),
        residual: Arc::new(residual(pos, rows)),
        attention: Arc::new(attention(pos, rows)),
        effect: None,
        stream: Arc::default(),
        depth: None,
        kv_norms: Arc::new(kv_norms),
        received: (0..positions).map(|p| attended(p) * (positions - p) as f32).collect(),
        row: (0..positions).map(attended).collect(),
        kv: KvBytes {
            held: per_layer.iter().sum(),
            full: (positions * LAYERS * KV_HEADS) as u64 * per_slot,
            per_layer,
            slots_per_layer: slots,
        },
        reads: None,
        survival: spans(n).iter().map(|span| survival(&kept, span)).collect(),
        covered: (index > 0 && step > 0).then(|| 0.9 + 0.08 * noise(step as usize, index, 21)),
        recall: (index == 2).then_some(Recall { oracle: 3, share: 0.625 }),
        against: (index > 0).then(|| Against {
            kl: 0.02 * (1 + index) as f32 * noise(step as usize, index, 8) * (1.0 + step as f32 / 8.0),
            top1_agrees: noise(step as usize, index, 9) > 0.15,
            same_prefix: !(index == 1 && step >= 5 || index == 3 && step >= 12),
        }),
        kept: Arc::new(kept),
        lens: (0..=LAYERS as u32).map(|l| lens(l, step, positions as u32)).collect(),
    }
}

/// Another token is the best until a layer that differs from step to step.
fn lens(layer: u32, step: u32, positions: u32) -> LensLayer {
    let left = LAYERS as u32 - layer;
    let late = layer < 18 + (10.0 * noise(step as usize, 5, 31)) as u32;
    let top = |i: u32| (positions + i * left + late as u32, 0.9f32.powi((left + 4 * i) as i32));
    LensLayer {
        point: 2 * layer,
        top: (0..4).map(top).collect(),
        token_prob: 0.9f32.powi(left as i32) * if late { 0.3 } else { 1.0 },
        token_rank: 1 + late as u32 * left,
        entropy: 0.3 * left as f32 + 1.0,
        kl: 0.2 * left as f32,
    }
}

fn ops(rows: usize) -> Vec<OpTime> {
    let one = |name: &str, calls: usize, ns: u32, bytes: u64, flops: u64| {
        let ns: Vec<u32> = (0..calls).map(|i| (ns as f32 * (0.9 + 0.3 * noise(i, ns as usize, 1))) as u32).collect();
        OpTime {
            name: name.into(),
            calls: calls as u32,
            total_ns: ns.iter().map(|&n| n as u64).sum(),
            ns,
            bytes: bytes * calls as u64,
            flops: flops * calls as u64 * rows as u64,
            product: name.starts_with("matmul") || name == "head",
        }
    };
    vec![
        one("matmul qkv", LAYERS, 14_000, 345_600, 1_105_920),
        one("attention", LAYERS, 9_000, 200_000, 400_000),
        one("matmul o", LAYERS, 9_000, 207_360, 663_552),
        one("matmul gate up", LAYERS, 36_000, 1_105_920, 3_538_944),
        one("matmul down", LAYERS, 20_000, 552_960, 1_769_472),
        one("norm", 2 * LAYERS + 1, 600, 2304, 1152),
        one("rope", LAYERS, 900, 3072, 2304),
        one("probe residual", 2 * LAYERS + 1, 700, 2304, 1728),
        one("head", 1, 900_000, 30_000_000, 56_000_000),
        one("policy", LAYERS, 1100, 4096, 2048),
    ]
}

/// Every operation of every layer in the order of a pass; the head at the end.
fn timeline(ops: &[OpTime]) -> Timeline {
    const LAYER: [&str; 11] = [
        "norm",
        "matmul qkv",
        "rope",
        "attention",
        "matmul o",
        "probe residual",
        "norm",
        "matmul gate up",
        "matmul down",
        "probe residual",
        "policy",
    ];
    let layers = (0..LAYERS as u16).flat_map(|layer| LAYER.map(|name| (name, layer + 1)));
    let calls: Vec<(&str, u16)> =
        [("probe residual", 0)].into_iter().chain(layers).chain([("norm", 0), ("head", 0)]).collect();
    let op = |name: &str| ops.iter().position(|op| *op.name == *name).expect("an operation");
    Timeline {
        op: calls.iter().map(|(name, _)| op(name) as u16).collect(),
        layer: calls.iter().map(|(_, layer)| *layer).collect(),
        gap_ns: calls.iter().map(|(name, _)| if *name == "rope" { 300 } else { 0 }).collect(),
        bytes: calls.iter().map(|(name, _)| ops[op(name)].bytes / u64::from(ops[op(name)].calls)).collect(),
    }
}

fn peaks() -> Peaks {
    let how = "best of 5, 2 threads: reading 128 MiB, the largest cache being 32 MiB; f32 by the float product kernel in cache; products by the kernel for the model's packed weights and 8-bit rows in cache";
    Peaks { read_bytes_per_s: 33e9, flops_per_s: 120e9, product_flops_per_s: 410e9, how: how.into() }
}

/// Step 9 has been waiting for its card.
fn card(step: u32) -> CardSample {
    CardSample {
        age_ms: if step == 9 { 7_300 } else { 180 },
        busy_percent: Some(80 + step % 7),
        memory_busy_percent: Some(60 + step % 5),
        process_bytes: Some(3 << 30),
        used_bytes: Some(40 << 30),
        total_bytes: Some(141 << 30),
        power_mw: Some(400_000 + 1500 * step),
        power_limit_mw: Some(700_000),
        temperature_c: Some(55 + step % 3),
        sm_mhz: Some(1980),
        memory_mhz: Some(3201),
        to_card_kb_s: Some(12_000),
        from_card_kb_s: None,
        throttle: Some(4),
    }
}

pub fn frame(step: u32, n: usize, lanes: usize) -> Frame {
    let lanes: Vec<LaneFrame> = (0..lanes).map(|i| lane(i, step, n)).collect();
    let kv = lanes.iter().map(|l| l.kv.held).sum();
    let positions = n + step as usize;
    let finding = |kind, title: &str, layer, head, position| {
        Finding {
        kind,
        lane: 0,
        step,
        title: title.into(),
        evidence: "|x| = 1400 at channel 447 of position 0 is 2090 times the median 0.67 (Sun et al. 2024: > 100 and ≥ 1000 × median)".into(),
        advice: "look at the growth view: the value stays the same from layer to layer and works as a bias".into(),
        layer,
        head,
        position,
    }
    };
    let findings = match step {
        0 => vec![
            finding(
                FindingKind::MassiveActivation,
                "massive activation after layer 2 on position 0",
                Some(2),
                None,
                Some(0),
            ),
            finding(
                FindingKind::AttentionSink,
                "position 0 is an attention sink in 61 % of the heads",
                Some(9),
                Some(4),
                Some(0),
            ),
        ],
        5 => vec![finding(
            FindingKind::Divergence,
            "lane 1 leaves lane 0's text",
            None,
            None,
            Some(positions as u32 - 1),
        )],
        _ => Vec::new(),
    };
    let ops = ops(if step == 0 { n } else { 1 });
    Frame {
        step,
        partial: None,
        timeline: if step == 0 { Timeline::default() } else { timeline(&ops) },
        ops,
        peaks: Some(Arc::new(peaks())),
        graph: false,
        card: Some(card(step)),
        memory: Memory {
            weights: 98 << 20,
            kv,
            queries: (positions * LAYERS * HEADS * 64 * 4) as u64,
            queries_budget: 512 << 20,
            activations: 9 << 20,
            history: (2 << 20) + positions as u64 * 4000,
        },
        wall_ns: if step == 0 { 210_000_000 } else { 4_600_000 },
        findings,
        lanes,
        spans: spans(n).into(),
    }
}

/// Attention of query `row` on key `col`, before it is normalised: a sink, a diagonal, some far keys.
fn weight(layer: u32, head: u32, row: u32, col: u32) -> f32 {
    let kind = noise(layer as usize, head as usize, 7);
    let near = 1.0 / (1.0 + (row - col) as f32 * (0.2 + kind));
    let far = if noise(col as usize, head as usize, layer as usize) > 0.93 { 0.25 } else { 0.004 };
    if col == 0 { 0.2 + kind } else { near * (1.0 - kind) + far * noise(row as usize, col as usize, 3) }
}

fn drift(layer: usize) -> LayerDrift {
    let of = |size: f32| [1.0, 8.0, 1e-3].map(|times: f32| size * times * (0.5 + noise(layer, times as usize, 41)));
    LayerDrift { output: of(1e-3), probs: of(2e-4), own_probs: 1e-7 }
}

pub fn tile(query: &Query) -> Answer {
    let &Query::Tile { layer, head, rows, cols, height, width, fold } = query else {
        return match query {
            Query::PromptNll => Answer::Nothing("not in this script".into()),
            Query::Drift => Answer::Drift((0..LAYERS).map(drift).collect()),
            _ => Answer::Nothing("only tiles".into()),
        };
    };
    let span = |range: (u32, u32), i: u32, n: u32| {
        let len = (range.1 - range.0) as u64;
        (range.0 + (i as u64 * len / n as u64) as u32)..(range.0 + ((i + 1) as u64 * len).div_ceil(n as u64) as u32)
    };
    let mut values = Vec::with_capacity((height * width) as usize);
    for y in 0..height {
        for x in 0..width {
            let (mut sum, mut most, mut n) = (0.0, f32::NAN, 0);
            for r in span(rows, y, height).take(4) {
                for c in span(cols, x, width).take(4).filter(|c| *c <= r) {
                    let v = weight(layer, head, r, c) / (1.5 + (1.0 + r as f32).ln());
                    (sum, most, n) = (sum + v, most.max(v), n + 1);
                }
            }
            values.push(match (n, fold) {
                (0, _) => f32::NAN,
                (_, Fold::Max) => most,
                (n, Fold::Mean) => sum / n as f32,
                (_, Fold::Sum) => sum,
            });
        }
    }
    Answer::Tile { rows, cols, height, width, values: values.into(), micros: 830 }
}
