//! What eviction does to one query's attention, for the same inputs: lost mass and the error of the output.
//!
//! For probabilities p over all entries, output o = Σ p_j v_j and evicted set E: lost mass m = Σ_E p_j, new output
//! o' = (o − Σ_E p_j v_j) / (1 − m), which is the mean of what is left under the renormalised p.

/// m: probability on entries that are gone.
pub fn lost_mass(row: &[f32], held: &[bool]) -> f32 {
    row.iter().zip(held).filter(|(_, held)| !**held).map(|(p, _)| *p as f64).fold(0.0, |sum, p| sum + p) as f32
}

/// Squared error ‖o' − o‖² and squared length ‖o‖² of one head's output; `values` [n, D]. The error is NaN where
/// nothing that the query looks at is left.
pub fn output_error(row: &[f32], values: &[f32], held: &[bool]) -> (f64, f64) {
    let Some(dim) = values.len().checked_div(row.len()) else { return (0.0, 0.0) };
    let (mut all, mut left, mut mass) = (vec![0.0f64; dim], vec![0.0f64; dim], 0.0f64);
    let mut total = 0.0f64;
    for ((&p, value), &held) in row.iter().zip(values.chunks_exact(dim.max(1))).zip(held) {
        let p = p as f64;
        total += p;
        all.iter_mut().zip(value).for_each(|(sum, &v)| *sum += p * v as f64);
        if held {
            mass += p;
            left.iter_mut().zip(value).for_each(|(sum, &v)| *sum += p * v as f64);
        }
    }
    let length = all.iter().map(|o| o * o).sum();
    if held.iter().all(|held| *held) {
        return (0.0, length);
    }
    // `total` is 1 up to rounding: with it, nothing lost is no error at all.
    let error = all.iter().zip(&left).map(|(o, l)| l / mass * total - o).map(|e| e * e).sum();
    (error, length)
}

/// The same where what is left was changed, too: from `row` over `values` to `other_row`, of any positive sum, over
/// `other_values`. The error is NaN where the other row is empty.
pub fn output_change(row: &[f32], values: &[f32], other_row: &[f32], other_values: &[f32]) -> (f64, f64) {
    let mean = |row: &[f32], values: &[f32]| {
        let mut sum = vec![0.0f64; values.len().checked_div(row.len()).unwrap_or(0)];
        for (&p, value) in row.iter().zip(values.chunks_exact(sum.len().max(1))) {
            sum.iter_mut().zip(value).for_each(|(sum, &v)| *sum += p as f64 * v as f64);
        }
        let mass: f64 = row.iter().map(|&p| p as f64).sum();
        sum.iter_mut().for_each(|x| *x /= mass);
        sum
    };
    let (from, to) = (mean(row, values), mean(other_row, other_values));
    let length = from.iter().map(|o| o * o).sum();
    if to.len() != from.len() {
        return (f64::NAN, length);
    }
    (from.iter().zip(&to).map(|(a, b)| (a - b) * (a - b)).sum(), length)
}

/// |A ∩ B| / |A ∪ B| of two ascending lists; 1 for two empty ones.
pub fn jaccard(a: &[u32], b: &[u32]) -> f32 {
    let common = a.iter().filter(|p| b.binary_search(p).is_ok()).count();
    match a.len() + b.len() - common {
        0 => 1.0,
        union => common as f32 / union as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_evicted_token_moves_the_output_as_the_formula_says() {
        // o' − o = p / (1 − p) · (o − v) for one evicted entry.
        let (row, values) = ([0.5, 0.3, 0.2], [1.0, 0.0, 0.0, 2.0, -1.0, 1.0]);
        let held = [true, false, true];
        let o = [0.5 - 0.2, 0.6 + 0.2];
        let expected: f64 = [(o[0], 0.0f64), (o[1], 2.0)].iter().map(|(o, v)| (0.3 / 0.7 * (o - v)).powi(2)).sum();
        let (error, length) = output_error(&row, &values, &held);
        assert!((error - expected).abs() < 1e-6, "{error} {expected}");
        assert!((length - (o[0] * o[0] + o[1] * o[1])).abs() < 1e-6);
        assert!((lost_mass(&row, &held) - 0.3).abs() < 1e-7);
    }

    #[test]
    fn nothing_evicted_is_no_error_and_nothing_left_is_none() {
        let (row, values) = ([0.6, 0.4], [1.0, 2.0]);
        assert_eq!(output_error(&row, &values, &[true, true]).0, 0.0);
        assert!(output_error(&row, &values, &[false, false]).0.is_nan());
        assert_eq!(lost_mass(&row, &[true, true]), 0.0);
    }

    #[test]
    fn a_change_of_what_is_left_agrees_with_eviction_where_nothing_else_changed() {
        let (row, values) = ([0.5, 0.3, 0.2], [1.0, 0.0, 0.0, 2.0, -1.0, 1.0]);
        let (evicted, length) = output_error(&row, &values, &[true, false, true]);
        let (changed, same) = output_change(&row, &values, &[0.5, 0.2], &[1.0, 0.0, -1.0, 1.0]);
        assert!((evicted - changed).abs() < 1e-6 && (length - same).abs() < 1e-6);
        // one value moved by (0.1, 0): the output moves by 0.05
        let (moved, _) = output_change(&row, &values, &row, &[1.1, 0.0, 0.0, 2.0, -1.0, 1.0]);
        assert!((moved - 0.0025).abs() < 1e-6);
        assert!(output_change(&row, &values, &[], &[]).0.is_nan());
    }

    #[test]
    fn jaccard_of_sets() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!(jaccard(&[], &[]), 1.0);
        assert_eq!(jaccard(&[1], &[]), 0.0);
    }
}
