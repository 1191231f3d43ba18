//! A vector of f32 whose parts different threads may write in one operation.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut, Range};

/// Reads like a slice. While threads write parts through [`Strand::part_mut`], nobody else may look at those parts.
#[derive(Default)]
pub struct Strand(Vec<UnsafeCell<f32>>);

// SAFETY: shared writing goes through `part_mut` only, whose callers keep the parts disjoint.
unsafe impl Sync for Strand {}

impl Strand {
    pub fn resize(&mut self, n: usize) {
        self.0.resize_with(n, || UnsafeCell::new(0.0));
        self.0.shrink_to_fit();
    }

    /// # Safety
    /// No other thread reads or writes these elements meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part_mut(&self, part: Range<usize>) -> &mut [f32] {
        let cells = &self.0[part];
        // SAFETY: in bounds (sliced above), the cells allow writing; alone by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), cells.len()) }
    }

    /// # Safety
    /// No other thread writes these elements meanwhile.
    #[inline(always)]
    pub unsafe fn part(&self, part: Range<usize>) -> &[f32] {
        let cells = &self.0[part];
        // SAFETY: in bounds; nobody writes by the caller's word.
        unsafe { std::slice::from_raw_parts(UnsafeCell::raw_get(cells.as_ptr()), cells.len()) }
    }
}

impl Clone for Strand {
    fn clone(&self) -> Self {
        Self(self.iter().map(|&x| UnsafeCell::new(x)).collect())
    }
}

impl Deref for Strand {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: whole strands are looked at between operations only.
        unsafe { self.part(0..self.0.len()) }
    }
}

impl DerefMut for Strand {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: exclusive.
        unsafe { self.part_mut(0..self.0.len()) }
    }
}
