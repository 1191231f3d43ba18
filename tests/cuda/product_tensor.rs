//! kernels/product_tensor.cu, against weights that candle decodes and sums in f64; kernels/mma.cuh is emulated.

use proptest::prelude::*;

use super::emulator;
use super::product::{BEFORE, BEHIND, case};

const BOTH: [&str; 2] = ["product_tensor_32", "product_tensor_128"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_shapes(format in 0usize..8, units in 1usize..600, outs in 1usize..200, rows in 1usize..140, biased: bool, add: bool, large: bool, seed: u64) {
        let case = case(format, units, outs, rows, biased, add, seed);
        case.check(&case.run(&emulator::device(&["product_tensor"]), BOTH[large as usize], 0, rows));
    }
}

#[test]
fn every_format_at_its_shapes() {
    let device = emulator::device(&["product_tensor"]);
    for format in 0..8 {
        for (units, outs, rows) in [(1, 1, 1), (2048, 65, 33), (291, 64, 32)] {
            let case = case(format, units, outs, rows, true, true, format as u64);
            case.check(&case.run(&device, BOTH[0], 0, rows));
        }
        for (units, outs, rows) in [(1027, 9, 129), (100, 128, 128)] {
            let case = case(format, units, outs, rows, false, false, format as u64);
            case.check(&case.run(&device, BOTH[1], 0, rows));
        }
    }
}

/// A row's numbers are the same bits with either tile and whichever other rows run beside it.
#[test]
fn rows_do_not_see_each_other() {
    let device = emulator::device(&["product_tensor"]);
    for format in 0..8 {
        let case = case(format, 500, 6, 70, true, false, 7);
        let across = BEFORE + case.outs + BEHIND;
        let all = case.run(&device, BOTH[1], 0, 70);
        for (kernel, first, rows) in [(BOTH[0], 0, 70), (BOTH[0], 65, 5), (BOTH[1], 33, 20)] {
            let found = case.run(&device, kernel, first, rows);
            assert_eq!(found, all[first * across..][..rows * across], "{rows} rows from {first} on, format {format}");
        }
    }
}
