//! The few vector operations the kernels are made of, once per instruction set.
//!
//! An implementor is a token: a value of it exists only where the CPU has its instructions, which is what makes its
//! methods safe. Everything is `inline(always)` so that it ends up inside the one function per kernel that is
//! compiled for the instruction set. Vectors hold one value per row of a 16-row weight tile.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

pub trait Simd: Copy {
    /// [16 rows, 4 columns] of bytes.
    type Bytes: Copy;
    /// Running sums of products of unsigned weights, possibly in 16 bits: how many may be added is
    /// [`Kind::RUN`](super::format::Kind::RUN).
    type Sums: Copy;
    /// [16] exact i32.
    type Ints: Copy;
    /// [16] f32.
    type Floats: Copy;
    /// Activation rows that one pass over the weights serves, so that all sums stay near the registers: 1, 2, 4 or 8.
    const ROWS: usize;

    fn bytes(self, from: &[u8; 64]) -> Self::Bytes;
    fn store_bytes(self, v: Self::Bytes, to: &mut [u8; 64]);
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// In each byte: moves bit `from` to bit `to`, its neighbours along with it, and keeps what is in `mask`.
    /// `mask` must not reach bits that the move brings in from outside the byte.
    fn bits(self, v: Self::Bytes, from: usize, to: usize, mask: u8) -> Self::Bytes;

    /// Asks for the line of memory at `at`, which may be anywhere, to be fetched into the cache.
    fn prefetch(self, at: *const u8);

    fn zero_sums(self) -> Self::Sums;
    fn zero_ints(self) -> Self::Ints;
    /// sums + Σ over 4 columns of weights (unsigned) × x.
    fn dot(self, sums: Self::Sums, weights: Self::Bytes, x: [i8; 4]) -> Self::Sums;
    fn widen(self, ints: Self::Ints, sums: Self::Sums) -> Self::Ints;
    /// ints + Σ over 4 columns of weights (signed) × x, up to a multiple of Σx that `signed_floats` takes out again.
    fn dot_signed(self, ints: Self::Ints, weights: Self::Bytes, x: [i8; 4]) -> Self::Ints;
    /// Exact Σ weights × x; `x_sum` is Σx over the same columns.
    fn signed_floats(self, ints: Self::Ints, x_sum: f32) -> Self::Floats;
    fn floats(self, ints: Self::Ints) -> Self::Floats;
    /// Does nothing, but the compiler must have all earlier pinned sums ready before it goes on. Without that it
    /// reorders the unrolled sums row by row and spills every weight it has decoded.
    fn pin_sums(self, sums: Self::Sums) -> Self::Sums;
    fn pin_ints(self, ints: Self::Ints) -> Self::Ints;

    fn splat(self, x: f32) -> Self::Floats;
    fn load(self, from: &[f32; 16]) -> Self::Floats;
    fn store(self, v: Self::Floats, to: &mut [f32; 16]);
    /// Little-endian, like everything in a model file.
    fn load_f16(self, from: &[u8; 32]) -> Self::Floats;
    fn load_bf16(self, from: &[u8; 32]) -> Self::Floats;
    fn load_f32(self, from: &[u8; 64]) -> Self::Floats;
    fn load_u8(self, from: &[u8; 16]) -> Self::Floats;
    fn load_i8(self, from: &[i8; 16]) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// a × b + c, rounded once.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
}
