//! AVX-512 with VNNI: one register of 16 rows, four columns a lane per instruction.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Simd;

/// Exists only where the CPU has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    #[inline]
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Avx512(()))
    }
}

// SAFETY, for every block below: the token's existence means that the CPU has the instructions, and every pointer
// comes from a reference to at least as many bytes as are read or written, by an instruction without alignment.
impl Simd for Avx512 {
    type Bytes = __m512i;
    type Sums = __m512i;
    type Ints = __m512i;
    type Floats = __m512;
    const ROWS: usize = 8;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> __m512i {
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_bytes(self, v: __m512i, to: &mut [u8; 64]) {
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn bits(self, v: __m512i, from: usize, to: usize, mask: u8) -> __m512i {
        // There is no shift of bytes; what a 16-bit shift drags over from the neighbour is masked away.
        unsafe {
            let count = _mm_cvtsi32_si128(from.abs_diff(to) as i32);
            let moved = if from > to { _mm512_srl_epi16(v, count) } else { _mm512_sll_epi16(v, count) };
            _mm512_and_si512(moved, _mm512_set1_epi8(mask as i8))
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn zero_sums(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn zero_ints(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, weights: __m512i, x: [i8; 4]) -> __m512i {
        unsafe {
            let x = _mm512_set1_epi32(i32::from_ne_bytes(x.map(|v| v as u8)));
            _mm512_dpbusd_epi32(sums, weights, x)
        }
    }

    #[inline(always)]
    fn widen(self, ints: __m512i, sums: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(ints, sums) }
    }

    /// The instruction wants unsigned weights: w + 128, which flips the top bit.
    #[inline(always)]
    fn dot_signed(self, ints: __m512i, weights: __m512i, x: [i8; 4]) -> __m512i {
        let flipped = unsafe { _mm512_xor_si512(weights, _mm512_set1_epi8(i8::MIN)) };
        self.dot(ints, flipped, x)
    }

    /// Exact: 32 columns give at most 32·255·127 < 2²⁴.
    #[inline(always)]
    fn signed_floats(self, ints: __m512i, x_sum: f32) -> __m512 {
        unsafe { _mm512_fnmadd_ps(_mm512_set1_ps(128.0), _mm512_set1_ps(x_sum), self.floats(ints)) }
    }

    #[inline(always)]
    fn floats(self, ints: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    fn pin_sums(self, sums: __m512i) -> __m512i {
        unsafe { pin(sums) }
    }

    #[inline(always)]
    fn pin_ints(self, ints: __m512i) -> __m512i {
        unsafe { pin(ints) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; 16]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> __m512 {
        // A bf16 is the upper half of an f32.
        unsafe {
            let v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v))
        }
    }

    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> __m512 {
        unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> __m512 {
        unsafe { self.floats(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; 16]) -> __m512 {
        unsafe { self.floats(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}

/// An empty instruction that the compiler believes to change the register.
#[inline]
#[target_feature(enable = "avx512f")]
fn pin(mut v: __m512i) -> __m512i {
    // SAFETY: there is no instruction in it.
    unsafe { asm!("/* {0} */", inout(zmm_reg) v, options(nomem, nostack, preserves_flags)) };
    v
}
