//! What must hold for every policy in the registry, on layers of any shape.

use proptest::prelude::*;

use super::Policy;
use super::descriptor::{Descriptor, Family};
use super::part::{Moment, Part, Schedule};
use super::registry::POLICIES;
use super::spec::PartSpec;
use super::testing::reading::{dense, look, reader};
use super::testing::{Layer, decide, moment};

const STEPS: usize = 5;

/// A layer after a prompt of random length, with room for `STEPS` more positions.
fn layers() -> impl Strategy<Value = Layer> {
    (1usize..=3, 1usize..=3, 1usize..=5, 1usize..=40).prop_flat_map(|(kv_heads, group, dim, prompt)| {
        let positions = prompt + STEPS;
        let numbers = move |heads| {
            // halves make ties likely
            let x = prop_oneof![(-3i8..=3).prop_map(|x| x as f32 / 2.0), -2.0f32..2.0];
            prop::collection::vec(prop::collection::vec(x, positions * dim), heads)
        };
        (numbers(kv_heads * group), numbers(kv_heads), numbers(kv_heads))
            .prop_map(move |(q, k, v)| Layer::from_queries(&q, k, v, dim, prompt))
    })
}

fn budgets() -> impl Strategy<Value = String> {
    prop_oneof![(1u32..=100).prop_map(|n| format!("{n}%")), (1u32..=50).prop_map(|n| n.to_string())]
}

/// It has a budget of its own, and what is over it leaves.
pub fn evicts_alone(policy: &Descriptor) -> bool {
    policy.budget.is_some() && policy.family != Family::Reader
}

fn evictors() -> impl Iterator<Item = &'static str> {
    POLICIES.iter().filter(|policy| evicts_alone(policy)).map(|policy| policy.name)
}

fn check(policy: &Policy, at: Moment, layer: &Layer) -> Result<(), TestCaseError> {
    let held = layer.held.iter().map(Vec::len);
    let budget = policy.budget(0, at.prompt);
    let acts = at.step == 0 || policy.schedule(0) == Schedule::EveryStep;
    let Some(decision) = decide(policy, at, layer) else {
        // where heads compete, their sum is rounded up: the odd entry may be the last one that is over the budget
        let odd = (policy.spec().parts()[0].policy().name == "kvzip") as usize;
        let limit = budget.map_or(usize::MAX, |budget| budget + odd);
        prop_assert!(!acts || held.max() <= Some(limit), "{policy:?} lets the cache grow");
        return Ok(());
    };
    prop_assert!(acts);
    prop_assert_eq!(decision.kept.len(), layer.held.len());
    let sizes = &decision.budget;
    let limit = budget.map_or(usize::MAX, |budget| (budget + 1) * sizes.len());
    match decision.scores.own {
        // heads compete: together they keep what was asked for, rounded up
        Some(_) => prop_assert!(sizes.iter().sum::<usize>() <= limit && !sizes.contains(&0), "{policy:?} {sizes:?}"),
        None => prop_assert!(sizes.iter().all(|&size| Some(size) == budget), "{policy:?} {sizes:?}"),
    }
    for (((kept, held), (values, forced)), &size) in
        decision.kept.iter().zip(held).zip(decision.scores.values.iter().zip(&decision.scores.forced)).zip(sizes)
    {
        prop_assert_eq!((values.len(), forced.len()), (held, held));
        prop_assert_eq!(kept.len(), size.min(held), "{:?}", policy);
        prop_assert!(kept.is_sorted_by(|a, b| a < b) && kept.iter().all(|&slot| (slot as usize) < held));
        let free = |slot: &usize| !kept.contains(&(*slot as u32));
        prop_assert!(
            kept.iter().all(|&slot| forced[slot as usize]) || (0..held).filter(free).all(|slot| !forced[slot]),
            "{policy:?} drops a protected entry before a free one"
        );
        let lowest = kept.iter().filter(|&&s| !forced[s as usize]).map(|&s| values[s as usize]);
        let lowest = lowest.fold(f32::INFINITY, f32::min);
        prop_assert!((0..held).filter(free).filter(|&slot| !forced[slot]).all(|slot| values[slot] <= lowest));
    }
    prop_assert_eq!(Some(decision), decide(policy, at, layer), "{:?} is not deterministic", policy);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn budget_respected_sorted_unique_protected_kept(mut layer in layers(), budget in budgets()) {
        let prompt = layer.newest as usize + 1;
        let policies: Vec<Policy> = evictors().map(|name| Policy::parse(&format!("{name}@{budget}")).unwrap()).collect();
        for policy in &policies {
            check(policy, moment(prompt, 0), &layer)?;
        }
        // decoding with one of them thins the cache for the others to look at
        let driver = &policies[prompt % policies.len()];
        for step in 0..=STEPS {
            if step > 0 {
                layer.step();
            }
            let at = moment(prompt, step as u32);
            if let Some(decision) = decide(driver, at, &layer) {
                layer.keep(&decision);
            }
            if driver.schedule(0) == Schedule::EveryStep {
                let limit = driver.budget(0, prompt).unwrap_or(usize::MAX);
                prop_assert!(layer.held.iter().all(|held| held.len() <= limit));
            }
            for policy in policies.iter().filter(|policy| policy.schedule(0) == Schedule::EveryStep) {
                check(policy, at, &layer)?;
            }
        }
    }

    #[test]
    fn full_budget_keeps_everything(mut layer in layers()) {
        let prompt = layer.newest as usize + 1;
        for step in 0..=STEPS {
            if step > 0 {
                layer.step();
            }
            for budget in ["100%", "1000"] {
                for name in evictors() {
                    let policy = Policy::parse(&format!("{name}@{budget}")).unwrap();
                    prop_assert!(decide(&policy, moment(prompt, step as u32), &layer).is_none(), "{:?}", policy);
                }
            }
        }
    }

    #[test]
    fn scorers_read_only_what_they_announce(mut layer in layers(), budget in budgets()) {
        let prompt = layer.newest as usize + 1;
        for step in [0, 1] {
            for name in evictors() {
                let policy = Policy::parse(&format!("{name}@{budget}")).unwrap();
                layer.asked_rows.set(0);
                layer.asked_received.set(false);
                layer.asked_history.set(0);
                decide(&policy, moment(prompt, step), &layer);
                let announced = if step == 0 { policy.window(prompt) } else { 1 };
                prop_assert!(layer.asked_rows.get() <= announced, "{policy:?} reads more rows than it announces");
                prop_assert!(policy.needs_received() || !layer.asked_received.get(), "{policy:?} reads column sums");
                let counted = layer.asked_history.get();
                prop_assert!(counted <= policy.history(), "{policy:?} counts more rows than it announces");
                prop_assert!(step > 0 || counted.min(prompt) <= announced, "{policy:?} needs rows that are not kept");
            }
            layer.step();
        }
    }
}

/// Policies that say themselves how much stays, small enough for short prompts.
const OWN: &[&str] = &[
    "simlayer:sinks=1,recent=3,threshold=0",
    "fastgen:sinks=1,heavy=20%,local=20%,window=3",
    "fastgen:sinks=2,heavy=3,local=2,recovery=0.5",
    "fastgen:sinks=1,heavy=0,local=30%,recovery=0.7",
    "razor:sinks=1,recent=2,c=10,tokens=3",
    "razor:sinks=0,recent=1,c=4,compensate=off",
    "protect:sinks=0,recent=2+razor:sinks=2,recent=3",
    "scope:window=2,recent=1",
    "scope:mode=adaptive,recent=1,delta=2",
    "scope:mode=discontinuous,recent=1,delta=2",
];

/// Readers as they would be for caches of a few dozen entries, small enough to leave something unread.
const READERS: &[&str] = &[
    "quest@8:page=4,dense=1",
    "tidal@5:select=1,correct=3",
    "magicpig:k=2,l=4,sinks=2,local=3,dense=0",
    "actqkv@8:block=4,window=5,dense=1",
    "predictor@9:by=persistence,history=4,block=2,sinks=2,local=3,calibrate=2,dense=1",
    "predictor@9:by=oracle,history=4,block=2,sinks=2,local=3,calibrate=2,dense=1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_sizes_itself_keeps_what_it_says(layer in layers()) {
        let prompt = layer.newest as usize + 1;
        for spec in OWN {
            let policy = Policy::parse(spec).unwrap();
            let mut layer = layer.clone();
            for step in 0..=STEPS {
                if step > 0 {
                    layer.step();
                }
                layer.asked_rows.set(0);
                layer.asked_received.set(false);
                let at = moment(prompt, step as u32);
                let decision = decide(&policy, at, &layer);
                let announced = if step == 0 { policy.window(prompt) } else { 1 };
                prop_assert!(layer.asked_rows.get() <= announced, "{policy:?} reads more rows than it announces");
                prop_assert!(policy.needs_received() || !layer.asked_received.get(), "{policy:?} reads column sums");
                prop_assert_eq!(&decision, &decide(&policy, at, &layer), "{:?} is not deterministic", policy);
                let Some(decision) = decision else { continue };
                prop_assert_eq!(decision.scores.own.as_ref(), Some(&decision.budget));
                let heads = decision.kept.iter().zip(&decision.budget).zip(&decision.scores.forced).zip(&layer.held);
                for (((kept, &size), forced), held) in heads {
                    prop_assert_eq!(kept.len(), size.min(held.len()), "{:?}", policy);
                    prop_assert!(size > 0 && kept.is_sorted_by(|a, b| a < b));
                    let mut dropped = (0..held.len()).filter(|&slot| !kept.contains(&(slot as u32)));
                    prop_assert!(kept.iter().all(|&slot| forced[slot as usize]) || dropped.all(|slot| !forced[slot]));
                }
                layer.keep(&decision);
            }
        }
    }

    #[test]
    fn readers_choose_slots_that_are_there_in_order_and_copies_go_on_alike(mut layer in layers(), drop in 2u32..9) {
        let mut readers: Vec<_> = READERS.iter().map(|spec| (spec, reader(spec, &layer))).collect();
        for step in 0..STEPS {
            layer.step();
            if step == 3 {
                // an evictor beside them
                let newest = layer.newest;
                let stay = |p: &u32| p % drop > 0 || *p == newest;
                let slots = layer.held[0].iter().enumerate().filter(|(_, p)| stay(p)).map(|(slot, _)| slot as u32).collect();
                let mut kept: Vec<Vec<u32>> = layer.held.iter().map(|held| (0..held.len() as u32).collect()).collect();
                kept[0] = slots;
                layer.hold(&kept);
            }
            let n = layer.held[0].len() as u32;
            for number in 0..4 {
                for (spec, reader) in &mut readers {
                    let mut copy = reader.copy();
                    let choice = look(&layer, number, |sight| reader.read(sight));
                    prop_assert_eq!(&look(&layer, number, |sight| copy.read(sight)), &choice, "{}", spec);
                    prop_assert!(choice.metadata == 0 || choice.heads.is_some());
                    for head in choice.heads.iter().flatten() {
                        prop_assert!(head.slots.is_sorted_by(|a, b| a < b) && head.slots.iter().all(|&slot| slot < n));
                        prop_assert!(head.offsets.is_empty() || head.offsets.len() == head.slots.len());
                    }
                    let rows = dense(&layer);
                    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                    look(&layer, number, |sight| reader.learn(sight, &rows));
                }
            }
        }
    }

    #[test]
    fn readers_with_the_whole_budget_read_everything(layer in layers()) {
        for policy in POLICIES.iter().filter(|policy| policy.family == Family::Reader && policy.budget.is_some()) {
            for budget in ["100%", "1000"] {
                let mut reader = reader(&format!("{}@{budget}", policy.name), &layer);
                for number in 0..4 {
                    let choice = look(&layer, number, |sight| reader.read(sight));
                    let all: Vec<u32> = (0..layer.held[0].len() as u32).collect();
                    let whole = choice.heads.iter().flatten().all(|head| head.slots == all && head.offsets.is_empty());
                    prop_assert!(whole, "{}@{}", policy.name, budget);
                }
            }
        }
    }
}

#[test]
fn every_policy_is_among_those_that_are_tried() {
    for policy in POLICIES.iter().filter(|policy| policy.budget.is_none()) {
        let scores = matches!((policy.build)(&PartSpec::defaults(policy)), Part::Scorer(_));
        assert!(!scores || OWN.iter().any(|spec| spec.contains(policy.name)), "{}", policy.name);
    }
}

#[test]
fn every_reader_is_among_those_tested() {
    let steps = |name| Policy::parse(name).is_ok_and(|policy| policy.reads_a_part());
    for policy in POLICIES.iter().filter(|policy| steps(policy.name)) {
        assert!(READERS.iter().any(|spec| spec.starts_with(policy.name)), "{}", policy.name);
    }
}

#[test]
fn policies_that_act_once_keep_what_is_generated() {
    let numbers = |seed: usize| (0..12 * 2).map(|i| ((i * 7 + seed) % 11) as f32 / 4.0).collect::<Vec<f32>>();
    for policy in POLICIES.iter().filter(|policy| evicts_alone(policy)) {
        let name = policy.name;
        let spec = match policy.keys.iter().any(|key| key.name() == "every") {
            true => format!("{name}@3:every=prefill"),
            false => format!("{name}@3"),
        };
        let once = Policy::parse(&spec).unwrap();
        let mut layer = Layer::from_queries(&[numbers(1), numbers(2)], vec![numbers(3)], vec![numbers(4)], 2, 8);
        layer.keep(&decide(&once, moment(8, 0), &layer).unwrap());
        let kept = layer.held[0].len();
        for step in 1..=4 {
            layer.step();
            assert!(decide(&once, moment(8, step), &layer).is_none(), "{spec}");
        }
        assert_eq!(layer.held[0][kept..], [8, 9, 10, 11], "{spec}");
    }
}
