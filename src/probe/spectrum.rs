//! How many dimensions cached keys and values really use: singular values of a matrix with one row per token.

use nalgebra::DMatrix;

/// Shares of the energy Σ σ² that [`Spectrum::ranks`] are for.
pub const ENERGIES: [f64; 3] = [0.90, 0.95, 0.99];

/// Singular values of a matrix [rows, width], and what they come to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Spectrum {
    /// σ, the largest first [min(rows, width)].
    pub singular: Vec<f32>,
    /// exp of the entropy of σ / Σ σ (Roy & Vetterli 2007): r for r equal ones.
    pub effective_rank: f32,
    /// The fewest values with 90, 95 and 99 % of Σ σ².
    pub ranks: [usize; 3],
}

impl Spectrum {
    /// Of `rows` [n, width], through the eigenvalues of the smaller of XᵀX and XXᵀ. Values below √ε of the largest
    /// (1e-8) are lost in rounding.
    pub fn of(rows: &[f32], width: usize) -> Self {
        let n = rows.len() / width.max(1);
        let gram = if n < width { gram(&transposed(rows, width), n) } else { gram(rows, width) };
        let mut squares: Vec<f64> = match gram.nrows() {
            0 => Vec::new(),
            _ => gram.symmetric_eigenvalues().iter().map(|x| x.max(0.0)).collect(),
        };
        squares.sort_by(|a, b| b.total_cmp(a));
        Self::of_squares(&squares)
    }

    /// From σ², the largest first.
    fn of_squares(squares: &[f64]) -> Self {
        let singular: Vec<f64> = squares.iter().map(|s| s.sqrt()).collect();
        let (sum, energy) = (singular.iter().sum::<f64>(), squares.iter().sum::<f64>());
        let share = singular.iter().map(|s| s / sum).filter(|p| *p > 0.0);
        let entropy: f64 = share.map(|p| -p * p.ln()).sum();
        let rank = |wanted: f64| {
            let mut so_far = 0.0;
            let enough = squares.iter().position(|s| {
                so_far += s;
                so_far >= wanted * energy
            });
            enough.map_or(0, |last| last + 1)
        };
        Self {
            singular: singular.iter().map(|&s| s as f32).collect(),
            effective_rank: if energy > 0.0 { entropy.exp() as f32 } else { 0.0 },
            ranks: ENERGIES.map(rank),
        }
    }
}

fn transposed(rows: &[f32], width: usize) -> Vec<f32> {
    let n = rows.len() / width.max(1);
    (0..width).flat_map(|c| (0..n).map(move |r| rows[r * width + c])).collect()
}

/// XᵀX of X [n, width] in f64.
fn gram(rows: &[f32], width: usize) -> DMatrix<f64> {
    let mut sums = vec![0.0f64; width * width];
    // Four rows at once: a quarter of the traffic.
    let wide: Vec<f64> = rows.iter().map(|&x| x as f64).collect();
    let zeros = vec![0.0; width];
    for block in wide.chunks(4 * width.max(1)) {
        let x: [&[f64]; 4] = std::array::from_fn(|r| block.get(r * width..(r + 1) * width).unwrap_or(&zeros));
        for i in 0..width {
            let [a, b, c, d]: [f64; 4] = std::array::from_fn(|r| x[r][i]);
            let out = sums[i * width..=i * width + i].iter_mut();
            for ((((out, p), q), r), s) in out.zip(x[0]).zip(x[1]).zip(x[2]).zip(x[3]) {
                *out += (a * p + b * q) + (c * r + d * s);
            }
        }
    }
    DMatrix::from_fn(width, width, |i, j| sums[i.max(j) * width + i.min(j)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_by_hand() {
        // Columns (3, 0), (0, 4) and nothing: σ = 4, 3, 0.
        let spectrum = Spectrum::of(&[3.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0], 3);
        assert_eq!(spectrum.singular, [4.0, 3.0, 0.0]);
        let entropy = -(4.0f64 / 7.0 * (4.0f64 / 7.0).ln() + 3.0 / 7.0 * (3.0f64 / 7.0).ln());
        assert!((spectrum.effective_rank as f64 - entropy.exp()).abs() < 1e-6);
        // 16 of 25 is 64 %.
        assert_eq!(spectrum.ranks, [2, 2, 2]);
        let one = Spectrum::of(&[1.0, 2.0, 2.0, 4.0, -1.0, -2.0], 2);
        assert!(one.ranks == [1, 1, 1] && (one.effective_rank - 1.0).abs() < 1e-6, "{one:?}");
        assert_eq!(Spectrum::of(&[0.0; 4], 2), Spectrum { singular: vec![0.0; 2], effective_rank: 0.0, ranks: [1; 3] });
        assert!(Spectrum::of(&[], 2).singular.is_empty());
    }

    #[test]
    fn equal_directions_count_each() {
        let mut rows = vec![0.0; 64];
        (0..8).for_each(|i| rows[i * 8 + i] = -2.0);
        let spectrum = Spectrum::of(&rows, 8);
        assert!((spectrum.effective_rank - 8.0).abs() < 1e-4);
        assert_eq!(spectrum.ranks, [8, 8, 8]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Against the singular value decomposition itself.
        #[test]
        fn equals_a_decomposition((n, width) in (1usize..40, 1usize..24), seed in 0u32..1000) {
            let cell = |i: usize| ((i as f32 * 78.233 + seed as f32).sin() * 43758.547).fract();
            let rows: Vec<f32> = (0..n * width).map(cell).collect();
            let found = Spectrum::of(&rows, width);
            let matrix = DMatrix::from_fn(n, width, |i, j| rows[i * width + j] as f64);
            let mut exact: Vec<f64> = matrix.singular_values().iter().copied().collect();
            exact.sort_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(found.singular.len(), exact.len());
            for (a, b) in found.singular.iter().zip(&exact) {
                prop_assert!((*a as f64 - b).abs() < 1e-5 * exact[0].max(1e-9), "{} {}", a, b);
            }
        }
    }
}
