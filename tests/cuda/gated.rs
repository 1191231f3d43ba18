//! kernels/gated.cu

use attnscope::backend::cuda::device::{Arg, Launch};
use attnscope::backend::cuda::memory::Memory;
use proptest::prelude::*;

use super::emulator;

/// In f64, by the definitions of `Activation`. erf: Abramowitz and Stegun 7.1.26, good to 1.5e-7.
fn activate(x: f64, kind: i32) -> f64 {
    let erf = |x: f64| {
        let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
        let p = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
        (1.0 - p.iter().fold(0.0, |sum, c| sum * t + c) * t * (-x * x).exp()).copysign(x)
    };
    match kind {
        0 => x / (1.0 + (-x).exp()),
        1 => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
        _ => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn gate_times_up(width in 1usize..700, rows in 1usize..5, kind in 0i32..3, biased: bool, seed: u32) {
        let device = emulator::device(&["gated"]);
        let draw = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 2f32.powi(21) - 4.0;
        let x: Vec<f32> = (0..rows * 2 * width).map(draw).collect();
        let (from, out) = (Memory::of(&device, &x).unwrap(), Memory::<f32>::new(&device, rows * width).unwrap());
        let bias: Vec<f32> = (0..2 * width).map(|i| draw(i + 77_777) / 4.0).collect();
        let given = Memory::of(&device, &bias).unwrap();
        let given = if biased { given.arg() } else { Arg::Pointer(0) };
        let args = [from.arg(), given, (width as i32).into(), kind.into(), out.arg()];
        let grid = [width.div_ceil(128) as u32, rows as u32, 1];
        device.launch(Launch { kernel: "gated", grid, block: [128, 1, 1], shared: 0, args: &args }).unwrap();
        for (i, found) in out.read(0, rows * width).unwrap().into_iter().enumerate() {
            let (row, channel) = (i / width, i % width);
            let at = |half: usize| {
                let plus = if biased { bias[half * width + channel] as f64 } else { 0.0 };
                x[(row * 2 + half) * width + channel] as f64 + plus
            };
            let expected = activate(at(0), kind) * at(1);
            // f32 rounding of a handful of operations on numbers up to 16, and of erf's formula
            prop_assert!((found as f64 - expected).abs() < 2e-5, "{} {}", found, expected);
        }
    }
}
