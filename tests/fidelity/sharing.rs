//! Layers that read each other: against a slow reference, against themselves, and behind evictors.

use attnscope::engine::frame::Frame;
use attnscope::engine::{Core, Pause, Precision, open};
use attnscope::model::source::Model;

use crate::common::{options, real_model};
use crate::family::unpack;
use crate::golden::*;
use crate::slow::Slow;

fn read(core: &mut Core, ids: &[u32]) -> Frame {
    core.read_prompt(ids, |_, _| Pause::Continue).unwrap().unwrap()
}

/// Everything of a step's lanes.
fn steps(core: &mut Core, count: usize) -> Vec<String> {
    (0..count).map(|_| format!("{:?}", core.step().unwrap().lanes)).collect()
}

#[test]
fn a_wired_lane_is_a_model_whose_layers_read_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let golden = unpack("llama3_rope", folder.path());
    let model = Model::open(folder.path()).unwrap();
    let slow = Slow::open(folder.path(), &model.config);
    let prompt: Vec<u32> = golden.ints("ids").into_iter().map(|id| id as u32).take(50).collect();
    let own = [0, 1, 2, 3];
    // spec, then whose queries, keys and values each layer uses
    let cases = [
        ("full", own, own, own),
        ("tie:map=2>0/3>1", own, [0, 1, 0, 1], [0, 1, 0, 1]),
        ("tie:map=1>0/2>0/3>0", own, [0; 4], [0; 4]),
        ("sharedattention:span=1-3", [0, 1, 1, 1], [0, 1, 1, 1], own),
        ("sharedattention:span=0-1/2-3", [0, 0, 2, 2], [0, 0, 2, 2], own),
    ];
    // A prompt read at once, and in pieces that are not whole blocks.
    for chunk in [512, 13] {
        let specs: Vec<&str> = cases.iter().map(|case| case.0).collect();
        let mut options = options(Precision::F32, &specs);
        options.chunk = chunk;
        let mut core = open(&model, &options, |_, _| {}).unwrap().0;
        read(&mut core, &prompt);
        for _ in 0..4 {
            for (i, (spec, queries, keys, values)) in cases.iter().enumerate() {
                let lane = &core.lanes()[i];
                let text: Vec<u32> = prompt.iter().chain(&lane.fed).copied().collect();
                let exact = slow.logits(&text, queries, keys, values);
                let far = exact
                    .iter()
                    .zip(lane.outlook.logits().unwrap())
                    .map(|(a, b)| (a - *b as f64).abs())
                    .fold(0.0, f64::max);
                assert!(far < 2e-4, "{spec}: {far:e}, chunks of {chunk}");
                let wired =
                    exact.iter().zip(core.lanes()[0].outlook.logits().unwrap()).map(|(a, b)| (a - *b as f64).abs());
                assert!(i == 0 || wired.fold(0.0, f64::max) > 1e-3, "{spec} changes nothing");
            }
            core.step().unwrap();
        }
    }
}

fn prompt() -> Vec<u32> {
    ids(&json(&dir().join("smollm2/d2_code.forward.json"))["token_ids"])
}

#[test]
fn wired_to_itself_a_lane_is_full_bit_for_bit() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let lanes =
        ["full", "tie", "sharedattention", "kvsharer:layers=0,pieces=2,length=16", "echoatt:layers=0", "tie:map=9>9"];
    let mut core = core(&model, Precision::Native, &lanes);
    read(&mut core, &prompt());
    for _ in 0..3 {
        for lane in &core.lanes()[1..] {
            assert_eq!(lane.outlook.logits().unwrap(), core.lanes()[0].outlook.logits().unwrap(), "{}", lane.spec);
        }
        let frame = core.step().unwrap();
        assert!(frame.lanes[1..].iter().all(|lane| lane.row == frame.lanes[0].row && lane.kv == frame.lanes[0].kv));
    }
}

const LANES: [&str; 6] = [
    "full",
    "tie:map=12>3/14>5/20>3",
    "tie:map=12>3/20>19+snapkv@40%+decoding:every=2+knorm@50",
    "sharedattention:span=8-11/23-26+tova@40%:every=step",
    "kvsharer:layers=2,pieces=3,length=32,threshold=-1+h2o@50%",
    "blockwise:size=50+echoatt:layers=3+streaming@50%",
];

#[test]
fn readers_keep_what_their_layer_keeps_and_their_bytes_are_gone() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut core = core(&model, Precision::Native, &LANES);
    read(&mut core, &prompt());
    for _ in 0..5 {
        let frame = core.step().unwrap();
        for (lane, now) in core.lanes().iter().zip(&frame.lanes).skip(1) {
            let wiring = &lane.shared.as_ref().unwrap().wiring;
            assert!(wiring.readers().count() >= 2, "{}", lane.spec);
            for layer in 0..wiring.layers() {
                let heads = 0..now.kept.kv_heads;
                assert!(
                    heads.clone().all(|g| now.kept.list(layer, g) == now.kept.list(wiring.keys(layer), g)),
                    "{}",
                    lane.spec
                );
                // keys and values of 64 channels in f16
                let sides = (wiring.keys(layer) == layer) as u64 + (wiring.values(layer) == layer) as u64;
                let slots: usize = heads.map(|g| now.kept.list(layer, g).len()).sum();
                assert_eq!(now.kv.per_layer[layer], sides * slots as u64 * 64 * 2, "{} layer {layer}", lane.spec);
            }
            assert!(now.against.unwrap().kl.is_finite() && now.kv.held < frame.lanes[0].kv.held);
        }
    }
    // what sharing without eviction saves
    let full = core.lanes()[1].kept.list(0, 0).len() as u64 * 3 * 2 * 64 * 2;
    let frame = core.step().unwrap();
    assert_eq!(frame.lanes[0].kv.held - frame.lanes[1].kv.held, 3 * (full + 3 * 2 * 64 * 2));
}

#[test]
fn back_in_time_and_sideways_are_exact() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut core = core(&model, Precision::Native, &LANES);
    let first = read(&mut core, &prompt());
    let frames = steps(&mut core, 36);
    for back in [33, 32, 7, 0] {
        core.rewind(back).unwrap();
        assert_eq!(steps(&mut core, 36 - back as usize), frames[back as usize..], "back to {back}");
    }
    // a fork goes on as what it was taken from
    core.fork(3, 4).unwrap();
    for _ in 0..3 {
        let frame = core.step().unwrap();
        assert_eq!(frame.lanes[3].row, frame.lanes[6].row);
        assert_eq!((&frame.lanes[3].kv, &frame.lanes[3].next), (&frame.lanes[6].kv, &frame.lanes[6].next));
    }
    assert_eq!(format!("{:?}", read(&mut core, &prompt()).lanes[..6].to_vec()), format!("{:?}", first.lanes));
}

#[test]
fn a_wired_lane_is_the_same_alone_and_disturbs_nobody() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut together = core(&model, Precision::Native, &LANES);
    read(&mut together, &prompt());
    let many: Vec<Frame> = (0..3).map(|_| together.step().unwrap()).collect();
    for i in [1, 3] {
        let mut alone = core(&model, Precision::Native, &["full", LANES[i]]);
        read(&mut alone, &prompt());
        for frame in &many {
            let step = alone.step().unwrap();
            assert_eq!(format!("{:?}", step.lanes[0]), format!("{:?}", frame.lanes[0]));
            assert_eq!(format!("{:?}", step.lanes[1]), format!("{:?}", frame.lanes[i]));
        }
    }
}

#[test]
fn what_does_not_fit_the_model_is_said() {
    let Some(model) = real_model("smollm2-135m") else { return };
    for (spec, word) in [("tie:map=30>2", "0 to 29"), ("tie:map=2>5", "later"), ("sharedattention:span=28-30", "29")] {
        let mut core = core(&model, Precision::Native, &["full", spec]);
        let error = match core.read_prompt(&[1, 2, 3], |_, _| Pause::Continue) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{spec} is no wiring of 30 layers"),
        };
        assert!(error.contains(word) && error.contains(spec), "{error}");
    }
}
