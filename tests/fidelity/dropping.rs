//! Steps that keep no logits tell the same as those that do, and lanes draw what they draw whoever runs beside them.

use attnscope::engine::frame::Frame;
use attnscope::engine::{Core, Device, LaneSpec, LogitRows, Options, Pause, Precision, Sampler, open};
use attnscope::model::source::Model;

use crate::family::unpack;
use crate::golden::*;

const STEPS: usize = 24;

fn tiny() -> (tempfile::TempDir, Model, Vec<u32>) {
    let folder = tempfile::tempdir().unwrap();
    let golden = unpack("llama3_rope", folder.path());
    let model = Model::open(folder.path()).unwrap();
    (folder, model, golden.ints("ids").into_iter().map(|id| id as u32).collect())
}

/// After the prompt.
fn start(model: &Model, prompt: &[u32], lanes: &[&str], sampler: &Sampler, rows: LogitRows) -> Core {
    let lanes = lanes.iter().map(|spec| LaneSpec { sampler: sampler.clone(), ..lane(spec) }).collect();
    let precision = Precision::F32;
    let options = Options {
        device: Device::Cpu,
        precision,
        threads: 2,
        kv: None,
        queries_budget: 1 << 30,
        chunk: 256,
        lanes,
        depth: None,
    };
    let mut core = open(model, &options, |_, _| {}).unwrap().0;
    core.logit_rows = rows;
    core.read_prompt(prompt, |_, _| Pause::Continue).unwrap();
    core
}

fn dropped(frame: &Frame) -> u64 {
    frame.lanes[0].pick.unwrap().dropped
}

/// Each lane, but for the clock and for what became of the logits.
fn told(frame: Frame) -> Vec<String> {
    let tell = |mut lane: attnscope::engine::frame::LaneFrame| {
        lane.pick.as_mut().unwrap().dropped = 0;
        format!("{lane:?}")
    };
    frame.lanes.into_iter().map(tell).collect()
}

fn run(core: &mut Core, steps: usize) -> Vec<Vec<String>> {
    (0..steps).map(|_| told(core.step().unwrap())).collect()
}

fn sampler(temperature: f32, top_k: usize, top_p: f32, min_p: f32) -> Sampler {
    Sampler { temperature, top_k, top_p, min_p, seed: 11 }
}

#[test]
fn frames_are_the_same_with_and_without_logits() {
    let (_folder, model, prompt) = tiny();
    let row = 4 * model.config.vocab as u64;
    // what the step keeps no logits of
    for (sampler, saved) in [
        (sampler(0.0, 0, 1.0, 0.0), row),
        (sampler(1.0, 0, 1.0, 0.0), row),
        (sampler(1.0, 5, 0.9, 0.0), row),
        (sampler(1.0, 0, 1.0, 0.9), row),
        // more than the candidates tell: the row is made after all
        (sampler(1.0, 50, 0.99, 0.0), 0),
        // the entropy of temperature 1 needs the row
        (sampler(0.8, 0, 1.0, 0.0), 0),
    ] {
        let mut keeps = start(&model, &prompt, &["full"], &sampler, LogitRows::Keep);
        let mut drops = start(&model, &prompt, &["full"], &sampler, LogitRows::Drop);
        for step in 1..=STEPS {
            let (kept, frame) = (keeps.step().unwrap(), drops.step().unwrap());
            assert_eq!((dropped(&kept), dropped(&frame)), (0, saved), "{sampler:?}");
            assert_eq!(told(frame), told(kept), "{sampler:?}, step {step}");
            assert_eq!(drops.lanes()[0].outlook.logits().is_none(), saved > 0);
            assert_eq!(drops.logits(0).unwrap(), keeps.logits(0).unwrap(), "made again bit for bit");
        }
    }
}

#[test]
fn on_the_cpu_rows_are_kept_unless_asked_otherwise() {
    let (_folder, model, prompt) = tiny();
    let mut auto = start(&model, &prompt, &["full"], &sampler(0.0, 0, 1.0, 0.0), LogitRows::Auto);
    assert_eq!(dropped(&auto.step().unwrap()), 0);
}

/// Any token may be fed, also one that no candidate is; lanes may come and go.
#[test]
fn dropped_logits_are_made_again_where_they_are_asked_for() {
    let (_folder, model, prompt) = tiny();
    let mut cores = [LogitRows::Keep, LogitRows::Drop]
        .map(|rows| start(&model, &prompt, &["full"], &sampler(1.0, 0, 1.0, 0.0), rows));
    let stories = cores.each_mut().map(|core| {
        let mut story = run(core, 6);
        let mut least: Vec<(u32, f32)> = (0..).zip(core.logits(0).unwrap().iter().copied()).collect();
        least.sort_by(|a, b| a.1.total_cmp(&b.1));
        core.force(0, least[0].0).unwrap();
        story.extend(run(core, 3));
        core.fork(0, 4).unwrap();
        core.force(1, least[1].0).unwrap();
        story.extend(run(core, 3));
        core.rewind(5).unwrap();
        story.extend(run(core, 3));
        core.rewind(2).unwrap();
        story.extend(run(core, 8));
        story.push(vec![format!("{} {}", core.nll(0, least[0].0).unwrap(), core.nll(0, least[9].0).unwrap())]);
        story
    });
    let [kept, dropped] = stories;
    assert_eq!(kept.len(), dropped.len());
    for (at, (kept, dropped)) in kept.iter().zip(&dropped).enumerate() {
        assert_eq!(kept, dropped, "at {at}");
    }
    // both lanes' KL is there, though lane 0 had dropped its logits before
    assert!(dropped[9][1].contains("against: Some"), "{}", dropped[9][1]);
    assert!(cores[1].logits(7).is_err() && cores[1].nll(0, u32::MAX).is_err());
}

#[test]
fn going_back_draws_the_same_tokens_again() {
    let (_folder, model, prompt) = tiny();
    for (rows, sampler) in
        [(LogitRows::Drop, sampler(1.0, 0, 1.0, 0.0)), (LogitRows::Keep, sampler(0.7, 20, 0.9, 0.05))]
    {
        let mut core = start(&model, &prompt, &["full"], &sampler, rows);
        let frames = run(&mut core, 40);
        for back in [39, 32, 31, 0] {
            core.rewind(back).unwrap();
            assert_eq!(run(&mut core, 40 - back as usize), frames[back as usize..], "back to {back}");
        }
    }
}

#[test]
fn a_lane_draws_the_same_alone_and_beside_others() {
    let (_folder, model, prompt) = tiny();
    let sampler = sampler(0.9, 0, 0.95, 0.0);
    let all = ["full", "knorm@50%", "tova@40%", "streaming@50%"];
    let many = run(&mut start(&model, &prompt, &all, &sampler, LogitRows::Keep), STEPS);
    for (i, spec) in all.iter().enumerate().skip(1) {
        let alone = run(&mut start(&model, &prompt, &["full", spec], &sampler, LogitRows::Keep), STEPS);
        for (a, b) in alone.iter().zip(&many) {
            assert_eq!(a[1], b[i], "{spec}");
        }
    }
    // chance is the same for all: with the same cache, so is what is said
    let twins = run(&mut start(&model, &prompt, &["full", "knorm@100%"], &sampler, LogitRows::Keep), STEPS);
    let said = |lane: &str| lane[lane.find("next:").unwrap()..lane.find("residual:").unwrap()].to_owned();
    assert!(twins.iter().all(|lanes| said(&lanes[0]) == said(&lanes[1])));
    let other = Sampler { seed: 12, ..sampler };
    let others = run(&mut start(&model, &prompt, &["full"], &other, LogitRows::Keep), STEPS);
    assert!(others.iter().zip(&many).any(|(a, b)| said(&a[0]) != said(&b[0])), "the seed matters");
}
