//! What hyper-connections do to the streams of one token: how far their matrices are from doubly stochastic, how much the
//! product of all of them so far could amplify, how alike the streams are, and what reaches a target from each source.

use crate::engine::frame::Gates;

/// The largest distance of a row's sum, and of a column's, from 1.
pub fn sinkhorn_residual(matrix: &[f32], n: usize) -> [f32; 2] {
    let far = |sum: f32| (sum - 1.0).abs();
    let rows = matrix.chunks_exact(n).map(|row| far(row.iter().sum()));
    let columns = (0..n).map(|column| far(matrix.iter().skip(column).step_by(n).sum()));
    [rows.fold(0.0, f32::max), columns.fold(0.0, f32::max)]
}

/// a · b, all [n, n].
pub fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let cell = |i: usize| (0..n).map(|k| a[i / n * n + k] * b[k * n + i % n]).sum();
    (0..n * n).map(cell).collect()
}

/// Largest absolute sum of a row, and of a column: what the matrix makes of streams at most, forward and backward.
pub fn gain(matrix: &[f64], n: usize) -> [f64; 2] {
    let rows = matrix.chunks_exact(n).map(|row| row.iter().map(|x| x.abs()).sum());
    let columns = (0..n).map(|column| matrix.iter().skip(column).step_by(n).map(|x| x.abs()).sum());
    [rows.fold(0.0, f64::max), columns.fold(0.0, f64::max)]
}

/// Largest over mean length of streams, 1 (all alike) to n (one has everything); 1 where all are 0.
pub fn concentration(norms: &[f32]) -> f32 {
    let mean = norms.iter().sum::<f32>() / norms.len().max(1) as f32;
    if mean > 0.0 { norms.iter().copied().fold(0.0, f32::max) / mean } else { 1.0 }
}

fn wide(matrix: &[f32]) -> Vec<f64> {
    matrix.iter().map(|&x| x.into()).collect()
}

/// Gains of H_res of sublayers 0 to s multiplied, for each s.
pub fn running_gains(gates: &Gates) -> Vec<[f64; 2]> {
    let n = gates.streams as usize;
    let mut all: Option<Vec<f64>> = None;
    let sublayers = 0..gates.targets().saturating_sub(1);
    sublayers
        .map(|s| {
            let here = wide(gates.matrix(s));
            let product = match all.take() {
                Some(before) => product(&here, &before, n),
                None => here,
            };
            let gain = gain(&product, n);
            all = Some(product);
            gain
        })
        .collect()
}

/// What target `target` takes of each source, the embedding first, then what sublayers wrote: h = Σ α_s v_s with
/// α_s = H_pre(target) · H_res(target − 1) … H_res(s) · H_post(s − 1), and all ones for the embedding [target + 1].
pub fn weights(gates: &Gates, target: usize) -> Vec<f32> {
    let n = gates.streams as usize;
    let mut back = wide(gates.pre(target));
    let mut weights = vec![0.0; target + 1];
    for s in (0..target).rev() {
        weights[s + 1] = back.iter().zip(gates.post(s)).map(|(b, &p)| b * f64::from(p)).sum::<f64>() as f32;
        let matrix = gates.matrix(s);
        back = (0..n).map(|j| (0..n).map(|i| back[i] * f64::from(matrix[i * n + j])).sum()).collect();
    }
    weights[0] = back.iter().sum::<f64>() as f32;
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 2;

    /// Gates of sublayers (H_pre, H_post, H_res), and H_pre of the end.
    fn gates(of: &[([f32; 2], [f32; 2], [f32; 4])], end: [f32; 2]) -> Gates {
        let mut values = Vec::new();
        for (pre, post, matrix) in of.iter().copied().chain([(end, [0.0; 2], [0.0; 4])]) {
            values.extend(pre.into_iter().chain(post).chain(matrix).chain([3.0, 4.0, 1.0, 3.0]));
        }
        Gates { streams: N as u32, values }
    }

    #[test]
    fn residuals_and_gains_of_known_matrices() {
        let matrix = [0.9, 0.3, 0.1, 0.5];
        let [rows, columns] = sinkhorn_residual(&matrix, 2);
        assert!((rows - 0.4).abs() < 1e-6 && (columns - 0.2).abs() < 1e-6);
        assert_eq!(sinkhorn_residual(&[0.25, 0.75, 0.75, 0.25], 2), [0.0, 0.0]);
        assert_eq!(gain(&[1.0, -2.0, 0.5, 0.0], 2), [3.0, 2.0]);
        assert_eq!((concentration(&[1.0; 4]), concentration(&[0.0, 8.0, 0.0, 0.0])), (1.0, 4.0));
        assert_eq!(concentration(&[0.0; 4]), 1.0);
    }

    #[test]
    fn free_matrices_explode_and_doubly_stochastic_ones_stay_at_one() {
        let depth = 60;
        let free = gates(&vec![([1.0, 0.0], [1.0, 0.0], [1.0, 0.2, 0.1, 1.1]); depth], [1.0, 0.0]);
        let held = gates(&vec![([1.0, 0.0], [1.0, 0.0], [0.7, 0.3, 0.3, 0.7]); depth], [1.0, 0.0]);
        let last = |gates| *running_gains(gates).last().unwrap();
        assert_eq!(running_gains(&free).len(), depth);
        assert!(last(&free).iter().all(|gain| *gain > 1000.0));
        assert!(last(&held).iter().all(|gain| (gain - 1.0).abs() < 1e-6));
        assert_eq!((held.norms(0), held.branch_share(0)), (&[3.0, 4.0][..], 0.25));
    }

    #[test]
    fn weights_are_what_running_the_streams_gives() {
        let of = [
            ([0.5, 0.25], [1.5, 0.5], [0.6, 0.4, 0.4, 0.6]),
            ([0.1, 0.9], [0.3, 1.9], [0.2, 0.8, 0.8, 0.2]),
            ([0.7, 0.6], [1.0, 0.0], [0.5, 0.5, 0.5, 0.5]),
        ];
        let gates = gates(&of, [0.4, 0.8]);
        // a source of 1, all others 0: what h becomes at every target
        for source in 0..=of.len() {
            let mut x = if source == 0 { [1.0f32; 2] } else { [0.0; 2] };
            for target in 0..=of.len() {
                let pre = gates.pre(target);
                let h = pre[0] * x[0] + pre[1] * x[1];
                let found = weights(&gates, target);
                assert_eq!(found.len(), target + 1);
                let found = found.get(source).copied().unwrap_or(0.0);
                assert!((found - h).abs() < 1e-6, "source {source}, target {target}: {found}, expected {h}");
                let Some((_, post, m)) = of.get(target) else { break };
                let y = if source == target + 1 { 1.0 } else { 0.0 };
                x = [m[0] * x[0] + m[1] * x[1] + post[0] * y, m[2] * x[0] + m[3] * x[1] + post[1] * y];
            }
        }
    }

    #[test]
    fn the_plain_residual_weighs_every_source_with_one() {
        let plain = gates(&[([1.0, 0.0], [1.0, 0.0], [1.0, 0.0, 0.0, 1.0]); 4], [1.0, 0.0]);
        assert_eq!(weights(&plain, 4), [1.0; 5]);
        assert_eq!(running_gains(&plain), [[1.0, 1.0]; 4]);
    }

    #[test]
    fn equal_streams_stay_equal_where_rows_sum_to_one_and_what_is_added_is_the_same() {
        let (matrix, post) = ([0.3f32, 0.7, 0.7, 0.3], [0.8f32; 2]);
        let mut x = [2.0f32; 2];
        for y in [1.0, -3.0, 0.5] {
            x = [0, 1].map(|i| matrix[2 * i] * x[0] + matrix[2 * i + 1] * x[1] + post[i] * y);
            assert!((x[0] - x[1]).abs() < 1e-6);
        }
    }
}
