//! kernels/alter.cu

use attnscope::backend::cuda::device::Launch;
use attnscope::backend::cuda::memory::Memory;
use half::{bf16, f16};
use proptest::prelude::*;

use super::emulator;

fn draws(count: usize, seed: u32) -> Vec<f32> {
    let draw = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed).rotate_left(7).wrapping_mul(40_503);
    (0..count).map(|i| (draw(i) >> 8) as f32 / 64.0 - 131_072.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rows_are_altered_and_no_others(width in 4usize..600, first in 0usize..3, rows in 1usize..4, seed: u32) {
        let device = emulator::device(&["alter"]);
        let all = first + rows + 1;
        let (x, other) = (draws(all * width, seed), draws(all * width, !seed));
        let within = |i: usize| (first..first + rows).contains(&(i / width));
        let (from, count) = (width / 4, width / 2);
        let launch = |kernel, columns: usize, args: &[attnscope::backend::cuda::device::Arg]| {
            let grid = [columns.div_ceil(64) as u32, rows as u32, 1];
            device.launch(Launch { kernel, grid, block: [64, 1, 1], shared: 0, args }).unwrap();
        };
        let (width_arg, first_arg) = ((width as i32).into(), (first as i32).into());

        let a = Memory::of(&device, &x).unwrap();
        launch("alter_set", count, &[a.arg(), width_arg, first_arg, (from as i32).into(), (count as i32).into(), 7.5f32.into()]);
        let set = |i: usize| if within(i) && (from..from + count).contains(&(i % width)) { 7.5 } else { x[i] };
        prop_assert_eq!(a.read(0, all * width).unwrap(), (0..all * width).map(set).collect::<Vec<f32>>());

        for half in [1, 0] {
            let a = Memory::of(&device, &x).unwrap();
            launch("alter_round", width, &[a.arg(), width_arg, first_arg, half.into()]);
            let short = |x: f32| if half == 1 { f16::from_f32(x).to_f32() } else { bf16::from_f32(x).to_f32() };
            let rounded = |i: usize| if within(i) { short(x[i]) } else { x[i] };
            prop_assert_eq!(a.read(0, all * width).unwrap(), (0..all * width).map(rounded).collect::<Vec<f32>>());
        }

        let (a, b) = (Memory::of(&device, &x).unwrap(), Memory::of(&device, &other).unwrap());
        launch("alter_copy", width, &[a.arg(), b.arg(), width_arg, first_arg]);
        let copied = |i: usize| if within(i) { x[i] } else { other[i] };
        prop_assert_eq!(b.read(0, all * width).unwrap(), (0..all * width).map(copied).collect::<Vec<f32>>());

        for by in [0.0f32, 0.25] {
            let (a, b) = (Memory::of(&device, &x).unwrap(), Memory::of(&device, &other).unwrap());
            launch("alter_between", width, &[a.arg(), b.arg(), width_arg, first_arg, by.into()]);
            let between = |i: usize| match (within(i), by) {
                (false, _) => x[i],
                (true, 0.0) => other[i],
                (true, by) => by.mul_add(x[i] - other[i], other[i]),
            };
            prop_assert_eq!(a.read(0, all * width).unwrap(), (0..all * width).map(between).collect::<Vec<f32>>());
        }
    }
}
