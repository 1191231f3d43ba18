//! Lanes whose steps read a part of their cache, on tiny models with random weights: rows are flat there, so that much
//! of the mass lies on what is not read.

use attnscope::engine::frame::{Frame, Reads};
use attnscope::engine::message::{Answer, Query};
use attnscope::engine::{Core, Pause, Precision};
use attnscope::model::source::Model;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::common::real_model;
use crate::family::unpack;
use crate::golden::*;

/// Small enough for a prompt of 75 tokens.
const SPECS: [&str; 10] = [
    "quest@16:page=4,dense=0",
    "tidal@12:select=1,correct=2",
    "magicpig:k=3,l=8,sinks=2,local=8,dense=3",
    "actqkv@24:block=4,window=8,dense=1",
    "predictor@24:block=4,sinks=4,local=8,history=8,calibrate=3,dense=1",
    "predictor@24:by=oracle,block=4,sinks=4,local=8,dense=1",
    "snapkv@50%+quest@16:page=4,dense=0",
    "h2o@40%+tidal@8:select=0,correct=2",
    "streaming@50%+predictor@24:block=4,sinks=4,local=8,history=8,calibrate=3,dense=0",
    "tova@50%+magicpig:k=2,l=6,sinks=2,local=8,dense=0,seed=5",
];

/// A family's model and prompt, opened with these lanes behind lane 0, the prompt read.
fn opened(family: &str, lanes: &[&str]) -> Core {
    let folder = tempfile::tempdir().unwrap();
    let golden = unpack(family, folder.path());
    let model = Model::open(folder.path()).unwrap();
    let all: Vec<&str> = ["full"].into_iter().chain(lanes.iter().copied()).collect();
    let mut core = core(&model, Precision::F32, &all);
    let prompt: Vec<u32> = golden.ints("ids").into_iter().map(|id| id as u32).collect();
    let frame = core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
    assert!(frame.lanes.iter().all(|lane| lane.reads.is_none()), "the prompt is read whole");
    let same_first = |lane: &attnscope::engine::frame::LaneFrame| lane.next == frame.lanes[0].next;
    assert!(frame.lanes.iter().all(same_first));
    core
}

fn timeless(frame: &Frame) -> Vec<String> {
    frame.lanes.iter().map(|lane| format!("{lane:?}")).collect()
}

fn run(core: &mut Core, steps: usize) -> Vec<Vec<String>> {
    (0..steps).map(|_| timeless(&core.step().unwrap())).collect()
}

/// Positions that head `head` of a lane has any attention on.
fn looked_at(core: &mut Core, lane: u32, layer: usize, head: usize) -> Vec<(u32, f32)> {
    let (layer, head) = (layer as u32, head as u32);
    let Answer::Slots(slots) = core.answer(&Query::Row { lane, layer, head }) else { panic!("no row") };
    slots.iter().copied().filter(|(_, p)| *p > 0.0).collect()
}

#[test]
fn back_and_forward_again_gives_the_same_frames_bit_for_bit() {
    for family in ["llama3_rope", "gemma3_text"] {
        let mut core = opened(family, &SPECS);
        let frames = run(&mut core, 40);
        for back in [39, 33, 32, 31, 5, 0] {
            core.rewind(back).unwrap();
            let again = run(&mut core, 40 - back as usize);
            for (again, before) in again.iter().zip(&frames[back as usize..]) {
                for ((again, before), spec) in again.iter().zip(before).skip(1).zip(SPECS) {
                    assert!(again == before, "{family}: {spec}, back to {back}:\n{again}\n{before}");
                }
            }
        }
    }
}

#[test]
fn a_fork_reads_on_as_its_origin_does() {
    for (i, spec) in (1..).zip(SPECS) {
        let mut core = opened("llama3_rope", &SPECS);
        run(&mut core, 5);
        core.fork(i, 3).unwrap();
        for _ in 0..8 {
            let frame = core.step().unwrap();
            let (origin, fork) = (&frame.lanes[i as usize], &frame.lanes[SPECS.len() + 1]);
            assert_eq!((&fork.reads, &fork.row, fork.next), (&origin.reads, &origin.row, origin.next), "{spec}");
        }
    }
}

#[test]
fn a_lane_reads_the_same_alone_and_beside_others_and_sublayer_by_sublayer() {
    let together = run(&mut opened("llama3_rope", &SPECS), 4);
    for (i, spec) in (1..).zip(SPECS) {
        let mut alone = opened("llama3_rope", &[spec]);
        for frame in &together {
            let last = loop {
                let part = alone.advance(1).unwrap();
                let reached = part.partial.unwrap_or(u32::MAX).div_ceil(2) as usize;
                let reads = part.lanes[1].reads.clone().expect("reads");
                let known =
                    |layer: usize| reads.covered[layer * reads.heads..][..reads.heads].iter().all(|m| !m.is_nan());
                assert!((0..reads.layers).all(|layer| known(layer) == (layer < reached)), "{spec}");
                if part.partial.is_none() {
                    break part;
                }
            };
            assert_eq!(timeless(&last)[1], frame[i], "{spec}");
        }
    }
}

fn check(core: &mut Core, lane: u32, reads: &Reads, spec: &str) {
    let group = reads.heads / reads.kv_heads;
    for layer in 0..reads.layers {
        for kv in 0..reads.kv_heads {
            let at = layer * reads.kv_heads + kv;
            let heads: Vec<_> = (kv * group..(kv + 1) * group).map(|head| looked_at(core, lane, layer, head)).collect();
            let mut union: Vec<u32> = heads.iter().flatten().map(|(position, _)| *position).collect();
            union.sort();
            union.dedup();
            assert_eq!(reads.entries[at] as usize, union.len(), "{spec}: layer {layer}, kv head {kv}");
            assert!(reads.entries[at] <= reads.seen[at]);
            for row in &heads {
                let sum: f32 = row.iter().map(|(_, p)| p).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{spec}: what is read sums to {sum}");
            }
        }
        let whole = (0..reads.kv_heads).all(|kv| {
            let at = layer * reads.kv_heads + kv;
            reads.entries[at] == reads.seen[at]
        });
        let masses = &reads.covered[layer * reads.heads..][..reads.heads];
        assert!(masses.iter().all(|mass| *mass > 0.0 && *mass <= 1.0), "{spec}: {masses:?}");
        assert!(!whole || reads.bytes[layer] == reads.bytes_seen[layer], "{spec}");
    }
    assert!(reads.bytes_read() > 0 && reads.bytes_of_all() > 0);
}

/// Up to the first layer that reads a part, a lane's numbers are lane 0's: there, lane 0's row is the dense one.
#[test]
fn entries_and_covered_mass_are_those_of_the_rows() {
    for family in ["llama3_rope", "gemma3_text"] {
        let mut core = opened(family, &SPECS);
        let frame = core.step().unwrap();
        for (lane, spec) in (1..).zip(SPECS) {
            let reads = frame.lanes[lane as usize].reads.clone().expect("reads");
            if core.lanes()[lane as usize].policy.acts_in_decode() {
                // what was read has left in part
                continue;
            }
            check(&mut core, lane, &reads, spec);
            if frame.lanes[lane as usize].kv.slots_per_layer != frame.lanes[0].kv.slots_per_layer {
                continue;
            }
            let part = |layer: &usize| {
                (0..reads.kv_heads)
                    .any(|kv| reads.entries[layer * reads.kv_heads + kv] < reads.seen[layer * reads.kv_heads + kv])
            };
            let Some(first) = (0..reads.layers).find(part) else {
                // where most layers have windows, the one layer left may be the one that picks
                assert!(family == "gemma3_text", "{spec} reads everything");
                continue;
            };
            for head in 0..reads.heads {
                let read = looked_at(&mut core, lane, first, head);
                let dense = looked_at(&mut core, 0, first, head);
                let mass: f32 =
                    dense.iter().filter(|(p, _)| read.iter().any(|(read, _)| read == p)).map(|(_, mass)| mass).sum();
                let covered = reads.covered[first * reads.heads + head];
                assert!((mass - covered).abs() < 1e-5, "{spec}: head {head} covers {covered}, not {mass}");
            }
        }
    }
}

#[test]
fn reading_everything_is_full_bit_for_bit() {
    let whole = [
        "quest@100%",
        "tidal@1000:select=0",
        "actqkv@100%",
        "predictor@100%",
        "magicpig:local=1000,dense=0",
        "quest@96:dense=0",
    ];
    for family in ["llama3_rope", "gemma3_text", "gemma2_softcap"] {
        let mut core = opened(family, &whole);
        for _ in 0..6 {
            let frame = core.step().unwrap();
            for lane in &frame.lanes[1..] {
                assert_eq!(lane.against.unwrap().kl, 0.0, "{family}: {}", lane.spec);
                assert_eq!(lane.row, frame.lanes[0].row, "{family}: {}", lane.spec);
                let reads = lane.reads.as_ref().unwrap();
                assert_eq!((reads.covers(), &reads.entries), (Some((1.0, 1.0)), &reads.seen), "{}", lane.spec);
            }
        }
    }
}

/// The whole way of `by=weights`: from a file to frames that come out the same again.
#[test]
fn a_network_of_any_weights_predicts_and_goes_back_exactly() {
    let shapes: [(&str, &[usize]); 6] = [
        ("conv1.weight", &[16, 1, 3, 3]),
        ("conv1.bias", &[16]),
        ("conv2.weight", &[32, 16, 3, 3]),
        ("conv2.bias", &[32]),
        ("conv3.weight", &[1, 32, 1]),
        ("conv3.bias", &[1]),
    ];
    let bytes: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(_, shape)| {
            let number = |i: usize| ((i * 7919 + 13) % 101) as f32 / 101.0 - 0.5;
            (0..shape.iter().product()).flat_map(|i| number(i).to_le_bytes()).collect()
        })
        .collect();
    let views = shapes
        .iter()
        .zip(&bytes)
        .map(|((name, shape), data)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    std::fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
    let spec = format!(
        "predictor@24:by=weights,file={},history=8,block=4,sinks=4,local=8,calibrate=3,dense=1",
        file.display()
    );
    let mut core = opened("llama3_rope", &[&spec]);
    let frames = run(&mut core, 6);
    core.rewind(2).unwrap();
    assert_eq!(run(&mut core, 4), frames[2..]);
    let frame = core.step().unwrap();
    let reads = frame.lanes[1].reads.clone().unwrap();
    check(&mut core, 1, &reads, &spec);
    assert!(reads.share() < 1.0 && reads.metadata_held > 0);
}

/// Δ brings what the prompt was read to nearer to lane 0 than sparse rows alone do, and step by step back in time works.
#[test]
fn a_prompt_read_sparsely_is_a_lanes_own() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let ids = ids(&json(&dir().join("smollm2/d2_code.forward.json"))["token_ids"]);
    let prompt: Vec<u32> = ids.iter().copied().cycle().take(600).collect();
    let lanes = [
        "full",
        "delta",
        "delta:sinks=4,window=32,gamma=16",
        "delta:sinks=4,window=32,gamma=16,repair=recompute",
        "delta:sinks=4,window=32,gamma=16,repair=off",
        "delta:sinks=600,repair=off",
    ];
    let mut core = core(&model, Precision::F32, &lanes);
    let frame = core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
    let kl = |lane: usize| frame.lanes[lane].against.unwrap().kl;
    // within sinks and window nothing is sparse; rows that are taken in other parts round otherwise
    assert!(kl(1) < 1e-9 && kl(5) < 1e-9, "{} {}", kl(1), kl(5));
    assert!(kl(2) < kl(4) && kl(3) < kl(4), "repaired {}, recomputed {}, not at all {}", kl(2), kl(3), kl(4));
    let reads = |lane: usize| frame.lanes[lane].reads.clone().unwrap();
    assert_eq!((reads(1).share(), reads(1).covers()), (1.0, Some((1.0, 1.0))));
    // 600 mod 16 + 128 = 136 rows at the end and every 16th before are whole
    let sparse = |p: u64| (p + 1).min(36);
    let off: u64 = (0..600).map(sparse).sum();
    let delta: u64 = (0..600).map(|p| if p >= 464 || p % 16 == 0 { p + 1 } else { sparse(p) }).sum();
    assert_eq!((reads(4).entries[0] as u64, reads(2).entries[0] as u64), (off, delta));
    assert_eq!(reads(2).seen[0], 600 * 601 / 2);
    let (off, delta) = (reads(4).covers().unwrap(), reads(2).covers().unwrap());
    assert!(off.0 < delta.0 && delta.0 < 1.0, "{off:?} {delta:?}");
    let frames = run(&mut core, 5);
    core.rewind(1).unwrap();
    assert_eq!(run(&mut core, 4), frames[1..]);
}
