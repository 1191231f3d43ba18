//! Symmetric matrices of head size and their quadratic forms, in f64: scores take exponentials of them.

use super::product::Matrix;

/// xᵀMx over symmetric M; only the lower triangle is kept, row i from its first entry to the diagonal.
pub(super) struct Symmetric {
    size: usize,
    /// [size, size] row-major, zero above the diagonal.
    lower: Vec<f64>,
}

impl Symmetric {
    /// Σ_t weight(t) · x_t x_tᵀ over rows x [n, size].
    pub fn sum_of_squares(rows: &[f64], size: usize, weight: impl Fn(usize) -> f64) -> Self {
        let mut weighted = rows.to_vec();
        for (t, row) in weighted.chunks_exact_mut(size.max(1)).enumerate() {
            let weight = weight(t);
            row.iter_mut().for_each(|x| *x *= weight);
        }
        let all = Matrix::of(&weighted, size).turned().times(Matrix::of(rows, size));
        Self::of(size, |i, j| all[i * size + j])
    }

    /// The entry of row i and column j.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.lower[i.max(j) * self.size + i.min(j)]
    }

    /// The symmetric matrix whose entry in row i and column j is `entry(i, j)`; asked for j ≤ i only.
    pub fn of(size: usize, entry: impl Fn(usize, usize) -> f64) -> Self {
        let cell = |at: usize| if at % size <= at / size { entry(at / size, at % size) } else { 0.0 };
        Self { size, lower: (0..size * size).map(cell).collect() }
    }

    pub fn add_to_diagonal(&mut self, amount: f64) {
        self.lower.iter_mut().step_by(self.size + 1).for_each(|x| *x += amount);
    }

    /// xᵀMx of each row x [n, size] → [n].
    pub fn forms(&self, rows: &[f64]) -> Vec<f64> {
        let size = self.size;
        let whole: Vec<f64> = (0..size * size).map(|at| self.at(at / size, at % size)).collect();
        let turned = Matrix::of(rows, size).times(Matrix::of(&whole, size));
        rows.chunks_exact(size.max(1)).zip(turned.chunks_exact(size.max(1))).map(|(x, y)| dot(x, y)).collect()
    }

    /// L with M = L·Lᵀ; `None` where M is not positive definite in this precision, or not finite.
    pub fn factor(&self) -> Option<Cholesky> {
        let (n, mut lower) = (self.size, self.lower.clone());
        for i in 0..n {
            let (above, row) = lower.split_at_mut(i * n);
            for j in 0..i {
                let other = &above[j * n..=j * n + j];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let square = row[i] - dot(&row[..i], &row[..i]);
            if !(square > 0.0 && square.is_finite()) {
                return None;
            }
            row[i] = square.sqrt();
        }
        Some(Cholesky { size: n, lower })
    }
}

/// Lower triangle L of M = L·Lᵀ.
pub(super) struct Cholesky {
    size: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// xᵀM⁻¹x = ‖L⁻¹x‖² of each row x [n, size] → [n].
    pub fn inverse_forms(&self, rows: &[f64]) -> Vec<f64> {
        let size = self.size;
        let inverse = self.inverse();
        let solved = Matrix::of(rows, size).times(Matrix::of(&inverse, size).turned());
        solved.chunks_exact(size.max(1)).map(|y| dot(y, y)).collect()
    }

    /// L⁻¹ [size, size] row-major, by forward substitution of the unit vectors.
    fn inverse(&self) -> Vec<f64> {
        let n = self.size;
        let mut inverse = vec![0.0; n * n];
        for i in 0..n {
            let (above, rest) = inverse.split_at_mut(i * n);
            let out = &mut rest[..n];
            out[i] = 1.0;
            for (k, row) in above.chunks_exact(n).enumerate() {
                let factor = self.lower[i * n + k];
                out.iter_mut().zip(&row[..=k]).for_each(|(x, y)| *x -= factor * y);
            }
            out.iter_mut().for_each(|x| *x /= self.lower[i * n + i]);
        }
        inverse
    }
}

/// Sum in eight strands, in a fixed order.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut strands = [0.0; 8];
    let (blocks_a, blocks_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = blocks_a.remainder().iter().zip(blocks_b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in blocks_a.zip(blocks_b) {
        strands.iter_mut().zip(a.iter().zip(b)).for_each(|(s, (a, b))| *s += a * b);
    }
    strands.iter().sum::<f64>() + rest
}

/// Rows of f32 as f64.
pub(super) fn wide(rows: &[f32]) -> Vec<f64> {
    rows.iter().map(|&x| x as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six rows of three, two of them in an incomplete block.
    const ROWS: [f64; 18] = [1.0, 2.0, 0.0, 0.0, 1.0, 1.0, 3.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 2.0, 1.0, -1.0, 0.5];

    #[test]
    fn sums_of_squares_are_those_of_the_definition() {
        let m = Symmetric::sum_of_squares(&ROWS, 3, |t| t as f64 + 1.0);
        for (i, j) in [(0, 0), (1, 0), (0, 1), (2, 1), (2, 2)] {
            let expected: f64 = ROWS.chunks(3).zip(1..).map(|(x, w)| w as f64 * x[i] * x[j]).sum();
            assert!((m.at(i, j) - expected).abs() < 1e-12);
        }
        let x = [0.5, -2.0, 3.0];
        let square = |row: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>().powi(2);
        let expected: f64 = ROWS.chunks(3).zip(1..).map(|(row, w)| w as f64 * square(row)).sum();
        assert!((m.forms(&x)[0] - expected).abs() < 1e-9);
        assert_eq!(m.forms(&ROWS).len(), 6);
    }

    #[test]
    fn the_inverse_undoes_the_matrix() {
        let mut m = Symmetric::sum_of_squares(&ROWS, 3, |_| 1.0);
        m.add_to_diagonal(0.25);
        // with y = Mx: yᵀM⁻¹y = xᵀMx
        let x = [0.5, -2.0, 3.0];
        let y: Vec<f64> = (0..3).map(|i| (0..3).map(|j| m.at(i, j) * x[j]).sum()).collect();
        assert!((m.factor().unwrap().inverse_forms(&y)[0] - m.forms(&x)[0]).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_factored_says_so() {
        assert!(Symmetric::sum_of_squares(&ROWS[..3], 3, |_| 1.0).factor().is_none());
        assert!(Symmetric::sum_of_squares(&[f64::NAN; 3], 3, |_| 1.0).factor().is_none());
    }
}
