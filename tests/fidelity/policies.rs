//! Kept sets and their effect against NVIDIA kvpress, on the real forward pass.

use attnscope::engine::{Pause, Precision};
use serde_json::Value;

use crate::common::real_model;
use crate::golden::*;

/// The same run in our words.
fn spec(run: &Value) -> String {
    let kept = 100.0 * (1.0 - run["ratio"].as_f64().unwrap());
    let params = &run["params"];
    match run["press"].as_str().unwrap() {
        "streaming_llm" => format!("streaming@{kept}%:sinks={},every=prefill", params["n_sink"]),
        "snapkv" => format!("snapkv@{kept}%:window={},kernel={}", params["window_size"], params["kernel_size"]),
        name => format!("{name}@{kept}%:every=prefill"),
    }
}

/// Key norms this close (relative) are equal but for rounding.
const TIE: f32 = 1e-6;

fn equals_kvpress(name: &str, folder: &str) {
    let Some(model) = real_model(name) else { return };
    let (mut swapped, mut compared, mut worst_kl) = (0, 0, 0.0f32);
    for prompt in PROMPTS {
        let base = dir().join(folder).join(prompt);
        let (text, tensors) =
            (json(&base.with_extension("forward.json")), Tensors::open(&base.with_extension("forward.safetensors")));
        let runs = text["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 12, "four presses at three ratios");
        let specs: Vec<String> = std::iter::once("full".into()).chain(runs.iter().map(spec)).collect();
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        let mut core = core(&model, Precision::F32, &specs);
        let frame = core.read_prompt(&ids(&text["token_ids"]), |_, _| Pause::Continue).unwrap().unwrap();
        let n = frame.lanes[0].fed.len();
        let step = core.step().unwrap();
        for (run, i) in runs.iter().zip(1..) {
            let at = format!("{folder} {prompt} {}", specs[i]);
            let (before, after) = (&frame.lanes[i], &step.lanes[i]);
            assert_eq!(before.next, frame.lanes[0].next, "{at}: first token");
            let mask = tensors.ints(&format!("kept.{}@{}", run["press"].as_str().unwrap(), run["ratio"]));
            let bytes = n.div_ceil(8);
            let norms = &before.kv_norms;
            let mut differs = 0;
            for (l, layer) in ids(&text["compressed_layers"]).into_iter().enumerate() {
                for head in 0..before.kept.kv_heads {
                    let theirs = &mask[(l * before.kept.kv_heads + head) * bytes..][..bytes];
                    let theirs = (0..n).filter(|t| theirs[t / 8] >> (t % 8) & 1 == 1).map(|t| t as u32);
                    let ours = before.kept.list(layer as usize, head);
                    assert_eq!(ours.len(), run["n_kept"].as_u64().unwrap() as usize, "{at}");
                    let theirs: Vec<u32> = theirs.collect();
                    let norm = |t: &u32| norms.key_l2[norms.at(layer as usize, head, *t as usize)];
                    let only_ours = ours.iter().filter(|t| !theirs.contains(t)).map(norm);
                    let only_theirs = theirs.iter().filter(|t| !ours.contains(t)).map(norm);
                    for (a, b) in only_ours.zip(only_theirs) {
                        // Equal tokens have equal keys in layer 0: which of them stays is the sort's accident.
                        let tie = run["press"] == "knorm" && (a - b).abs() <= TIE * a;
                        assert!(tie, "{at} layer {layer} head {head}: key norms {a} and {b}");
                        differs += 1;
                    }
                }
            }
            swapped += differs;
            compared += 1;
            let (ours, theirs) = (after.against.unwrap().kl, run["kl_step1"].as_f64().unwrap() as f32);
            if differs == 0 {
                let far = (ours - theirs).abs();
                worst_kl = worst_kl.max((far - 1e-6).max(0.0) / theirs.abs().max(1e-12));
                assert!(far <= 1e-6 || far <= 1e-4 * theirs, "{at}: KL {ours}, kvpress {theirs}");
            }
        }
    }
    println!("{folder}: {compared} runs, {swapped} ties fell the other way, KL within {worst_kl:e} beyond 1e-6");
}

#[test]
fn smollm2_kept_sets_and_kl_equal_kvpress() {
    equals_kvpress("smollm2-135m", "smollm2");
}

#[test]
fn gemma3_kept_sets_and_kl_equal_kvpress() {
    equals_kvpress("gemma3-270m", "gemma3");
}
