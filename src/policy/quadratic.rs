//! Symmetric matrices of head size and their quadratic forms, in f64: scores take exponentials of them.

/// xᵀMx over symmetric M; only the lower triangle is kept, row i from its first entry to the diagonal.
pub(super) struct Symmetric {
    size: usize,
    /// [size, size] row-major, zero above the diagonal.
    lower: Vec<f64>,
}

impl Symmetric {
    /// Σ_t weight(t) · x_t x_tᵀ over rows x [n, size].
    pub fn sum_of_squares(rows: &[f64], size: usize, weight: impl Fn(usize) -> f64) -> Self {
        let mut lower = vec![0.0; size * size];
        for (block, rows) in rows.chunks(4 * size.max(1)).enumerate() {
            // four rows at once: a third of the traffic of one by one
            let row = |t: usize| rows.get(t * size..(t + 1) * size);
            let weight = |t: usize| if row(t).is_some() { weight(4 * block + t) } else { 0.0 };
            let x: [&[f64]; 4] = std::array::from_fn(|t| row(t).unwrap_or(&rows[..size]));
            let w: [f64; 4] = std::array::from_fn(weight);
            for i in 0..size {
                let [a, b, c, d]: [f64; 4] = std::array::from_fn(|t| w[t] * x[t][i]);
                let out = lower[i * size..=i * size + i].iter_mut();
                for ((((out, p), q), r), s) in out.zip(x[0]).zip(x[1]).zip(x[2]).zip(x[3]) {
                    *out += (a * p + b * q) + (c * r + d * s);
                }
            }
        }
        Self { size, lower }
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

    /// xᵀMx.
    pub fn form(&self, x: &[f64]) -> f64 {
        let rows = self.lower.chunks(self.size.max(1)).zip(x).enumerate();
        rows.map(|(i, (row, xi))| xi * (row[i] * xi + 2.0 * dot(&row[..i], &x[..i]))).sum()
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
    /// xᵀM⁻¹x = ‖L⁻¹x‖². `x` is used up.
    pub fn inverse_form(&self, x: &mut [f64]) -> f64 {
        for i in 0..self.size {
            let row = &self.lower[i * self.size..=i * self.size + i];
            x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
        }
        dot(x, x)
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
        assert!((m.form(&x) - expected).abs() < 1e-9);
    }

    #[test]
    fn the_inverse_undoes_the_matrix() {
        let mut m = Symmetric::sum_of_squares(&ROWS, 3, |_| 1.0);
        m.add_to_diagonal(0.25);
        // with y = Mx: yᵀM⁻¹y = xᵀMx
        let x = [0.5, -2.0, 3.0];
        let mut y: Vec<f64> = (0..3).map(|i| (0..3).map(|j| m.at(i, j) * x[j]).sum()).collect();
        assert!((m.factor().unwrap().inverse_form(&mut y) - m.form(&x)).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_factored_says_so() {
        assert!(Symmetric::sum_of_squares(&ROWS[..3], 3, |_| 1.0).factor().is_none());
        assert!(Symmetric::sum_of_squares(&[f64::NAN; 3], 3, |_| 1.0).factor().is_none());
    }
}
