//! Plain Rust: the reference for the other instruction sets, and what runs where none of them does.

use half::{bf16, f16};

use super::Simd;

#[derive(Clone, Copy)]
pub struct Portable;

impl Simd for Portable {
    type Bytes = [u8; 64];
    type Sums = [i32; 16];
    type Ints = [i32; 16];
    type Floats = [f32; 16];
    const ROWS: usize = 1;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> [u8; 64] {
        *from
    }

    #[inline(always)]
    fn store_bytes(self, v: [u8; 64], to: &mut [u8; 64]) {
        *to = v;
    }

    #[inline(always)]
    fn or(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn bits(self, v: [u8; 64], from: usize, to: usize, mask: u8) -> [u8; 64] {
        v.map(|byte| if from > to { byte >> (from - to) } else { byte << (to - from) } & mask)
    }

    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    #[inline(always)]
    fn zero_sums(self) -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    fn zero_ints(self) -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    fn dot(self, sums: [i32; 16], weights: [u8; 64], x: [i8; 4]) -> [i32; 16] {
        std::array::from_fn(|r| sums[r] + (0..4).map(|j| weights[r * 4 + j] as i32 * x[j] as i32).sum::<i32>())
    }

    #[inline(always)]
    fn widen(self, ints: [i32; 16], sums: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|r| ints[r] + sums[r])
    }

    #[inline(always)]
    fn dot_signed(self, ints: [i32; 16], weights: [u8; 64], x: [i8; 4]) -> [i32; 16] {
        std::array::from_fn(|r| ints[r] + (0..4).map(|j| weights[r * 4 + j] as i8 as i32 * x[j] as i32).sum::<i32>())
    }

    #[inline(always)]
    fn signed_floats(self, ints: [i32; 16], _x_sum: f32) -> [f32; 16] {
        self.floats(ints)
    }

    #[inline(always)]
    fn floats(self, ints: [i32; 16]) -> [f32; 16] {
        ints.map(|i| i as f32)
    }

    #[inline(always)]
    fn pin_sums(self, sums: [i32; 16]) -> [i32; 16] {
        sums
    }

    #[inline(always)]
    fn pin_ints(self, ints: [i32; 16]) -> [i32; 16] {
        ints
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 16] {
        [x; 16]
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [f32; 16] {
        *from
    }

    #[inline(always)]
    fn store(self, v: [f32; 16], to: &mut [f32; 16]) {
        *to = v;
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> [f32; 16] {
        std::array::from_fn(|i| f16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> [f32; 16] {
        std::array::from_fn(|i| bf16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> [f32; 16] {
        std::array::from_fn(|i| f32::from_le_bytes([from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]]))
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> [f32; 16] {
        from.map(f32::from)
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; 16]) -> [f32; 16] {
        from.map(f32::from)
    }

    #[inline(always)]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn fma(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
}
