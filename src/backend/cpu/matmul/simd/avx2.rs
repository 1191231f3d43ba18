//! AVX2 with FMA and F16C: two registers of 8 rows each.
//!
//! Unsigned weights go through `maddubs` into 16-bit sums, which are widened only after [`Kind::RUN`] groups; that
//! halves the work against widening each product. Eight-bit weights would overflow there, so they pass as
//! |w| × (x with w's sign) and are widened at once: 2·128·127 still fits 16 bits.
//!
//! [`Kind::RUN`]: super::super::format::Kind::RUN

use std::arch::asm;
use std::arch::x86_64::*;

use super::Simd;

/// Exists only where the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    #[inline]
    pub fn detect() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }
}

// SAFETY, for every block below: the token's existence means that the CPU has the instructions, and every pointer
// comes from a reference to at least as many bytes as are read or written, by an instruction without alignment.
impl Simd for Avx2 {
    type Bytes = [__m256i; 2];
    /// 16-bit sums of two columns each.
    type Sums = [__m256i; 2];
    type Ints = [__m256i; 2];
    type Floats = [__m256; 2];
    const ROWS: usize = 4;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> [__m256i; 2] {
        let at = from.as_ptr().cast::<__m256i>();
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }

    #[inline(always)]
    fn store_bytes(self, v: [__m256i; 2], to: &mut [u8; 64]) {
        let at = to.as_mut_ptr().cast::<__m256i>();
        unsafe {
            _mm256_storeu_si256(at, v[0]);
            _mm256_storeu_si256(at.add(1), v[1]);
        }
    }

    #[inline(always)]
    fn or(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }

    #[inline(always)]
    fn bits(self, v: [__m256i; 2], from: usize, to: usize, mask: u8) -> [__m256i; 2] {
        // There is no shift of bytes; what a 16-bit shift drags over from the neighbour is masked away.
        unsafe {
            let keep = _mm256_set1_epi8(mask as i8);
            let count = _mm_cvtsi32_si128(from.abs_diff(to) as i32);
            if from > to {
                [
                    _mm256_and_si256(_mm256_srl_epi16(v[0], count), keep),
                    _mm256_and_si256(_mm256_srl_epi16(v[1], count), keep),
                ]
            } else {
                [
                    _mm256_and_si256(_mm256_sll_epi16(v[0], count), keep),
                    _mm256_and_si256(_mm256_sll_epi16(v[1], count), keep),
                ]
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn zero_sums(self) -> [__m256i; 2] {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    fn zero_ints(self) -> [__m256i; 2] {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    fn dot(self, sums: [__m256i; 2], weights: [__m256i; 2], x: [i8; 4]) -> [__m256i; 2] {
        unsafe {
            let x = _mm256_set1_epi32(i32::from_ne_bytes(x.map(|v| v as u8)));
            [
                _mm256_add_epi16(sums[0], _mm256_maddubs_epi16(weights[0], x)),
                _mm256_add_epi16(sums[1], _mm256_maddubs_epi16(weights[1], x)),
            ]
        }
    }

    #[inline(always)]
    fn widen(self, ints: [__m256i; 2], sums: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let one = _mm256_set1_epi16(1);
            [
                _mm256_add_epi32(ints[0], _mm256_madd_epi16(sums[0], one)),
                _mm256_add_epi32(ints[1], _mm256_madd_epi16(sums[1], one)),
            ]
        }
    }

    #[inline(always)]
    fn dot_signed(self, ints: [__m256i; 2], weights: [__m256i; 2], x: [i8; 4]) -> [__m256i; 2] {
        unsafe {
            let x = _mm256_set1_epi32(i32::from_ne_bytes(x.map(|v| v as u8)));
            let products = [
                _mm256_maddubs_epi16(_mm256_abs_epi8(weights[0]), _mm256_sign_epi8(x, weights[0])),
                _mm256_maddubs_epi16(_mm256_abs_epi8(weights[1]), _mm256_sign_epi8(x, weights[1])),
            ];
            self.widen(ints, products)
        }
    }

    #[inline(always)]
    fn signed_floats(self, ints: [__m256i; 2], _x_sum: f32) -> [__m256; 2] {
        self.floats(ints)
    }

    #[inline(always)]
    fn floats(self, ints: [__m256i; 2]) -> [__m256; 2] {
        unsafe { [_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])] }
    }

    #[inline(always)]
    fn pin_sums(self, sums: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { pin(sums) }
    }

    #[inline(always)]
    fn pin_ints(self, ints: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { pin(ints) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [__m256; 2] {
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, v: [__m256; 2], to: &mut [f32; 16]) {
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> [__m256; 2] {
        let at = from.as_ptr().cast::<__m128i>();
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))] }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> [__m256; 2] {
        let at = from.as_ptr().cast::<__m128i>();
        // A bf16 is the upper half of an f32.
        unsafe {
            let wide = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v)));
            [wide(_mm_loadu_si128(at)), wide(_mm_loadu_si128(at.add(1)))]
        }
    }

    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> [__m256; 2] {
        let at = from.as_ptr().cast::<f32>();
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> [__m256; 2] {
        unsafe {
            let v = _mm_loadu_si128(from.as_ptr().cast());
            self.floats([_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(v))])
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; 16]) -> [__m256; 2] {
        unsafe {
            let v = _mm_loadu_si128(from.as_ptr().cast());
            self.floats([_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(v))])
        }
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
}

/// An empty instruction that the compiler believes to change both registers.
#[inline]
#[target_feature(enable = "avx2")]
fn pin([mut a, mut b]: [__m256i; 2]) -> [__m256i; 2] {
    // SAFETY: there is no instruction in it.
    unsafe { asm!("/* {0} {1} */", inout(ymm_reg) a, inout(ymm_reg) b, options(nomem, nostack, preserves_flags)) };
    [a, b]
}
