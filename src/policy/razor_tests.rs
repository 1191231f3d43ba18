//! Calibration, streaming heads, and the means that go on.

use super::*;
use crate::policy::Policy;
use crate::policy::testing::{Layer, close, moment, random_layer};

/// Attention of `positions` rows, each on one earlier position (else on its own).
fn pointing(positions: usize, to: impl Fn(usize) -> Option<usize>) -> Vec<f32> {
    let row = |i: usize| (0..positions).map(move |t| (t, i));
    (0..positions).flat_map(row).map(|(t, i)| if to(i).unwrap_or(i) == t { 1.0 } else { 0.0 }).collect()
}

/// Four query heads on two kv heads, 21 positions, a prompt of 17. Five tokens fit four times behind the first.
fn layer() -> Layer {
    let echo = pointing(21, |i| i.checked_sub(5));
    let induction = pointing(21, |i| i.checked_sub(4));
    let other = pointing(21, |i| i.checked_sub(2));
    let drawn = random_layer(7, (2, 2), 4, 21);
    Layer::new(vec![other.clone(), other.clone(), echo, induction], drawn.keys, drawn.values, 4, 17)
}

#[test]
fn echo_and_induction_heads_are_found() {
    let scores = calibrate(&layer().alone(), 1, 128, 0).unwrap();
    assert_eq!(scores, [[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]);
    assert_eq!(best(&scores, 0, Amount::percent(1)), [(0, 2)]);
    assert_eq!(best(&scores, 1, Amount::percent(50)), [(0, 3), (0, 0)]);
    assert!(best(&scores, 1, Amount::percent(0)).is_empty());
}

#[test]
fn heads_that_do_not_retrieve_stream_with_a_mean() {
    let policy = Policy::parse("razor:sinks=2,recent=4,c=100").unwrap();
    let (mut layer, whole) = (layer(), layer());
    let mean = |kv_head: usize, values: &[Vec<f32>], range: std::ops::Range<usize>| -> Vec<f32> {
        let at = |i: usize| range.clone().map(|t| values[kv_head][t * 4 + i]).sum::<f32>() / range.len() as f32;
        (0..4).map(at).collect()
    };
    for step in 0..=3 {
        if step > 0 {
            layer.step();
        }
        let decision = policy.decide(0, moment(17, step), &layer.alone()).remove(0).unwrap();
        layer.keep(&decision);
        let end = 17 + step;
        assert_eq!(layer.held[0], [0, 1, 2, end - 4, end - 3, end - 2, end - 1]);
        assert_eq!(layer.held[1], (0..end).collect::<Vec<u32>>());
        let new = &decision.rewritten[0];
        let (keys, values) = (new.keys.as_ref().unwrap(), new.values.as_ref().unwrap());
        close(&keys[8..12], &mean(0, &whole.keys, 2..end as usize - 4));
        close(&values[8..12], &mean(0, &whole.values, 2..end as usize - 4));
        let gone = (end as f32 - 6.0).ln();
        close(new.offsets.as_ref().unwrap(), &[0.0, 0.0, gone, 0.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn a_fifth_of_a_long_prompt_stays() {
    let kept = |spec: &str| {
        let decision = Policy::parse(spec).unwrap().decide(0, moment(17, 0), &layer().alone()).remove(0);
        decision.map(|decision| decision.kept[0].clone())
    };
    assert_eq!(kept("razor:sinks=1,recent=1,c=5,compensate=off"), Some(vec![0, 14, 15, 16]));
    assert_eq!(kept("razor:sinks=1,recent=1,c=5"), Some(vec![0, 1, 14, 15, 16]));
    // one entry alone is not worth a mean
    assert_eq!(kept("razor:sinks=1,recent=15"), None);
    assert_eq!(kept("razor:sinks=1,recent=14"), Some([vec![0, 1], (3..17).collect()].concat()));
}
