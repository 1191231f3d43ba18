//! Queries kept beside the keys, so that any attention map can be computed again for the pixels on screen.

use half::f16;

use super::KeptRange;
use crate::simd::Cell;

enum Rows {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

/// Queries after rope of every layer and head, and the log-sum-exp of each attention row, for the newest
/// positions that fit the byte budget.
pub struct Queries {
    layers: usize,
    heads: usize,
    dim: usize,
    kept: KeptRange,
    /// [capacity][L·H][D]: new positions lie at the end, so that nothing moves where memory is added.
    rows: Rows,
    /// [capacity][L·H], nats.
    lse: Vec<f32>,
}

impl Queries {
    /// `exact`: f32 rows, else f16. Nothing is allocated before `reserve`. The first query kept will be that of position
    /// `first`.
    pub fn new(layers: usize, heads: usize, dim: usize, exact: bool, budget: u64, first: u32) -> Self {
        let (rows, cell) = if exact { (Rows::F32(Vec::new()), 4) } else { (Rows::F16(Vec::new()), 2) };
        let position_bytes = (layers * heads * (dim * cell + 4)) as u64;
        Self { layers, heads, dim, kept: KeptRange::new(first, position_bytes, budget), rows, lse: Vec::new() }
    }

    /// Positions that are kept.
    pub fn range(&self) -> std::ops::Range<u32> {
        self.kept.range()
    }

    pub fn bytes(&self) -> u64 {
        self.kept.bytes()
    }

    /// Forgets positions from `end` on.
    pub fn truncate(&mut self, end: u32) {
        self.kept.truncate(end);
    }

    /// Makes room for `more` positions after the newest; where the budget does not allow it, the oldest go.
    /// Returns how many positions were forgotten.
    pub fn reserve(&mut self, more: usize) -> usize {
        let renewal = self.kept.room_for(more);
        if let Some(renewal) = renewal {
            self.resize(renewal.drop, renewal.capacity);
            self.kept.renewed(renewal);
        }
        self.kept.extend(more);
        renewal.map_or(0, |renewal| renewal.drop)
    }

    fn resize(&mut self, drop: usize, capacity: usize) {
        fn moved<T: Cell>(all: &mut Vec<T>, drop: usize, len: usize) {
            all.drain(..drop.min(all.len()));
            all.reserve_exact(len.saturating_sub(all.len()));
            all.resize(len, T::default());
            all.shrink_to_fit();
        }
        let (planes, d) = (self.layers * self.heads, self.dim);
        match &mut self.rows {
            Rows::F32(rows) => moved(rows, drop * planes * d, capacity * planes * d),
            Rows::F16(rows) => moved(rows, drop * planes * d, capacity * planes * d),
        }
        moved(&mut self.lse, drop * planes, capacity * planes);
    }

    #[inline(always)]
    fn index(&self, layer: usize, head: usize, position: u32) -> usize {
        ((position - self.kept.first()) as usize * self.layers + layer) * self.heads + head
    }

    /// For a pass whose threads store different entries at once.
    pub fn writer(&mut self) -> QueryWriter {
        let rows = match &mut self.rows {
            Rows::F32(rows) => RowsPtr::F32(rows.as_mut_ptr()),
            Rows::F16(rows) => RowsPtr::F16(rows.as_mut_ptr()),
        };
        let range = self.range();
        let (heads, dim, layers) = (self.heads, self.dim, self.layers);
        QueryWriter { layers, heads, dim, range, rows, lse: self.lse.as_mut_ptr() }
    }

    /// Reads one query [D] and returns the log-sum-exp of its attention row.
    #[inline(always)]
    pub fn get(&self, layer: usize, head: usize, position: u32, out: &mut [f32]) -> f32 {
        let at = self.index(layer, head, position);
        match &self.rows {
            Rows::F32(rows) => out.copy_from_slice(&rows[at * self.dim..][..self.dim]),
            Rows::F16(rows) => {
                for (x, cell) in out.iter_mut().zip(&rows[at * self.dim..][..self.dim]) {
                    *x = cell.get();
                }
            }
        }
        self.lse[at]
    }
}

#[derive(Clone, Copy)]
enum RowsPtr {
    F32(*mut f32),
    F16(*mut f16),
}

/// Write access to disjoint entries from many threads.
#[derive(Clone)]
pub struct QueryWriter {
    layers: usize,
    heads: usize,
    dim: usize,
    range: std::ops::Range<u32>,
    rows: RowsPtr,
    lse: *mut f32,
}

// SAFETY: the pointers stay valid as long as the `Queries` is not touched; callers write disjoint entries.
unsafe impl Send for QueryWriter {}
unsafe impl Sync for QueryWriter {}

impl QueryWriter {
    fn index(&self, layer: usize, head: usize, position: u32) -> usize {
        assert!(layer < self.layers && head < self.heads && self.range.contains(&position));
        ((position - self.range.start) as usize * self.layers + layer) * self.heads + head
    }

    /// Stores one query [D].
    ///
    /// # Safety
    /// The `Queries` lives and is not touched otherwise, and no other thread has this entry.
    pub unsafe fn put(&self, layer: usize, head: usize, position: u32, query: &[f32]) {
        let at = self.index(layer, head, position) * self.dim;
        assert_eq!(query.len(), self.dim);
        // SAFETY: in range (asserted), alone by the caller's word.
        unsafe {
            match self.rows {
                RowsPtr::F32(rows) => std::ptr::copy_nonoverlapping(query.as_ptr(), rows.add(at), self.dim),
                RowsPtr::F16(rows) => Cell::put(query, std::slice::from_raw_parts_mut(rows.add(at), self.dim)),
            }
        }
    }

    /// Stores the log-sum-exp of the attention row of one query, nats.
    ///
    /// # Safety
    /// As `put`.
    pub unsafe fn put_lse(&self, layer: usize, head: usize, position: u32, lse: f32) {
        let at = self.index(layer, head, position);
        // SAFETY: in range (asserted), alone by the caller's word.
        unsafe { *self.lse.add(at) = lse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_drops_the_oldest_and_keeps_the_rest_in_place() {
        let (l, h, d) = (2, 3, 4);
        let per_position = (l * h * (d * 4 + 4)) as u64;
        let mut queries = Queries::new(l, h, d, true, per_position * 100, 0);
        let mut forgotten = 0;
        for p in 0..250u32 {
            forgotten += queries.reserve(1);
            let writer = queries.writer();
            for layer in 0..l {
                for head in 0..h {
                    let x = (p * 100) as f32 + (layer * 10 + head) as f32;
                    unsafe {
                        writer.put(layer, head, p, &[x; 4]);
                        writer.put_lse(layer, head, p, -x);
                    }
                }
            }
            assert!(queries.bytes() <= per_position * 100);
        }
        assert_eq!(queries.range(), forgotten as u32..250);
        assert!(queries.range().len() >= 75);
        let mut out = [0.0; 4];
        for p in queries.range() {
            let lse = queries.get(1, 2, p, &mut out);
            assert_eq!(out, [(p * 100 + 12) as f32; 4]);
            assert_eq!(lse, -((p * 100 + 12) as f32));
        }
    }
}
