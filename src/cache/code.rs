//! Numbers as codes of a few bits: x ≈ code · scale + zero, scale and zero in half precision.
//!
//! scale = (max − min) / (2^bits − 1), code = round((x − zero) / scale), halves to even. The zero point is the
//! smallest number of the group, rounded down where half precision has none like it, so that codes never have to be
//! cut off. A group of equal numbers has scale 0 and codes 0.

use half::f16;

use crate::simd::Cell;

/// Channels whose codes lie together: any span that starts at a multiple of it can be read by itself.
pub const BLOCK: usize = 32;

/// What one group of codes means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    pub scale: f16,
    pub zero: f16,
}

impl Affine {
    /// Of a group whose numbers lie in `min..=max`.
    pub fn of(min: f32, max: f32, bits: u8) -> Self {
        // Of nothing, or of no numbers.
        if min > max {
            return Self { scale: f16::ZERO, zero: f16::ZERO };
        }
        // −0 as 0: whichever of the two a group's order let through.
        let (min, max) = (min + 0.0, max + 0.0);
        let zero = floor(min);
        Self { scale: near((max - zero.get()) / steps(bits)), zero }
    }

    /// Of a group of numbers.
    #[inline(always)]
    pub fn around(numbers: impl Iterator<Item = f32>, bits: u8) -> Self {
        let (min, max) = numbers.fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        Self::of(min, max, bits)
    }

    #[inline(always)]
    pub fn code(self, x: f32, bits: u8) -> u8 {
        let (scale, zero) = (self.scale.get(), self.zero.get());
        // NaN, of 0 / 0, becomes code 0.
        ((x - zero) / scale).round_ties_even().clamp(0.0, steps(bits)) as u8 * (scale > 0.0) as u8
    }
}

#[inline(always)]
fn steps(bits: u8) -> f32 {
    ((1u32 << bits) - 1) as f32
}

/// The nearest finite half.
pub fn near(x: f32) -> f16 {
    f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// The largest half that is no larger.
fn floor(x: f32) -> f16 {
    let half = near(x);
    match half.to_f32() > x {
        false => half,
        // nothing finite is lower
        true if half == f16::MIN => half,
        true if half.to_bits() == 0 => f16::from_bits(0x8001),
        true if half.is_sign_negative() => f16::from_bits(half.to_bits() + 1),
        true => f16::from_bits(half.to_bits() - 1),
    }
}

/// Bytes of the codes of `dim` channels.
pub fn row_bytes(dim: usize, bits: u8) -> usize {
    let block = |channels: usize| (channels * bits as usize).div_ceil(8);
    dim / BLOCK * block(BLOCK) + block(dim % BLOCK)
}

/// Appends the codes of one row. In a block of w bytes, byte j holds the codes of channels j, j + w, j + 2w, … from
/// the lowest bits on: whole vectors of bytes are taken apart by one shift.
#[inline(always)]
pub fn pack(codes: &[u8], bits: u8, to: &mut Vec<u8>) {
    for block in codes.chunks(BLOCK) {
        let width = (block.len() * bits as usize).div_ceil(8);
        let at = to.len();
        to.resize(at + width, 0);
        for (part, codes) in block.chunks(width).enumerate() {
            for (byte, code) in to[at..].iter_mut().zip(codes) {
                *byte |= code << (part * bits as usize);
            }
        }
    }
}

/// Codes of the channels from `first` on, a multiple of [`BLOCK`], as numbers.
#[inline(always)]
pub fn unpack(row: &[u8], bits: u8, first: usize, out: &mut [f32]) {
    match bits {
        2 => unpack_bits::<2>(row, first, out),
        4 => unpack_bits::<4>(row, first, out),
        _ => unpack_bits::<8>(row, first, out),
    }
}

#[inline(always)]
fn unpack_bits<const BITS: usize>(row: &[u8], first: usize, out: &mut [f32]) {
    let mask = ((1u32 << BITS) - 1) as u8;
    let row = &row[first * BITS / 8..];
    for (block, bytes) in out.chunks_mut(BLOCK).zip(row.chunks(BLOCK * BITS / 8)) {
        // The row's last block may be narrower than a span of channels that ends inside a block.
        let width = bytes.len();
        for (part, block) in block.chunks_mut(width).enumerate() {
            for (x, byte) in block.iter_mut().zip(bytes) {
                *x = (byte >> (part * BITS) & mask) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From the policy notes: a 2-bit group and back.
    #[test]
    fn the_toy_group_rounds_halves_to_even() {
        let x = [-1.0, 0.2, 0.5, 2.0];
        let affine = Affine::around(x.into_iter(), 2);
        assert_eq!((affine.scale.to_f32(), affine.zero.to_f32()), (1.0, -1.0));
        let codes = x.map(|x| affine.code(x, 2));
        assert_eq!(codes, [0, 1, 2, 3]);
        let (mut bytes, mut back) = (Vec::new(), [0.0; 4]);
        pack(&codes, 2, &mut bytes);
        unpack(&bytes, 2, 0, &mut back);
        assert_eq!((bytes.len(), back.map(|code| code - 1.0)), (1, [-1.0, 0.0, 1.0, 2.0]));
    }

    #[test]
    fn equal_numbers_and_extremes_survive() {
        for x in [0.0, 3.25, -0.1, 70000.0, -70000.0, 1e-9] {
            let affine = Affine::around([x; 3].into_iter(), 4);
            let back = affine.code(x, 4) as f32 * affine.scale.get() + affine.zero.get();
            assert!((back - x.max(-65504.0)).abs() <= x.abs() / 1000.0 + 1e-7, "{x} {back}");
        }
        let affine = Affine::around(std::iter::empty(), 2);
        assert_eq!(affine.code(f32::NAN, 2), 0);
    }

    proptest! {
        #[test]
        fn codes_come_back_and_spans_can_be_read_alone(
            dim in 1usize..200, bits in prop::sample::select(vec![2u8, 4, 8]), seed: u64, from in 0usize..7, len in 0usize..200
        ) {
            let codes: Vec<u8> = (0..dim as u64).map(|i| (seed.rotate_left(i as u32) ^ i) as u8 & ((1u16 << bits) - 1) as u8).collect();
            let mut bytes = Vec::new();
            pack(&codes, bits, &mut bytes);
            prop_assert_eq!(bytes.len(), row_bytes(dim, bits));
            let first = (from * BLOCK).min(dim / BLOCK * BLOCK);
            let mut out = vec![0.0; len.min(dim - first)];
            unpack(&bytes, bits, first, &mut out);
            for (x, code) in out.iter().zip(&codes[first..]) {
                prop_assert_eq!(*x, *code as f32);
            }
        }

        #[test]
        fn a_number_comes_back_within_half_a_step(x in prop::collection::vec(-50.0f32..50.0, 1..40), bits in prop::sample::select(vec![2u8, 4, 8])) {
            let affine = Affine::around(x.iter().copied(), bits);
            for &x in &x {
                let back = affine.code(x, bits) as f32 * affine.scale.get() + affine.zero.get();
                // the step itself is rounded to eleven bits
                let slack = steps(bits) * affine.scale.get() / 2048.0 + 1e-5;
                prop_assert!((back - x).abs() <= affine.scale.get() / 2.0 + slack, "{x} {back}");
            }
        }
    }
}
