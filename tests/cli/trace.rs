//! The trace file: names, shapes, types, metadata, and numbers against the golden ones.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::{HEADS, HIDDEN, KV_HEADS, LAYERS, VOCAB, code, on_tiny, stderr, tiny};

const STEPS: usize = 3;

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).expect(name).data();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<i64> {
    let bytes = file.tensor(name).expect(name).data();
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes"))).collect()
}

fn close(name: &str, ours: &[f32], golden: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), golden.len(), "{name}");
    let worst = ours.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{name}: {worst}");
}

fn trace(ids: &[i64], attn: &str, steps: usize, out: &Path) {
    let ids = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let (steps, out) = (steps.to_string(), out.to_str().expect("a UTF-8 path"));
    let output =
        on_tiny("trace", &["--ids", &ids, "--steps", &steps, "--attn", attn, "--precision", "f32", "--out", out]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn the_file_is_as_the_contract_says_and_its_numbers_are_the_golden_ones() {
    let golden = std::fs::read(tiny().join("golden.safetensors")).expect("golden file");
    let golden = SafeTensors::deserialize(&golden).expect("golden file");
    let prompt = integers(&golden, "ids");
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("trace.safetensors");
    trace(&prompt, "full", STEPS, &out);
    let bytes = std::fs::read(&out).expect("the trace");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");

    let (p, n) = (prompt.len() + STEPS, 1 + 2 * LAYERS);
    let mut shapes: BTreeMap<String, (Dtype, Vec<usize>)> = BTreeMap::new();
    let mut expect = |name: &str, dtype, shape: &[usize]| shapes.insert(name.into(), (dtype, shape.to_vec()));
    expect("ids", Dtype::I64, &[p]);
    expect("logits", Dtype::F32, &[STEPS + 1, VOCAB]);
    expect("attn_entropy", Dtype::F32, &[LAYERS, HEADS, p]);
    expect("attn_first", Dtype::F32, &[LAYERS, HEADS, p]);
    for field in ["l2", "rms", "absmax", "median"] {
        expect(&format!("resid.{field}"), Dtype::F32, &[n, p]);
    }
    expect("resid.argmax", Dtype::I64, &[n, p]);
    expect("lens.ids", Dtype::I64, &[LAYERS, 5, p]);
    expect("lens.prob", Dtype::F32, &[LAYERS, 5, p]);
    expect("depth.share", Dtype::F32, &[n, n, p]);
    for l in 0..LAYERS {
        expect(&format!("attn.{l}"), Dtype::F32, &[HEADS, p, p]);
        expect(&format!("attn_received.{l}"), Dtype::F32, &[HEADS, p]);
        for norm in ["key_l2_pre", "key_l2", "value_l1", "value_l2"] {
            expect(&format!("{norm}.{l}"), Dtype::F32, &[KV_HEADS, p]);
        }
    }
    let found = file.tensors().into_iter().map(|(name, t)| (name, (t.dtype(), t.shape().to_vec()))).collect();
    assert_eq!(shapes, found);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("metadata");
    let words = metadata.metadata().as_ref().expect("metadata");
    for key in ["schema", "model", "model_sha256", "prompt", "device", "precision"] {
        assert!(words.contains_key(key), "{key}");
    }
    assert_eq!((words["precision"].as_str(), words["model_sha256"].len()), ("f32", 64));

    // What Hugging Face computed.
    let greedy = integers(&golden, "greedy16");
    assert_eq!(integers(&file, "ids"), [&prompt[..], &greedy[..STEPS]].concat());
    let last = &floats(&golden, "logits")[(prompt.len() - 1) * VOCAB..];
    close("logits", &floats(&file, "logits")[..VOCAB], last, 2e-4);
    let attn = floats(&golden, "attn");
    let (t, hidden) = (prompt.len(), floats(&golden, "hidden"));
    for l in 0..LAYERS {
        let ours = floats(&file, &format!("attn.{l}"));
        let cut: Vec<f32> = (0..HEADS * t).flat_map(|row| &ours[(row / t * p + row % t) * p..][..t]).copied().collect();
        close("attention", &cut, &attn[l * HEADS * t * t..(l + 1) * HEADS * t * t], 2e-5);
        let received = floats(&file, &format!("attn_received.{l}"));
        let columns: Vec<f32> =
            (0..HEADS * p).map(|at| (0..p).map(|query| ours[(at / p * p + query) * p + at % p]).sum()).collect();
        close("received", &received, &columns, 1e-4);
    }
    let norms: Vec<f32> = hidden.chunks_exact(HIDDEN).map(|x| x.iter().map(|v| v * v).sum::<f32>().sqrt()).collect();
    // The embedding and the stream after each layer but the last, whose golden vector is normed already.
    for layer in 0..LAYERS {
        let ours = &floats(&file, "resid.l2")[2 * layer * p..][..t];
        close("residual length", ours, &norms[layer * t..(layer + 1) * t], 1e-4);
    }
}

#[test]
fn shares_over_depth_sum_to_one_and_the_last_lens_is_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("trace.safetensors");
    trace(&[5, 17, 200, 3, 44, 17, 200], "last", 1, &out);
    let bytes = std::fs::read(&out).expect("the trace");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (p, n) = (8, 1 + 2 * LAYERS);
    let share = floats(&file, "depth.share");
    for target in 0..n {
        for position in 0..p {
            let row: Vec<f32> = (0..n).map(|source| share[(target * n + source) * p + position]).collect();
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
            assert!(row[target + 1..].iter().all(|c| *c == 0.0), "{row:?}");
        }
    }
    let logits = floats(&file, "logits");
    for (step, position) in [(0, p - 2), (1, p - 1)] {
        let row = &logits[step * VOCAB..(step + 1) * VOCAB];
        let best = (0..VOCAB).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("logits");
        assert_eq!(integers(&file, "lens.ids")[(LAYERS - 1) * 5 * p + position], best as i64);
    }
    for l in 0..LAYERS {
        assert_eq!(file.tensor(&format!("attn.{l}")).expect("rows").shape(), [HEADS, 1, p]);
        for row in floats(&file, &format!("attn.{l}")).chunks_exact(p) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn a_trace_without_rows_and_lens_has_neither() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("trace.safetensors");
    let output =
        on_tiny("trace", &["--ids", "1,2,3", "--attn", "none", "--lens-k", "0", "--out", out.to_str().expect("UTF-8")]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let bytes = std::fs::read(&out).expect("the trace");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    assert!(file.names().iter().all(|name| !name.starts_with("attn.") && !name.starts_with("lens")));
    // Nothing unfinished is left beside it.
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
}
