//! Products of matrices for scores, on one thread: heads are spread over the threads by whoever asks.

use gemm::{Parallelism, gemm};

/// A matrix laid out by rows or, turned, by columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
}

/// f32 and f64.
pub(crate) trait Number: Copy + 'static {
    const ZERO: Self;
    const ONE: Self;
}

impl Number for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Number for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl<'a, T: Number> Matrix<'a, T> {
    /// Rows of `cols` numbers; an incomplete one at the end does not count.
    pub fn of(data: &'a [T], cols: usize) -> Self {
        Self { data, rows: data.len() / cols.max(1), cols, row_step: cols, col_step: 1 }
    }

    pub fn turned(self) -> Self {
        let Self { data, rows, cols, row_step, col_step } = self;
        Self { data, rows: cols, cols: rows, row_step: col_step, col_step: row_step }
    }

    /// This · `other`, row-major [rows, other's columns]. The number of columns here is that of rows there.
    pub fn times(self, other: Self) -> Vec<T> {
        assert_eq!(self.cols, other.rows, "inner sizes differ");
        let (m, n, k) = (self.rows, other.cols, self.cols);
        let mut out = vec![T::ZERO; m * n];
        // SAFETY: `of` and `turned` keep every index (row < rows, col < cols) inside `data`; `out` has m·n places.
        unsafe {
            gemm(
                m,
                n,
                k,
                out.as_mut_ptr(),
                1,
                n as isize,
                false,
                self.data.as_ptr(),
                self.col_step as isize,
                self.row_step as isize,
                other.data.as_ptr(),
                other.col_step as isize,
                other.row_step as isize,
                T::ZERO,
                T::ONE,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_sums_of_products_however_the_factors_lie() {
        // [2, 3] and [3, 2]
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0, 9.0, 10.0, 11.0, 12.0f64]);
        assert_eq!(Matrix::of(&a, 3).times(Matrix::of(&b, 2)), [58.0, 64.0, 139.0, 154.0]);
        // bᵀ lies by rows here: [2, 3] turned
        let turned = [7.0, 9.0, 11.0, 8.0, 10.0, 12.0f64];
        assert_eq!(Matrix::of(&a, 3).times(Matrix::of(&turned, 3).turned()), [58.0, 64.0, 139.0, 154.0]);
        assert_eq!(Matrix::of(&a, 3).turned().times(Matrix::of(&a, 3))[..3], [17.0, 22.0, 27.0]);
        assert!(Matrix::of(&[0.0f32; 0], 3).times(Matrix::of(&[1.0; 6], 2)).is_empty());
    }
}
