//! The size of a cache by arithmetic is what is really held.

use attnscope::engine::{Pause, Precision};
use attnscope::meter::kv::Terms;
use attnscope::model::kv_shape::KvShape;

use crate::common::real_model;
use crate::golden::core;

/// Of lane 0 after a prompt of so many tokens.
fn held(model: &attnscope::model::source::Model, tokens: usize) -> (u64, Vec<u64>) {
    let mut core = core(model, Precision::F32, &["full"]);
    let prompt: Vec<u32> = (0..tokens as u32).map(|i| 5 + i % 90).collect();
    let frame = core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
    (frame.lanes[0].kv.held, frame.lanes[0].kv.per_layer.clone())
}

fn terms(tokens: usize) -> Terms {
    Terms { context: tokens as u64, batch: 1, dtype: "f32".parse().unwrap() }
}

#[test]
fn smollm2_holds_what_the_formula_says() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let shape = KvShape::from(&model.config);
    assert_eq!(held(&model, 57), (shape.bytes(&terms(57)), shape.layer_bytes(&terms(57))));
    assert_eq!(shape.bytes(&terms(1)), 30 * 2 * 3 * 64 * 4);
}

#[test]
fn gemma_3_holds_it_within_its_window_and_beyond_what_the_window_hides_too() {
    let Some(model) = real_model("gemma3-270m") else { return };
    let shape = KvShape::from(&model.config);
    let whole = shape.kept_whole();
    assert_eq!(held(&model, 40).0, shape.bytes(&terms(40)));
    assert_eq!(whole.bytes(&terms(512)), shape.bytes(&terms(512)));
    let (all, layers) = held(&model, 540);
    assert_eq!((all, &layers), (whole.bytes(&terms(540)), &whole.layer_bytes(&terms(540))));
    let needed = shape.layer_bytes(&terms(540));
    let local = model.config.layers.iter().filter(|layer| layer.window == Some(512)).count();
    assert_eq!(needed.iter().zip(&layers).filter(|(needed, held)| needed < held).count(), local);
    assert!(local > 0 && all - shape.bytes(&terms(540)) == local as u64 * 28 * 2 * 256 * 4);
}
