//! Against a product in f64, and every instruction set and split against each other.

use proptest::prelude::*;

use super::super::*;
use super::{Random, bits, vector_isas};
use crate::model::tensor::{Bytes, DType, Tensor};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The stored tensor, and its values after rounding to the type.
fn random_floats(dtype: DType, rows: usize, cols: usize, random: &mut Random) -> (Tensor, Vec<Vec<f32>>) {
    let mut bytes = Vec::new();
    let mut values = vec![vec![0.0; cols]; rows];
    for value in values.iter_mut().flatten() {
        let v = random.unit();
        match dtype {
            DType::F16 => {
                let stored = half::f16::from_f32(v);
                bytes.extend(stored.to_le_bytes());
                *value = stored.to_f32();
            }
            DType::BF16 => {
                let stored = half::bf16::from_f32(v);
                bytes.extend(stored.to_le_bytes());
                *value = stored.to_f32();
            }
            _ => {
                bytes.extend(v.to_le_bytes());
                *value = v;
            }
        }
    }
    (Tensor { name: dtype.name().into(), dtype, rows, cols, bytes: Bytes::Owned(bytes.into()) }, values)
}

/// x [m][cols] · wᵀ, [m][padded rows].
fn product(w: &FloatMatrix, x: &[Vec<f32>], isa: Isa) -> Vec<Vec<f32>> {
    let mut result = vec![vec![f32::NAN; w.tiles() * TILE]; x.len()];
    matmul_float(w, &x.concat(), 0..x.len(), 0..w.tiles(), isa, &mut |tile, row, values| {
        for (m, values) in values.iter().enumerate() {
            result[row + m][tile * TILE..][..TILE].copy_from_slice(values);
        }
    });
    result
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn products_are_right_and_the_same_bits_everywhere(
        dtype in 0..3usize, seed: u64, rows in 1usize..70, cols in 1usize..300, m in 1usize..70,
    ) {
        let mut random = Random(seed);
        let (tensor, weights) = random_floats(FLOATS[dtype], rows, cols, &mut random);
        let w = FloatMatrix::new(&tensor).unwrap();
        let x: Vec<Vec<f32>> = (0..m).map(|_| random.row(cols)).collect();
        let reference = product(&w, &x, Isa::Portable);
        for (x, result) in x.iter().zip(&reference) {
            for (weights, got) in weights.iter().zip(result) {
                let exact: f64 = x.iter().zip(weights).map(|(x, w)| *x as f64 * *w as f64).sum();
                let size: f64 = x.iter().zip(weights).map(|(x, w)| (*x as f64 * *w as f64).abs()).sum();
                prop_assert!((*got as f64 - exact).abs() <= 1e-6 * size, "{} for {}", got, exact);
            }
            prop_assert!(result[rows..].iter().all(|v| *v == 0.0), "padding is not zero");
        }
        for &isa in vector_isas() {
            prop_assert_eq!(bits(&reference), bits(&product(&w, &x, isa)), "{}", isa);
        }
        let (row, tile) = (seed as usize % m, seed as usize % w.tiles());
        let mut single = Vec::new();
        matmul_float(&w, &x.concat(), row..row + 1, tile..tile + 1, Isa::detect(), &mut |t, r, values| {
            single.push((t, r, values.to_vec()))
        });
        prop_assert_eq!(single.len(), 1);
        prop_assert_eq!((single[0].0, single[0].1), (tile, row));
        let expected: Vec<u32> = reference[row][tile * TILE..][..TILE].iter().map(|v| v.to_bits()).collect();
        prop_assert_eq!(single[0].2[0].map(f32::to_bits).to_vec(), expected);
    }
}

#[test]
fn what_is_no_float_matrix_says_why() {
    let mut random = Random(11);
    let (float, _) = random_floats(DType::F16, 3, 5, &mut random);
    let short = Tensor { rows: 4, ..float.clone() };
    let quantized = Tensor { dtype: DType::Q8_0, ..float };
    assert!(matches!(FloatMatrix::new(&short), Err(FloatMatrixError::Size { found: 30, .. })));
    assert!(matches!(FloatMatrix::new(&quantized), Err(FloatMatrixError::Quantized { .. })));
}
