//! Activations in 8 bits: one scale per 32 columns, with the sums that weights with an offset need.

use std::cell::UnsafeCell;

use super::Isa;
use super::quantize::quantize;

/// 32 columns of one activation row: x ≈ d·q.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct RowBlock {
    pub d: f32,
    /// Σq of all columns, and of the first and last 16. Integers, exactly.
    pub sum: f32,
    pub half_sums: [f32; 2],
    /// −127 ≤ q ≤ 127, in groups of 4 columns.
    pub q: [[i8; 4]; 8],
}

impl RowBlock {
    pub const ZERO: RowBlock = RowBlock { d: 0.0, sum: 0.0, half_sums: [0.0; 2], q: [[0; 4]; 8] };
}

/// Room for `rows` activation rows of `cols` columns, allocated once.
pub struct QuantizedRows {
    rows: usize,
    cols: usize,
    blocks: Box<[UnsafeCell<RowBlock>]>,
}

// SAFETY: shared writes happen only through `quantize_row_shared`, whose caller keeps them apart from all other access.
unsafe impl Sync for QuantizedRows {}

impl QuantizedRows {
    /// # Panics
    /// If `cols` is no multiple of 32.
    pub fn new(rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(32), "{cols} columns are no whole number of blocks of 32");
        let blocks = (0..rows * (cols / 32)).map(|_| UnsafeCell::new(RowBlock::ZERO)).collect();
        Self { rows, cols, blocks }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Replaces row `row` by `x` [cols].
    pub fn quantize_row(&mut self, row: usize, x: &[f32], isa: Isa) {
        // SAFETY: the exclusive borrow keeps everyone else away.
        unsafe { self.quantize_row_shared(row, x, isa) }
    }

    /// Replaces row `row` by `x` [cols], for threads that fill different rows of one buffer.
    ///
    /// # Safety
    /// Until this returns, no other thread may write or read the row, by [`matmul`](super::matmul) or otherwise.
    pub unsafe fn quantize_row_shared(&self, row: usize, x: &[f32], isa: Isa) {
        assert_eq!(x.len(), self.cols);
        let per_row = self.cols / 32;
        let cells = &self.blocks[row * per_row..][..per_row];
        // SAFETY: an UnsafeCell<T> lies in memory as T does, and the caller promises that nobody else uses the row.
        let blocks = unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), per_row) };
        quantize(x, blocks, isa);
    }

    #[inline]
    pub(super) fn row(&self, row: usize) -> &[RowBlock] {
        let per_row = self.cols / 32;
        let cells = &self.blocks[row * per_row..][..per_row];
        // SAFETY: an UnsafeCell<T> lies in memory as T does, and nobody writes the row meanwhile: such a writer has
        // promised it to `quantize_row_shared`.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<RowBlock>(), per_row) }
    }
}
