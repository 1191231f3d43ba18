//! Every policy behind every wrapper, after the prompt and while decoding, on both real models.

use std::time::Instant;

use attnscope::engine::frame::Frame;
use attnscope::engine::{Core, Pause, Precision};
use attnscope::policy::Policy;
use attnscope::policy::descriptor::{Descriptor, Family};
use attnscope::policy::part::Schedule;
use attnscope::policy::registry::POLICIES;

use crate::common::real_model;
use crate::golden::*;

/// What may stand before a scorer; "" = nothing.
const WRAPPERS: [&str; 22] = [
    "",
    "adakv+",
    "pyramid+",
    "perlayer:keep=3/1+",
    "criticalkv+",
    "adakv+criticalkv+",
    "chunk:size=9+",
    "chunkkv:chunk=4+",
    "entropychunkkv:chunk=4,low=2+",
    "block:size=8+",
    "blockwise:size=8+",
    "fair+",
    "protect:sinks=2,recent=3+",
    "merge+",
    "rerotate+",
    "decoding:every=2+",
    "squeeze+",
    "dynamickv:layers=2+",
    "zigzag+",
    "kvcrush+",
    "cam:merge=3+",
    "headkv:runs=1,length=64+",
];

/// Policies that say themselves how much stays, with keys that suit a short prompt.
const OWN: [&str; 5] = [
    "fastgen",
    "razor:recent=4,tokens=32",
    "scope:window=6,recent=3",
    "simlayer:sinks=2,recent=4,threshold=0.5",
    "streaming@45%:positions=cache",
];

const STEPS: usize = 4;

/// Everything of a frame but the clock.
fn timeless(frame: &Frame) -> Vec<String> {
    frame.lanes.iter().map(|lane| format!("{lane:?}")).collect()
}

/// Each scorer that takes a budget, behind each wrapper that it can stand behind.
fn specs() -> Vec<String> {
    let evicts = |policy: &&&Descriptor| policy.budget.is_some() && policy.family != Family::Reader;
    let scorers = POLICIES.iter().filter(evicts).map(|policy| policy.name);
    // what Scissorhands itself protects would fill the half that it keeps of so short a prompt
    let keys = |scorer| if scorer == "scissorhands" { ":recent=1" } else { "" };
    let all =
        scorers.flat_map(|scorer| WRAPPERS.iter().map(move |wrapper| format!("{wrapper}{scorer}@45%{}", keys(scorer))));
    all.chain(OWN.map(String::from)).filter(|spec| Policy::parse(spec).is_ok()).collect()
}

/// What is wrong with one lane of the frame after the prompt or a step.
fn wrong(core: &Core, frame: &Frame, lane: usize) -> Vec<String> {
    let (of, policy) = (&frame.lanes[lane], &core.lanes()[lane].policy);
    let (prompt, step) = (core.prompt_ids().len(), frame.step);
    let spec = &of.spec;
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!("{spec}, step {step}: {what}"));
        }
    };
    let heads: Vec<Vec<u32>> = (0..of.kept.layers)
        .filter(|&layer| core.config().layers[layer].window.is_none())
        .flat_map(|layer| (0..of.kept.kv_heads).map(move |g| (layer, g)))
        .map(|(layer, g)| of.kept.list(layer, g))
        .collect();
    let all = prompt + step as usize;
    must(heads.iter().all(|held| held.is_sorted_by(|a, b| a < b)), "positions out of order");
    must(heads.iter().all(|held| !held.is_empty()), "a head holds nothing");
    must(heads.iter().flatten().all(|&p| (p as usize) < all), "positions that were never read");
    let held: usize = heads.iter().map(Vec::len).sum();
    let schedule = policy.schedule(0);
    if schedule.acts(step)
        && let Some(budget) = policy.budget_at(0, prompt, step)
    {
        // pyramids round each layer, what competes over all heads rounds the sum; whole chunks end where they end, and
        // what is protected stays where a policy sizes heads itself
        let more = if spec.contains("chunkkv") {
            4
        } else if spec.contains("protect") {
            5
        } else {
            1
        };
        must(held <= heads.len() * (budget + more), &format!("{held} entries for {} heads of {budget}", heads.len()));
    }
    if schedule == Schedule::AfterPrefill {
        let generated = (prompt as u32..all as u32).collect::<Vec<_>>();
        must(heads.iter().all(|held| held.ends_with(&generated)), "drops what was generated");
    }
    if spec.starts_with("protect") {
        must(heads.iter().all(|held| held.starts_with(&[0, 1])), "drops a protected entry");
    }
    if step == 0 && policy.block().is_none() {
        must(of.candidates == frame.lanes[0].candidates, "a dense prompt gives another first token");
    }
    wrong
}

fn run(model: &str, prompt: &str) {
    let Some(real) = real_model(model) else { return };
    let folder = if model.starts_with("gemma") { "gemma3" } else { "smollm2" };
    let ids = ids(&json(&dir().join(folder).join(format!("{prompt}.forward.json")))["token_ids"]);
    let mut specs = specs();
    if real.config.layers.iter().any(|layer| layer.window.is_some()) {
        // refused there, and said so
        specs.retain(|spec| !spec.contains("positions=cache"));
    }
    let (started, mut all_wrong) = (Instant::now(), Vec::new());
    for some in specs.chunks(40) {
        let mut lanes = vec!["full"];
        lanes.extend(some.iter().map(String::as_str));
        let mut core = core(&real, Precision::Native, &lanes);
        let first = core.read_prompt(&ids, |_, _| Pause::Continue).unwrap().unwrap();
        (1..lanes.len()).for_each(|lane| all_wrong.extend(wrong(&core, &first, lane)));
        let mut frames = Vec::new();
        for _ in 0..STEPS {
            let frame = core.step().unwrap();
            (1..lanes.len()).for_each(|lane| all_wrong.extend(wrong(&core, &frame, lane)));
            frames.push(timeless(&frame));
        }
        core.rewind(1).unwrap();
        for before in &frames[1..] {
            for ((again, before), spec) in timeless(&core.step().unwrap()).iter().zip(before).zip(&lanes) {
                if again != before {
                    all_wrong.push(format!("{spec} comes out otherwise after going back"));
                }
            }
        }
    }
    println!("{model}: {} chains in {:.0?}", specs.len(), started.elapsed());
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
}

#[test]
fn smollm2() {
    run("smollm2-135m", "d1_short");
}

#[test]
fn gemma3() {
    run("gemma3-270m", "d1_short");
}

/// A budget that holds everything changes nothing, whoever would have decided.
#[test]
fn with_room_for_everything_each_policy_is_full_bit_for_bit() {
    let Some(real) = real_model("smollm2-135m") else { return };
    let ids = ids(&json(&dir().join("smollm2/d1_short.forward.json"))["token_ids"]);
    let scorers = POLICIES.iter().filter(|policy| policy.budget.is_some() && policy.runs_by_its_name());
    let specs: Vec<String> = scorers.map(|policy| format!("{}@100%", policy.name)).collect();
    for some in specs.chunks(40) {
        let mut lanes = vec!["full"];
        lanes.extend(some.iter().map(String::as_str));
        let mut core = core(&real, Precision::Native, &lanes);
        core.read_prompt(&ids, |_, _| Pause::Continue).unwrap().unwrap();
        for _ in 0..3 {
            let frame = core.step().unwrap();
            for lane in &frame.lanes[1..] {
                assert_eq!((lane.against.unwrap().kl, &lane.row), (0.0, &frame.lanes[0].row), "{}", lane.spec);
            }
        }
    }
}
