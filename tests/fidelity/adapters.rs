//! Adapters of `models/`, on the real model, against the PyTorch code that trained them (`training/adapters`).

use std::path::Path;

use attnscope::engine::{Pause, Precision};

use crate::common::real_model;
use crate::golden::*;

/// The scores of all prompt entries in all kv heads. Two float32 sums in different order: 5e-7 apart when this was
/// written, the largest score is about 1.
#[test]
fn lookahead_scores_smollm2_as_where_it_was_trained() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = Tensors::open(&root.join("tests/golden/smollm2/lookahead.safetensors"));
    let ids: Vec<u32> = golden.ints("ids").into_iter().map(|id| id as u32).collect();
    let file = root.join("models/smollm2-lookahead/lookahead.safetensors");
    let mut core = core(&model, Precision::F32, &["full", &format!("lookahead@32:file={},kernel=1", file.display())]);
    core.read_prompt(&ids, |_, _| Pause::Continue).unwrap().unwrap();
    let decisions = core.prompt_decisions(1).unwrap();
    let ours = decisions.iter().flat_map(|layer| &layer.as_ref().unwrap().scores.values);
    let theirs = golden.f32("scores");
    let mut heads = 0;
    for (head, (ours, theirs)) in ours.zip(theirs.chunks_exact(ids.len())).enumerate() {
        assert_eq!(ours.len(), theirs.len());
        for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            assert!((ours - theirs).abs() < 2e-5, "kv head {head} in order, entry {at}: {ours}, trained {theirs}");
        }
        heads += 1;
    }
    assert_eq!(heads * ids.len(), theirs.len());
}
