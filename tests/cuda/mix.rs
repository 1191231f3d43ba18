//! kernels/mix.cu, against the definition of Attention Residuals (arXiv 2603.15031) and of depth shares in f64.

use std::sync::Arc;

use attnscope::backend::cuda::device::{Arg, Device};
use attnscope::backend::cuda::memory::Memory;
use attnscope::probe::depth::{self, shares};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::caches::launch;
use super::emulator;

const EPS: f32 = 1e-6;

fn int(x: usize) -> Arg {
    (x as i32).into()
}

/// Matrices [rows, width] on a device, and how kernels are told of them.
struct Sources {
    _matrices: Vec<Memory<f32>>,
    addresses: Memory<u64>,
    strides: Memory<i32>,
}

/// A matrix of one row is the same for all.
fn sources(device: &Arc<dyn Device>, all: &[Vec<f32>], rows: usize, width: usize) -> Sources {
    let matrices: Vec<Memory<f32>> = all.iter().map(|x| Memory::of(device, x).unwrap()).collect();
    let stride = |x: &Vec<f32>| if x.len() == rows * width { width as i32 } else { 0 };
    let strides: Vec<i32> = all.iter().map(stride).collect();
    let addresses: Vec<u64> = matrices.iter().map(|matrix| matrix.at(0)).collect();
    Sources {
        _matrices: matrices,
        addresses: Memory::of(device, &addresses).unwrap(),
        strides: Memory::of(device, &strides).unwrap(),
    }
}

/// What becomes of a mix: bias of the last source, and keep · stream + by · h.
struct Dialect {
    bias: f32,
    stream: Option<Vec<f32>>,
    keep: f32,
    by: f32,
}

const PLAIN: Dialect = Dialect { bias: 0.0, stream: None, keep: 0.0, by: 0.0 };

type Mixed = (Vec<f32>, Vec<f32>);

/// (out [rows, width], α [sources, rows])
fn mix(device: &Arc<dyn Device>, all: &[Vec<f32>], rows: usize, key: &[f32], dialect: &Dialect) -> Mixed {
    let (count, width) = (all.len(), key.len());
    let from = sources(device, all, rows, width);
    let key = Memory::of(device, key).unwrap();
    let (out, weights) =
        (Memory::<f32>::new(device, rows * width).unwrap(), Memory::new(device, count * rows).unwrap());
    let stream = dialect.stream.as_ref().map(|x| Memory::of(device, x).unwrap());
    let args = [
        from.addresses.arg(),
        from.strides.arg(),
        int(count),
        key.arg(),
        EPS.into(),
        dialect.bias.into(),
        stream.as_ref().map_or(Arg::Pointer(0), Memory::arg),
        dialect.keep.into(),
        dialect.by.into(),
        int(width),
        out.arg(),
        weights.arg(),
    ];
    launch(device, "mix", [rows, 1, 1], 256, 4 * count, &args);
    (out.read(0, rows * width).unwrap(), weights.read(0, count * rows).unwrap())
}

/// The same for several keys, the last source as the partial sum; `None`: there is none.
fn in_two_phases(
    device: &Arc<dyn Device>,
    finished: &[Vec<f32>],
    partial: Option<&[f32]>,
    rows: usize,
    keys: &[Vec<f32>],
    dialect: &Dialect,
) -> Vec<Mixed> {
    let (count, targets, width) = (finished.len(), keys.len(), keys[0].len());
    let from = sources(device, finished, rows, width);
    let at = Memory::of(device, &keys.concat()).unwrap();
    let mixed = Memory::<f32>::new(device, targets * rows * width).unwrap();
    let (tops, sums) =
        (Memory::<f32>::new(device, targets * rows).unwrap(), Memory::<f32>::new(device, targets * rows).unwrap());
    let weights = Memory::<f32>::new(device, targets * (count + 1) * rows).unwrap();
    let args = [
        from.addresses.arg(),
        from.strides.arg(),
        int(count),
        at.arg(),
        int(targets),
        EPS.into(),
        int(width),
        mixed.arg(),
        tops.arg(),
        sums.arg(),
        weights.arg(),
        int(count + 1),
    ];
    launch(device, "mix_finished", [rows, targets.div_ceil(8), 1], 256, 32 * count, &args);
    let partial = partial.map(|x| Memory::of(device, x).unwrap());
    let stream = dialect.stream.as_ref().map(|x| Memory::of(device, x).unwrap());
    let second = |target: usize| {
        let out = Memory::<f32>::new(device, rows * width).unwrap();
        let pointer = |memory: &Memory<f32>, i: usize| Arg::Pointer(memory.at(i));
        let first = target * (count + 1) * rows;
        let args = [
            pointer(&mixed, target * rows * width),
            pointer(&tops, target * rows),
            pointer(&sums, target * rows),
            partial.as_ref().map_or(Arg::Pointer(0), Memory::arg),
            pointer(&at, target * width),
            EPS.into(),
            dialect.bias.into(),
            int(count),
            stream.as_ref().map_or(Arg::Pointer(0), Memory::arg),
            dialect.keep.into(),
            dialect.by.into(),
            int(width),
            out.arg(),
            pointer(&weights, first),
        ];
        launch(device, "mix_partial", [rows, 1, 1], 256, 0, &args);
        (out.read(0, rows * width).unwrap(), weights.read(first, (count + 1) * rows).unwrap())
    };
    (0..targets).map(second).collect()
}

/// The definition, of one row: (h, α).
fn expected(all: &[&[f32]], key: &[f32], bias: f32) -> (Vec<f64>, Vec<f64>) {
    let logit = |v: &[f32]| {
        let square = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / v.len() as f64;
        let dot: f64 = v.iter().zip(key).map(|(&x, &k)| f64::from(x) * f64::from(k)).sum();
        dot / (square + f64::from(EPS)).sqrt()
    };
    let mut logits: Vec<f64> = all.iter().map(|v| logit(v)).collect();
    *logits.last_mut().unwrap() += f64::from(bias);
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|s| (s - top).exp()).sum();
    let alpha: Vec<f64> = logits.iter().map(|s| (s - top).exp() / sum).collect();
    let channel = |c: usize| all.iter().zip(&alpha).map(|(v, a)| f64::from(v[c]) * a).sum();
    ((0..key.len()).map(channel).collect(), alpha)
}

fn near(found: &[f32], expected: &[f64], may: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= may, "{found}, not {expected}; may be {may:e} off");
    }
}

fn column(weights: &[f32], rows: usize, row: usize) -> Vec<f32> {
    weights.iter().skip(row).step_by(rows).copied().collect()
}

/// γ [1, 1, 2, 0.5], w [0.5, −0.25, 0, 1]: the numbers were computed apart from this program.
#[test]
fn a_mix_computed_by_hand() {
    let device = emulator::device(&["mix"]);
    let key = [0.5 * 1.0, -0.25, 0.0 * 2.0, 1.0 * 0.5];
    let all = [vec![1.0, 0.0, -1.0, 2.0], vec![0.5; 4], vec![3.0, -4.0, 0.0, 0.0]];
    let (alpha, out) = ([0.413093, 0.256962, 0.329946], [1.531410, -1.191302, -0.284612, 0.954666]);
    let once = mix(&device, &all, 1, &key, &PLAIN);
    let twice = in_two_phases(&device, &all[..2], Some(&all[2]), 1, &[key.to_vec()], &PLAIN).remove(0);
    for (found, weights) in [once, twice] {
        near(&found, &out, 1.5e-6);
        near(&weights, &alpha, 1.5e-6);
    }
    let (found, _) = mix(&device, &all, 1, &[0.0; 4], &PLAIN);
    near(&found, &[1.5, -3.5 / 3.0, -0.5 / 3.0, 2.5 / 3.0], 1e-6);
}

fn draws(rng: &mut StdRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn mixes_are_those_of_the_definition(
        rows in 1usize..5, width in 1usize..700, count in 1usize..40, targets in 1usize..12, same: bool, bias in prop_oneof![Just(0.0f32), -3.0f32..3.0],
        added: bool, seed: u64
    ) {
        let device = emulator::device(&["mix"]);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut all: Vec<Vec<f32>> = (0..count).map(|_| draws(&mut rng, rows * width)).collect();
        if same {
            // a learned source
            all[0].truncate(width);
        }
        // logits of some units
        let unit = 1.0 / (width as f32).sqrt();
        let keys: Vec<Vec<f32>> = (0..targets).map(|_| draws(&mut rng, width).iter().map(|x| x * unit).collect()).collect();
        let stream = added.then(|| draws(&mut rng, rows * width));
        let dialect = Dialect { bias, stream, keep: 0.75, by: 0.5 };
        let mut found: Vec<(usize, Mixed)> = vec![(0, mix(&device, &all, rows, &keys[0], &dialect))];
        let last = &all[count - 1];
        if count > 1 && last.len() == rows * width {
            let both = in_two_phases(&device, &all[..count - 1], Some(last), rows, &keys, &dialect);
            found.extend(both.into_iter().enumerate());
        }
        if bias == 0.0 {
            let finished = in_two_phases(&device, &all, None, rows, &keys, &dialect);
            for (target, (out, mut weights)) in finished.into_iter().enumerate() {
                // the partial sum that is not there
                prop_assert!(weights.split_off(count * rows).iter().all(|&weight| weight == 0.0));
                found.push((target, (out, weights)));
            }
        }
        for (target, (out, weights)) in found {
            for row in 0..rows {
                let of = |x: &'_ Vec<f32>| if x.len() == rows * width { row * width } else { 0 };
                let own: Vec<&[f32]> = all.iter().map(|x| &x[of(x)..][..width]).collect();
                let (mut h, alpha) = expected(&own, &keys[target], bias);
                if let Some(stream) = &dialect.stream {
                    h.iter_mut().zip(&stream[row * width..]).for_each(|(h, &x)| *h = 0.75 * f64::from(x) + 0.5 * *h);
                }
                // logits up to 8 are off by some 2^-20, weights by as much of themselves, sources are at most 2
                near(&column(&weights, rows, row), &alpha, 4e-6);
                near(&out[row * width..][..width], &h, 1e-5);
            }
        }
    }

    #[test]
    fn shares_are_those_of_the_cpu(rows in 1usize..5, width in 1usize..300, points in 1usize..12, zero: bool, seed: u64) {
        let device = emulator::device(&["mix"]);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut all: Vec<Vec<f32>> = (0..points).map(|_| draws(&mut rng, rows * width)).collect();
        if zero {
            all[points - 1][..width].fill(0.0);
        }
        let from = sources(&device, &all, rows, width);
        let counts = Memory::of(&device, &(1..=points as i32).collect::<Vec<i32>>()).unwrap();
        let out = Memory::<f32>::new(&device, points * points * rows).unwrap();
        let args = [from.addresses.arg(), from.strides.arg(), counts.arg(), from.addresses.arg(), 1.into(), int(width), out.arg(), int(points)];
        launch(&device, "depth_shares", [rows, points, 1], 256, 8 * points, &args);
        let out = out.read(0, points * points * rows).unwrap();
        for row in 0..rows {
            let own: Vec<&[f32]> = all.iter().map(|x| &x[row * width..][..width]).collect();
            let mut expected = vec![0.0; points * points];
            for (target, origins) in depth::Sources::plain(points - 1).origins.iter().enumerate() {
                let sources: Vec<_> = origins.iter().map(|origin| (origin, 1.0)).collect();
                let found = shares(own[target], |p| own[p], &sources);
                expected[target * points..][..found.len()].copy_from_slice(&found);
            }
            // sums in f64 here, in f64 of stretches in f32 there
            let may = |x: f32| 1e-5 * (1.0 + x.abs());
            for (found, expected) in column(&out, rows, row).iter().zip(&expected) {
                prop_assert!((found - expected).abs() <= may(*expected), "{found}, not {expected}");
            }
        }
    }
}

/// Of sources that are given themselves, which sum up to the target.
#[test]
fn shares_of_terms_sum_to_one() {
    let device = emulator::device(&["mix"]);
    let mut rng = StdRng::seed_from_u64(5);
    let (rows, width, count) = (3, 65, 7);
    let all: Vec<Vec<f32>> = (0..count).map(|_| draws(&mut rng, rows * width)).collect();
    let h: Vec<f32> = (0..rows * width).map(|i| all.iter().map(|x| x[i]).sum()).collect();
    let from = sources(&device, &all, rows, width);
    let target = Memory::of(&device, &h).unwrap();
    let targets = Memory::of(&device, &[target.at(0)]).unwrap();
    let counts = Memory::of(&device, &[count as i32]).unwrap();
    let out = Memory::<f32>::new(&device, (count + 2) * rows).unwrap();
    let args = [
        from.addresses.arg(),
        from.strides.arg(),
        counts.arg(),
        targets.arg(),
        0.into(),
        int(width),
        out.arg(),
        int(count + 2),
    ];
    launch(&device, "depth_shares", [rows, 1, 1], 256, 8 * (count + 2), &args);
    let out = out.read(0, (count + 2) * rows).unwrap();
    for row in 0..rows {
        let own = column(&out, rows, row);
        assert!((own.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{own:?}");
        assert_eq!(own[count..], [0.0; 2]);
        let (dot, length) = (0..width).fold((0.0, 0.0), |(dot, length), c| {
            let (v, h) = (f64::from(all[2][row * width + c]), f64::from(h[row * width + c]));
            (dot + v * h, length + h * h)
        });
        assert!((f64::from(own[2]) - dot / length).abs() < 1e-6, "{own:?}");
    }
}
