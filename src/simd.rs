//! Vector building blocks. One source for every instruction set: the code is written over small fixed arrays and
//! `mul_add`, [`vectorized`] compiles it for what the CPU has. Lane counts and orders are fixed, so every
//! instruction set gives the same bits.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Lanes of every reduction, whatever the hardware width.
pub const LANES: usize = 16;

/// Runs `f` compiled for the widest instruction set of this CPU. `f` itself and what it calls must be
/// `#[inline(always)]`: a call that stays a call is compiled for the baseline.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Asks for the memory `bytes` behind the start of `x`: what is read about a microsecond later. May point anywhere.
#[inline(always)]
pub fn prefetch<T>(x: &[T], bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().cast::<i8>().wrapping_add(bytes));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (x, bytes);
}

/// A stored number: f32, f16 or bf16.
pub trait Cell: Copy + Default + Send + Sync + 'static {
    const NAME: &'static str;
    fn get(self) -> f32;
    /// Rounds to nearest; slices of equal length.
    fn put(from: &[f32], to: &mut [Self]);
}

impl Cell for f32 {
    const NAME: &'static str = "f32";
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
    fn put(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

impl Cell for f16 {
    const NAME: &'static str = "f16";
    /// Exponent and mantissa shifted into place, then rescaled by 2¹¹²: exact for zeros, subnormals and normals.
    /// Beyond them (what rounded to infinity) the result is 65536 or more, finite.
    #[inline(always)]
    fn get(self) -> f32 {
        let wide = (self.to_bits() as i16 as i32) << 13;
        f32::from_bits(wide as u32 & 0x8fff_e000) * f32::from_bits(0x7780_0000)
    }
    fn put(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

impl Cell for bf16 {
    const NAME: &'static str = "bf16";
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    fn put(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

/// eˣ to about one unit in the last place for −87 ≤ x ≤ 88; outside the end values are returned.
/// Range reduction by ln 2 in two parts and a polynomial of degree 5 (coefficients: Cephes `expf`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5.0e-1);
    p = (p * r).mul_add(r, r) + 1.0;
    // SAFETY: x is clamped, so n is within ±127; NaN, which clamping lets through, is not converted.
    let n = if n.is_nan() { 0 } else { unsafe { n.to_int_unchecked::<i32>() } };
    p * f32::from_bits(((n + 127) << 23) as u32)
}

/// ln x to about one unit in the last place for positive, not subnormal x (coefficients: Cephes `logf`).
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let m = f32::from_bits((bits & 0x007F_FFFF) | 0x3F80_0000);
    // √½ ≤ m < √2
    let high = m > std::f32::consts::SQRT_2;
    let e = (bits >> 23) as i32 - 127 + high as i32;
    let f = if high { 0.5 * m } else { m } - 1.0;
    let e = e as f32;
    let mut p = 7.037_683_6e-2f32;
    p = p.mul_add(f, -1.151_461e-1);
    p = p.mul_add(f, 1.167_699_9e-1);
    p = p.mul_add(f, -1.242_014_1e-1);
    p = p.mul_add(f, 1.424_932_3e-1);
    p = p.mul_add(f, -1.666_805_8e-1);
    p = p.mul_add(f, 2.000_071_5e-1);
    p = p.mul_add(f, -2.499_999_4e-1);
    p = p.mul_add(f, 3.333_333_1e-1);
    let z = f * f;
    let low = e.mul_add(-2.121_944_4e-4, p * f * z);
    e.mul_add(0.693_359_4, f + z.mul_add(-0.5, low))
}

/// Sum of the lanes in a fixed tree.
#[inline(always)]
pub fn fold_sum(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ f(x) in the fixed lane order.
#[inline(always)]
pub fn sum_by(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += f(chunk[i]);
        }
    }
    for (i, &v) in rest.iter().enumerate() {
        lanes[i] += f(v);
    }
    fold_sum(lanes)
}

#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    sum_by(x, |v| v)
}

#[inline(always)]
pub fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = chunk[i].mul_add(chunk[i], lanes[i]);
        }
    }
    for (i, &v) in rest.iter().enumerate() {
        lanes[i] = v.mul_add(v, lanes[i]);
    }
    fold_sum(lanes)
}

#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut lanes = [0.0f32; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (ra, rb) = (ca.remainder(), cb.remainder());
    for (x, y) in ca.zip(cb) {
        for i in 0..LANES {
            lanes[i] = x[i].mul_add(y[i], lanes[i]);
        }
    }
    for (i, (x, y)) in ra.iter().zip(rb).enumerate() {
        lanes[i] = x.mul_add(*y, lanes[i]);
    }
    fold_sum(lanes)
}

/// Largest element; −∞ for none.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    for (i, &v) in rest.iter().enumerate() {
        lanes[i] = if v > lanes[i] { v } else { lanes[i] };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// x ← f(x); the largest of them.
#[inline(always)]
pub fn map_max(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            chunk[i] = f(chunk[i]);
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    for (lane, v) in lanes.iter_mut().zip(chunks.into_remainder()) {
        *v = f(*v);
        *lane = if *v > *lane { *v } else { *lane };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Place of the first element equal to `v`; 0 for none.
#[inline(always)]
pub fn first_equal(x: &[f32], v: f32) -> usize {
    let mut at = 0;
    for chunk in x.chunks_exact(LANES) {
        let mut any = false;
        for &w in chunk {
            any |= w == v;
        }
        if any {
            break;
        }
        at += LANES;
    }
    x[at..].iter().position(|&w| w == v).map_or(0, |i| at + i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_is_within_two_ulp(x in -86.9f32..87.9) {
            let exact = (x as f64).exp();
            prop_assert!(((exp(x) as f64 - exact) / exact).abs() < 2.5e-7, "{x}");
        }

        #[test]
        fn f16_cells_read_what_half_reads(bits in 0u16..=u16::MAX) {
            let h = f16::from_bits(bits);
            prop_assume!(h.is_finite());
            prop_assert_eq!(h.get().to_bits(), h.to_f32().to_bits());
        }

        #[test]
        fn reductions_agree_with_f64(x in prop::collection::vec(-100.0f32..100.0, 0..200)) {
            let exact: f64 = x.iter().map(|&v| v as f64).sum();
            prop_assert!((sum(&x) as f64 - exact).abs() < 1e-2);
            let exact: f64 = x.iter().map(|&v| (v as f64).powi(2)).sum();
            prop_assert!((sum_of_squares(&x) as f64 - exact).abs() <= 1e-6 * exact + 1e-3);
            prop_assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            prop_assert_eq!(dot(&x, &x), sum_of_squares(&x));
        }
    }

    #[test]
    fn plain_and_vectorized_code_give_the_same_bits() {
        let x: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.37 - 180.0).collect();
        assert_eq!(
            vectorized(
                #[inline(always)]
                || sum_of_squares(&x)
            )
            .to_bits(),
            sum_of_squares(&x).to_bits()
        );
        assert_eq!(
            vectorized(
                #[inline(always)]
                || sum_by(&x, exp)
            )
            .to_bits(),
            sum_by(&x, exp).to_bits()
        );
    }
}
