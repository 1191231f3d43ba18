//! Quantizers and thinner keys on the real forward pass.

use attnscope::engine::frame::Frame;
use attnscope::engine::{Core, Pause, Precision};
use attnscope::policy::Policy;
use attnscope::policy::registry::POLICIES;

use crate::common::real_model;
use crate::golden::*;

/// kvpress' ThinKPress (window 32) at ratios ¼, ½ and ¾: KL after one step, and FNV-1a over the channels that stay, as
/// little-endian u32, of all heads of all compressed layers.
type Think = (&'static str, [(f32, u32); 3]);

const SMOLLM2: [Think; 4] = [
    ("d1_short", [(0.02307881, 0xe2b568a8), (0.095125265, 0xf3c01f68), (1.105523, 0xbff9a3d0)]),
    ("d2_code", [(0.015531855, 0xcd56a0bf), (4.978072, 0xf1aa08d2), (2.3413577, 0x5d33a25f)]),
    ("d3_needle", [(0.000111564295, 0xf12bba9a), (0.014718407, 0xc14980a0), (1.2546602, 0x83e31cf7)]),
    ("d4_essay", [(0.015013718, 0x6c3ab018), (0.10895759, 0x24f4455f), (1.1479676, 0x17fda595)]),
];

const GEMMA3: [Think; 4] = [
    ("d1_short", [(0.0016825446, 0x3fba6800), (0.15085888, 0xdf746cad), (0.32726032, 0xdb52b282)]),
    ("d2_code", [(0.00038600902, 0xb11dc197), (0.34615147, 0x8a06b495), (1.92301, 0x7b1e6dd6)]),
    ("d3_needle", [(0.010301184, 0x5bb665f4), (0.017116275, 0xda67f537), (0.004743431, 0xde06e1b9)]),
    ("d4_essay", [(0.0022396448, 0xde54813d), (0.014821101, 0xc36e761d), (0.090221666, 0xd5597349)]),
];

fn prompt(folder: &str, name: &str) -> Vec<u32> {
    ids(&json(&dir().join(folder).join(name).with_extension("forward.json"))["token_ids"])
}

/// FNV-1a over the channels that any held key of a head has, layer by layer, head by head.
fn channels(core: &mut Core, lane: usize) -> u32 {
    let (layers, kv_heads, dim) = (core.config().layers.clone(), core.config().kv_heads, core.config().head_dim);
    let cache = core.lanes()[lane].cache;
    let mut hash = 0x811c_9dc5u32;
    for layer in (0..layers.len()).filter(|&layer| layers[layer].window.is_none()) {
        for head in 0..kv_heads {
            let keys = core.backend().keys(cache, layer, head);
            for c in (0..dim).filter(|c| keys.iter().skip(*c).step_by(dim).any(|x| *x != 0.0)) {
                for byte in (c as u32).to_le_bytes() {
                    hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
                }
            }
        }
    }
    hash
}

fn think_equals_kvpress(name: &str, folder: &str, golden: &[Think]) {
    let Some(model) = real_model(name) else { return };
    let specs = ["full", "think:ratio=0.25,recent=0", "think:ratio=0.5,recent=0", "think:ratio=0.75,recent=0"];
    for (text, expected) in golden {
        let mut core = core(&model, Precision::F32, &specs);
        core.read_prompt(&prompt(folder, text), |_, _| Pause::Continue).unwrap();
        let stay: Vec<u32> = (1..=3).map(|lane| channels(&mut core, lane)).collect();
        let frame = core.step().unwrap();
        for (i, (kl, digest)) in expected.iter().enumerate() {
            let at = format!("{folder} {text} {}", specs[i + 1]);
            assert_eq!(stay[i], *digest, "{at}: other channels");
            let ours = frame.lanes[i + 1].against.unwrap().kl;
            assert!((ours - kl).abs() <= 1e-6f32.max(1e-4 * kl), "{at}: KL {ours}, kvpress {kl}");
        }
    }
}

#[test]
fn smollm2_loses_the_key_channels_that_kvpress_drops() {
    think_equals_kvpress("smollm2-135m", "smollm2", &SMOLLM2);
}

#[test]
fn gemma3_loses_the_key_channels_that_kvpress_drops() {
    think_equals_kvpress("gemma3-270m", "gemma3", &GEMMA3);
}

/// Everything of a frame but the clock.
fn timeless(frame: &Frame) -> Vec<String> {
    frame.lanes.iter().map(|lane| format!("{lane:?}")).collect()
}

/// Small residuals and gaps, so that everything happens within a few steps.
const STORAGE: [&str; 8] = [
    "kivi:bits=2,group=4,residual=8",
    "kivi:bits=4,group=4,residual=4",
    "zipcache:every=3",
    "akvq:residual=4",
    "wkvquant",
    "int8:residual=2",
    "int4",
    "think:recent=4",
];

fn check(frame: &Frame, lane: usize, alone: bool) {
    let (of, full) = (&frame.lanes[lane], &frame.lanes[0]);
    if frame.step == 0 && !of.spec.starts_with("blockwise") {
        assert_eq!(of.candidates, full.candidates, "{}: a dense prompt gives the same first token", of.spec);
    }
    if alone {
        assert_eq!(of.kept, full.kept, "{} evicts", of.spec);
    }
    assert!(of.kv.held < full.kv.held, "{}: {} bytes of {}", of.spec, of.kv.held, full.kv.held);
    assert!(of.candidates.iter().all(|c| c.logit.is_finite()), "{}", of.spec);
}

fn run(name: &str, folder: &str, specs: &[String], text: &str, steps: usize, back: &[u32]) {
    let Some(model) = real_model(name) else { return };
    let ids = prompt(folder, text);
    for some in specs.chunks(40) {
        let mut lanes = vec!["full"];
        lanes.extend(some.iter().map(String::as_str));
        let alone = |lane: usize| !Policy::parse(lanes[lane]).unwrap().evicts();
        let mut core = core(&model, Precision::Native, &lanes);
        let first = core.read_prompt(&ids, |_, _| Pause::Continue).unwrap().unwrap();
        (1..lanes.len()).for_each(|lane| check(&first, lane, alone(lane)));
        let mut frames = Vec::new();
        for _ in 0..steps {
            let frame = core.step().unwrap();
            (1..lanes.len()).for_each(|lane| check(&frame, lane, alone(lane)));
            frames.push(timeless(&frame));
        }
        for &back in back {
            core.rewind(back).unwrap();
            for before in &frames[back as usize..] {
                for ((again, before), spec) in timeless(&core.step().unwrap()).iter().zip(before).zip(&lanes) {
                    assert!(again == before, "{spec} comes out otherwise after going back to {back}");
                }
            }
        }
        // a fork goes on as what it was forked from does
        core.rewind(2).unwrap();
        core.fork(1, 2).unwrap();
        let forked = lanes.len();
        for before in &frames[2..4] {
            let frame = core.step().unwrap();
            assert_eq!(timeless(&frame)[1], before[1]);
            assert_eq!(format!("{:?}", frame.lanes[forked].candidates), format!("{:?}", frame.lanes[1].candidates));
            assert_eq!(frame.lanes[forked].kv, frame.lanes[1].kv);
        }
        let again = core.read_prompt(&ids, |_, _| Pause::Continue).unwrap().unwrap();
        assert_eq!(timeless(&first)[1..lanes.len()], timeless(&again)[1..lanes.len()], "read once more");
    }
}

#[test]
fn lanes_of_packed_caches_hold_less_and_go_back_exactly() {
    let alone: Vec<String> = STORAGE.iter().map(|spec| spec.to_string()).collect();
    run("smollm2-135m", "smollm2", &alone, "d2_code", 40, &[39, 33, 32, 5, 0]);
    run("gemma3-270m", "gemma3", &alone, "d1_short", 8, &[1]);
}

#[test]
fn every_scorer_goes_with_every_storage() {
    let scorers =
        POLICIES.iter().filter(|policy| policy.budget.is_some() && policy.runs_by_its_name()).map(|policy| policy.name);
    let mut specs: Vec<String> =
        scorers.flat_map(|scorer| STORAGE.iter().map(move |storage| format!("{scorer}@60%+{storage}"))).collect();
    let chains = [
        "h2o@50%:every=step",
        "adakv+snapkv@50%",
        "merge+knorm@50%",
        "rerotate+knorm@50%",
        "decoding:every=2+tova@12",
        "blockwise:size=8+keydiff@50%",
    ];
    specs.extend(chains.iter().flat_map(|chain| STORAGE.iter().map(move |storage| format!("{chain}+{storage}"))));
    specs.retain(|spec| Policy::parse(spec).is_ok());
    assert!(specs.len() >= 100);
    run("smollm2-135m", "smollm2", &specs, "d1_short", 5, &[1]);
}

/// What rounding costs, against lane 0 on its own text: eight bits next to nothing, four a little.
#[test]
fn more_bits_are_closer_to_full() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let specs =
        ["full", "int8", "int4", "kivi:bits=8,residual=32", "kivi:bits=4,residual=32", "kivi:bits=2,residual=32"];
    let mut core = core(&model, Precision::Native, &specs);
    let frame = core.read_prompt(&prompt("smollm2", "d4_essay"), |_, _| Pause::Continue).unwrap().unwrap();
    let mut next = frame.lanes[0].next.unwrap();
    let mut kl = [0.0; 6];
    for _ in 0..12 {
        (0..specs.len()).for_each(|lane| core.force(lane as u32, next).unwrap());
        let frame = core.step().unwrap();
        (1..specs.len()).for_each(|lane| kl[lane] += frame.lanes[lane].against.unwrap().kl / 12.0);
        next = frame.lanes[0].next.unwrap();
    }
    println!("mean KL: {kl:?}");
    assert!(kl[1] < 0.005 && kl[1] < kl[2] / 4.0, "{kl:?}");
    assert!(kl[3] < 0.005 && kl[3] < kl[4] / 2.0 && kl[4] < kl[5] / 2.0, "{kl:?}");
}
