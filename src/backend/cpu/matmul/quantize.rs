//! f32 → 8 bits in blocks of 32: d = max|x| / 127, q = x / d rounded to nearest, ties to even.
//!
//! A block with a NaN or an infinity gets q = 0 and a d that is not finite, so that it shows in every product.

use super::Isa;
use super::rows::RowBlock;

/// x [32·n] → blocks [n]. The same bits on every instruction set.
pub(super) fn quantize(x: &[f32], blocks: &mut [RowBlock], isa: Isa) {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable && Isa::Avx2.is_available() {
        // SAFETY: just asked for.
        return unsafe { avx2::quantize(x, blocks) };
    }
    let _ = isa;
    for (x, block) in x.as_chunks().0.iter().zip(blocks) {
        quantize_block(x, block);
    }
}

/// (d, 1/d) for the largest |x|. So small that 1/d would overflow counts as zero.
#[inline(always)]
fn scale(largest: f32) -> (f32, f32) {
    let d = largest / 127.0;
    if d < f32::MIN_POSITIVE {
        (0.0, 0.0)
    } else if d.is_finite() {
        (d, 1.0 / d)
    } else {
        (d, 0.0)
    }
}

fn quantize_block(x: &[f32; 32], block: &mut RowBlock) {
    // The bits of |x| sort as |x| does, with infinity and NaN on top: a maximum that no order of x can change.
    let largest = f32::from_bits(x.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff)));
    let (d, inverse) = scale(largest);
    *block = RowBlock { d, ..RowBlock::ZERO };
    if inverse == 0.0 {
        return;
    }
    let mut sums = [0i32; 2];
    for (i, v) in x.iter().enumerate() {
        let q = (v * inverse).round_ties_even() as i32;
        block.q[i / 4][i % 4] = q as i8;
        sums[i / 16] += q;
    }
    block.half_sums = sums.map(|s| s as f32);
    block.sum = (sums[0] + sums[1]) as f32;
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{RowBlock, scale};

    #[target_feature(enable = "avx2")]
    pub fn quantize(x: &[f32], blocks: &mut [RowBlock]) {
        for (x, block) in x.as_chunks().0.iter().zip(blocks) {
            quantize_block(x, block);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn quantize_block(x: &[f32; 32], block: &mut RowBlock) {
        let at = x.as_ptr();
        // SAFETY: four reads of 8 of the 32 values.
        let v = unsafe {
            [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8)), _mm256_loadu_ps(at.add(16)), _mm256_loadu_ps(at.add(24))]
        };
        let magnitude = |v| _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fff_ffff));
        let largest = _mm256_max_epi32(
            _mm256_max_epi32(magnitude(v[0]), magnitude(v[1])),
            _mm256_max_epi32(magnitude(v[2]), magnitude(v[3])),
        );
        let (d, inverse) = scale(f32::from_bits(max(largest) as u32));
        *block = RowBlock { d, ..RowBlock::ZERO };
        if inverse == 0.0 {
            return;
        }
        let inverse = _mm256_set1_ps(inverse);
        let q = v.map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
        let sums = [sum(_mm256_add_epi32(q[0], q[1])), sum(_mm256_add_epi32(q[2], q[3]))];
        block.half_sums = sums.map(|s| s as f32);
        block.sum = (sums[0] + sums[1]) as f32;
        // Packing works within 128-bit halves and leaves quadruples in the order 0 2 4 6 1 3 5 7.
        let bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        // SAFETY: q has 32 bytes.
        unsafe { _mm256_storeu_si256(block.q.as_mut_ptr().cast(), bytes) };
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn max(v: __m256i) -> i32 {
        let v = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let v = _mm_max_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
        _mm_cvtsi128_si32(_mm_max_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn sum(v: __m256i) -> i32 {
        let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
        _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
    }
}
