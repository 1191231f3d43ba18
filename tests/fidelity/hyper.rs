//! Hyper-connections in the decoder against the papers' formulas in f64, on models that the test writes.

use std::path::Path;

use attnscope::engine::frame::{Frame, Gates};
use attnscope::engine::{Core, Device, Pause, Precision, open};
use attnscope::model::source::Model;
use attnscope::probe::hyper::weights;
use serde_json::{Value, json};

use crate::common::hyper::*;
use crate::common::options;

const PROMPT: [u32; 23] = [3, 17, 39, 0, 8, 8, 21, 5, 30, 12, 1, 2, 33, 9, 14, 27, 6, 19, 38, 4, 11, 25, 7];
const STEPS: usize = 3;

fn opened(folder: &Path, tensors: &Tensors, more: Value) -> Model {
    write(folder, tensors, more);
    Model::open(folder).unwrap()
}

/// The prompt and so many steps: all frames and the logits of each.
fn run(model: &Model) -> (Core, Vec<Frame>, Vec<Vec<f32>>) {
    let mut core = crate::common::core(model, Precision::F32, &["full"]);
    let mut frames = vec![core.read_prompt(&PROMPT, |_, _| Pause::Continue).unwrap().unwrap()];
    let mut logits = vec![core.logits(0).unwrap().to_vec()];
    for _ in 0..STEPS {
        frames.push(core.step().unwrap());
        logits.push(core.logits(0).unwrap().to_vec());
    }
    (core, frames, logits)
}

fn gates(frame: &Frame) -> &Gates {
    frame.lanes[0].depth.as_ref().unwrap().gates.as_ref().unwrap()
}

/// What was fed, in order.
fn fed(frames: &[Frame]) -> Vec<u32> {
    frames.iter().flat_map(|frame| frame.lanes[0].fed.iter().copied()).collect()
}

fn near(found: &[f32], expected: &[f64], within: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() < within, "{what}, {i}: {found}, expected {expected}");
    }
}

fn equals_the_formulas(more: Value, rounds: usize, transposed: bool) {
    let folder = tempfile::tempdir().unwrap();
    let tensors = mixed(7);
    let model = opened(folder.path(), &tensors, more);
    let (_, frames, logits) = run(&model);
    let reference = Reference { tensors: &tensors, rounds, transposed };
    let whole = reference.run(&fed(&frames));
    for (step, logits) in logits.iter().enumerate() {
        near(logits, &whole.logits[PROMPT.len() - 1 + step], 1e-4, &format!("logits of step {step}"));
    }
    for (frame, end) in frames.iter().zip(PROMPT.len()..) {
        let gates = gates(frame);
        assert_eq!((gates.streams as usize, gates.targets()), (STREAMS, 2 * LAYERS + 1));
        for (target, (pre, post, matrix)) in reference.run(&fed(&frames)[..end]).gates.iter().enumerate() {
            let what = |name: &str| format!("{name} of sublayer {target}, {end} tokens");
            near(gates.pre(target), pre, 1e-4, &what("H_pre"));
            near(gates.post(target), post, 1e-4, &what("H_post"));
            near(gates.matrix(target), &matrix.concat(), 1e-4, &what("H_res"));
        }
    }
}

#[test]
fn logits_and_gates_are_those_of_the_formulas() {
    equals_the_formulas(json!({}), 20, false);
}

#[test]
fn the_configuration_says_how_often_sums_are_made_one_and_which_way_the_matrix_lies() {
    equals_the_formulas(
        json!({ "hc_mult": 4, "hc_sinkhorn_iters": 2, "hc_eps": 1e-6, "hc_res_transposed": true }),
        2,
        true,
    );
}

#[test]
fn identity_and_first_stream_alone_are_the_plain_model() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plain_model = opened(one.path(), &plain(5), json!({}));
    let model = opened(other.path(), &reduced(5), json!({ "hc_eps": 0.0 }));
    let (_, plain_frames, expected) = run(&plain_model);
    let (_, frames, logits) = run(&model);
    assert_eq!(fed(&frames), fed(&plain_frames));
    for (found, expected) in logits.iter().zip(&expected) {
        let expected: Vec<f64> = expected.iter().map(|&x| x.into()).collect();
        near(found, &expected, 1e-5, "logits");
    }
    assert!(plain_frames.iter().all(|frame| frame.lanes[0].depth.as_ref().unwrap().gates.is_none()));
    for target in 0..=2 * LAYERS {
        let gates = gates(&frames[STEPS]);
        assert!(weights(gates, target).iter().all(|weight| (weight - 1.0).abs() < 1e-6));
    }
    // the same magnitudes at every point, too
    let (found, expected) = (&frames[STEPS].lanes[0].residual, &plain_frames[STEPS].lanes[0].residual);
    assert_eq!(found.l2.len(), expected.l2.len());
    assert!(found.l2.iter().zip(&expected.l2).all(|(a, b)| (a - b).abs() < 1e-4 * b));
}

#[test]
fn what_depth_is_made_of_sums_to_one() {
    let folder = tempfile::tempdir().unwrap();
    let model = opened(folder.path(), &mixed(3), json!({}));
    let (core, frames, _) = run(&model);
    assert!(core.mixes_depth());
    for frame in &frames {
        let lane = &frame.lanes[0];
        let (depth, gates) = (lane.depth.as_ref().unwrap(), gates(frame));
        assert_eq!(depth.counts, (1..=2 * LAYERS as u32 + 1).collect::<Vec<_>>());
        for target in 0..=2 * LAYERS {
            assert_eq!(depth.row(&depth.weight, target), weights(gates, target));
            let sum: f32 = depth.row(&depth.share, target).iter().sum();
            assert!((sum - 1.0).abs() < 1e-4, "target {target}: {sum}");
        }
    }
}

#[test]
fn back_and_forward_again_and_in_pieces_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let model = opened(folder.path(), &mixed(9), json!({}));
    let (mut core, frames, _) = run(&model);
    core.rewind(0).unwrap();
    for frame in &frames[1..] {
        let again = core.step().unwrap();
        assert_eq!(format!("{:?}", again.lanes), format!("{:?}", frame.lanes));
    }
    let mut small = options(Precision::F32, &["full", "knorm@50%"]);
    small.chunk = 5;
    let mut core = open(&model, &small, |_, _| {}).unwrap().0;
    let frame = core.read_prompt(&PROMPT, |_, _| Pause::Continue).unwrap().unwrap();
    let (a, b) = (gates(&frame), gates(&frames[0]));
    // the output has no branch, which is no number
    let near = |(a, b): (&f32, &f32)| a.is_nan() && b.is_nan() || (a - b).abs() < 1e-5 * b.abs().max(1.0);
    assert!(a.values.len() == b.values.len() && a.values.iter().zip(&b.values).all(near));
    assert!(core.step().unwrap().lanes[1].depth.as_ref().unwrap().gates.is_some());
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |change: &dyn Fn(&mut Tensors), more: Value, word: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = mixed(1);
        change(&mut tensors);
        write(folder.path(), &tensors, more);
        let error = Model::open(folder.path()).err().unwrap_or_else(|| panic!("{word}: opened"));
        assert!(error.to_string().contains(word), "{word}: {error}");
    };
    let none = |_: &mut Tensors| {};
    refused(&none, json!({ "hc_mult": 0 }), "hc_mult");
    refused(&none, json!({ "hc_mult": 1 << 20 }), "hc_mult");
    refused(&none, json!({ "hc_mult": 3 }), "hc_attn_fn");
    refused(&none, json!({ "hc_sinkhorn_iters": 0 }), "hc_sinkhorn_iters");
    refused(&none, json!({ "hc_eps": -1.0 }), "hc_eps");
    refused(&|t| drop(t.remove("model.hc_head_base")), json!({}), "hc_head_base");
    refused(&|t| drop(t.remove("model.layers.2.hc_ffn_fn")), json!({}), "layers.2.hc_ffn_fn");
    refused(&|t| t.get_mut("model.layers.1.hc_attn_base").unwrap().1[3] = f32::NAN, json!({}), "finite");
    refused(&|t| t.retain(|name, _| !name.contains("hc_")), json!({ "hc_mult": 4 }), "hc_attn_fn");
}

#[test]
fn a_card_is_not_tried() {
    let folder = tempfile::tempdir().unwrap();
    let model = opened(folder.path(), &mixed(2), json!({}));
    let mut auto = options(Precision::F32, &["full"]);
    auto.device = Device::Auto;
    let (_, info) = open(&model, &auto, |_, _| {}).unwrap();
    assert!(info.device.starts_with("cpu"), "{}", info.device);
    assert!(info.depth.residual.contains("mHC, 4 streams"), "{}", info.depth.residual);
}
