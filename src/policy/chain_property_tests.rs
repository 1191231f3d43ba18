//! What must hold for every wrapper in front of every scorer, on lanes of any shape.

use proptest::prelude::*;

use super::part::{Moment, Part, Schedule};
use super::property_tests::evicts_alone;
use super::registry::POLICIES;
use super::spec::PartSpec;
use super::testing::{Lane, Layer};
use super::{Decision, Policy};

const STEPS: usize = 2;
const LAYERS: usize = 3;

/// How closely a chain meets its budget n.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meets {
    /// Every kv head keeps n.
    Head,
    /// The kv heads of a layer keep n on average, none of them nothing.
    Layer,
    /// So do all kv heads of the lane.
    Lane,
    /// The same, but every layer's budget was rounded.
    LaneRounded,
    /// At most so many more than n in a kv head.
    Within(usize),
    /// n and one more for a short end, or one of every so many entries where that is more.
    OneOf(usize),
}

/// Chains to be put in front of a scorer; whether protected entries leave last.
const CHAINS: &[(&str, Meets, bool)] = &[
    ("adakv", Meets::Layer, true),
    ("adakv:alpha=0", Meets::Layer, true),
    ("pyramid", Meets::LaneRounded, true),
    ("squeeze", Meets::Lane, true),
    ("dynamickv:layers=2", Meets::Lane, true),
    ("zigzag", Meets::Lane, true),
    ("zigzag:by=count,window=2+adakv", Meets::Lane, true),
    ("headkv", Meets::Lane, true),
    ("dynamickv:layers=1,most=2+adakv", Meets::Lane, true),
    ("perlayer:keep=5/2/1", Meets::Lane, true),
    ("perlayer:keep=1/3+adakv", Meets::Lane, true),
    ("criticalkv", Meets::Head, true),
    ("adakv+criticalkv", Meets::Layer, true),
    ("chunkkv:chunk=4", Meets::Within(3), false),
    ("entropychunkkv:chunk=5,low=2", Meets::Head, false),
    ("chunk:size=7", Meets::OneOf(7), false),
    ("block:size=5", Meets::Head, false),
    ("blockwise:size=5", Meets::Head, true),
    ("kvcrush", Meets::Head, true),
    ("kvcrush:crush=100%,anchor=mean+protect", Meets::Head, true),
    ("fair:spans=3", Meets::Head, true),
    ("protect:sinks=2,recent=3", Meets::Head, true),
    ("protect+block:size=9", Meets::Head, false),
    ("decoding:every=2", Meets::Head, true),
    ("decoding:every=2,of=seen+fair", Meets::Head, true),
    ("merge", Meets::Head, true),
    ("cam:merge=3", Meets::Head, true),
    ("cam+decoding:every=2", Meets::Head, true),
    ("rerotate", Meets::Head, true),
];

/// Layers of one shape after a prompt of random length, with room for `STEPS` more positions.
fn lanes() -> impl Strategy<Value = Vec<Layer>> {
    (1usize..=3, 1usize..=2, 1usize..=4, 1usize..=40).prop_flat_map(|(kv_heads, group, dim, prompt)| {
        let positions = prompt + STEPS;
        // halves make ties likely
        let number = prop_oneof![(-3i8..=3).prop_map(|x| x as f32 / 2.0), -2.0f32..2.0];
        let numbers = prop::collection::vec(number, positions * dim);
        let layer = prop::collection::vec(numbers, kv_heads * (group + 2)).prop_map(move |mut all| {
            let (keys, values) = (all.split_off(kv_heads * (group + 1)), all.split_off(kv_heads * group));
            let layer = Layer::from_queries(&all, keys, values, dim, prompt);
            Layer { output: all, ..layer }
        });
        prop::collection::vec(layer, LAYERS)
    })
}

fn budgets() -> impl Strategy<Value = String> {
    prop_oneof![(1u32..100).prop_map(|n| format!("{n}%")), (1u32..=40).prop_map(|n| n.to_string())]
}

fn scorers() -> impl Iterator<Item = &'static str> {
    POLICIES.iter().filter(|policy| evicts_alone(policy)).map(|policy| policy.name)
}

/// Every chain before `scorer`; a few need rows that do not exist after a step.
fn chains(scorer: &str) -> impl Iterator<Item = (Policy, Meets, bool)> {
    let policy = |chain: &str| Policy::parse(&format!("{chain}+{scorer}")).ok();
    let all = CHAINS.iter().filter_map(move |&(chain, meets, last)| Some((policy(chain)?, meets, last)));
    all.collect::<Vec<_>>().into_iter()
}

/// The lane at the first moment when `policy` acts.
fn at_its_moment(policy: &Policy, lane: &[Layer]) -> (Moment, Vec<Layer>) {
    let prompt = lane[0].newest as usize + 1;
    let step = if policy.schedule(0).acts(0) { 0 } else { STEPS };
    let mut lane = lane.to_vec();
    (0..step).for_each(|_| lane.iter_mut().for_each(Layer::step));
    (Moment { step: step as u32, prompt, layers: LAYERS, layer: 0 }, lane)
}

fn check_layer(policy: &Policy, decision: &Decision, held: usize, protected_last: bool) -> Result<(), TestCaseError> {
    let scores = &decision.scores;
    for (kept, forced) in decision.kept.iter().zip(&scores.forced) {
        prop_assert_eq!(forced.len(), held);
        prop_assert!(kept.is_sorted_by(|a, b| a < b) && kept.iter().all(|&slot| (slot as usize) < held), "{policy:?}");
        let dropped = |slot: &usize| !kept.contains(&(*slot as u32));
        prop_assert!(
            !protected_last
                || kept.iter().all(|&slot| forced[slot as usize])
                || (0..held).filter(dropped).all(|slot| !forced[slot]),
            "{policy:?} drops a protected entry before a free one"
        );
    }
    Ok(())
}

fn check_budget(
    policy: &Policy,
    meets: Meets,
    kept: &[Vec<usize>],
    held: usize,
    n: usize,
) -> Result<(), TestCaseError> {
    let sum = |layers: &[Vec<usize>]| layers.iter().flatten().sum::<usize>();
    let all = kept.iter().map(Vec::len).sum::<usize>();
    match meets {
        Meets::Lane => prop_assert_eq!(sum(kept), all * n.min(held), "{:?} {:?}", policy, kept),
        // n itself was rounded down, and each layer to the nearest
        Meets::LaneRounded => prop_assert!(2 * sum(kept) <= all * (2 * n + 3), "{policy:?} {kept:?} {n}"),
        _ => {}
    }
    for layer in kept {
        prop_assert!(layer.iter().all(|&kept| kept > 0), "{policy:?} leaves a head empty");
        if meets == Meets::Layer {
            prop_assert_eq!(layer.iter().sum::<usize>(), layer.len() * n.min(held), "{:?} {:?}", policy, layer);
        }
        for &kept in layer {
            match meets {
                Meets::Head => prop_assert_eq!(kept, n.min(held), "{:?}", policy),
                Meets::Within(more) => prop_assert!(kept <= n + more, "{policy:?} {kept} {n}"),
                Meets::OneOf(size) => prop_assert!(kept <= n + held.div_ceil(size), "{policy:?} {kept} {n}"),
                Meets::Layer | Meets::Lane | Meets::LaneRounded => {}
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn budgets_are_met_and_protected_entries_stay(lane in lanes(), budget in budgets()) {
        for scorer in scorers() {
            for (policy, meets, protected_last) in chains(&format!("{scorer}@{budget}")) {
                let (at, lane) = at_its_moment(&policy, &lane);
                let held = lane[0].held[0].len();
                let decisions = policy.decide(0, at, &Lane(&lane));
                prop_assert_eq!(decisions.len(), LAYERS);
                for decision in decisions.iter().flatten() {
                    check_layer(&policy, decision, held, protected_last)?;
                }
                // what the scorer leaves alone, or sizes itself, no budget can promise
                let alone = Policy::parse(&format!("protect:sinks=0+{scorer}@1")).unwrap();
                let judged = alone.decide(0, Moment { step: 0, ..at }, &Lane(&lane));
                let plain = |decision: &Option<Decision>| decision.as_ref().is_some_and(|d| d.scores.own.is_none());
                if held == 1 || judged.iter().all(plain) {
                    let kept = |decision: &Option<Decision>| match decision {
                        Some(decision) => decision.kept.iter().map(Vec::len).collect(),
                        None => vec![held; lane[0].keys.len()],
                    };
                    let kept: Vec<Vec<usize>> = decisions.iter().map(kept).collect();
                    check_budget(&policy, meets, &kept, held, policy.budget_at(0, at.prompt, at.step).unwrap())?;
                }
                prop_assert_eq!(decisions, policy.decide(0, at, &Lane(&lane)), "{:?} is not deterministic", policy);
            }
        }
    }

    #[test]
    fn within_the_budget_nothing_is_decided(lane in lanes()) {
        for scorer in scorers() {
            for (policy, ..) in chains(&format!("{scorer}@100%")).chain(chains(&format!("{scorer}@1000"))) {
                let (at, lane) = at_its_moment(&policy, &lane);
                prop_assert!(policy.decide(0, at, &Lane(&lane)).iter().all(Option::is_none), "{policy:?}");
            }
        }
    }

    #[test]
    fn chains_read_only_what_they_announce(lane in lanes(), budget in budgets()) {
        for scorer in scorers() {
            for (policy, ..) in chains(&format!("{scorer}@{budget}")) {
                let (at, lane) = at_its_moment(&policy, &lane);
                let lane: Vec<Layer> = lane.into_iter().map(|layer| Layer { asked_rows: 0.into(), asked_received: false.into(), asked_history: 0.into(), ..layer }).collect();
                policy.decide(0, at, &Lane(&lane));
                let announced = if at.step == 0 { policy.window(at.prompt) } else { 1 };
                for layer in &lane {
                    prop_assert!(layer.asked_rows.get() <= announced, "{policy:?} reads more rows than it announces");
                    prop_assert!(policy.needs_received() || !layer.asked_received.get(), "{policy:?} reads column sums");
                }
            }
        }
    }
}

#[test]
fn every_wrapper_is_among_the_chains() {
    for policy in POLICIES.iter() {
        let part = (policy.build)(&PartSpec::defaults(policy));
        let wraps = !matches!(
            part,
            Part::Full
                | Part::Scorer(_)
                | Part::Storage(_)
                | Part::Reader(_)
                | Part::Prefill(_)
                | Part::Sharing(_)
                | Part::Intervention(_)
                | Part::Missing(_)
        );
        let named = |(chain, ..): &(&str, Meets, bool)| chain.split(['+', ':']).any(|part| part == policy.name);
        assert!(!wraps || CHAINS.iter().any(named), "{}", policy.name);
    }
    let built = |spec: &str| chains(spec).count();
    assert_eq!((built("knorm@5"), built("snapkv@5")), (CHAINS.len(), CHAINS.len() - 3));
    assert_eq!(Policy::parse("adakv+h2o@5").unwrap().schedule(0), Schedule::EveryStep);
}
