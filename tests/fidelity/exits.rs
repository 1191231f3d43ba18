//! The lens by depth, drafts, and speculative decoding on a trained model.

use std::path::Path;

use attnscope::engine::{Core, Pause, Precision, Speculation};
use attnscope::model::source::Model;
use attnscope::probe::draft::{acceptance, probabilities};

use super::common::core;

const TEXT: &str = "The old lighthouse keeper told the children that the code of the door was 4711. They";

fn twin(precision: Precision) -> (Core, Vec<u32>) {
    one_of_the_twins("plain", precision)
}

fn one_of_the_twins(name: &str, precision: Precision) -> (Core, Vec<u32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(format!("twin-{name}"));
    let model = Model::open(&folder).expect("a model of the repository opens");
    let ids = model.tokenizer.as_ref().expect("a tokenizer").prompt_ids(TEXT).expect("tokens");
    (core(&model, precision, &["full"]), ids)
}

fn read(core: &mut Core, ids: &[u32]) {
    core.read_prompt(ids, |_, _| Pause::Continue).expect("a prompt").expect("not stopped");
}

#[test]
fn the_lens_after_the_last_layer_is_the_logits() {
    for (name, precision) in [("plain", Precision::Native), ("plain", Precision::F32), ("attnres", Precision::Native)] {
        let (mut core, ids) = one_of_the_twins(name, precision);
        core.probes.lens = true;
        read(&mut core, &ids);
        let vocab = core.config().vocab;
        for _ in 0..4 {
            let frame = core.step().expect("a step");
            let lens = &frame.lanes[0].lens;
            let last = lens.last().expect("layers");
            assert_eq!((last.kl, last.token_rank, last.token_prob), (0.0, 1, last.top[0].1));
            assert_eq!(last.top[0].0, frame.lanes[0].candidates[0].id);
            assert!(lens[0].kl > 0.1 && frame.lanes[0].exit_depth().expect("a lens") < lens.len());
        }
        core.probes.lens = false;
        core.step().expect("a step");
        let logits = core.logits(0).expect("logits").to_vec();
        assert_eq!(core.logits_by_layer().expect("logits").chunks_exact(vocab).next_back(), Some(&logits[..]));
    }
}

#[test]
fn a_draft_without_gaps_is_the_model_and_leaves_no_trace() {
    let (mut core, ids) = twin(Precision::F32);
    let sublayers = 2 * core.config().layers.len();
    read(&mut core, &ids);
    let undisturbed: Vec<u32> = (0..6).map(|_| core.step().expect("a step").lanes[0].fed[0]).collect();
    read(&mut core, &ids);
    let skip: Vec<bool> = (0..sublayers).map(|i| i % 4 == 2).collect();
    for token in undisturbed {
        let (whole, part) = (core.draft(&[]).expect("logits"), core.draft(&skip).expect("logits"));
        assert_eq!(core.step().expect("a step").lanes[0].fed[0], token);
        assert_eq!(core.logits(0).expect("logits"), whole);
        let (p, q) = (probabilities(&whole, 1.0), probabilities(&part, 1.0));
        assert!((acceptance(&p, &p) - 1.0).abs() < 1e-5 && acceptance(&p, &q) < 0.999);
    }
}

/// Leaving out much, and little, at temperature 0: the text of the model alone, in fewer looks where the draft is good.
#[test]
fn speculative_decoding_says_what_the_model_says() {
    let (mut core, ids) = twin(Precision::F32);
    let layers = core.config().layers.len();
    read(&mut core, &ids);
    let mut speak = |skip: &[bool], gamma| {
        let how = Speculation { gamma, temperature: 0.0, seed: 0, tokens: 24 };
        core.speculate(skip, how, &mut || Pause::Continue).expect("tokens").expect("not stopped")
    };
    let plain = speak(&[], 0);
    assert_eq!((plain.tokens.len(), plain.looks, plain.drafted), (24, 23, 0));
    let whole = speak(&[], 3);
    assert_eq!((whole.looks, whole.accepted), (6, 18));
    for kept in [1, layers / 2, layers - 1] {
        let skip: Vec<bool> = (0..2 * layers).map(|i| i >= 2 * kept).collect();
        let spoken = speak(&skip, 3);
        assert_eq!(spoken.tokens[..24], plain.tokens[..], "{kept} layers");
        assert_eq!(spoken.accepted + spoken.looks, spoken.tokens.len() as u32 - 1);
    }
    let steps: Vec<u32> = (0..24).map(|_| core.step().expect("a step").lanes[0].fed[0]).collect();
    assert_eq!(steps, plain.tokens);
}

/// What sublayers write goes into sums that later ones read: the first layers are a draft, gaps are none.
#[test]
fn where_depth_is_mixed_only_the_last_layers_can_be_left_out() {
    let (mut core, ids) = one_of_the_twins("attnres", Precision::F32);
    let (sublayers, vocab) = (2 * core.config().layers.len(), core.config().vocab);
    read(&mut core, &ids);
    let first = |layers: usize| (0..sublayers).map(|i| i >= 2 * layers).collect::<Vec<bool>>();
    let drafted = core.draft(&first(7)).expect("logits");
    core.step().expect("a step");
    let lens = core.logits_by_layer().expect("logits");
    assert_eq!(lens[7 * vocab..8 * vocab], drafted);
    let gap: Vec<bool> = (0..sublayers).map(|i| i == 4).collect();
    assert!(core.draft(&gap).is_err_and(|error| error.to_string().contains("mixed")));
}
