//! Sets, classes, and classes found again while decoding.

use super::*;
use crate::policy::Policy;
use crate::policy::testing::{Layer, Letters, moment};

const SPEC: &str = "fastgen:sinks=1,heavy=2,local=2,window=1";

/// One head over ten positions, a prompt of eight; `rows` gives the weights of the last prompt query.
fn layer(last: [f32; 8]) -> Layer {
    let sum: f32 = last.iter().sum();
    let row = |i: usize| {
        (0..10).map(move |t| match i {
            7 if t < 8 => last[t] / sum,
            _ if t <= i => 1.0 / (i + 1) as f32,
            _ => 0.0,
        })
    };
    Layer::new(vec![(0..10).flat_map(row).collect()], vec![vec![0.0; 20]], vec![vec![0.0; 20]], 2, 8)
}

/// What stays after the prompt and after two steps; tokens 1 to 3 are special, and none is punctuation.
fn run(spec: &str, mut layer: Layer) -> [Vec<u32>; 3] {
    let policy = Policy::parse(spec).unwrap();
    [0, 1, 2].map(|step| {
        if step > 0 {
            layer.step();
        }
        let decision = policy.decide(0, moment(8, step), &layer.alone()).remove(0);
        decision.iter().for_each(|decision| layer.keep(decision));
        layer.held[0].clone()
    })
}

#[test]
fn tokens_are_told_apart() {
    assert_eq!([3, b'a' as u32, b'.' as u32, b' ' as u32].map(|id| kind(&Letters, id)), {
        [Kind::Special, Kind::Other, Kind::Punctuation, Kind::Other]
    });
}

/// The first four tokens are special. Mean attention of the others so far favours the early ones; 9 : 1 on a set is
/// enough for it.
#[test]
fn the_smallest_sufficient_set_stays_while_decoding() {
    let all = |step: u32| (0..8 + step).collect::<Vec<u32>>();
    let special = layer([9.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(run(SPEC, special), [vec![0, 1, 2, 3], vec![0, 1, 2, 3], vec![0, 1, 2, 3]]);
    // 5 and 6 receive most; then the newest displaces the less attended of them
    let heavy = layer([0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 5.0, 0.0]);
    let held = run(SPEC, heavy.clone());
    assert_eq!(held[0], [0, 1, 2, 3, 5, 6]);
    assert!(held[1].len() == 6 && held[1].ends_with(&[8]) && held[2].len() == 6 && held[2].ends_with(&[9]));
    let local = layer([0.0, 0.0, 0.0, 0.0, 4.0, 5.0, 2.0, 3.0]);
    let held = run(SPEC, local);
    assert_eq!(held[0], [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(held[1].len() == 8 && held[1].ends_with(&[7, 8]) && held[2].len() == 8 && held[2].ends_with(&[8, 9]));
    let full = "fastgen:sinks=1,heavy=1,local=1,window=1,recovery=1";
    assert_eq!(run(full, heavy), [all(0), all(1), all(2)]);
}

#[test]
fn a_kv_head_takes_the_largest_class_of_its_query_heads() {
    let (one, two) = (layer([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), layer([1.0; 8]));
    let maps = vec![one.attention[0].clone(), two.attention[0].clone()];
    let both = Layer::new(maps, one.keys.clone(), one.values.clone(), 2, 8);
    assert_eq!(run("fastgen:sinks=1,heavy=1,local=1,window=1", both)[0], (0..8).collect::<Vec<u32>>());
}
