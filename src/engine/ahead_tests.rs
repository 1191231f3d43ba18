//! Rows that are no tokens, on a tiny model of the golden data.

use std::path::Path;

use rand::{Rng, SeedableRng};

use super::*;
use crate::backend::LowRank;
use crate::engine::core::{Core, Pause};
use crate::engine::{Device, LaneSpec, Options, Precision, Sampler, open};
use crate::model::soft::Place;
use crate::model::source::Model;
use crate::policy::Policy;

const SOFT: [u32; 20] = [7, 300, 41, 5, 5, 90, 211, 12, 3, 77, 150, 8, 260, 33, 9, 101, 64, 2, 199, 30];

fn tiny() -> Model {
    Model::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/llama3_rope")).unwrap()
}

/// After a prompt of 40 tokens.
fn core(model: &Model, precision: Precision, chunk: usize) -> Core {
    let full = LaneSpec { policy: Policy::parse("full").unwrap(), sampler: Sampler::default() };
    let options = Options {
        device: Device::Cpu,
        precision,
        threads: 2,
        kv: None,
        queries_budget: 1 << 20,
        chunk,
        lanes: vec![full],
        depth: None,
    };
    let mut core = open(model, &options, |_, _| {}).unwrap().0;
    let prompt: Vec<u32> = (0..40).map(|i| (i * i * 13 + i * 37) % 320).collect();
    core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap();
    core
}

/// Numbers below one half for every linear weight; `up` times those of B.
fn soft(model: &Model, up: f32) -> SoftTokens {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut numbers = |n: usize, times: f32| (0..n).map(|_| random.random_range(-0.5..0.5) * times).collect();
    let shapes = [(96, 96), (96, 32), (96, 32), (96, 96), (96, 160), (96, 160), (160, 96)];
    let changes = (0..4).map(|_| {
        let mut change = LayerChange::default();
        for (place, (inputs, outputs)) in Place::ALL.into_iter().zip(shapes) {
            let (down, up) = (numbers(3 * inputs, 1.0), numbers(3 * outputs, up));
            change.set(place, LowRank { rank: 3, down, up, scale: 2.0 });
        }
        change
    });
    let changes = changes.collect();
    let embedding = |id: &u32| model.weights.embed.row(*id as usize).chunks_exact(4);
    let embeddings = SOFT.iter().flat_map(embedding).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    SoftTokens { count: SOFT.len(), embeddings, changes }
}

/// All attention rows of what `read` reads behind the prompt [layers · heads][rows · entries].
fn rows(core: &mut Core, read: impl Fn(&mut dyn Ahead)) -> Vec<Vec<f32>> {
    let (policy, cache, tokens) = (core.lanes()[0].policy.clone(), core.lanes()[0].cache, core.prompt_ids().to_vec());
    let mut rows = Vec::new();
    let look = |lane: &LaneCaches<'_, '_>| {
        lane.ahead(Start::Behind, &mut |ahead| {
            read(ahead);
            ahead.lane(&mut |lane| {
                for layer in 0..4 {
                    lane.layer(layer, &mut |view| {
                        assert_eq!(view.newest(), 59);
                        rows.extend((0..6).map(|head| view.rows(head, 40..60)));
                    });
                }
            });
        });
    };
    core.look(&policy, cache, 0, &tokens, look).unwrap();
    rows
}

/// In one pass and, where the prompt comes in chunks, in several.
#[test]
fn embeddings_of_tokens_are_read_as_the_tokens_are() {
    let model = tiny();
    for (precision, chunk) in [(Precision::F32, 256), (Precision::Native, 256), (Precision::F32, 8)] {
        let mut core = core(&model, precision, chunk);
        let tokens = rows(&mut core, |ahead| drop(ahead.read(&SOFT)));
        assert!(tokens.iter().flatten().sum::<f32>() > 479.0, "rows of probabilities");
        let unchanged = SoftTokens { changes: Vec::new(), ..soft(&model, 0.0) };
        assert_eq!(rows(&mut core, |ahead| ahead.read_soft(&unchanged)), tokens);
        assert_eq!(rows(&mut core, |ahead| ahead.read_soft(&soft(&model, 0.0))), tokens, "B is zero");
        let changed = rows(&mut core, |ahead| ahead.read_soft(&soft(&model, 1.0)));
        assert!(changed.iter().zip(&tokens).all(|(changed, tokens)| changed != tokens));
    }
}

/// The rows' norms come with them; they end where the context does.
#[test]
fn soft_rows_count_as_rows() {
    let mut model = tiny();
    let soft = soft(&model, 1.0);
    rows(&mut core(&model, Precision::F32, 256), |ahead| {
        ahead.read_soft(&soft);
        assert!(ahead.input_norms().iter().all(|norms| norms.len() == 20 && norms.iter().all(|x| *x > 0.0)));
    });
    model.config.context = 59;
    let mut core = core(&model, Precision::F32, 256);
    let (policy, cache, tokens) = (core.lanes()[0].policy.clone(), core.lanes()[0].cache, core.prompt_ids().to_vec());
    let look = |lane: &LaneCaches<'_, '_>| lane.ahead(Start::Behind, &mut |ahead| ahead.read_soft(&soft));
    let error = core.look(&policy, cache, 0, &tokens, look).unwrap_err().to_string();
    assert!(error.contains("60 tokens in all, the context is 59"), "{error}");
}

#[test]
fn afterwards_nothing_has_happened() {
    let model = tiny();
    let soft = soft(&model, 1.0);
    let later = |core: &mut Core| -> Vec<String> {
        let mut frames: Vec<String> = (0..6).map(|_| format!("{:?}", core.step().unwrap().lanes)).collect();
        core.rewind(2).unwrap();
        frames.push(format!("{:?}", core.step().unwrap().lanes));
        frames.push(format!("{:?}", core.attention_rows(3, 5, 30..43).unwrap()));
        frames
    };
    let mut untouched = core(&model, Precision::Native, 256);
    let mut looked = core(&model, Precision::Native, 256);
    rows(&mut looked, |ahead| ahead.read_soft(&soft));
    assert_eq!(later(&mut looked), later(&mut untouched));
}
