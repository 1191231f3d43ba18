//! kernels/elementwise.cu

use attnscope::backend::cuda::blas::TERMS;
use attnscope::backend::cuda::device::Launch;
use attnscope::backend::cuda::memory::Memory;
use half::bf16;
use proptest::prelude::*;

use super::emulator;

/// −8 … 8.
fn draws(count: usize, seed: u32) -> Vec<f32> {
    let draw = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed).rotate_left(7).wrapping_mul(40_503);
    (0..count).map(|i| (draw(i) >> 8) as f32 / 2f32.powi(20) - 8.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sums_and_biases(width in 1usize..700, rows in 1usize..6, seed: u32) {
        let device = emulator::device(&["elementwise"]);
        let (a, b, bias) = (draws(rows * width, seed), draws(rows * width, !seed), draws(width, seed ^ 0xabcd));
        let out = Memory::of(&device, &a).unwrap();
        let (x, by) = (Memory::of(&device, &b).unwrap(), Memory::of(&device, &bias).unwrap());
        let args = [out.arg(), x.arg(), ((rows * width) as i32).into()];
        let grid = [(rows * width).div_ceil(128) as u32, 1, 1];
        device.launch(Launch { kernel: "add", grid, block: [128, 1, 1], shared: 0, args: &args }).unwrap();
        let args = [out.arg(), by.arg(), (width as i32).into()];
        let grid = [width.div_ceil(64) as u32, rows as u32, 1];
        device.launch(Launch { kernel: "add_bias", grid, block: [64, 1, 1], shared: 0, args: &args }).unwrap();
        // two sums in f32, each rounded as here
        let expected: Vec<f32> = (0..rows * width).map(|i| a[i] + b[i] + bias[i % width]).collect();
        prop_assert_eq!(out.read(0, rows * width).unwrap(), expected);
    }

    #[test]
    fn capped_logits(count in 1usize..3000, cap in 0.5f32..60.0, seed: u32) {
        let device = emulator::device(&["elementwise"]);
        let x: Vec<f32> = draws(count, seed).into_iter().map(|x| x * 20.0).collect();
        let logits = Memory::of(&device, &x).unwrap();
        let args = [logits.arg(), cap.into(), (count as i32).into()];
        let grid = [count.div_ceil(256) as u32, 1, 1];
        device.launch(Launch { kernel: "softcap", grid, block: [256, 1, 1], shared: 0, args: &args }).unwrap();
        for (found, x) in logits.read(0, count).unwrap().into_iter().zip(x) {
            let expected = cap as f64 * (x as f64 / cap as f64).tanh();
            // a quotient, tanh to 2 units in the last place, a product
            prop_assert!((found as f64 - expected).abs() <= 4e-7 * expected.abs() + 1e-9, "{} {}", found, expected);
        }
    }

    #[test]
    fn numbers_in_bf16_terms(count in 1usize..600, seed: u32, exponent in -90i32..100) {
        let device = emulator::device(&["elementwise"]);
        let x: Vec<f32> = draws(count, seed).into_iter().map(|x| x * 2f32.powi(exponent)).collect();
        let (from, out) = (Memory::of(&device, &x).unwrap(), Memory::<u16>::new(&device, TERMS * count).unwrap());
        let args = [from.arg(), out.arg(), (count as i32).into()];
        let grid = [count.div_ceil(256) as u32, 1, 1];
        device.launch(Launch { kernel: "split_bf16", grid, block: [256, 1, 1], shared: 0, args: &args }).unwrap();
        let terms: Vec<f64> = out.read(0, TERMS * count).unwrap().into_iter().map(|bits| bf16::from_bits(bits).to_f64()).collect();
        for (i, &x) in x.iter().enumerate() {
            prop_assert_eq!((0..TERMS).map(|term| terms[term * count + i]).sum::<f64>(), x as f64);
        }
    }
}
