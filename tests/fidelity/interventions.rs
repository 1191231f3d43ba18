//! Lanes that intervene: each against what it must be equal to, and beside lanes that must not notice.

use std::path::Path;

use attnscope::engine::frame::{Frame, LaneFrame};
use attnscope::engine::{Core, Pause, Precision};
use attnscope::model::source::Model;
use attnscope::policy::Policy;

use crate::common::real_model;
use crate::golden::core;

fn twin() -> Model {
    Model::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/twin-plain")).unwrap()
}

const LAYERS: usize = 12;

fn prompt() -> Vec<u32> {
    (0..70u32).map(|i| if i == 0 { 0 } else { i.wrapping_mul(2_654_435_761).rotate_left(9) % 4096 }).collect()
}

fn read(core: &mut Core, ids: &[u32]) -> Frame {
    core.read_prompt(ids, |_, _| Pause::Continue).unwrap().unwrap()
}

fn lane(frame: &LaneFrame) -> String {
    format!("{frame:?}")
}

fn timeless(frame: &Frame) -> String {
    format!("{} {:?} {}", frame.step, frame.findings, frame.lanes.iter().map(lane).collect::<Vec<_>>().join("\n"))
}

fn run(core: &mut Core, steps: usize) -> Vec<String> {
    (0..steps).map(|_| timeless(&core.step().unwrap())).collect()
}

fn logits(core: &Core, lane: usize) -> Vec<f32> {
    core.lanes()[lane].outlook.logits().unwrap().to_vec()
}

/// Largest difference as a share of the largest logit.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    let scale = a.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
}

const ALL: [&str; 14] = [
    "full",
    "zerohead:layer=3,head=2",
    "zerolayer:layer=5",
    "zerolayer:layer=2,sublayer=mlp",
    "scale:layer=4,sublayer=both,by=0.5",
    "cast:to=bf16",
    "setchannel:layer=1,channel=7,to=mean",
    "dropbos",
    "masksink",
    "zerosink:layer=3",
    "kvbias:from=5",
    "copymap:from=2,to=6",
    "zerohead:layer=1,head=0+snapkv@50%",
    "masksink+h2o@50%",
];

#[test]
fn what_they_must_be_equal_to() {
    let model = twin();
    let lanes = [
        "full",
        "scale:layer=4,by=1",
        "kvbias",
        "dropbos",
        "masksink",
        "zerolayer:layer=11",
        "zerohead:layer=2,head=0+zerohead:layer=2,head=1+zerohead:layer=2,head=2+zerohead:layer=2,head=3+zerohead:layer=2,head=4+zerohead:layer=2,head=5",
        "zerolayer:layer=2,sublayer=attention",
        "copymap:from=2,to=6",
        "sharedattention:span=2-2",
        "zerosink",
    ];
    let mut core = core(&model, Precision::F32, &lanes);
    read(&mut core, &prompt());
    for step in 0..4 {
        let all: Vec<Vec<f32>> = (0..lanes.len()).map(|i| logits(&core, i)).collect();
        for (a, b) in [(0, 1), (0, 2), (3, 4), (6, 7)] {
            assert!(apart(&all[a], &all[b]) < 2e-5, "{} and {}: {}", lanes[a], lanes[b], apart(&all[a], &all[b]));
        }
        for i in [3, 5, 7, 8, 10] {
            assert!(apart(&all[0], &all[i]) > 1e-4, "{} changes nothing", lanes[i]);
        }
        // without its last layer the model is what the lens sees before it
        if step == 0 {
            let before = core.backend().residual(2 * (LAYERS - 1)).to_vec();
            assert!(before.iter().all(|x| x.is_finite()));
        }
        (0..lanes.len() as u32).for_each(|lane| core.force(lane, 17 + step).unwrap());
        core.step().unwrap();
        let hidden = core.config().hidden;
        let before = core.backend().residual(2 * (LAYERS - 1))[..hidden].to_vec();
        let ours = logits(&core, 5);
        if step > 0 {
            continue;
        }
        let lens = core.lens_logits(&before).unwrap().to_vec();
        // the lane's own earlier layers read what lane 0's do: only its last layer is missing
        assert!(apart(&lens, &ours) < 2e-5, "{}", apart(&lens, &ours));
    }
}

#[test]
fn other_lanes_do_not_notice() {
    let model = twin();
    for precision in [Precision::Native, Precision::F32] {
        let plain = ["full", "snapkv@50%", "tova@40%"];
        let mut without = core(&model, precision, &plain);
        let mut specs = vec!["full", "zerohead:layer=3,head=2", "snapkv@50%"];
        specs.extend(&ALL[2..]);
        specs.push("tova@40%");
        let mut with = core(&model, precision, &specs);
        let mut frames = vec![(read(&mut without, &prompt()), read(&mut with, &prompt()))];
        frames.extend((0..5).map(|_| (without.step().unwrap(), with.step().unwrap())));
        for (without, with) in &frames {
            for (a, b) in [(0, 0), (1, 2), (2, specs.len() - 1)] {
                assert_eq!(lane(&without.lanes[a]), lane(&with.lanes[b]), "step {}", without.step);
            }
        }
    }
}

#[test]
fn a_lane_is_the_same_alone_and_after_going_back() {
    let model = twin();
    let mut together = core(&model, Precision::Native, &ALL);
    let first = read(&mut together, &prompt());
    let frames = run(&mut together, 36);
    for back in [35, 32, 5, 0] {
        together.rewind(back).unwrap();
        assert_eq!(run(&mut together, 36 - back as usize), frames[back as usize..], "back to {back}");
    }
    for (i, spec) in ALL.iter().enumerate().skip(1) {
        let mut alone = core(&model, Precision::Native, &["full", spec]);
        let prompt = read(&mut alone, &prompt());
        assert_eq!(lane(&prompt.lanes[1]), lane(&first.lanes[i]), "{spec}");
        for (a, many) in run(&mut alone, 3).iter().zip(&frames) {
            let of = |text: &str, i: usize| text.split('\n').nth(i).unwrap().to_owned();
            assert_eq!(of(a, 1), of(many, i), "{spec}");
        }
    }
}

#[test]
fn switched_on_while_running_is_as_if_it_had_been_from_the_start() {
    let model = twin();
    for spec in ["zerohead:layer=3,head=2", "dropbos", "masksink", "cast:to=f16"] {
        let mut changed = core(&model, Precision::Native, &["full", "snapkv@50%"]);
        read(&mut changed, &prompt());
        run(&mut changed, 4);
        let mut frames = Vec::new();
        changed.change(1, Policy::parse(spec).unwrap(), |frame| frames.push(lane(&frame.lanes[1]))).unwrap();
        let mut fresh = core(&model, Precision::Native, &["full", spec]);
        let mut expected = vec![lane(&read(&mut fresh, &prompt()).lanes[1])];
        expected.extend((0..4).map(|_| lane(&fresh.step().unwrap().lanes[1])));
        assert_eq!(frames, expected, "{spec}");
        // a fork goes on with it
        changed.fork(1, 4).unwrap();
        let frame = changed.step().unwrap();
        assert_eq!(
            (&frame.lanes[1].candidates, frame.lanes[1].effect),
            (&frame.lanes[2].candidates, frame.lanes[2].effect)
        );
    }
}

#[test]
fn what_is_set_is_seen_in_the_stream() {
    let model = twin();
    let lanes = [
        "full",
        "setchannel:layer=3,channel=7,to=12345",
        "setchannel:layer=3,channel=7,to=-9999,tokens=first",
        "cast:to=bf16",
    ];
    let mut core = core(&model, Precision::F32, &lanes);
    let first = read(&mut core, &prompt());
    let point = 2 * 3 + 2;
    let at = |lane: usize, row: usize| {
        let stats = &first.lanes[lane].residual;
        (stats.absmax[stats.at(point, row)], stats.argmax[stats.at(point, row)])
    };
    assert_eq!([at(1, 0), at(1, 69), at(2, 0)], [(12345.0, 7), (12345.0, 7), (9999.0, 7)]);
    // later tokens are themselves where it is set, and see the first one in layers behind
    assert_eq!(at(2, 1), at(0, 1));
    let behind = |lane: usize| first.lanes[lane].residual.absmax[first.lanes[lane].residual.at(24, 1)];
    assert_ne!(behind(2), behind(0));
    assert!(at(2, 1).0 < 9999.0);
    let short = |x: f32| x.to_bits() & 0xffff == 0;
    assert!(first.lanes[3].residual.absmax.iter().all(|&x| short(x)));
    assert!(!first.lanes[0].residual.absmax.iter().all(|&x| short(x)));
    let step = core.step().unwrap();
    let stats = &step.lanes[1].residual;
    assert_eq!((stats.absmax[stats.at(point, 0)], stats.argmax[stats.at(point, 0)]), (12345.0, 7));
    let effect = first.lanes[1].effect.unwrap();
    // of a prompt without sense, which an intervention may make more probable
    assert!(effect.kl > 0.1 && effect.nll != effect.nll_full && effect.tokens == 64, "{effect:?}");
    assert!(first.lanes[0].effect.is_none());
}

#[test]
fn the_first_token_is_left_out_or_gets_nothing() {
    let model = twin();
    let mut core = core(&model, Precision::Native, &["full", "dropbos", "masksink", "zerosink"]);
    let first = read(&mut core, &prompt());
    assert_eq!((first.lanes[1].pos, first.lanes[1].fed.len(), first.lanes[1].residual.rows), (1, 69, 69));
    assert!(!first.lanes[1].kept.contains(0, 0, 0) && first.lanes[1].kept.contains(0, 0, 1));
    // behind the first row, which sees itself alone
    let a = &first.lanes[2].attention;
    for head in 0..a.layers * a.heads {
        assert_eq!(a.first[head * a.rows], 1.0);
        assert!(a.first[head * a.rows + 1..(head + 1) * a.rows].iter().all(|&p| p < 1e-30));
    }
    assert!(first.lanes[2].kept.contains(0, 0, 0));
    let step = core.step().unwrap();
    assert!(step.lanes[2].attention.first.iter().all(|&p| p < 1e-30));
    assert!(step.lanes[0].attention.first.iter().any(|&p| p > 0.01));
    let cache = core.lanes()[3].cache;
    assert!(core.backend().values(cache, 4, 1)[..32].iter().all(|&v| v == 0.0));
}

#[test]
fn what_cannot_be_done_to_a_prompt_is_said() {
    let model = twin();
    let mut one = core(&model, Precision::Native, &["full", "dropbos"]);
    assert!(one.read_prompt(&[5], |_, _| Pause::Continue).unwrap_err().to_string().contains("one token"));
    let mut other = core(&model, Precision::Native, &["full", "dropbos:token=bos"]);
    assert!(other.read_prompt(&[5, 6], |_, _| Pause::Continue).unwrap_err().to_string().contains("BOS"));
    assert!(read(&mut other, &[0, 6]).lanes[1].pos == 1);
    let mut far = core(&model, Precision::Native, &["full", "kvbias:from=90"]);
    assert!(far.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap_err().to_string().contains("position 90"));
}

#[test]
fn massive_activations_of_a_real_model_are_biases() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let ids = model.tokenizer.as_ref().unwrap().encode("The tide tables hung beside the door, and nobody read them any more. In the harbour the boats lay on the mud, tilted and patient, waiting for the water to come back.", false).unwrap();
    let mut core = core(&model, Precision::Native, &["full", "massive", "massive:to=mean"]);
    let first = read(&mut core, &ids);
    let [zero, mean] = [1, 2].map(|lane| first.lanes[lane].effect.unwrap());
    assert!(zero.nll - zero.nll_full > 10.0 * (mean.nll - mean.nll_full).abs(), "{zero:?} {mean:?}");
    assert!(zero.kl > 1.0 && mean.kl < 0.1 && (mean.sink_rate - mean.sink_rate_full).abs() < 0.1);
    // the first token is the massive one, and the sink
    let found = core.massive(&ids).unwrap();
    let onset = attnscope::probe::massive::onset(&found).unwrap();
    assert!(found[onset].massive().all(|element| element.position == 0) && zero.sink_rate_full > 0.3);
}

#[test]
fn a_lane_opened_late_is_fed_lane_0s_tokens_and_the_others_go_on() {
    let model = twin();
    let mut core = core(&model, Precision::Native, &["full", "snapkv@50%"]);
    let first = read(&mut core, &prompt());
    let mut before: Vec<Frame> = vec![first];
    before.extend((0..4).map(|_| core.step().unwrap()));
    let mut again = Vec::new();
    assert_eq!(core.open_beside(Policy::parse("masksink").unwrap(), |frame| again.push(frame)).unwrap(), 2);
    assert_eq!(again.len(), before.len());
    for (before, again) in before.iter().zip(&again) {
        assert_eq!((lane(&before.lanes[0]), lane(&before.lanes[1])), (lane(&again.lanes[0]), lane(&again.lanes[1])));
        assert!(again.lanes[2].against.unwrap().same_prefix);
    }
    assert_eq!(again[4].lanes[2].fed, again[4].lanes[0].fed);
    let steps = run(&mut core, 3);
    core.rewind(2).unwrap();
    assert_eq!(run(&mut core, 5)[2..], steps);
    // what cannot be opened leaves everything as it was
    assert!(core.open_beside(Policy::parse("kvbias:from=9999").unwrap(), |_| {}).is_err());
    assert_eq!((core.lanes().len(), core.step_number()), (3, 7));
}
