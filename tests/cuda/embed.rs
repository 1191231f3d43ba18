//! kernels/embed.cu and, through it, kernels/blocks.cuh

use attnscope::backend::cuda::device::{Arg, Launch};
use attnscope::backend::cuda::memory::Memory;
use half::{bf16, f16};
use proptest::prelude::*;

use super::emulator;

/// Numbers and bytes of a block of each format.
const BLOCKS: [(usize, usize); 8] = [(1, 4), (1, 2), (1, 2), (32, 18), (32, 20), (32, 34), (256, 144), (256, 210)];

struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn scale(&mut self) -> f32 {
        self.next() as f32 / 2f32.powi(31) - 1.0
    }
}

/// Random bytes of `blocks` blocks, but for their scales (f16, −1 … 1) and for floats, which are finite.
fn blocks(format: usize, blocks: usize, draw: &mut Draw) -> Vec<u8> {
    let (_, bytes) = BLOCKS[format];
    let mut all: Vec<u8> = (0..blocks * bytes).map(|_| draw.next() as u8).collect();
    for block in all.chunks_mut(bytes) {
        let scales: &[usize] = [&[][..], &[], &[], &[0], &[0, 2], &[0], &[0, 2], &[208]][format];
        for &at in scales {
            block[at..at + 2].copy_from_slice(&f16::from_f32(draw.scale()).to_le_bytes());
        }
        match format {
            0 => block.copy_from_slice(&draw.scale().to_le_bytes()),
            1 => block.copy_from_slice(&f16::from_f32(draw.scale()).to_le_bytes()),
            2 => block.copy_from_slice(&bf16::from_f32(draw.scale()).to_le_bytes()),
            _ => {}
        }
    }
    all
}

/// The numbers of one block, as ggml defines them, in f64; and what their terms add up to without signs.
fn numbers(format: usize, block: &[u8]) -> Vec<(f64, f64)> {
    let scale = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f64();
    let single = |x: f64| vec![(x, x.abs())];
    let product = |x: f64| (x, x.abs());
    match format {
        0 => single(f32::from_le_bytes(block.try_into().unwrap()) as f64),
        1 => single(scale(0)),
        2 => single(bf16::from_le_bytes([block[0], block[1]]).to_f64()),
        3 | 4 => {
            let codes = &block[if format == 3 { 2 } else { 4 }..];
            let code = |i: usize| if i < 16 { codes[i] & 15 } else { codes[i - 16] >> 4 } as f64;
            let value = |i: usize| match format {
                3 => product((code(i) - 8.0) * scale(0)),
                _ => (code(i) * scale(0) + scale(2), (code(i) * scale(0)).abs() + scale(2).abs()),
            };
            (0..32).map(value).collect()
        }
        5 => (0..32).map(|i| product(block[2 + i] as i8 as f64 * scale(0))).collect(),
        6 => {
            // 6-bit numbers: scales 0 … 3, minima 0 … 3, scales 4 … 7, minima 4 … 7; the latter in nibbles and in the two
            // bits that the former leave
            let packed = &block[4..16];
            let six = |i: usize| match i {
                0..8 => packed[i] & 63,
                8..12 => (packed[i] & 15) | (packed[i - 8] >> 6) << 4,
                _ => (packed[i - 4] >> 4) | (packed[i - 8] >> 6) << 4,
            };
            let of = |part: usize| if part < 4 { (six(part), six(part + 4)) } else { (six(part + 4), six(part + 8)) };
            let value = |i: usize| {
                let (part, byte) = (i / 32, block[16 + i / 64 * 32 + i % 32]);
                let code = if part % 2 == 0 { byte & 15 } else { byte >> 4 };
                let (by, less) = (of(part).0 as f64 * scale(0) * code as f64, of(part).1 as f64 * scale(2));
                (by - less, by.abs() + less.abs())
            };
            (0..256).map(value).collect()
        }
        _ => {
            let value = |i: usize| {
                let (half, in_half) = (i / 128, i % 128);
                let low = block[half * 64 + in_half % 64] >> (in_half / 64 * 4) & 15;
                let high = block[128 + half * 32 + in_half % 32] >> (in_half / 32 * 2) & 3;
                let by = block[192 + i / 16] as i8 as f64 * scale(208);
                product(by * ((low | high << 4) as f64 - 32.0))
            };
            (0..256).map(value).collect()
        }
    }
}

fn matrix(format: usize, bytes: &[u8]) -> Vec<(f64, f64)> {
    bytes.chunks(BLOCKS[format].1).flat_map(|block| numbers(format, block)).collect()
}

/// A width that the format can have: any for floats, whole blocks else.
fn width(format: usize, wish: usize) -> usize {
    let (each, _) = BLOCKS[format];
    wish.div_ceil(each) * each
}

/// What the tests compare with is what the CPU's decoder, which others wrote, makes of the same bytes.
#[test]
fn definitions_are_those_of_candle() {
    use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
    let types = [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::Q6K];
    for (format, dtype) in (3..).zip(types) {
        let bytes = blocks(format, 40, &mut Draw(format as u64));
        let width = 40 * BLOCKS[format].0;
        let tensor = qtensor_from_ggml(dtype, &bytes, vec![1, width], &candle_core::Device::Cpu).unwrap();
        let decoded = tensor.dequantize(&candle_core::Device::Cpu).unwrap().flatten_all().unwrap();
        let decoded = decoded.to_vec1::<f32>().unwrap();
        assert_eq!(decoded.len(), width);
        for (found, (x, terms)) in decoded.into_iter().zip(matrix(format, &bytes)) {
            assert!((found as f64 - x).abs() <= 2.5e-7 * terms, "{dtype:?}: {found} {x}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_of_a_table(
        format in 0usize..8, wish in prop_oneof![1usize..40, 1usize..3000], vocab in 1usize..12,
        tokens in prop::collection::vec(0u32..14, 1..10), scale in 0.1f32..80.0, seed: u64,
    ) {
        let device = emulator::device(&["embed"]);
        let width = width(format, wish);
        let bytes = blocks(format, vocab * width / BLOCKS[format].0, &mut Draw(seed));
        let table = Memory::of(&device, &bytes).unwrap();
        let rows = Memory::of(&device, &tokens).unwrap();
        let out = Memory::<f32>::new(&device, tokens.len() * width).unwrap();
        let args = [table.arg(), (format as i32).into(), (vocab as i32).into(), (width as i32).into(), rows.arg(),
            scale.into(), out.arg()];
        let grid = [width.div_ceil(8 * 64) as u32, tokens.len() as u32, 1];
        device.launch(Launch { kernel: "embed", grid, block: [64, 1, 1], shared: 0, args: &args }).unwrap();
        let expected = matrix(format, &bytes);
        for (i, found) in out.read(0, out.len()).unwrap().into_iter().enumerate() {
            let token = tokens[i / width] as usize;
            // a token beyond the table is zero
            let (x, terms) = if token < vocab { expected[token * width + i % width] } else { (0.0, 0.0) };
            // at most two products and a sum in f32 before the scale: half a unit of 2^-23 each
            prop_assert!((found as f64 - x * scale as f64).abs() <= 2.5e-7 * terms * scale as f64, "{} {}", found, x);
        }
    }

    #[test]
    fn whole_matrices(format in 0usize..8, wish in prop_oneof![1usize..40, 1usize..3000], rows in 1usize..10, kind in 0i32..3, seed: u64) {
        let device = emulator::device(&["embed"]);
        let width = width(format, wish);
        let bytes = blocks(format, rows * width / BLOCKS[format].0, &mut Draw(seed));
        let weights = Memory::of(&device, &bytes).unwrap();
        let launch = |out: Arg| {
            let args = [weights.arg(), (format as i32).into(), (rows as i32).into(), (width as i32).into(), kind.into(), out];
            let grid = [(rows * width.div_ceil(8)).div_ceil(96) as u32, 1, 1];
            device.launch(Launch { kernel: "dequantize", grid, block: [96, 1, 1], shared: 0, args: &args }).unwrap();
        };
        let found: Vec<f64> = if kind == 0 {
            let out = Memory::<f32>::new(&device, rows * width).unwrap();
            launch(out.arg());
            out.read(0, out.len()).unwrap().into_iter().map(f64::from).collect()
        } else {
            let out = Memory::<u16>::new(&device, rows * width).unwrap();
            launch(out.arg());
            let number = |bits| if kind == 1 { f16::from_bits(bits).to_f64() } else { bf16::from_bits(bits).to_f64() };
            out.read(0, out.len()).unwrap().into_iter().map(number).collect()
        };
        // f32: as above; f16 and bf16: half a unit in the last place, below the smallest normal f16 2^-25
        let (relative, absolute) = [(0.0, 0.0), (2f64.powi(-11), 2f64.powi(-25)), (2f64.powi(-8), 0.0)][kind as usize];
        for (found, (x, terms)) in found.into_iter().zip(matrix(format, &bytes)) {
            prop_assert!((found - x).abs() <= 2.5e-7 * terms + relative * x.abs() + absolute, "{} {}", found, x);
        }
    }
}
