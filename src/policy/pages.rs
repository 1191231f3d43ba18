//! What is known of runs of held entries: taken from their keys when the run is complete.

use std::sync::Arc;

use super::reader::Sight;

/// Numbers about the complete pages of one layer.
#[derive(Clone, Default)]
pub(super) struct Pages {
    /// Of the entries in them.
    positions: Vec<u32>,
    pages: Vec<Arc<[f32]>>,
    /// Bytes of one entry of the cache.
    entry: u64,
}

impl Pages {
    /// Numbers about the first `pages` pages of `page` slots, all complete [pages]. `of` gives those of one page from
    /// its keys [page, D] and is asked once a page, unless entries leave: then pages are others.
    pub fn numbers(
        &mut self,
        sight: &Sight<'_>,
        page: usize,
        pages: usize,
        of: impl Fn(&[f32]) -> Vec<f32>,
    ) -> &[Arc<[f32]>] {
        if !sight.positions.starts_with(&self.positions) {
            self.positions.clear();
            self.pages.clear();
        }
        self.entry = sight.entry;
        let (known, end) = (self.positions.len(), pages * page);
        if known < end {
            let keys = (sight.keys)(known..end);
            self.positions.extend(&sight.positions[known..end]);
            self.pages.extend(keys.chunks_exact(keys.len() / (end - known) * page).map(|keys| of(keys).into()));
        }
        &self.pages[..pages]
    }

    /// As many bytes as `entries` entries of the cache for each page.
    pub fn bytes(&self, entries: f64) -> u64 {
        (self.pages.len() as f64 * entries * self.entry as f64) as u64
    }
}

/// Slots of page `number` of `n` slots.
pub(super) fn slots(number: u32, page: usize, n: usize) -> std::ops::Range<u32> {
    number * page as u32..((number + 1) * page as u32).min(n as u32)
}
