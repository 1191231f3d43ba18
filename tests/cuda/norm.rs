//! kernels/norm.cu

use std::sync::Arc as Shared;

use attnscope::backend::cuda::device::{Arg, Device, Launch};
use attnscope::backend::cuda::memory::Memory;
use proptest::prelude::*;

use super::emulator;

/// What a kernel is given beside its numbers.
#[derive(Debug, Clone, Copy)]
struct Form {
    width: usize,
    rows: usize,
    block: u32,
    first_copied: usize,
    stats: bool,
    copy: bool,
}

fn forms() -> impl Strategy<Value = Form> {
    let width = prop_oneof![1usize..40, 1usize..3000, Just(1024), Just(2048)];
    let block = prop_oneof![Just(32u32), Just(96), Just(256), Just(1024)];
    (width, 1usize..=9, block, 0usize..9, prop::bool::weighted(0.8), any::<bool>()).prop_map(
        |(width, rows, block, first, stats, copy)| Form { width, rows, block, first_copied: first % rows, stats, copy },
    )
}

/// Rows with equal numbers, zeros, numbers of all sizes and some that stand out.
fn rows(form: Form, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut number = || match draw() % 8 {
        0 => [0.0, -1.0, 1.0, 3.5][draw() as usize % 4],
        1 => (draw() as f32 / 2f32.powi(31) - 1.0) * 2f32.powi(draw() as i32 % 12),
        _ => draw() as f32 / 2f32.powi(31) - 1.0,
    };
    (0..form.rows * form.width).map(|_| number()).collect()
}

/// Outputs of a launch: statistics and copies.
struct Probes {
    stats: Memory<f32>,
    copy: Memory<f32>,
}

impl Probes {
    fn new(device: &Shared<dyn Device>, form: Form) -> Self {
        let copied = (form.rows - form.first_copied) * form.width;
        Self { stats: Memory::new(device, form.rows * 5).unwrap(), copy: Memory::new(device, copied).unwrap() }
    }

    fn args(&self, form: Form) -> [Arg; 3] {
        let given = |memory: &Memory<f32>, on: bool| if on { memory.arg() } else { Arg::Pointer(0) };
        [given(&self.stats, form.stats), given(&self.copy, form.copy), (form.first_copied as i32).into()]
    }

    /// Against `x`, the rows as f32: order statistics exactly, sums in f64.
    fn check(&self, form: Form, x: &[f32]) {
        let n = form.width;
        if form.copy {
            let copy = self.copy.read(0, self.copy.len()).unwrap();
            assert_eq!(copy, x[form.first_copied * n..]);
        }
        let stats = self.stats.read(0, form.rows * 5).unwrap();
        if !form.stats {
            assert!(stats.iter().all(|x| x.to_bits() == u32::MAX), "nothing is written");
            return;
        }
        for (row, stats) in x.chunks(n).zip(stats.chunks(5)) {
            let squares: f64 = row.iter().map(|&x| (x as f64).powi(2)).sum();
            // n/32 roundings in one thread at most, each by half a unit in the last place, errors of either sign;
            // what is left is far below
            close(stats[0] as f64, squares.sqrt(), 2e-6);
            close(stats[1] as f64, (squares / n as f64).sqrt(), 2e-6);
            let mut sorted: Vec<f32> = row.iter().map(|x| x.abs()).collect();
            let most = sorted.iter().copied().fold(0.0, f32::max);
            assert_eq!(stats[2], most);
            assert_eq!(stats[4].to_bits() as usize, sorted.iter().position(|&x| x == most).unwrap());
            sorted.sort_by(f32::total_cmp);
            let median = if n % 2 == 1 { sorted[n / 2] } else { (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0 };
            assert_eq!(stats[3], median, "of {n}");
        }
    }
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs() + 1e-30, "{found} {expected}");
}

fn launch(device: &Shared<dyn Device>, kernel: &'static str, form: Form, args: &[Arg]) {
    let grid = [form.rows as u32, 1, 1];
    device.launch(Launch { kernel, grid, block: [form.block, 1, 1], shared: 0, args }).unwrap();
}

/// x / rms(x) · weight of one row, in f64.
fn normed(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    let mean = x.iter().map(|&x| (x as f64).powi(2)).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(&x, &w)| x as f64 / (mean + eps as f64).sqrt() * w as f64).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn norms_of_rows(form in forms(), in_place: bool, eps in 1e-6f32..1e-2, seed: u32) {
        let device = emulator::device(&["norm"]);
        let (x, weight) = (rows(form, seed), rows(Form { rows: 1, ..form }, !seed));
        let (from, by) = (Memory::of(&device, &x).unwrap(), Memory::of(&device, &weight).unwrap());
        let apart = Memory::<f32>::new(&device, x.len()).unwrap();
        let out = if in_place { &from } else { &apart };
        let probes = Probes::new(&device, form);
        let [stats, copy, first] = probes.args(form);
        let args = [from.arg(), by.arg(), eps.into(), (form.width as i32).into(), out.arg(), stats, copy, first];
        launch(&device, "rms_norm", form, &args);
        probes.check(form, &x);
        let found = out.read(0, x.len()).unwrap();
        for (row, found) in x.chunks(form.width).zip(found.chunks(form.width)) {
            for (found, expected) in found.iter().zip(normed(row, &weight, eps)) {
                // as the root above, and three products
                close(*found as f64, expected, 3e-6);
            }
        }
    }

    #[test]
    fn norms_added_to_rows(form in forms(), eps in 1e-6f32..1e-2, seed: u32) {
        let device = emulator::device(&["norm"]);
        let (x, y, weight) = (rows(form, seed), rows(form, seed ^ 0x55aa), rows(Form { rows: 1, ..form }, !seed));
        let (to, from) = (Memory::of(&device, &x).unwrap(), Memory::of(&device, &y).unwrap());
        let by = Memory::of(&device, &weight).unwrap();
        let probes = Probes::new(&device, form);
        let [stats, copy, first] = probes.args(form);
        let args = [to.arg(), from.arg(), by.arg(), eps.into(), (form.width as i32).into(), stats, copy, first];
        launch(&device, "add_rms_norm", form, &args);
        let found = to.read(0, x.len()).unwrap();
        probes.check(form, &found);
        for ((x, y), found) in x.chunks(form.width).zip(y.chunks(form.width)).zip(found.chunks(form.width)) {
            for ((&x, plus), &found) in x.iter().zip(normed(y, &weight, eps)).zip(found) {
                // of what is added up, as the sum may cancel
                let off = (found as f64 - (x as f64 + plus)).abs();
                prop_assert!(off <= 3e-6 * (x.abs() as f64 + plus.abs()), "{} {} {}", found, x, plus);
            }
        }
    }

    #[test]
    fn statistics_alone(form in forms(), seed: u32) {
        let device = emulator::device(&["norm"]);
        let x = rows(form, seed);
        let from = Memory::of(&device, &x).unwrap();
        let probes = Probes::new(&device, form);
        let [stats, copy, first] = probes.args(form);
        launch(&device, "row_stats", form, &[from.arg(), (form.width as i32).into(), stats, copy, first]);
        probes.check(form, &x);
    }

    /// Whatever the bits, NaN and infinities with them: the kernel comes to its end and orders magnitudes as bits.
    #[test]
    fn statistics_of_any_bits(bits in prop::collection::vec(any::<u32>(), 1..200)) {
        let device = emulator::device(&["norm"]);
        let x: Vec<f32> = bits.iter().map(|&x| f32::from_bits(x)).collect();
        let (from, stats) = (Memory::of(&device, &x).unwrap(), Memory::<f32>::new(&device, 5).unwrap());
        let form = Form { width: x.len(), rows: 1, block: 64, first_copied: 0, stats: true, copy: false };
        let args = [from.arg(), (x.len() as i32).into(), stats.arg(), Arg::Pointer(0), 0.into()];
        launch(&device, "row_stats", form, &args);
        let mut sorted: Vec<u32> = bits.iter().map(|x| x & 0x7fff_ffff).collect();
        let first = sorted.iter().position(|x| x == sorted.iter().max().unwrap()).unwrap();
        sorted.sort_unstable();
        let found = stats.read(0, 5).unwrap();
        prop_assert_eq!(found[2].to_bits(), sorted[x.len() - 1]);
        prop_assert_eq!(found[4].to_bits() as usize, first);
        if x.len() % 2 == 1 {
            prop_assert_eq!(found[3].to_bits(), sorted[x.len() / 2]);
        }
    }
}
