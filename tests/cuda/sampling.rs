//! kernels/sampling.cu, against f64.

use std::sync::Arc;

use attnscope::backend::cuda::device::{Arg, Device, Launch};
use attnscope::backend::cuda::memory::Memory;
use attnscope::backend::draw::{Draw, Drawn, KernelRow, doubt, gumbel, philox};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::chance::{chi_square, softmax};
use super::emulator;
use super::product::{activations, dot, weights, width};

// --- the reference ---

/// Seed (low, high), step, row, stream.
pub type Words = [u32; 5];

pub fn draw(temperature: f32, [low, high, step, row, stream]: Words) -> Draw {
    Draw { temperature, seed: u64::from(high) << 32 | u64::from(low), step, row, stream, ..Draw::GREEDY }
}

fn word(words: Words, id: usize) -> u32 {
    let counter = [id as u32 / 4, words[2], words[3], words[4]];
    philox(counter.map(|c| [c]), [words[0], words[1]])[id % 4][0]
}

pub struct Row {
    /// Logits after softcap and bias.
    pub z: Vec<f64>,
    pub temperature: f32,
    pub draw: Words,
    /// What f32 may be off by in a logit.
    pub off: f64,
}

impl Row {
    pub fn x(&self, id: usize) -> f64 {
        self.z[id] / if self.temperature > 0.0 { self.temperature as f64 } else { 1.0 }
    }

    pub fn score(&self, id: usize) -> f64 {
        self.x(id) + if self.temperature > 0.0 { f64::from(gumbel(word(self.draw, id))) } else { 0.0 }
    }

    /// Ids that are not masked, best first.
    pub fn order(&self, score: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut ids: Vec<usize> = (0..self.z.len()).filter(|&id| self.z[id] > f64::NEG_INFINITY).collect();
        ids.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
        ids
    }

    /// max x, ln Σ e^x, entropy.
    fn sums(&self) -> [f64; 3] {
        let xs: Vec<f64> = self.order(|id| self.z[id]).into_iter().map(|id| self.x(id)).collect();
        let mass: f64 = xs.iter().map(|x| (x - xs[0]).exp()).sum();
        let lse = xs[0] + mass.ln();
        [xs[0], lse, xs.iter().map(|x| -(x - lse).exp() * (x - lse)).sum()]
    }
}

// --- the kernels ---

pub struct Head<'a> {
    x: &'a [f32],
    rows: usize,
    width: usize,
    format: usize,
    bytes: &'a [u8],
    vocab: usize,
    softcap: f32,
    /// [rows or 1, vocab]
    bias: Option<&'a [f32]>,
}

/// Rows whose logits are given: one number wide, of F32 weights, x = 1.
pub fn of_logits<'a>(logits: &'a [f32], ones: &'a [f32]) -> Head<'a> {
    let bytes = bytemuck::cast_slice(logits);
    Head { x: ones, rows: ones.len(), width: 1, format: 0, bytes, vocab: logits.len(), softcap: 0.0, bias: None }
}

pub struct Found {
    pub k: usize,
    pub ids: Vec<i32>,
    pub numbers: Vec<f32>,
}

impl Found {
    pub fn ids(&self, row: usize) -> &[i32] {
        &self.ids[row * (2 + self.k)..][..2 + self.k]
    }

    pub fn numbers(&self, row: usize) -> &[f32] {
        &self.numbers[row * (6 + self.k)..][..6 + self.k]
    }
}

pub fn int(x: usize) -> Arg {
    (x as i32).into()
}

pub fn sample(
    device: &Arc<dyn Device>,
    head: &Head,
    temperatures: &[f32],
    draws: &[Words],
    tile: usize,
    k: usize,
) -> Found {
    let (tiles, rows) = (head.vocab.div_ceil(tile), head.rows);
    let (kernel, most) = match rows {
        1 => ("sample_tiles_1", 1),
        2 => ("sample_tiles_2", 2),
        3..=4 => ("sample_tiles_4", 4),
        5..=8 => ("sample_tiles_8", 8),
        _ => ("sample_tiles_16", 16),
    };
    let x = Memory::of(device, head.x).unwrap();
    let weights = Memory::of(device, head.bytes).unwrap();
    let bias = head.bias.map(|bias| Memory::of(device, bias).unwrap());
    let temperature = Memory::of(device, temperatures).unwrap();
    let draws = Memory::of(device, draws.as_flattened()).unwrap();
    let keys = Memory::<u64>::new(device, rows * tiles * (2 + k)).unwrap();
    let sums = Memory::<f32>::new(device, rows * tiles * 3).unwrap();
    let args = [
        x.arg(),
        int(rows),
        int(head.width),
        weights.arg(),
        int(head.format),
        int(head.vocab),
        head.softcap.into(),
        bias.as_ref().map_or(Arg::Pointer(0), Memory::arg),
        int(if head.bias.is_some_and(|bias| bias.len() > head.vocab) { head.vocab } else { 0 }),
        temperature.arg(),
        draws.arg(),
        int(tile),
        int(k),
        keys.arg(),
        sums.arg(),
    ];
    let shared = 4 * (tile * most) as u32;
    device.launch(Launch { kernel, grid: [tiles as u32, 1, 1], block: [128, 1, 1], shared, args: &args }).unwrap();
    let ids = Memory::<i32>::new(device, rows * (2 + k)).unwrap();
    let numbers = Memory::<f32>::new(device, rows * (6 + k)).unwrap();
    let args = [int(tiles), int(k), keys.arg(), sums.arg(), ids.arg(), numbers.arg()];
    let (grid, block) = ([rows as u32, 1, 1], [256, 1, 1]);
    device.launch(Launch { kernel: "sample_merge", grid, block, shared: tiles as u32, args: &args }).unwrap();
    Found { k, ids: ids.read(0, rows * (2 + k)).unwrap(), numbers: numbers.read(0, rows * (6 + k)).unwrap() }
}

/// f32 is off by 2^-20 of Σ|w · x| in a logit (see product.rs), and by 2^-22 of logits and scores up to some 40. Of two
/// that are closer than that, either may win.
pub fn off(size: f64) -> f64 {
    size * 2f64.powi(-20) + 1e-5
}

fn check(found: &Found, rows: &[Row]) {
    for (r, row) in rows.iter().enumerate() {
        let (ids, numbers) = (found.ids(r), found.numbers(r));
        let close = |what: &str, found: f32, expected: f64, may: f64| {
            let same = found as f64 == expected || (found as f64 - expected).abs() <= may;
            assert!(same, "row {r}, {what}: {found}, not {expected}");
        };
        let may = if row.temperature > 0.0 { row.off / row.temperature as f64 } else { row.off };
        let best = row.order(|id| row.score(id));
        for place in 0..2 {
            let expected = best.get(place).map_or(f64::NEG_INFINITY, |&id| row.score(id));
            close("score", numbers[place], expected, may);
            match best.get(place) {
                // the id's own score, so that another id counts only where it is as good
                Some(&id) => {
                    assert!(ids[place] == id as i32 || (row.score(ids[place] as usize) - expected).abs() <= may);
                }
                None => assert_eq!(ids[place], -1),
            }
        }
        assert_eq!(numbers[2], numbers[0] - numbers[1], "margin");
        let [most, lse, entropy] = row.sums();
        close("most", numbers[3], most, may);
        close("lse", numbers[4], lse, may);
        // Σ p x (x − m) of p that are off by `may`
        close("entropy", numbers[5], entropy, may * 10.0);
        let order = row.order(|id| row.z[id]);
        for place in 0..found.k {
            let expected = order.get(place).map_or(f64::NEG_INFINITY, |&id| row.z[id]);
            close("candidate", numbers[6 + place], expected, row.off);
            match order.get(place) {
                Some(_) => assert!((row.z[ids[2 + place] as usize] - expected).abs() <= row.off),
                None => assert_eq!(ids[2 + place], -1),
            }
        }
        let mut own: Vec<i32> = ids[2..].iter().copied().filter(|id| *id >= 0).collect();
        own.sort_unstable();
        own.dedup();
        assert_eq!(own.len(), found.k.min(order.len()), "candidates differ from each other");
    }
}

// --- noise ---

/// All but one token masked: its score is its noise.
#[test]
fn the_kernel_draws_the_words_of_philox() {
    let device = emulator::device(&["sampling"]);
    let logits = [0.0; 43];
    let all = u32::MAX;
    let draws = [[0; 5], [all; 5], [0xa4093822, 0x299f31d0, 0x85a308d3, 0x13198a2e, 0x03707344], [1, 0, 0, 0, 0]];
    for id in [0, 1, 2, 3, 4, 22, 42] {
        let mut bias = [f32::NEG_INFINITY; 43];
        bias[id] = 0.0;
        let ones = [1.0; 4];
        let head = Head { bias: Some(&bias), ..of_logits(&logits, &ones) };
        let found = sample(&device, &head, &[1.0; 4], &draws, 7, 0);
        for (r, &draw) in draws.iter().enumerate() {
            assert_eq!(found.ids(r), [id as i32, -1]);
            let (score, expected) = (found.numbers(r)[0], gumbel(word(draw, id)));
            // two scores of the four that a doubt is made of
            assert!((score - expected).abs() < doubt(score) / 2.0, "{draw:?}, {id}: {score}, not {expected}");
        }
    }
}

// --- draws ---

/// `logit` of (row, token): its value and Σ|w · x|.
fn rows_of(
    rng: &mut StdRng,
    temperatures: &[f32],
    vocab: usize,
    logit: impl Fn(usize, usize) -> (f64, f64),
) -> Vec<Row> {
    let row = |(r, &temperature): (usize, &f32)| {
        let (z, sizes): (Vec<f64>, Vec<f64>) = (0..vocab).map(|o| logit(r, o)).unzip();
        Row { z, temperature, draw: rng.random(), off: off(sizes.into_iter().fold(0.0, f64::max)) }
    };
    temperatures.iter().enumerate().map(row).collect()
}

#[test]
fn tiles_of_any_size_find_the_same() {
    let device = emulator::device(&["sampling"]);
    let mut rng = StdRng::seed_from_u64(3);
    let (vocab, across, format, softcap) = (397, width(5, 96), 5, 30.0f32);
    let weights = weights(&mut rng, format, vocab, across);
    let temperatures = [1.0, 0.7, 0.0];
    let x = activations(&mut rng, temperatures.len() * across);
    let mut bias = activations(&mut rng, temperatures.len() * vocab);
    bias.iter_mut().step_by(5).for_each(|b| *b = f32::NEG_INFINITY);
    let rows = rows_of(&mut rng, &temperatures, vocab, |r, o| {
        let (y, size) = dot(&x[r * across..][..across], &weights.values[o * across..][..across]);
        let cap = softcap as f64;
        (cap * (y / cap).tanh() + bias[r * vocab + o] as f64, size)
    });
    let draws: Vec<Words> = rows.iter().map(|row| row.draw).collect();
    let head = Head {
        x: &x,
        rows: rows.len(),
        width: across,
        format,
        bytes: &weights.bytes,
        vocab,
        softcap,
        bias: Some(&bias),
    };
    let whole = sample(&device, &head, &temperatures, &draws, vocab, 20);
    check(&whole, &rows);
    for tile in [1, 7, 64, 128, vocab + 1] {
        let found = sample(&device, &head, &temperatures, &draws, tile, 20);
        assert_eq!(found.ids, whole.ids, "tile {tile}");
        for r in 0..rows.len() {
            let (found, whole) = (found.numbers(r), whole.numbers(r));
            assert_eq!((&found[..4], &found[6..]), (&whole[..4], &whole[6..]), "tile {tile}");
        }
        check(&found, &rows);
    }
    // Alone, a row draws what it draws beside others.
    let alone = Head { x: &x[across..2 * across], rows: 1, bias: Some(&bias[vocab..2 * vocab]), ..head };
    let alone = sample(&device, &alone, &temperatures[1..2], &draws[1..2], 64, 20);
    assert_eq!(alone.ids, whole.ids(1));
    assert_eq!(alone.numbers[..4], whole.numbers(1)[..4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_head(format in 0usize..8, units in 1usize..300, vocab in 1usize..260, rows in 1usize..17, tile in 1usize..150, k in 0usize..33, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let across = width(format, units);
        let weights = weights(&mut rng, format, vocab, across);
        let x = activations(&mut rng, rows * across);
        let temperatures: Vec<f32> = (0..rows).map(|_| [0.0, 0.5, 1.0, 2.0][rng.random_range(0..4)]).collect();
        let expected = rows_of(&mut rng, &temperatures, vocab, |r, o| {
            dot(&x[r * across..][..across], &weights.values[o * across..][..across])
        });
        let draws: Vec<Words> = expected.iter().map(|row| row.draw).collect();
        let head = Head { x: &x, rows, width: across, format, bytes: &weights.bytes, vocab, softcap: 0.0, bias: None };
        check(&sample(&emulator::device(&["sampling"]), &head, &temperatures, &draws, tile, k), &expected);
    }
}

/// The twin draws what the kernels do: the same winner but within the margin that is doubtful.
pub fn same(twin: &Drawn, kernels: &Drawn) {
    let close = |what: &str, a: f32, b: f32| assert!(a == b || (a - b).abs() <= doubt(a), "{what}: {a}, {b}");
    if twin.winner != kernels.winner {
        assert!(twin.margin < doubt(twin.scores[0]), "{twin:?}\n{kernels:?}");
        return;
    }
    if twin.runner_up == kernels.runner_up {
        close("margin", twin.margin, kernels.margin);
    }
    close("winner", twin.scores[0], kernels.scores[0]);
    close("runner-up", twin.scores[1], kernels.scores[1]);
    close("most", twin.max, kernels.max);
    close("lse", twin.lse, kernels.lse);
    assert!((twin.entropy - kernels.entropy).abs() < 1e-4 || twin.entropy.is_nan() && kernels.entropy.is_nan());
    assert_eq!(twin.survivors, kernels.survivors);
    let listed = |drawn: &Drawn| drawn.candidates.iter().map(|c| (c.id, c.z)).collect::<Vec<_>>();
    assert_eq!(listed(twin), listed(kernels));
    twin.candidates.iter().zip(&kernels.candidates).for_each(|(a, b)| assert!((a.p - b.p).abs() < 1e-5));
}

#[test]
fn the_twin_draws_the_same() {
    let device = emulator::device(&["sampling"]);
    let mut rng = StdRng::seed_from_u64(17);
    for vocab in [1, 3, 64, 65, 700] {
        let logits: Vec<f32> = activations(&mut rng, vocab).into_iter().map(|z| z * 4.0).collect();
        let temperatures = [0.0, 1.0, 0.7, 1.6];
        let draws: Vec<Words> = (0..4).map(|_| rng.random()).collect();
        let found = sample(&device, &of_logits(&logits, &[1.0; 4]), &temperatures, &draws, 48, 32);
        for (r, (&temperature, &words)) in temperatures.iter().zip(&draws).enumerate() {
            let draw = draw(temperature, words);
            assert_eq!(draw.words(), words);
            let row = KernelRow { ids: found.ids(r), numbers: found.numbers(r), chosen: &[], scores: &[] };
            same(&Drawn::of(&logits, &draw, 32), &Drawn::from_kernel(row, &draw, vocab));
        }
    }
}

#[test]
fn masked_tokens_never_win_and_all_masked_is_no_token() {
    let device = emulator::device(&["sampling"]);
    let mut logits = vec![f32::NEG_INFINITY; 130];
    let ones = [1.0; 2];
    let found = sample(&device, &of_logits(&logits, &ones), &[1.0, 0.0], &[[1; 5], [2; 5]], 32, 3);
    for r in 0..2 {
        assert_eq!(found.ids(r), [-1; 5]);
        let numbers = found.numbers(r);
        assert_eq!((numbers[0], numbers[3], numbers[4]), (f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY));
        assert!(numbers[5].is_nan());
    }
    // a logit that is no number is masked
    logits[7] = f32::NAN;
    logits[99] = -1e30;
    let found = sample(&device, &of_logits(&logits, &ones), &[1.0, 0.0], &[[1; 5], [2; 5]], 32, 3);
    for r in 0..2 {
        assert_eq!(found.ids(r), [99, -1, 99, -1, -1]);
        assert_eq!(found.numbers(r)[5], 0.0, "entropy");
    }
    // 20 of 512 are not masked
    let open = |id: usize| id % 25 == 3;
    let logits: Vec<f32> = (0..500).map(|id| if open(id) { 0.0 } else { f32::NEG_INFINITY }).collect();
    for step in 0..40 {
        let draws: Vec<Words> = (0..16).map(|row| [5, 0, step, row, 0]).collect();
        let found = sample(&device, &of_logits(&logits, &[1.0; 16]), &[1.0; 16], &draws, 100, 0);
        assert!((0..16).all(|r| found.ids(r).iter().all(|&id| open(id as usize))));
    }
}

#[test]
fn the_smaller_of_equals_wins() {
    let device = emulator::device(&["sampling"]);
    // equal maxima in a tile, in tiles next to each other and far apart; −0 is 0
    for equal in [vec![9, 11], vec![63, 64], vec![5, 400, 511], vec![127, 128, 130]] {
        for (low, high) in [(-1.0, 2.5), (-3.0, 0.0), (-3.0, -0.0f32)] {
            let mut logits = vec![low; 512];
            equal.iter().for_each(|&id| logits[id] = high);
            logits[equal[1]] = high.abs();
            let found = sample(&device, &of_logits(&logits, &[1.0]), &[0.0], &[[1; 5]], 64, 2);
            let expected = [equal[0] as i32, equal[1] as i32];
            assert_eq!(found.ids, [expected, expected].concat());
            assert_eq!(found.numbers[2], 0.0, "margin");
        }
    }
    let found = sample(&device, &of_logits(&[0.25; 70], &[1.0]), &[0.0], &[[1; 5]], 16, 32);
    assert_eq!(found.ids[..2], [0, 1]);
    assert_eq!(found.ids[2..], (0..32).collect::<Vec<i32>>());
}

/// A temperature that is nearly 0 draws what greedy takes.
#[test]
fn cold_is_greedy() {
    let device = emulator::device(&["sampling"]);
    let mut rng = StdRng::seed_from_u64(9);
    for _ in 0..8 {
        let logits = activations(&mut rng, 300);
        let found = sample(&device, &of_logits(&logits, &[1.0; 2]), &[0.0, 1e-6], &[rng.random(), rng.random()], 64, 1);
        assert_eq!(found.ids(0)[0], found.ids(0)[2]);
        // among 300 of [−2, 2], the best two are further apart than 23 · 1e-6
        assert!(found.numbers(0)[2] > 3e-5);
        assert_eq!(found.ids(1)[0], found.ids(0)[0]);
    }
}

/// 6000 draws, not the 10^5 that would be right: threads are emulated. survivors.rs draws those, from fewer tokens.
#[test]
fn frequencies_are_those_of_softmax() {
    let device = emulator::device(&["sampling"]);
    let mut rng = StdRng::seed_from_u64(21);
    let logits: Vec<f32> = (0..512).map(|_| rng.random_range(-3.0..2.0f32)).collect();
    let mut counts = vec![0.0; 512];
    for step in 0..375 {
        let draws: Vec<Words> = (0..16).map(|row| [0xfeed, 7, step, row, 2]).collect();
        let found = sample(&device, &of_logits(&logits, &[1.0; 16]), &[1.25; 16], &draws, 128, 0);
        (0..16).for_each(|r| counts[found.ids(r)[0] as usize] += 1.0);
    }
    let (deviations, cells) = chi_square(&counts, &softmax(logits.iter().map(|&z| z as f64 / 1.25)));
    assert!(cells > 200.0, "{cells} cells");
    assert!(deviations.abs() < 3.72, "{deviations} deviations");
}
