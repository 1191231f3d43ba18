//! What an intervention does to rows of an activation matrix x [rows, width], in place.

use std::ops::Range;

use super::Buf;

#[derive(Debug, Clone, PartialEq)]
pub enum Alter {
    /// x[.., cols] ← value
    Set { cols: Range<usize>, value: f32 },
    /// x ← 0
    Zero,
    /// x ← the nearest numbers of a shorter type, ties to even; what is too large for it becomes infinite.
    Round(Short),
    /// to ← x
    Copy { to: Buf },
    /// x ← from + by · (x − from); from itself where `by` is 0.
    Between { from: Buf, by: f32 },
}

/// A type shorter than f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    F16,
    Bf16,
}
