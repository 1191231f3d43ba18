//! Against candle's own decoding of the blocks, and every instruction set and split against each other.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use proptest::prelude::*;

use super::super::*;
use super::{Random, bits, vector_isas};
use crate::model::tensor::{Bytes, DType, Tensor};

/// (format, the same for candle, where a block holds half floats)
const FORMATS: [(DType, GgmlDType, &[usize]); 8] = [
    (DType::Q4_0, GgmlDType::Q4_0, &[0]),
    (DType::Q4_1, GgmlDType::Q4_1, &[0, 2]),
    (DType::Q5_0, GgmlDType::Q5_0, &[0]),
    (DType::Q5_1, GgmlDType::Q5_1, &[0, 2]),
    (DType::Q8_0, GgmlDType::Q8_0, &[0]),
    (DType::Q4K, GgmlDType::Q4K, &[0, 2]),
    (DType::Q5K, GgmlDType::Q5K, &[0, 2]),
    (DType::Q6K, GgmlDType::Q6K, &[208]),
];

/// Blocks of random bits, so that no bit of any field goes untested, with scales of a tame size.
fn random_tensor(format: usize, rows: usize, cols: usize, random: &mut Random) -> Tensor {
    let (dtype, _, halves) = FORMATS[format];
    let (_, block) = dtype.block();
    let mut bytes: Vec<u8> = (0..dtype.bytes(rows, cols).unwrap()).map(|_| random.bits() as u8).collect();
    for block in bytes.chunks_mut(block) {
        for at in halves {
            let half = half::f16::from_f32(random.unit() * 0.05);
            block[*at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
    }
    Tensor { name: dtype.name().into(), dtype, rows, cols, bytes: Bytes::Owned(bytes.into()) }
}

/// Decoded by candle, [rows][cols].
fn decode(tensor: &Tensor) -> Vec<Vec<f32>> {
    let (_, ggml, _) = FORMATS.iter().find(|f| f.0 == tensor.dtype).unwrap();
    let device = candle_core::Device::Cpu;
    let q = qtensor_from_ggml(*ggml, tensor.data(), vec![tensor.rows, tensor.cols], &device).unwrap();
    q.dequantize(&device).unwrap().to_vec2().unwrap()
}

fn pack(parts: &[&Tensor]) -> Result<PackedMatrix, PackError> {
    PackedMatrix::pack(parts, &mut WeightMemory::new())
}

fn quantized(x: &[Vec<f32>], isa: Isa) -> QuantizedRows {
    let mut rows = QuantizedRows::new(x.len(), x[0].len());
    for (m, x) in x.iter().enumerate() {
        rows.quantize_row(m, x, isa);
    }
    rows
}

/// All of x · wᵀ, [m][padded rows].
fn product(w: &PackedMatrix, x: &QuantizedRows, isa: Isa) -> Vec<Vec<f32>> {
    let mut result = vec![vec![f32::NAN; w.tiles() * TILE]; x.rows()];
    matmul(w, x, 0..x.rows(), 0..w.tiles(), isa, &mut |tile, row, values| {
        for (m, values) in values.iter().enumerate() {
            result[row + m][tile * TILE..][..TILE].copy_from_slice(values);
        }
    });
    result
}

#[test]
fn products_are_close_to_those_of_candles_decoding() {
    for format in 0..FORMATS.len() {
        let mut random = Random(7 + format as u64);
        let w = random_tensor(format, 37, 512, &mut random);
        let x: Vec<Vec<f32>> = (0..11).map(|_| random.row(512)).collect();
        let packed = pack(&[&w]).unwrap();
        let got = product(&packed, &quantized(&x, Isa::detect()), Isa::detect());
        let decoded = decode(&w);
        for (x, got) in x.iter().zip(&got) {
            for (row, weights) in decoded.iter().enumerate() {
                let exact: f64 = x.iter().zip(weights).map(|(x, w)| *x as f64 * *w as f64).sum();
                // Rounding moves each x by at most half a step of at most 1/127: as independent errors, six sigma.
                let step = 1.0 / 127.0 / 12f64.sqrt();
                let norm = weights.iter().map(|w| (*w as f64).powi(2)).sum::<f64>().sqrt();
                let error = (got[row] as f64 - exact).abs();
                assert!(error <= 6.0 * step * norm, "{} row {row}: {} for {exact}", w.name, got[row]);
            }
            assert!(got[37..].iter().all(|v| *v == 0.0), "padding is not zero");
        }
    }
}

/// Without rounding of x (integers up to 127 in each block) only f32 summation is left.
#[test]
fn products_of_exact_activations_are_exact_to_f32() {
    for format in 0..FORMATS.len() {
        let mut random = Random(70 + format as u64);
        let w = random_tensor(format, 16, 768, &mut random);
        let mut x: Vec<f32> = (0..768).map(|_| (random.unit() * 127.0).round()).collect();
        x.iter_mut().step_by(32).for_each(|v| *v = -127.0);
        let packed = pack(&[&w]).unwrap();
        for isa in Isa::ALL {
            let got = product(&packed, &quantized(std::slice::from_ref(&x), isa), isa);
            for (row, weights) in decode(&w).iter().enumerate() {
                let exact: f64 = x.iter().zip(weights).map(|(x, w)| *x as f64 * *w as f64).sum();
                let size: f64 = x.iter().zip(weights).map(|(x, w)| (*x as f64 * *w as f64).abs()).sum();
                let error = (got[0][row] as f64 - exact).abs();
                assert!(error <= 1e-6 * size, "{} {isa} row {row}: {} for {exact}", w.name, got[0][row]);
            }
        }
    }
}

/// Largest weights against largest activations, all of one sign: nothing may saturate.
#[test]
fn extreme_values_do_not_overflow() {
    for (format, (dtype, _, halves)) in FORMATS.iter().enumerate() {
        for (fill, sign) in [(0xff, 1.0), (0x00, 1.0), (0x80, -1.0), (0x7f, 1.0), (0x7f, -1.0), (0xff, -1.0)] {
            let mut bytes = vec![fill; dtype.bytes(16, 512).unwrap()];
            for block in bytes.chunks_mut(dtype.block().1) {
                for at in *halves {
                    block[*at..at + 2].copy_from_slice(&half::f16::ONE.to_le_bytes());
                }
            }
            let w = Tensor {
                name: format!("{format}"),
                dtype: *dtype,
                rows: 16,
                cols: 512,
                bytes: Bytes::Owned(bytes.into()),
            };
            let packed = pack(&[&w]).unwrap();
            let x = vec![sign; 512];
            let exact: f64 = decode(&w)[3].iter().map(|w| *w as f64 * sign as f64).sum();
            for isa in Isa::ALL {
                for m in [1, 5] {
                    let got = product(&packed, &quantized(&vec![x.clone(); m], isa), isa);
                    let error = (got[m - 1][3] as f64 - exact).abs();
                    assert!(error <= 1e-5 * exact.abs().max(1.0), "{dtype} {isa}: {} for {exact}", got[m - 1][3]);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn all_instruction_sets_give_the_same_bits(
        format in 0..FORMATS.len(), seed: u64, tiles in 1usize..4, blocks in 1usize..60, m in 1usize..20,
    ) {
        let mut random = Random(seed);
        let columns = FORMATS[format].0.block().0;
        let cols = if columns == 32 { blocks * 32 } else { blocks.div_ceil(8) * 256 };
        let rows = tiles * 16 - seed as usize % 16;
        let w = pack(&[&random_tensor(format, rows, cols, &mut random)]).unwrap();
        let scale = 10f32.powi((seed % 30) as i32 - 20);
        let x: Vec<Vec<f32>> = (0..m).map(|_| random.row(cols).iter().map(|v| v * scale).collect()).collect();
        let reference = bits(&product(&w, &quantized(&x, Isa::Portable), Isa::Portable));
        for &isa in vector_isas() {
            prop_assert_eq!(&reference, &bits(&product(&w, &quantized(&x, isa), isa)), "{}", isa);
        }
    }

    #[test]
    fn no_split_changes_a_bit(format in 0..FORMATS.len(), seed: u64, m in 1usize..140, tile in 0usize..5) {
        let mut random = Random(seed);
        let cols = 1024;
        let w = pack(&[&random_tensor(format, 80, cols, &mut random)]).unwrap();
        let x: Vec<Vec<f32>> = (0..m).map(|_| random.row(cols)).collect();
        let isa = Isa::detect();
        let x = quantized(&x, isa);
        let whole = bits(&product(&w, &x, isa));
        let row = seed as usize % m;
        let mut single = Vec::new();
        matmul(&w, &x, row..row + 1, tile..tile + 1, isa, &mut |t, r, values| single.push((t, r, values.to_vec())));
        let expected: Vec<u32> = whole[row][tile * TILE..][..TILE].to_vec();
        prop_assert_eq!(single.len(), 1);
        let (t, r, values) = &single[0];
        prop_assert_eq!((*t, *r), (tile, row));
        prop_assert_eq!(values[0].map(f32::to_bits).to_vec(), expected);
    }

    #[test]
    fn activations_are_quantized_alike_and_within_half_a_step(seed: u64, exponent in -44i32..38, blocks in 1usize..9) {
        let mut random = Random(seed);
        let x: Vec<f32> = random.row(blocks * 32).iter().map(|v| v * 10f32.powi(exponent)).collect();
        let reference = quantized(std::slice::from_ref(&x), Isa::Portable);
        for (b, block) in reference.row(0).iter().enumerate() {
            let x = &x[b * 32..][..32];
            let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            let q = block.q.as_flattened();
            prop_assert_eq!(block.sum, q.iter().map(|q| *q as i32).sum::<i32>() as f32);
            prop_assert_eq!(block.half_sums[1], q[16..].iter().map(|q| *q as i32).sum::<i32>() as f32);
            for (x, q) in x.iter().zip(q) {
                prop_assert!((x - block.d * *q as f32).abs() <= largest / 127.0 * 0.501 + 2e-36);
            }
        }
        for &isa in vector_isas() {
            let other = quantized(std::slice::from_ref(&x), isa);
            for (a, b) in reference.row(0).iter().zip(other.row(0)) {
                prop_assert_eq!((a.d.to_bits(), a.sum, a.half_sums, a.q), (b.d.to_bits(), b.sum, b.half_sums, b.q));
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_reach_the_product() {
    let mut random = Random(3);
    let w = pack(&[&random_tensor(1, 16, 64, &mut random)]).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
        let mut x = random.row(64);
        x[40] = bad;
        for isa in Isa::ALL {
            let got = product(&w, &quantized(std::slice::from_ref(&x), isa), isa);
            assert!(got[0].iter().all(|v| !v.is_finite()), "{bad} with {isa}: {:?}", got[0]);
        }
    }
}

#[test]
fn stacked_and_interleaved_rows_are_the_parts_rows() {
    let mut random = Random(5);
    let isa = Isa::detect();
    let a = random_tensor(1, 40, 96, &mut random);
    let b = random_tensor(1, 40, 96, &mut random);
    let x = quantized(&[random.row(96), random.row(96)], isa);
    let alone = [&a, &b].map(|t| product(&pack(&[t]).unwrap(), &x, isa));

    let stacked = pack(&[&a, &b]).unwrap();
    assert_eq!((stacked.rows(), stacked.tiles()), (80, 5));
    let interleaved = PackedMatrix::pack_interleaved(&a, &b, &mut WeightMemory::new()).unwrap();
    assert_eq!(interleaved.tiles(), 6);
    let (stacked, interleaved) = (product(&stacked, &x, isa), product(&interleaved, &x, isa));
    for m in 0..2 {
        for row in 0..40 {
            let (tile, lane) = (row / TILE, row % TILE);
            for part in 0..2 {
                let expected = alone[part][m][row].to_bits();
                assert_eq!(stacked[m][part * 40 + row].to_bits(), expected);
                assert_eq!(interleaved[m][(tile * 2 + part) * TILE + lane].to_bits(), expected);
            }
        }
    }
}

#[test]
fn what_cannot_be_packed_says_why() {
    let mut random = Random(9);
    let a = random_tensor(1, 16, 64, &mut random);
    let b = random_tensor(0, 16, 64, &mut random);
    let short = Tensor { bytes: Bytes::Owned(Arc::from(&a.data()[..100])), ..a.clone() };
    let hollow = Tensor { rows: usize::MAX, cols: 0, bytes: Bytes::Owned(Arc::from([])), ..a.clone() };
    let float = Tensor { dtype: DType::F32, cols: 1, rows: 1, bytes: Bytes::Owned(Arc::from([0u8; 4])), ..a.clone() };
    assert!(matches!(pack(&[]), Err(PackError::Empty)));
    assert!(matches!(pack(&[&a, &b]), Err(PackError::Mixed { .. })));
    assert!(matches!(pack(&[&short]), Err(PackError::Size { found: 100, .. })));
    assert!(matches!(pack(&[&hollow]), Err(PackError::Size { found: 0, .. })));
    assert!(matches!(pack(&[&float]), Err(PackError::NotQuantized { .. })));
}
