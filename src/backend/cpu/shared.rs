//! Memory that the threads of one program write in disjoint parts.

use std::cell::UnsafeCell;

/// A matrix [rows, width] whose rows are written by different threads at once.
pub struct Grid {
    data: Vec<UnsafeCell<f32>>,
    width: usize,
}

// SAFETY: access from several threads goes through the unsafe methods below, whose callers keep it disjoint.
unsafe impl Sync for Grid {}

impl Grid {
    pub fn new(rows: usize, width: usize) -> Self {
        let mut grid = Self { data: Vec::new(), width };
        grid.resize(rows);
        grid
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn rows(&self) -> usize {
        self.data.len() / self.width.max(1)
    }

    pub fn bytes(&self) -> u64 {
        (self.data.capacity() * size_of::<f32>()) as u64
    }

    /// Grows to at least `rows` rows.
    pub fn resize(&mut self, rows: usize) {
        if rows * self.width > self.data.len() {
            self.data.resize_with(rows * self.width, || UnsafeCell::new(0.0));
        }
    }

    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: UnsafeCell<f32> has the layout of f32; called between programs only.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr() as *const f32, self.data.len()) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_mut_ptr() as *mut f32, self.data.len()) }
    }

    /// # Safety
    /// No thread writes any row meanwhile.
    pub unsafe fn all(&self) -> &[f32] {
        self.as_slice()
    }

    /// # Safety
    /// No thread writes this row meanwhile.
    #[inline(always)]
    pub unsafe fn row(&self, row: usize) -> &[f32] {
        let range = row * self.width..(row + 1) * self.width;
        let cells = &self.data[range];
        // SAFETY: in bounds (sliced above); no writer by the caller's word.
        unsafe { std::slice::from_raw_parts(cells.as_ptr() as *const f32, cells.len()) }
    }

    /// # Safety
    /// No other thread touches columns `from..to` of this row meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part_mut(&self, row: usize, from: usize, to: usize) -> &mut [f32] {
        let cells = &self.data[row * self.width + from..row * self.width + to];
        // SAFETY: in bounds (sliced above); exclusive by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(cells.as_ptr() as *mut f32, cells.len()) }
    }

    /// # Safety
    /// No other thread touches this row meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn row_mut(&self, row: usize) -> &mut [f32] {
        // SAFETY: by the caller's word.
        unsafe { self.part_mut(row, 0, self.width) }
    }
}

/// A pointer to something whose disjoint parts are changed by different threads.
pub struct Alone<T>(*mut T);

impl<T> Clone for Alone<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Alone<T> {}

// SAFETY: dereferenced only through `get`, whose callers keep access disjoint.
unsafe impl<T: Send> Send for Alone<T> {}
unsafe impl<T: Send> Sync for Alone<T> {}

impl<T> Alone<T> {
    pub fn new(target: &mut T) -> Self {
        Self(target)
    }

    /// # Safety
    /// The target lives and nobody holds a mutable reference to it meanwhile.
    pub unsafe fn shared(&self) -> &T {
        // SAFETY: by the caller's word.
        unsafe { &*self.0 }
    }

    /// # Safety
    /// The target lives and nothing else holds a reference to it meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn get(&self) -> &mut T {
        // SAFETY: by the caller's word.
        unsafe { &mut *self.0 }
    }
}
