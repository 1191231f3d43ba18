//! kernels/sampling.cu: what survives top-k, top-p and min-p, against f64.

use std::sync::Arc;

use attnscope::backend::cuda::device::{Device, Launch};
use attnscope::backend::cuda::memory::Memory;
use attnscope::backend::draw::{Draw, Drawn, KernelRow};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::chance::{chi_square, softmax};
use super::emulator;
use super::product::activations;
use super::sampling::{Found, Row, Words, draw, int, of_logits, off, same, sample};

struct Filter {
    top_k: u32,
    top_p: f32,
    min_p: f32,
}

/// chosen [rows, 4], scores [rows, 3 + k].
fn survivors(
    device: &Arc<dyn Device>,
    found: &Found,
    temperatures: &[f32],
    draws: &[Words],
    filter: &Filter,
) -> (Vec<i32>, Vec<f32>) {
    let rows = temperatures.len();
    let ids = Memory::of(device, &found.ids).unwrap();
    let numbers = Memory::of(device, &found.numbers).unwrap();
    let temperature = Memory::of(device, temperatures).unwrap();
    let draws = Memory::of(device, draws.as_flattened()).unwrap();
    let top_k = Memory::of(device, &vec![filter.top_k; rows]).unwrap();
    let limits = Memory::of(device, &[filter.top_p, filter.min_p].repeat(rows)).unwrap();
    let chosen = Memory::<i32>::new(device, rows * 4).unwrap();
    let scores = Memory::<f32>::new(device, rows * (3 + found.k)).unwrap();
    let args = [
        int(found.k),
        ids.arg(),
        numbers.arg(),
        temperature.arg(),
        draws.arg(),
        top_k.arg(),
        limits.arg(),
        chosen.arg(),
        scores.arg(),
    ];
    let (kernel, grid, block) = ("sample_survivors", [rows as u32, 1, 1], [32, 1, 1]);
    device.launch(Launch { kernel, grid, block, shared: 0, args: &args }).unwrap();
    (chosen.read(0, rows * 4).unwrap(), scores.read(0, rows * (3 + found.k)).unwrap())
}

/// Top-k, then top-p, then min-p over all tokens, in f64.
fn truncated(row: &Row, filter: &Filter) -> Vec<usize> {
    let mut ids = row.order(|id| row.z[id]);
    if filter.top_k > 0 {
        ids.truncate(filter.top_k as usize);
    }
    let best = row.x(ids[0]);
    let p = |id: usize| (row.x(id) - best).exp();
    let total: f64 = ids.iter().map(|&id| p(id)).sum();
    let mut mass = 0.0;
    let enough = |id: &usize| {
        let enough = mass >= filter.top_p as f64 * total;
        mass += p(*id);
        !enough
    };
    if filter.top_p < 1.0 {
        let n = ids.iter().copied().take_while(enough).count().max(1);
        ids.truncate(n);
    }
    let n = ids.iter().take_while(|&&id| p(id) >= filter.min_p as f64).count().max(1);
    ids.truncate(n);
    ids
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn survivors_of_filters(vocab in 1usize..120, k in 1usize..33, top_k in prop_oneof![Just(0u32), 1u32..50], top_p in 0f32..1.3, min_p in -0.3f32..0.7, wide in 0.5f32..8.0, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let logits: Vec<f32> = activations(&mut rng, vocab).into_iter().map(|z| z * wide).collect();
        let z = logits.iter().map(|&z| z as f64).collect();
        let row = Row { z, temperature: [0.0, 0.8, 1.5][rng.random_range(0..3)], draw: rng.random(), off: off(0.0) };
        let filter = Filter { top_k, top_p: top_p.min(1.0), min_p: min_p.max(0.0) };
        let device = emulator::device(&["sampling"]);
        let found = sample(&device, &of_logits(&logits, &[1.0]), &[row.temperature], &[row.draw], 48, k);
        let (chosen, scores) = survivors(&device, &found, &[row.temperature], &[row.draw], &filter);
        let asked = Draw { top_k, top_p: filter.top_p, min_p: filter.min_p, ..draw(row.temperature, row.draw) };
        let twin = Drawn::of(&logits, &asked, k);
        let left = KernelRow { ids: found.ids(0), numbers: found.numbers(0), chosen: &chosen, scores: &scores };
        let kernels = Drawn::from_kernel(left, &asked, vocab);
        // where the list holds all there is, the kernel cannot know it
        prop_assert!(twin.exact == kernels.exact || k >= vocab);
        same(&twin, &kernels);
        if row.temperature == 0.0 {
            prop_assert_eq!(&chosen, &[found.ids[2], -1, 1, 0]);
            return Ok(());
        }
        let kept = truncated(&row, &filter);
        if kept.len() > k {
            prop_assert_eq!(chosen[3], 1, "{} survive", kept.len());
            return Ok(());
        }
        if chosen[3] == 1 {
            // no more than what cannot be known
            prop_assert!(chosen[2] as usize == k || (top_k as usize > k && filter.top_p < 1.0));
            return Ok(());
        }
        // a limit that lies on a token, to the last bits of f32, is not what random logits have
        prop_assert_eq!(chosen[2] as usize, kept.len());
        let best = kept.iter().copied().max_by(|&a, &b| row.score(a).total_cmp(&row.score(b))).unwrap();
        prop_assert_eq!(chosen[0] as usize, best);
        prop_assert!((scores[0] as f64 - row.score(best)).abs() < 1e-5);
        let runner = kept.iter().copied().filter(|id| *id != best).max_by(|&a, &b| row.score(a).total_cmp(&row.score(b)));
        prop_assert_eq!(chosen[1], runner.map_or(-1, |id| id as i32));
        prop_assert_eq!(scores[2], scores[0] - scores[1]);
        let total: f64 = kept.iter().map(|&id| row.x(id).exp()).sum();
        for place in 0..k {
            let expected = kept.get(place).map_or(0.0, |&id| row.x(id).exp() / total);
            prop_assert!((scores[3 + place] as f64 - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn survivors_of_nothing() {
    let device = emulator::device(&["sampling"]);
    let found = sample(&device, &of_logits(&[f32::NEG_INFINITY; 9], &[1.0]), &[1.0], &[[0; 5]], 4, 5);
    let (chosen, scores) = survivors(&device, &found, &[1.0], &[[0; 5]], &Filter { top_k: 3, top_p: 0.5, min_p: 0.1 });
    assert_eq!(chosen, [-1, -1, 0, 0]);
    assert_eq!(scores[0], f32::NEG_INFINITY);
    assert_eq!(scores[3..], [0.0; 5]);
}

/// 10^5 draws from 32 candidates, of which 20 survive.
#[test]
fn frequencies_of_survivors() {
    let device = emulator::device(&["sampling"]);
    let (k, kept, rows) = (32, 20, 5000);
    let logits: Vec<f32> = (0..k).map(|place| 1.0 - place as f32 * 0.13).collect();
    let ids: Vec<i32> = (0..2 + k as i32).map(|i| (i - 2) * 7 + 3).collect();
    let numbers = [&[0.0; 6][..], &logits].concat();
    let mut counts = vec![0.0; kept];
    for step in 0..20 {
        let found = Found { k, ids: ids.repeat(rows), numbers: numbers.repeat(rows) };
        let draws: Vec<Words> = (0..rows as u32).map(|row| [0xfeed, 7, step, row, 2]).collect();
        let filter = Filter { top_k: kept as u32, top_p: 1.0, min_p: 0.0 };
        let (chosen, _) = survivors(&device, &found, &vec![0.9; rows], &draws, &filter);
        chosen.chunks(4).for_each(|row| counts[(row[0] as usize - 3) / 7] += 1.0);
    }
    let (deviations, cells) = chi_square(&counts, &softmax(logits[..kept].iter().map(|&z| z as f64 / 0.9)));
    assert_eq!(cells, kept as f64);
    assert!(deviations.abs() < 3.72, "{deviations} deviations");
}
