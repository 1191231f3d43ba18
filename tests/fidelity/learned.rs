//! Policies that bring weights along, against sums in f64 over the same weights: a tiny Llama, whose soft rows have
//! their linear weights replaced by W + α/r · B·A.

use std::collections::HashMap;

use attnscope::engine::{Core, Pause, Precision};
use attnscope::model::source::Model;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::common::real_model;
use crate::golden::*;

const MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
const RANK: usize = 3;
const ALPHA: f64 = 6.0;
const SOFT: usize = 5;

/// Sizes of `tests/golden/tiny/llama3_rope`.
const LAYERS: usize = 4;
const HEADS: usize = 6;
const GROUP: usize = 3;
const DIM: usize = 16;
const HIDDEN: usize = 96;
const FF: usize = 160;

/// Inputs and outputs of each module.
const fn shape(module: usize, [hidden, queries, keys, ff]: [usize; 4]) -> (usize, usize) {
    [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden), (hidden, ff), (hidden, ff), (ff, hidden)]
        [module]
}

type Named = Vec<(String, Vec<usize>, Vec<f32>)>;

/// Soft tokens and LoRA pairs of all modules; B times `up`.
fn drawn(layers: usize, sizes: [usize; 4], up: f32) -> Named {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut numbers =
        |n: usize, times: f32| -> Vec<f32> { (0..n).map(|_| random.random_range(-0.3..0.3) * times).collect() };
    let mut all = vec![("lookahead.embeddings".to_owned(), vec![SOFT, sizes[0]], numbers(SOFT * sizes[0], 1.0))];
    for (layer, module) in (0..layers).flat_map(|layer| (0..7).map(move |module| (layer, module))) {
        let (inputs, outputs) = shape(module, sizes);
        let name = |ab: &str| format!("base_model.model.model.layers.{layer}.{}.lora_{ab}.weight", MODULES[module]);
        all.push((name("A"), vec![RANK, inputs], numbers(RANK * inputs, 1.0)));
        all.push((name("B"), vec![outputs, RANK], numbers(RANK * outputs, up)));
    }
    all
}

fn written(tensors: &Named) -> tempfile::NamedTempFile {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|t| t.2.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes);
    let views = views.map(|((name, shape, _), b)| (name, TensorView::new(Dtype::F32, shape.clone(), b).unwrap()));
    let notes = HashMap::from([("lora_alpha".to_owned(), ALPHA.to_string())]);
    let file = tempfile::NamedTempFile::new().unwrap();
    serialize_to_file(views, Some(notes), file.path()).unwrap();
    file
}

fn product(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn normed(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let rms = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
    x.iter().zip(weight).map(|(x, w)| x / rms * w).collect()
}

fn turned(head: &[f64], position: usize, turns: &[f32]) -> Vec<f64> {
    let half = DIM / 2;
    let at = |i: usize| {
        let (sin, cos) = (position as f64 * turns[i % half] as f64).sin_cos();
        if i < half { head[i] * cos - head[i + half] * sin } else { head[i] * cos + head[i - half] * sin }
    };
    (0..DIM).map(at).collect()
}

/// [layers][kv heads][prompt]
type Scores<T> = Vec<Vec<Vec<T>>>;

/// Scores of the prompt's entries, and what each layer's attention is given [layers][rows][d]: one row at a time, soft
/// rows by dense changed weights.
fn slow(file: &Tensors, soft: &Named, prompt: &[u32], turns: &[f32]) -> (Scores<f64>, Vec<Vec<Vec<f64>>>) {
    let wide = |values: Vec<f32>| -> Vec<f64> { values.into_iter().map(f64::from).collect() };
    let (n, all) = (prompt.len(), prompt.len() + SOFT);
    let table = wide(file.f32("model.embed_tokens.weight"));
    let mut h: Vec<Vec<f64>> = prompt.iter().map(|&id| table[id as usize * HIDDEN..][..HIDDEN].to_vec()).collect();
    h.extend(wide(soft[0].2.clone()).chunks(HIDDEN).map(<[f64]>::to_vec));
    let (mut scores, mut inputs) = (Vec::new(), Vec::new());
    for layer in 0..LAYERS {
        let weight = |name: &str| wide(file.f32(&format!("model.layers.{layer}.{name}.weight")));
        let plain: Vec<Vec<f64>> = MODULES.iter().map(|module| weight(module)).collect();
        let changed: Vec<Vec<f64>> = (0..7)
            .map(|module| {
                let at = 1 + 2 * (7 * layer + module);
                let (a, b) = (wide(soft[at].2.clone()), wide(soft[at + 1].2.clone()));
                let inputs = a.len() / RANK;
                let add = |i: usize| -> f64 {
                    (0..RANK).map(|r| b[i / inputs * RANK + r] * a[r * inputs + i % inputs]).sum::<f64>()
                };
                plain[module].iter().enumerate().map(|(i, w)| w + ALPHA / RANK as f64 * add(i)).collect()
            })
            .collect();
        let of = |row: usize, module: usize| if row < n { &plain[module] } else { &changed[module] };
        let (before, after) = (weight("input_layernorm"), weight("post_attention_layernorm"));
        inputs.push((0..all).map(|row| normed(&h[row], &before)).collect::<Vec<_>>());
        let qkv: Vec<[Vec<f64>; 3]> = (0..all)
            .map(|row| {
                let [q, k, v] = [0, 1, 2].map(|module| product(of(row, module), &inputs[layer][row]));
                let turn = |x: Vec<f64>| x.chunks(DIM).flat_map(|head| turned(head, row, turns)).collect();
                [turn(q), turn(k), v]
            })
            .collect();
        let mut layer_scores = vec![vec![0.0; n]; HEADS / GROUP];
        for row in 0..all {
            let mut mixed = Vec::new();
            for head in 0..HEADS {
                let (q, g) = (&qkv[row][0][head * DIM..][..DIM], head / GROUP);
                let part = |t: usize, what: usize| &qkv[t][what][g * DIM..][..DIM];
                let logit = |t: usize| (product(part(t, 1), q)[0] / (DIM as f64).sqrt()).exp();
                let weights: Vec<f64> = (0..=row).map(logit).collect();
                let sum: f64 = weights.iter().sum();
                if row >= n {
                    let share = sum * (SOFT * GROUP) as f64;
                    layer_scores[g].iter_mut().zip(&weights).for_each(|(score, w)| *score += w / share);
                }
                mixed.extend((0..DIM).map(|i| (0..=row).map(|t| weights[t] / sum * part(t, 2)[i]).sum::<f64>()));
            }
            let out = product(of(row, 3), &mixed);
            h[row].iter_mut().zip(out).for_each(|(h, y)| *h += y);
            let x = normed(&h[row], &after);
            let (gate, up) = (product(of(row, 4), &x), product(of(row, 5), &x));
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let out = product(of(row, 6), &inner);
            h[row].iter_mut().zip(out).for_each(|(h, y)| *h += y);
        }
        scores.push(layer_scores);
    }
    (scores, inputs)
}

/// What lane 1 says about the prompt.
fn scores(core: &mut Core) -> Scores<f32> {
    core.prompt_decisions(1).unwrap().into_iter().map(|decision| decision.unwrap().scores.values).collect()
}

fn flat<T: Copy>(scores: &[Vec<Vec<T>>]) -> Vec<T> {
    scores.iter().flatten().flatten().copied().collect()
}

#[test]
fn soft_rows_look_back_through_weights_of_their_own() {
    let folder = dir().join("tiny/llama3_rope");
    let model = Model::open(&folder).unwrap();
    let file = Tensors::open(&folder.join("model.safetensors"));
    let prompt: Vec<u32> = (0..30).map(|i| (i * i * 17 + i * 5 + 3) % 320).collect();
    let adapter = drawn(LAYERS, [HIDDEN, HEADS * DIM, HEADS / GROUP * DIM, FF], 1.0);
    let plain = drawn(LAYERS, [HIDDEN, HEADS * DIM, HEADS / GROUP * DIM, FF], 0.0);
    let written = written(&adapter);
    let spec = format!("lookaheadkv@20%:file={},kernel=1", written.path().display());
    // keys are stored in 16 bits in the second
    for (precision, within) in [(Precision::F32, 2e-6), (Precision::Native, 1e-3)] {
        let mut core = core(&model, precision, &["full", &spec]);
        let frame = core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
        let ours = scores(&mut core);
        let (theirs, _) = slow(&file, &adapter, &prompt, core.turns(0));
        let far = worst(flat(&ours), &flat(&theirs).iter().map(|x| *x as f32).collect::<Vec<_>>(), 1.0);
        let (unchanged, _) = slow(&file, &plain, &prompt, core.turns(0));
        let apart = worst(flat(&ours), &flat(&unchanged).iter().map(|x| *x as f32).collect::<Vec<_>>(), 1.0);
        println!("{precision:?}: {far:e} from the sums, {apart:e} from those of unchanged weights");
        assert!(far <= within, "{precision:?}: {far:e}");
        assert!(apart > 20.0 * within, "the changes must matter: {apart:e}");
        for (layer, heads) in theirs.iter().enumerate() {
            for (g, scores) in heads.iter().enumerate() {
                let kept = frame.lanes[1].kept.list(layer, g);
                assert_eq!(kept.len(), 6);
                let lowest = kept.iter().map(|&p| scores[p as usize]).fold(f64::INFINITY, f64::min);
                let others = (0..30).filter(|p| !kept.contains(p)).map(|p| scores[p as usize]);
                assert!(others.fold(0.0, f64::max) <= lowest + within as f64, "layer {layer}, kv head {g}");
            }
        }
    }
}

/// Gates are given what the attention is, in whatever pieces the prompt is read.
#[test]
fn gates_rate_what_each_layers_attention_is_given() {
    let folder = dir().join("tiny/llama3_rope");
    let model = Model::open(&folder).unwrap();
    let file = Tensors::open(&folder.join("model.safetensors"));
    // more than one pass of 256
    let prompt: Vec<u32> = (0..300).map(|i| (i * i * 17 + i * 5 + 3) % 320).collect();
    let mut random = ChaCha8Rng::seed_from_u64(12);
    let gates: Named = (0..LAYERS)
        .flat_map(|layer| {
            let weight: Vec<f32> = (0..2 * HIDDEN).map(|_| random.random_range(-1.0..1.0)).collect();
            let name = |part: &str| format!("layers.{layer}.{part}");
            [(name("weight"), vec![2, HIDDEN], weight), (name("bias"), vec![2], vec![0.25, -0.5])]
        })
        .collect();
    let written = written(&gates);
    let mut core = core(&model, Precision::F32, &["full", &format!("kvzap@30%:file={}", written.path().display())]);
    core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap();
    let ours = scores(&mut core);
    let plain = drawn(LAYERS, [HIDDEN, HEADS * DIM, HEADS / GROUP * DIM, FF], 0.0);
    let (_, inputs) = slow(&file, &plain, &prompt, core.turns(0));
    for (layer, heads) in ours.iter().enumerate() {
        let weight: Vec<f64> = gates[2 * layer].2.iter().map(|x| *x as f64).collect();
        for (g, scores) in heads.iter().enumerate() {
            let of = |x: &Vec<f64>| (product(&weight, x)[g] + [0.25, -0.5][g]) as f32;
            let theirs: Vec<f32> = inputs[layer][..prompt.len()].iter().map(of).collect();
            let far = worst(scores.clone(), &theirs, largest(&theirs));
            assert!(far <= 1e-5, "layer {layer}, kv head {g}: {far:e}");
        }
    }
}

/// Only the last layer lets anything go, so that no other layer's inputs depend on it.
#[test]
fn generated_tokens_are_judged_by_what_the_attention_was_given_when_they_came() {
    let folder = dir().join("tiny/llama3_rope");
    let model = Model::open(&folder).unwrap();
    let file = Tensors::open(&folder.join("model.safetensors"));
    let prompt: Vec<u32> = (0..30).map(|i| (i * i * 17 + i * 5 + 3) % 320).collect();
    let mut random = ChaCha8Rng::seed_from_u64(13);
    let gates: Named = (0..LAYERS)
        .flat_map(|layer| {
            let weight: Vec<f32> = (0..2 * HIDDEN).map(|_| random.random_range(-1.0..1.0)).collect();
            let bias = if layer + 1 < LAYERS { 500.0 } else { 0.0 };
            let name = |part: &str| format!("layers.{layer}.{part}");
            [(name("weight"), vec![2, HIDDEN], weight), (name("bias"), vec![2], vec![bias; 2])]
        })
        .collect();
    let written = written(&gates);
    let spec = format!("kvzap:file={},threshold=0,recent=4", written.path().display());
    let mut core = core(&model, Precision::F32, &["full", &spec, "h2o@20%"]);
    let first = core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
    let frames: Vec<_> = std::iter::once(first).chain((0..16).map(|_| core.step().unwrap())).collect();
    let all: Vec<u32> = prompt.iter().chain(&core.lanes()[1].fed).copied().collect();
    let plain = drawn(LAYERS, [HIDDEN, HEADS * DIM, HEADS / GROUP * DIM, FF], 0.0);
    let (_, inputs) = slow(&file, &plain, &all, core.turns(0));
    let weight: Vec<f64> = gates[2 * (LAYERS - 1)].2.iter().map(|x| *x as f64).collect();
    for g in 0..2 {
        let scores: Vec<f64> = inputs[LAYERS - 1].iter().map(|x| product(&weight, x)[g]).collect();
        assert!(scores.iter().all(|score| score.abs() > 1e-4), "no score on the threshold");
        for (frame, newest) in frames.iter().zip(29u32..) {
            let stays = |p: &u32| scores[*p as usize] >= 0.0 || p + 4 > newest;
            let kept = frame.lanes[1].kept.list(LAYERS - 1, g);
            assert_eq!(kept, (0..=newest).filter(stays).collect::<Vec<_>>(), "at {newest}");
            assert_eq!(frame.lanes[1].kept.list(0, g).len(), newest as usize + 1);
        }
        assert!((30..42).any(|t| scores[t] < 0.0), "some generated token leaves");
    }
    core.rewind(3).unwrap();
    for before in &frames[4..] {
        assert_eq!(format!("{:?}", core.step().unwrap().lanes), format!("{:?}", before.lanes));
    }
}

/// Packed gate and up projections have to be taken apart for it; B = 0 then changes nothing but roundings.
#[test]
fn a_change_of_nothing_changes_nothing_of_a_quantised_model() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let config = &model.config;
    let sizes = [config.hidden, config.heads * config.head_dim, config.kv_heads * config.head_dim, config.ff];
    let nothing = drawn(config.layers.len(), sizes, 0.0);
    let (with, without) = (written(&nothing), written(&nothing[..1].to_vec()));
    let prompt = ids(&json(&dir().join("smollm2/d1_short.forward.json"))["token_ids"]);
    let [with, without] = [&with, &without].map(|file| {
        let spec = format!("lookaheadkv@40%:file={},kernel=1", file.path().display());
        let mut core = core(&model, Precision::Native, &["full", &spec]);
        core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap();
        flat(&scores(&mut core))
    });
    let far = worst(with, &without, 1.0);
    println!("{far:e}");
    assert!(far <= 1e-5, "{far:e}");
}
