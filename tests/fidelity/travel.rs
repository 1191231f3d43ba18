//! Time travel is exact, and lanes do not disturb each other.

use attnscope::engine::frame::{Frame, LaneFrame};
use attnscope::engine::message::Fate;
use attnscope::engine::{Core, Pause, Precision};
use attnscope::policy::Policy;

use crate::common::real_model;
use crate::golden::*;

/// Everything of a frame but the clock.
fn timeless(frame: &Frame) -> String {
    let lanes: Vec<String> = frame.lanes.iter().map(|lane: &LaneFrame| format!("{lane:?}")).collect();
    format!("{} {:?} {}", frame.step, frame.findings, lanes.join("\n"))
}

const LANES: [&str; 6] = ["full", "window@60%", "streaming@50%", "h2o@50%", "tova@40%", "snapkv@50%"];

fn prompt() -> Vec<u32> {
    ids(&json(&dir().join("smollm2/d2_code.forward.json"))["token_ids"])
}

fn run(core: &mut Core, steps: usize) -> Vec<String> {
    (0..steps).map(|_| timeless(&core.step().unwrap())).collect()
}

#[test]
fn back_and_forward_again_gives_the_same_frames_bit_for_bit() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut core = core(&model, Precision::Native, &LANES);
    let first = core.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap().unwrap();
    let frames = run(&mut core, 40);
    for back in [39, 33, 32, 31, 5, 0] {
        core.rewind(back).unwrap();
        assert_eq!(run(&mut core, 40 - back as usize), frames[back as usize..], "back to {back}");
    }
    let again = core.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap().unwrap();
    assert_eq!(timeless(&first), timeless(&again));
}

#[test]
fn a_lane_is_the_same_alone_and_beside_others() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let lane = |frame: &str, i: usize| frame.split('\n').nth(i).unwrap().to_owned();
    for precision in [Precision::Native, Precision::F32] {
        let mut together = core(&model, precision, &LANES);
        together.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap();
        let many = run(&mut together, 4);
        for (i, spec) in LANES.iter().enumerate().skip(1).step_by(2) {
            let mut alone = core(&model, precision, &["full", spec]);
            alone.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap();
            for (a, b) in run(&mut alone, 4).iter().zip(&many) {
                assert_eq!(lane(a, 1), lane(b, i), "{spec}");
            }
        }
    }
}

#[test]
fn a_full_budget_is_full_bit_for_bit() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut core = core(&model, Precision::Native, &["full", "h2o@100%", "snapkv@100%", "tova@100%"]);
    core.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap();
    for _ in 0..6 {
        let frame = core.step().unwrap();
        for lane in &frame.lanes[1..] {
            assert_eq!(lane.against.unwrap().kl, 0.0);
            assert_eq!(lane.row, frame.lanes[0].row);
        }
    }
}

#[test]
fn stepping_by_sublayers_ends_in_the_same_frame() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut core = core(&model, Precision::Native, &["full", "tova@50%"]);
    core.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap();
    let whole = timeless(&core.step().unwrap());
    core.rewind(0).unwrap();
    let mut partial = 0;
    let last = loop {
        let frame = core.advance(1).unwrap();
        match frame.partial {
            Some(done) => {
                partial += 1;
                assert_eq!(done, partial);
                assert_eq!(frame.lanes[0].residual.points as u32, done + 1);
            }
            None => break frame,
        }
    };
    assert_eq!(partial, 59);
    assert_eq!(timeless(&last), whole);
}

#[test]
fn a_fork_with_a_forced_token_leaves_the_other_lanes_alone() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut core = core(&model, Precision::Native, &["full", "h2o@50%"]);
    core.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap();
    let before = run(&mut core, 8);
    core.fork(1, 3).unwrap();
    core.force(2, 11).unwrap();
    let frame = core.step().unwrap();
    assert_eq!(frame.lanes.len(), 3);
    assert_eq!(frame.lanes[2].fed[..], [11]);
    assert_eq!(frame.step, 4);
    let old = |text: &str, i: usize| text.split('\n').nth(i).unwrap().to_owned();
    let now = timeless(&frame);
    assert_eq!((old(&now, 0), old(&now, 1)), (old(&before[3], 0), old(&before[3], 1)));
    core.rewind(0).unwrap();
    assert_eq!(run(&mut core, 8), before);
}

#[test]
fn a_lane_with_another_policy_is_as_if_it_had_had_it_from_the_start() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut changed = core(&model, Precision::Native, &["full", "h2o@50%", "snapkv@50%"]);
    changed.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap();
    let before = run(&mut changed, 12);
    for spec in ["tova@40%", "blockwise:size=40+knorm@50%", "keyformer@45%", "h2o@50%"] {
        let mut told = Vec::new();
        changed.change(1, Policy::parse(spec).unwrap(), |frame| told.push(timeless(&frame))).unwrap();
        let mut fresh = core(&model, Precision::Native, &["full", spec, "snapkv@50%"]);
        let first = timeless(&fresh.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap().unwrap());
        assert_eq!(told.len(), 13);
        // findings apart: what was noticed before is not noticed again
        let lanes = |text: &str| text[text.find("LaneFrame").unwrap()..].to_owned();
        assert_eq!(lanes(&told[0]), lanes(&first), "{spec}");
        assert_eq!(
            told[1..].iter().map(|t| lanes(t)).collect::<Vec<_>>(),
            run(&mut fresh, 12).iter().map(|t| lanes(t)).collect::<Vec<_>>(),
            "{spec}"
        );
        assert_eq!(timeless(&changed.step().unwrap()), timeless(&fresh.step().unwrap()), "{spec}");
        changed.rewind(12).unwrap();
    }
    let again = run(&mut changed, 0);
    assert!(again.is_empty() && changed.step_number() == 12);
    changed.rewind(0).unwrap();
    assert_eq!(run(&mut changed, 12), before, "back where it began");
    assert!(changed.change(0, Policy::parse("tova").unwrap(), |_| ()).is_err(), "the yardstick stays");
    assert!(changed.change(7, Policy::parse("tova").unwrap(), |_| ()).is_err());
    assert_eq!(changed.step_number(), 12);
}

#[test]
fn every_entry_is_told_why_it_stays() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut core = core(&model, Precision::Native, &["full", "snapkv@30%", "tova@40%"]);
    core.read_prompt(&prompt(), |_, _| Pause::Continue).unwrap();
    run(&mut core, 3);
    let (read, group) = (prompt().len() as u32 + 3, 3);
    for lane in [1, 2] {
        let kept = core.lanes()[lane].kept.clone();
        for position in 0..read {
            let why = core.why(lane, position);
            assert_eq!(why.len(), 30 * group);
            for v in why {
                assert_eq!(v.held, kept.contains(v.layer as usize, v.kv_head as usize, position as usize));
                match v.fate {
                    Fate::Stays => {
                        assert!(v.held && v.rank <= v.kept && (v.forced || v.score >= v.threshold), "{v:?}");
                        assert_eq!(v.step, Some(if lane == 1 { 0 } else { 3 }));
                    }
                    Fate::Left => assert!(!v.held && v.rank > v.kept && v.score <= v.threshold, "{v:?}"),
                    Fate::LeftBefore => assert!(!v.held && lane == 2),
                    Fate::Later => assert!(v.held && lane == 1 && position >= read - 3),
                    Fate::Undecided => panic!("{v:?}"),
                }
            }
        }
    }
    assert!(core.why(0, 5).iter().all(|v| v.fate == Fate::Undecided && v.held));
    assert!(core.why(1, read).is_empty() && core.why(9, 0).is_empty());
}
