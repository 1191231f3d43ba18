//! kernels/product.cu, against weights that candle decodes and sums in f64.

use std::sync::Arc;

use attnscope::backend::cuda::device::{Device, Launch};
use attnscope::backend::cuda::memory::Memory;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QTensor};
use half::f16;
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::emulator;

/// By number of `Format`.
pub const FORMATS: [GgmlDType; 8] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q8_0,
    GgmlDType::Q4K,
    GgmlDType::Q6K,
];

pub struct Weights {
    pub bytes: Vec<u8>,
    /// [outs, in]
    pub values: Vec<f32>,
}

/// Any bytes, but for scales: those are numbers from 2^-7 to 2^-5 of either sign.
pub fn weights(rng: &mut StdRng, format: usize, outs: usize, width: usize) -> Weights {
    let kind = FORMATS[format];
    let count = outs * width / kind.block_size();
    let mut bytes: Vec<u8> = (0..count * kind.type_size()).map(|_| rng.random()).collect();
    let mut number = || rng.random_range(1.0..4.0f32) / 128.0 * if rng.random() { 1.0 } else { -1.0 };
    for block in bytes.chunks_mut(kind.type_size()) {
        let scales: &[usize] = match kind {
            GgmlDType::F32 => {
                block.copy_from_slice(&number().to_le_bytes());
                &[]
            }
            GgmlDType::BF16 => {
                block.copy_from_slice(&half::bf16::from_f32(number()).to_le_bytes());
                &[]
            }
            GgmlDType::Q4_1 | GgmlDType::Q4K => &[0, 2],
            GgmlDType::Q6K => &[208],
            _ => &[0],
        };
        for &at in scales {
            block[at..at + 2].copy_from_slice(&f16::from_f32(number()).to_le_bytes());
        }
    }
    let cpu = candle_core::Device::Cpu;
    let values = match kind {
        GgmlDType::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        GgmlDType::F16 => bytes.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        GgmlDType::BF16 => bytes.chunks(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => {
            let tensor: QTensor = qtensor_from_ggml(kind, &bytes, vec![outs, width], &cpu).expect("blocks");
            tensor.dequantize(&cpu).and_then(|t| t.flatten_all()?.to_vec1()).expect("numbers")
        }
    };
    Weights { bytes, values }
}

/// A width that a format allows: `units` of its blocks, or so many numbers.
pub fn width(format: usize, units: usize) -> usize {
    match format {
        0..3 => units,
        3..6 => units.div_ceil(32) * 32,
        _ => units.div_ceil(256) * 256,
    }
}

pub fn activations(rng: &mut StdRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
}

/// x · w and Σ|x · w|.
pub fn dot(x: &[f32], w: &[f32]) -> (f64, f64) {
    let products = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64);
    products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
}

pub struct Case {
    format: usize,
    width: usize,
    pub outs: usize,
    x: Vec<f32>,
    weights: Weights,
    bias: Option<Vec<f32>>,
    add: bool,
}

/// Columns before and behind the product in `out`.
pub const BEFORE: usize = 3;
pub const BEHIND: usize = 2;

pub fn case(format: usize, units: usize, outs: usize, rows: usize, biased: bool, add: bool, seed: u64) -> Case {
    let mut rng = StdRng::seed_from_u64(seed);
    let width = width(format, units);
    let weights = weights(&mut rng, format, outs, width);
    let x = activations(&mut rng, rows * width);
    let bias = biased.then(|| activations(&mut rng, outs));
    Case { format, width, outs, x, weights, bias, add }
}

impl Case {
    /// Rows `first` … `first + rows`.
    pub fn run(&self, device: &Arc<dyn Device>, kernel: &'static str, first: usize, rows: usize) -> Vec<f32> {
        let x = Memory::of(device, &self.x[first * self.width..][..rows * self.width]).unwrap();
        let weights = Memory::of(device, &self.weights.bytes).unwrap();
        let bias = self.bias.as_ref().map(|bias| Memory::of(device, bias).unwrap());
        let across = BEFORE + self.outs + BEHIND;
        let out = Memory::of(device, &vec![0.5f32; rows * across]).unwrap();
        let int = |x: usize| (x as i32).into();
        let no_bias = attnscope::backend::cuda::device::Arg::Pointer(0);
        let args = [
            x.arg(),
            int(rows),
            int(self.width),
            weights.arg(),
            int(self.format),
            int(self.outs),
            bias.as_ref().map_or(no_bias, Memory::arg),
            out.arg(),
            int(across),
            int(BEFORE),
            int(self.add as usize),
        ];
        let (tile, block, shared) = match kernel {
            "product_many" => ([64, 64], 256, 0),
            "product_tensor_32" => ([64, 32], 128, 24576),
            "product_tensor_128" => ([128, 128], 256, 65536),
            _ => ([4, 16], 128, 0),
        };
        let grid = [self.outs.div_ceil(tile[0]) as u32, rows.div_ceil(tile[1]) as u32, 1];
        device.launch(Launch { kernel, grid, block: [block, 1, 1], shared, args: &args }).unwrap();
        out.read(0, rows * across).unwrap()
    }

    /// f32: what a lane sums one after another is at most 2048 / 1024 · 8 numbers in product_*, then 5 + 4 sums of sums,
    /// each off by 2^-24 of at most Σ|x·w|; 2048 numbers in product_many, where errors of either sign meet; in
    /// product_tensor_* 2^-21 from the split and 256 sums. The bias is at most 2, what is added to 0.5.
    pub fn check(&self, out: &[f32]) {
        let across = BEFORE + self.outs + BEHIND;
        for (r, row) in out.chunks(across).enumerate() {
            for (column, &found) in row.iter().enumerate() {
                let Some(o) = column.checked_sub(BEFORE).filter(|o| *o < self.outs) else {
                    assert_eq!(found, 0.5, "row {r} column {column} is not its own");
                    continue;
                };
                let at = |x: &[f32], i: usize| x[i * self.width..][..self.width].to_vec();
                let (sum, size) = dot(&at(&self.x, r), &at(&self.weights.values, o));
                let bias = self.bias.as_ref().map_or(0.0, |bias| bias[o] as f64);
                let expected = sum + bias + if self.add { 0.5 } else { 0.0 };
                let off = (found as f64 - expected).abs();
                let may = (size + bias.abs() + 0.5) * 2f64.powi(-20);
                assert!(off <= may, "row {r} of output {o}: {found}, not {expected}; off by {off:e}, may be {may:e}");
            }
        }
    }
}

fn kernel(rows: usize) -> &'static str {
    match rows {
        1 => "product_1",
        2 => "product_2",
        3..=4 => "product_4",
        5..=8 => "product_8",
        9..=16 => "product_16",
        _ => "product_many",
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn few_rows(format in 0usize..8, units in 1usize..2049, outs in 1usize..70, rows in 1usize..17, biased: bool, add: bool, seed: u64) {
        let case = case(format, units, outs, rows, biased, add, seed);
        case.check(&case.run(&emulator::device(&["product"]), kernel(rows), 0, rows));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn many_rows(format in 0usize..8, units in 1usize..700, outs in 1usize..140, rows in 17usize..81, biased: bool, add: bool, seed: u64) {
        let case = case(format, units, outs, rows, biased, add, seed);
        case.check(&case.run(&emulator::device(&["product"]), "product_many", 0, rows));
    }
}

#[test]
fn every_format_at_its_shapes() {
    let device = emulator::device(&["product"]);
    for format in 0..8 {
        for (units, outs, rows) in [(32, 1, 1), (2048, 300, 1), (1, 5, 2), (1027, 6, 3), (1056, 7, 4), (300, 9, 16)] {
            let case = case(format, units, outs, rows, false, false, format as u64);
            case.check(&case.run(&device, kernel(rows), 0, rows));
        }
        for (units, outs, rows) in [(1, 1, 17), (2048, 65, 65), (291, 64, 64)] {
            let case = case(format, units, outs, rows, true, true, format as u64);
            case.check(&case.run(&device, "product_many", 0, rows));
        }
    }
}

/// A lane's numbers are the same bits, whichever other lanes run beside it.
#[test]
fn rows_do_not_see_each_other() {
    let device = emulator::device(&["product"]);
    for (format, units) in (0..8).map(|format| (format, 1500)).chain([(1, 1501)]) {
        let case = case(format, units, 6, 70, true, false, 7);
        let across = BEFORE + case.outs + BEHIND;
        let all = case.run(&device, "product_16", 0, 16);
        for (first, rows) in [(0, 1), (15, 1), (3, 2), (5, 3), (8, 8), (2, 5)] {
            let found = case.run(&device, kernel(rows), first, rows);
            assert_eq!(found, all[first * across..][..rows * across], "{rows} rows from {first} on, format {format}");
        }
        let all = case.run(&device, "product_many", 0, 70);
        assert_eq!(case.run(&device, "product_many", 65, 5), all[65 * across..], "many rows, format {format}");
    }
}
