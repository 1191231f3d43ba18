//! The forward pass of both real models: f32 within five times the distance that Hugging Face's own float32 has from
//! float64, native within the stated drift.

use attnscope::engine::frame::Frame;
use attnscope::engine::{Core, Pause, Precision};

use crate::common::real_model;
use crate::golden::*;

/// What float32 itself is worth (largest distance from float64), from the reference data's own measurements.
struct Noise {
    logits: f32,
    l2: f32,
    absmax: f32,
    median: f32,
    last: f32,
    last_row: f32,
    col_sum: f32,
    entropy_mean: f32,
    entropy_last: f32,
    first_mean: f32,
    first_last: f32,
    key: f32,
    value_l2: f32,
    value_l1: f32,
    nll: f32,
}

/// Residual statistics and norms are shares of the field's largest value, all else is absolute.
const SMOLLM2: Noise = Noise {
    logits: 4.2e-5,
    l2: 9.2e-7,
    absmax: 9.8e-7,
    median: 5.5e-6,
    last: 9.9e-7,
    last_row: 7.3e-6,
    col_sum: 4.2e-4,
    entropy_mean: 2.5e-6,
    entropy_last: 1.4e-5,
    first_mean: 6.9e-7,
    first_last: 4.6e-6,
    key: 2.9e-6,
    value_l2: 5.6e-6,
    value_l1: 5.0e-6,
    nll: 3.9e-5,
};
const GEMMA3: Noise = Noise {
    logits: 4.8e-5,
    l2: 6.6e-7,
    absmax: 6.6e-7,
    median: 2.6e-5,
    last: 6.9e-7,
    last_row: 8.8e-6,
    col_sum: 2.2e-4,
    entropy_mean: 1.3e-6,
    entropy_last: 2.1e-5,
    first_mean: 5.5e-7,
    first_last: 3.5e-6,
    key: 2.5e-6,
    value_l2: 1.2e-6,
    value_l1: 1.0e-6,
    nll: 7.1e-5,
};

struct Check<'a> {
    at: String,
    golden: &'a Tensors,
    tokens: Vec<usize>,
    worst: Vec<(String, f32)>,
}

impl Check<'_> {
    /// `ours` may be `limit` away from the golden tensor `name`; `relative`: as a share of its largest value.
    fn field(&mut self, name: &str, ours: Vec<f32>, noise: f32, relative: bool) {
        let theirs = self.golden.f32(name);
        let scale = if relative { largest(&theirs) } else { 1.0 };
        let far = worst(ours, &theirs, scale);
        self.worst.push((name.into(), far / noise));
        assert!(far <= 5.0 * noise, "{} {name}: {far:e}, allowed {:e}", self.at, 5.0 * noise);
    }

    /// Columns of `[outer][n]` that the golden data holds.
    fn chosen(&self, values: &[f32], n: usize) -> Vec<f32> {
        values.chunks_exact(n).flat_map(|row| self.tokens.iter().map(|&t| row[t])).collect()
    }
}

fn mean_rows(values: &[f32], rows: usize, from: usize) -> Vec<f32> {
    let mean = |row: &[f32]| (row[from..].iter().map(|v| *v as f64).sum::<f64>() / (rows - from) as f64) as f32;
    values.chunks_exact(rows).map(mean).collect()
}

fn last_rows(values: &[f32], rows: usize) -> Vec<f32> {
    values.chunks_exact(rows).map(|row| row[rows - 1]).collect()
}

/// All heads' vectors `of(layer, head)`, one after the other.
fn heads<'a>(
    core: &'a mut Core,
    of: impl Fn(&'a dyn attnscope::backend::Backend, usize, usize) -> &'a [f32],
) -> Vec<f32> {
    let (layers, heads) = (core.config().layers.len(), core.config().heads);
    let backend = &*core.backend();
    (0..layers * heads).flat_map(|i| of(backend, i / heads, i % heads).iter().copied()).collect()
}

fn check_prompt(core: &mut Core, frame: &Frame, check: &mut Check<'_>, noise: &Noise) {
    let lane = &frame.lanes[0];
    let n = lane.fed.len();
    let r = &lane.residual;
    check.field("resid.l2", check.chosen(&r.l2, n), noise.l2, true);
    check.field("resid.maxabs", check.chosen(&r.absmax, n), noise.absmax, true);
    check.field("resid.median", check.chosen(&r.median, n), noise.median, true);
    let argmax: Vec<usize> =
        r.argmax.chunks_exact(n).flat_map(|row| check.tokens.iter().map(|&t| row[t] as usize)).collect();
    assert_eq!(argmax, check.golden.ints("resid.argmax"), "{} channels of the maxima", check.at);
    let a = &lane.attention;
    check.field("attn.entropy_mean", mean_rows(&a.entropy, n, 0), noise.entropy_mean, false);
    check.field("attn.entropy_last", last_rows(&a.entropy, n), noise.entropy_last, false);
    check.field("attn.pos0_mean", mean_rows(&a.first, n, 1), noise.first_mean, false);
    check.field("attn.pos0_last", last_rows(&a.first, n), noise.first_last, false);
    let norms = &lane.kv_norms;
    check.field("kv.k_pre_l2", check.chosen(&norms.key_l2_pre, n), noise.key, true);
    check.field("kv.k_post_l2", check.chosen(&norms.key_l2, n), noise.key, true);
    check.field("kv.v_l2", check.chosen(&norms.value_l2, n), noise.value_l2, true);
    check.field("kv.v_l1", check.chosen(&norms.value_l1, n), noise.value_l1, true);
    let cache = core.lanes()[0].cache;
    let rows = heads(core, |b, layer, head| b.newest_row(cache, layer, head));
    check.field("attn.last_row", check.chosen(&rows, n), noise.last_row, false);
    let sums = heads(core, |b, layer, head| b.received(cache, layer, head));
    check.field("attn.col_sum", check.chosen(&sums, n), noise.col_sum, false);
    let nll = core.prompt_nll().unwrap();
    check.field("nll", nll[1..].to_vec(), noise.nll, false);
}

/// The five channels of the largest |x| at every point, for the first tokens of short prompts and the last ones of all.
fn check_top_channels(core: &mut Core, n: usize, golden: &Tensors, at: &str) {
    let hidden = core.config().hidden;
    let tokens = golden.ints("resid.top5_tokens");
    let theirs = golden.ints("resid.top5_idx");
    for (point, theirs) in theirs.chunks_exact(5 * tokens.len()).enumerate() {
        let saved = core.backend().residual(point);
        // A long prompt is read in chunks: the last one is still there.
        let first = n - saved.len() / hidden;
        for (token, theirs) in tokens.iter().zip(theirs.chunks_exact(5)).filter(|(token, _)| **token >= first) {
            let x = &saved[(token - first) * hidden..(token - first + 1) * hidden];
            let mut channels: Vec<usize> = (0..hidden).collect();
            channels.sort_by(|a, b| x[*b].abs().total_cmp(&x[*a].abs()).then(a.cmp(b)));
            // Quantised embeddings hold equal numbers: which of two comes first is the sort's accident.
            let same = |(a, b): (&usize, &usize)| a == b || x[*a].abs() == x[*b].abs();
            let (ours, place) = (&channels[..5], format!("token {token} at point {point}"));
            assert!(ours.iter().zip(theirs).all(same), "{at}: top channels of {place}: {ours:?}, not {theirs:?}");
        }
    }
}

/// Statistics of the lens: top-5 tokens and the distances of their logits, after the embedding and every layer.
fn check_lens(frame: &Frame, golden: &serde_json::Value, at: &str) {
    let theirs = golden["logit_lens_last"].as_array().unwrap();
    assert_eq!(frame.lanes[0].lens.len(), theirs.len());
    for (ours, theirs) in frame.lanes[0].lens.iter().zip(theirs) {
        let (wanted, logits) = (ids(&theirs["ids"]), floats(&theirs["logits"]));
        assert_eq!(ours.point as u64, theirs["point"].as_u64().unwrap());
        let got: Vec<u32> = ours.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(got, wanted, "{at} lens at point {}", ours.point);
        for (k, (_, p)) in ours.top.iter().enumerate() {
            let theirs = logits[k] - logits[0];
            if theirs > -60.0 {
                let far = ((p / ours.top[0].1).ln() - theirs).abs();
                assert!(far <= 1e-5 * largest(&logits) + 2e-4, "{at} lens at point {}: {far:e}", ours.point);
            }
        }
    }
}

fn check_greedy(core: &mut Core, first: u32, golden: &serde_json::Value, at: &str) {
    let theirs = ids(&golden["greedy32"]["ids"]);
    let gaps = floats(&golden["greedy32"]["top1_minus_top2_logit"]);
    let mut next = first;
    for (i, (&wanted, gap)) in theirs.iter().zip(gaps).enumerate() {
        if next != wanted {
            assert!(gap < 5e-4, "{at}: token {i} is {next}, not {wanted} (margin {gap})");
            return;
        }
        next = core.step().unwrap().lanes[0].next.unwrap();
    }
}

fn f32_equals(name: &str, folder: &str, noise: &Noise) {
    let Some(model) = real_model(name) else { return };
    let mut core = core(&model, Precision::F32, &["full"]);
    core.probes.lens = true;
    for prompt in PROMPTS {
        let base = dir().join(folder).join(prompt);
        let (text, tensors) =
            (json(&base.with_extension("forward.json")), Tensors::open(&base.with_extension("forward.safetensors")));
        core.backend().save_all_points(true);
        let frame = core.read_prompt(&ids(&text["token_ids"]), |_, _| Pause::Continue).unwrap().unwrap();
        let at = format!("{folder} {prompt}");
        core.backend().save_all_points(false);
        let mut check = Check { at: at.clone(), golden: &tensors, tokens: tensors.ints("tokens"), worst: Vec::new() };
        let logits = core.lanes()[0].outlook.logits().unwrap().to_vec();
        let (top, values) = (ids(&text["logits_last"]["top50_ids"]), floats(&text["logits_last"]["top50_values"]));
        let far = worst(top.iter().map(|id| logits[*id as usize]), &values, 1.0);
        check.worst.push(("logits".into(), far / noise.logits));
        assert!(far <= 5.0 * noise.logits, "{at} logits: {far:e}");
        assert_eq!(frame.lanes[0].next, Some(top[0]), "{at} argmax");
        check_prompt(&mut core, &frame, &mut check, noise);
        check_lens(&frame, &text, &at);
        let worst: Vec<String> = check.worst.iter().map(|(f, x)| format!("{f} {x:.2}")).collect();
        println!("{at}, distance in units of float32's own noise: {}", worst.join(", "));
        core.probes.lens = false;
        check_greedy(&mut core, frame.lanes[0].next.unwrap(), &text, &at);
        core.probes.lens = true;
    }
}

#[test]
fn smollm2_in_f32_equals_hugging_face() {
    f32_equals("smollm2-135m", "smollm2", &SMOLLM2);
}

#[test]
fn gemma3_in_f32_equals_hugging_face() {
    f32_equals("gemma3-270m", "gemma3", &GEMMA3);
}

/// Residual vectors themselves, in a pass that keeps them.
#[test]
fn residual_vectors_of_the_last_token_equal_hugging_face() {
    for (name, folder, noise) in [("smollm2-135m", "smollm2", SMOLLM2), ("gemma3-270m", "gemma3", GEMMA3)] {
        let Some(model) = real_model(name) else { continue };
        let mut core = core(&model, Precision::F32, &["full"]);
        for prompt in PROMPTS {
            let base = dir().join(folder).join(prompt);
            let text = json(&base.with_extension("forward.json"));
            let tensors = Tensors::open(&base.with_extension("forward.safetensors"));
            core.backend().save_all_points(true);
            let prompt_ids = ids(&text["token_ids"]);
            core.read_prompt(&prompt_ids, |_, _| Pause::Continue).unwrap();
            check_top_channels(&mut core, prompt_ids.len(), &tensors, &format!("{folder} {prompt}"));
            let hidden = core.config().hidden;
            let theirs = tensors.f32("resid.last");
            let scale = largest(&theirs);
            for (i, point) in tensors.ints("points").into_iter().enumerate() {
                let saved = core.backend().residual(point);
                let ours = saved[saved.len() - hidden..].to_vec();
                let far = worst(ours, &theirs[i * hidden..(i + 1) * hidden], scale);
                assert!(far <= 5.0 * noise.last, "{folder} {prompt} point {point}: {far:e}");
            }
            core.backend().save_all_points(false);
        }
    }
}

/// Quantised weights against 8-bit activations: same argmax in at least 7 of 8 prompts, mean |ΔNLL| below 0.1 nats.
#[test]
fn native_precision_stays_close() {
    let (mut prompts, mut same) = (0, 0);
    for (name, folder) in [("smollm2-135m", "smollm2"), ("gemma3-270m", "gemma3")] {
        let Some(model) = real_model(name) else { continue };
        let mut core = core(&model, Precision::Native, &["full"]);
        for prompt in PROMPTS {
            let base = dir().join(folder).join(prompt);
            let text = json(&base.with_extension("forward.json"));
            let theirs = Tensors::open(&base.with_extension("forward.safetensors")).f32("nll");
            let frame = core.read_prompt(&ids(&text["token_ids"]), |_, _| Pause::Continue).unwrap().unwrap();
            let nll = core.prompt_nll().unwrap();
            let drift = nll[1..].iter().zip(&theirs).map(|(a, b)| (a - b).abs()).sum::<f32>() / theirs.len() as f32;
            let agrees = frame.lanes[0].next == Some(ids(&text["logits_last"]["top50_ids"])[0]);
            println!("{folder} {prompt}: mean |ΔNLL| {drift:.4} nats, same argmax: {agrees}");
            assert!(drift < 0.1, "{folder} {prompt}: {drift}");
            prompts += 1;
            same += agrees as usize;
        }
    }
    assert!(same + 1 >= prompts, "{same} of {prompts}");
}
