//! Attention Residuals and depth shares: the twins against PyTorch, learned depth on real models, and contributions.

use attnscope::engine::frame::{Depth, Frame};
use attnscope::engine::{Core, Pause, Precision, open};
use attnscope::model::embedded;
use attnscope::model::source::Model;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

use crate::common::{self, real_model};
use crate::golden::*;

fn twin(name: &str, precision: Precision) -> Core {
    core(&Model::open(&embedded::find(name).unwrap().path()).unwrap(), precision, &["full"])
}

fn read(core: &mut Core, ids: &[u32]) -> Frame {
    core.read_prompt(ids, |_, _| Pause::Continue).unwrap().unwrap()
}

fn near(what: &str, ours: &[f32], theirs: &[f32], relative: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= relative * b.abs().max(1e-3), "{what} at {i}: {a}, not {b}");
    }
}

/// Of one token and target, all sources.
fn sums_to_one(depth: &Depth) {
    for target in 0..depth.counts.len() {
        let shares: f32 = depth.row(&depth.share, target).iter().sum();
        assert!((shares - 1.0).abs() < 1e-4, "shares of target {target} sum to {shares}");
        if !depth.weight.is_empty() {
            let weights: f32 = depth.row(&depth.weight, target).iter().sum();
            assert!((weights - 1.0).abs() < 1e-5, "weights of target {target} sum to {weights}");
        }
    }
}

fn equals_pytorch(name: &str, prompt: &str) {
    let short = name.trim_start_matches("twin-");
    let golden = Tensors::open(&dir().join("twins").join(format!("{short}.{prompt}.safetensors")));
    let mut core = twin(name, Precision::F32);
    let ids: Vec<u32> = golden.ints("ids").into_iter().map(|id| id as u32).collect();
    let frame = read(&mut core, &ids);
    let lane = &frame.lanes[0];
    let last = core.logits(0).unwrap().to_vec();
    let theirs = golden.f32("logits");
    let far = last.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far <= 2e-4, "{name} {prompt}: logits {far:e} off");
    near("what sublayers read", &lane.residual.rms, &golden.f32("input.rms"), 1e-4);
    let depth = lane.depth.as_ref().unwrap();
    assert_eq!(depth.counts.len(), 25);
    sums_to_one(depth);
    if golden.has("alpha") {
        near("the stream", &lane.stream.rms, &golden.f32("stream.rms"), 1e-4);
        // α [25, 5, P] of the last token
        let (alpha, p) = (golden.f32("alpha"), ids.len());
        for target in 0..25 {
            for (source, ours) in depth.row(&depth.weight, target).iter().enumerate() {
                let theirs = alpha[(target * 5 + source) * p + p - 1];
                assert!((ours - theirs).abs() < 2e-5, "α of target {target}, source {source}: {ours}, not {theirs}");
            }
        }
        let rows = (1..25).map(|target| depth.row(&depth.weight, target));
        let most = rows.map(|row| row.iter().copied().fold(0.0, f32::max) - 1.0 / row.len() as f32).fold(0.0, f32::max);
        assert!(most > 0.2, "the weights are all but uniform: {most}");
    } else {
        assert!(lane.stream.l2.is_empty() && depth.weight.is_empty());
    }
    let mut greedy = vec![lane.next.unwrap()];
    while greedy.len() < 16 {
        let frame = core.step().unwrap();
        sums_to_one(frame.lanes[0].depth.as_ref().unwrap());
        greedy.push(frame.lanes[0].next.unwrap());
    }
    assert_eq!(greedy, golden.ints("greedy").into_iter().map(|id| id as u32).collect::<Vec<_>>());
}

#[test]
fn the_twins_are_those_of_pytorch() {
    for name in ["twin-plain", "twin-attnres"] {
        for prompt in ["story", "needle"] {
            equals_pytorch(name, prompt);
        }
    }
}

/// A prompt in one pass, in two, token by token, and by sublayers: the same depth.
#[test]
fn depth_does_not_depend_on_how_a_prompt_is_cut_or_a_step_is_taken() {
    let ids: Vec<u32> = (0..300u32).map(|i| 1 + i * 7 % 500).collect();
    let mut core = twin("twin-attnres", Precision::F32);
    let whole = read(&mut core, &ids);
    let first = read(&mut core, &ids[..1]);
    sums_to_one(first.lanes[0].depth.as_ref().unwrap());
    let span = {
        read(&mut core, &ids);
        core.depth_of_span(299..300).unwrap()
    };
    let last = whole.lanes[0].depth.as_ref().unwrap();
    assert_eq!(*last.as_ref(), span);
    let mean = core.depth_of_span(0..300).unwrap();
    sums_to_one(&mean);
    assert_ne!(mean, span);
    let step = core.step().unwrap();
    let mut other = twin("twin-attnres", Precision::F32);
    read(&mut other, &ids);
    for done in 1..24 {
        let partial = other.advance(1).unwrap();
        let depth = partial.lanes[0].depth.as_ref().unwrap();
        assert_eq!(depth.counts.len(), done + 1);
        sums_to_one(depth);
    }
    let rest = other.advance(1).unwrap();
    assert_eq!(rest.lanes[0].depth, step.lanes[0].depth);
    assert_eq!(rest.lanes[0].stream, step.lanes[0].stream);
}

/// Depth queries of 0 for a model of so many layers.
fn zeros(layers: usize, hidden: usize, to: &std::path::Path) {
    let bytes = vec![0u8; (2 * layers + 1) * hidden * 4];
    let view = TensorView::new(Dtype::F32, vec![2 * layers + 1, hidden], &bytes).unwrap();
    let metadata = [("format".to_string(), "attnscope-depth-adapter".to_string())].into();
    serialize_to_file([("depth.query", view)], Some(metadata), to).unwrap();
}

fn begins_as_the_plain_model(name: &str, ids: &[u32]) {
    let Some(model) = real_model(name) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeros.safetensors");
    zeros(model.config.layers.len(), model.config.hidden, &path);
    let mut plain = core(&model, Precision::F32, &["full"]);
    let mut options = common::options(Precision::F32, &["full"]);
    options.depth = Some(path);
    let (mut mixed, info) = open(&model, &options, |_, _| {}).unwrap();
    assert!(info.depth.residual.contains("learned"));
    let (a, b) = (read(&mut plain, ids), read(&mut mixed, ids));
    sums_to_one(a.lanes[0].depth.as_ref().unwrap());
    let far = |a: &[f32], b: &[f32]| {
        let scale = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / scale
    };
    let (x, y) = (plain.logits(0).unwrap().to_vec(), mixed.logits(0).unwrap().to_vec());
    assert!(far(&x, &y) < 2e-4, "{name}: logits {:e} of the largest off", far(&x, &y));
    assert_eq!(a.lanes[0].next, b.lanes[0].next);
    let depth = b.lanes[0].depth.as_ref().unwrap();
    for target in 1..depth.counts.len() {
        let row = depth.row(&depth.weight, target);
        assert!(row.iter().all(|w| (w - 1.0 / row.len() as f32).abs() < 1e-6), "target {target} is not uniform");
    }
}

#[test]
fn learned_depth_begins_as_smollm2() {
    begins_as_the_plain_model("smollm2-135m", &[504, 3575, 282, 4649, 314, 253, 1789, 338]);
}

#[test]
fn learned_depth_begins_as_gemma_3() {
    begins_as_the_plain_model("gemma3-270m", &[2, 818, 5279, 529, 7001, 563, 496, 9079]);
}

#[test]
fn learned_depth_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeros.safetensors");
    zeros(3, 192, &path);
    let plain = Model::open(&embedded::find("twin-plain").unwrap().path()).unwrap();
    let mixed = Model::open(&embedded::find("twin-attnres").unwrap().path()).unwrap();
    let mut options = common::options(Precision::F32, &["full"]);
    options.depth = Some(path.clone());
    let why = |model: &Model| open(model, &options, |_, _| {}).err().unwrap().to_string();
    assert!(why(&plain).contains("[7, 192]"), "{}", why(&plain));
    zeros(12, 192, &path);
    assert!(why(&mixed).contains("--depth"), "{}", why(&mixed));
}

/// The depth queries of `models/smollm2-depth`, in f32, against PyTorch on the same dequantised weights.
#[test]
fn learned_depth_of_smollm2_is_that_of_pytorch() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let golden = Tensors::open(&dir().join("depth_adapter/smollm2.safetensors"));
    let ids: Vec<u32> = golden.ints("ids").into_iter().map(|id| id as u32).collect();
    let adapter = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2-depth/depth.safetensors");
    let mut core = core_with(&model, Precision::F32, &["full"], Some(adapter));
    let frame = read(&mut core, &ids);
    let far = worst(core.logits(0).unwrap().to_vec(), &golden.f32("logits"), 1.0);
    assert!(far <= 2e-3, "logits {far:e} off");
    let depth = frame.lanes[0].depth.as_ref().unwrap();
    sums_to_one(depth);
    // α [61, 61, P] of the last token
    let (alpha, p) = (golden.f32("alpha"), ids.len());
    for target in 1..61 {
        for (source, ours) in depth.row(&depth.weight, target).iter().enumerate() {
            let theirs = alpha[(target * 61 + source) * p + p - 1];
            assert!((ours - theirs).abs() < 1e-5, "α of target {target}, source {source}: {ours}, not {theirs}");
        }
    }
}
