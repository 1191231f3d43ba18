//! Statistics of one row of the residual stream.

use super::simd::{LANES, first_equal, max, sum_of_squares};

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RowStats {
    pub l2: f32,
    pub rms: f32,
    pub absmax: f32,
    pub median: f32,
    pub argmax: u32,
}

/// L2, RMS, largest |x| with its channel (the first of equals) and the median of |x| (mean of the two middle
/// values where the number of channels is even). `scratch` has the row's length.
#[inline(always)]
pub fn row_stats(x: &[f32], scratch: &mut [f32]) -> RowStats {
    for (a, &v) in scratch.iter_mut().zip(x) {
        *a = v.abs();
    }
    let absmax = max(scratch);
    let argmax = first_equal(scratch, absmax) as u32;
    let squares = sum_of_squares(x);
    let rms = (squares / x.len().max(1) as f32).sqrt();
    RowStats { l2: squares.sqrt(), rms, absmax, median: median(scratch, rms), argmax }
}

/// Median of non-negative numbers: bisection on their bit patterns, which order as the numbers do. No more than a
/// quarter of the numbers reach 2 · rms, which bounds the search.
#[inline(always)]
fn median(x: &[f32], rms: f32) -> f32 {
    let n = x.len() as u32;
    if n == 0 {
        return 0.0;
    }
    let rank = (n - 1) / 2;
    // The smallest pattern with more than `rank` numbers at or below it is that of a number.
    let (mut low, mut high) = (0u32, (2.0 * rms).to_bits().min(0x7f80_0000) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if count_at_most(x, middle) > rank { high = middle } else { low = middle + 1 }
    }
    let lower = f32::from_bits(low);
    if n % 2 == 1 || count_at_most(x, low) > rank + 1 {
        return lower;
    }
    let mut above = [f32::INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            let v = if chunk[i] > lower { chunk[i] } else { f32::INFINITY };
            above[i] = if v < above[i] { v } else { above[i] };
        }
    }
    let rest = rest.iter().copied().filter(|v| *v > lower);
    (lower + above.into_iter().chain(rest).fold(f32::INFINITY, f32::min)) / 2.0
}

#[inline(always)]
fn count_at_most(x: &[f32], bits: u32) -> u32 {
    // Signed: patterns of non-negative floats are below 2³¹.
    x.iter().map(|v| (v.to_bits() as i32 <= bits as i32) as u32).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn median_equals_sorting(x in prop::collection::vec(prop_oneof![-3.0f32..3.0, Just(0.0), Just(1.0), Just(-1.0)], 1..300)) {
            let mut scratch = vec![0.0; x.len()];
            let stats = row_stats(&x, &mut scratch);
            let mut sorted: Vec<f32> = x.iter().map(|v| v.abs()).collect();
            sorted.sort_by(f32::total_cmp);
            let n = sorted.len();
            let expected = if n % 2 == 1 { sorted[n / 2] } else { (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0 };
            prop_assert_eq!(stats.median, expected);
            prop_assert_eq!(stats.absmax, sorted[n - 1]);
            prop_assert_eq!(x[stats.argmax as usize].abs(), stats.absmax);
        }
    }
}
