//! Hyper-connections (arXiv 2409.19606) held on the manifold of doubly stochastic matrices (mHC, arXiv 2512.24880): a
//! residual of n streams, x [n, d] in each row of a pass.
//!
//! z = x / rms(x) over all n·d; p = φ z; H_pre = σ(a_pre p_pre + b_pre) [n]; H_post = 2σ(a_post p_post + b_post) [n];
//! H_res = Sinkhorn(exp(a_res p_res + b_res)) [n, n]. A sublayer F reads H_pre x and leaves x' = H_res x + H_postᵀ F. What
//! the final norm reads is a sum of streams weighed like H_pre. DeepSeek V4 adds ε to H_pre, to the matrix after its first
//! normalisation and to each sum of one, which is done here, too, and changes the sixth decimal.

use super::{Buf, Vector};

/// The gates around one sublayer, or of the sum at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gates {
    /// The sublayer that reads, or the number of sublayers.
    pub target: usize,
    pub streams: usize,
    /// φ [n² + 2n, n·d]: rows of H_pre, H_post, H_res; at the end [n, n·d].
    pub map: Vector,
    /// b, as φ's rows.
    pub base: Vector,
    /// a_pre, a_post, a_res
    pub scale: [f32; 3],
    pub norm_eps: f32,
    pub eps: f32,
    /// Normalisations of rows and columns, both counted as one.
    pub rounds: usize,
    /// p_res lies as [source, target], as in DeepSeek's own code: H_res is the transpose of what Sinkhorn gives.
    pub transposed: bool,
}

/// What is done with the streams x [R, n·d] of a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StreamOp {
    /// Every stream of x becomes e [R, d].
    Spread { e: Buf, x: Buf },
    /// h = H_pre x [R, d], the target's gates worked out.
    Gather { gates: Gates, x: Buf, h: Buf },
    /// x = H_res x + H_postᵀ y with the gates of the target that wrote y [R, d].
    Scatter { gates: Gates, y: Buf, x: Buf },
}

/// What a row of a target is mixed by and how far its streams have come, one behind the other: H_pre [n], H_post [n],
/// H_res [n, n] (row: the stream that comes out), ‖x_i‖ [n] before the sublayer, ‖H_postᵀ F‖ and ‖H_res x‖. The last
/// target has H_pre and norms alone.
pub const fn width(streams: usize) -> usize {
    streams * streams + 3 * streams + 2
}

/// Alternating normalisations of the rows and columns of a positive matrix [n, n], starting with rows.
pub fn sinkhorn(matrix: &mut [f32], n: usize, rounds: usize, eps: f32) {
    for round in 0..rounds {
        for row in matrix.chunks_exact_mut(n) {
            let sum: f32 = row.iter().sum();
            // the first sum is a softmax's, to which ε comes afterwards
            let (before, after) = if round == 0 { (0.0, eps) } else { (eps, 0.0) };
            row.iter_mut().for_each(|x| *x = *x / (sum + before) + after);
        }
        for column in 0..n {
            let sum: f32 = (0..n).map(|row| matrix[row * n + column]).sum();
            (0..n).for_each(|row| matrix[row * n + column] /= sum + eps);
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl Gates {
    /// From p = φ z [n² + 2n, or n] and b: H_pre, H_post and H_res into `out`, as [`width`] says.
    pub fn of(&self, p: &[f32], base: &[f32], out: &mut [f32]) {
        let n = self.streams;
        let at = |i: usize, scale: f32| scale.mul_add(p[i], base[i]);
        for (i, pre) in out[..n].iter_mut().enumerate() {
            *pre = sigmoid(at(i, self.scale[0])) + self.eps;
        }
        if p.len() == n {
            return;
        }
        for i in 0..n {
            out[n + i] = 2.0 * sigmoid(at(n + i, self.scale[1]));
        }
        let matrix = &mut out[2 * n..2 * n + n * n];
        for (row, values) in matrix.chunks_exact_mut(n).enumerate() {
            let logit = |column: usize| at(2 * n + row * n + column, self.scale[2]);
            // rows are normalised first, so that each may be scaled
            let top = (0..n).map(logit).fold(f32::NEG_INFINITY, f32::max);
            values.iter_mut().enumerate().for_each(|(column, x)| *x = (logit(column) - top).exp());
        }
        sinkhorn(matrix, n, self.rounds, self.eps);
        if self.transposed {
            for row in 0..n {
                (0..row).for_each(|column| matrix.swap(row * n + column, column * n + row));
            }
        }
    }
}

/// What [`Gates`] were in the last pass [targets · rows][`width`]; those of targets that were not reached mean nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GateRows {
    pub streams: usize,
    pub rows: usize,
    pub values: Vec<f32>,
}

impl GateRows {
    pub fn at(&self, target: usize, row: usize) -> &[f32] {
        let width = width(self.streams);
        &self.values[(target * self.rows + row) * width..][..width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 4;

    fn gates(rounds: usize, transposed: bool) -> Gates {
        let (map, base) = (Vector(0), Vector(0));
        Gates { target: 0, streams: N, map, base, scale: [1.0; 3], norm_eps: 1e-6, eps: 1e-6, rounds, transposed }
    }

    /// H_res from logits [n, n].
    fn matrix(logits: &[f32], rounds: usize, transposed: bool) -> Vec<f32> {
        let p: Vec<f32> = [0.0; 2 * N].into_iter().chain(logits.iter().copied()).collect();
        let mut out = vec![0.0; width(N)];
        gates(rounds, transposed).of(&p, &[0.0; 2 * N + N * N], &mut out);
        out[2 * N..2 * N + N * N].to_vec()
    }

    fn sums(matrix: &[f32]) -> Vec<f32> {
        let rows = matrix.chunks_exact(N).map(|row| row.iter().sum());
        rows.chain((0..N).map(|c| matrix.iter().skip(c).step_by(N).sum())).collect()
    }

    fn logits(seed: usize, by: f32) -> Vec<f32> {
        (0..N * N).map(|i| by * (((i + seed) * 7919 % 101) as f32 / 50.0 - 1.0)).collect()
    }

    #[test]
    fn twenty_normalisations_are_doubly_stochastic_and_so_are_products() {
        let mut product: Vec<f64> = matrix(&logits(0, 0.0), 20, false).iter().map(|&x| x.into()).collect();
        for seed in 0..60 {
            let mixed = matrix(&logits(seed, 1.0), 20, false);
            assert!(mixed.iter().all(|x| *x > 0.0));
            assert!(sums(&mixed).iter().all(|sum| (sum - 1.0).abs() < 1e-4), "{seed}: {:?}", sums(&mixed));
            assert!(sums(&matrix(&logits(seed, 1.0), 1, false)).iter().any(|sum| (sum - 1.0).abs() > 1e-3));
            let wide: Vec<f64> = mixed.iter().map(|&x| x.into()).collect();
            product = crate::probe::hyper::product(&wide, &product, N);
            let narrow: Vec<f32> = product.iter().map(|&x| x as f32).collect();
            assert!(sums(&narrow).iter().all(|sum| (sum - 1.0).abs() < 1e-3), "{seed}");
        }
    }

    #[test]
    fn a_constant_added_to_a_row_or_column_of_logits_changes_nothing() {
        let base = logits(3, 2.0);
        let mut moved = base.clone();
        moved[4..8].iter_mut().for_each(|x| *x += 5.0);
        moved.iter_mut().skip(2).step_by(N).for_each(|x| *x -= 3.0);
        for (a, b) in matrix(&base, 60, false).iter().zip(matrix(&moved, 60, false)) {
            assert!((a - b).abs() < 1e-4);
        }
        // what no exponential holds is no number too large
        assert!(matrix(&logits(1, 3e4), 20, false).iter().all(|x| x.is_finite()));
    }

    #[test]
    fn the_other_order_is_the_transpose() {
        let (one, other) = (matrix(&logits(5, 2.0), 3, false), matrix(&logits(5, 2.0), 3, true));
        for (i, x) in one.iter().enumerate() {
            assert_eq!(*x, other[i % N * N + i / N]);
        }
    }

    #[test]
    fn gates_are_sigmoids_of_scaled_maps() {
        let p: Vec<f32> = (0..2 * N + N * N).map(|i| i as f32 * 0.1 - 1.0).collect();
        let base: Vec<f32> = (0..2 * N + N * N).map(|i| 0.5 - i as f32 * 0.02).collect();
        let mut out = vec![0.0; width(N)];
        Gates { scale: [0.5, -0.25, 0.01], eps: 0.0, ..gates(20, false) }.of(&p, &base, &mut out);
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for i in 0..N {
            assert!((out[i] - sigmoid(0.5 * p[i] + base[i])).abs() < 1e-6);
            assert!((out[N + i] - 2.0 * sigmoid(-0.25 * p[N + i] + base[N + i])).abs() < 1e-6);
        }
    }
}
