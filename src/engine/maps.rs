//! Rows of all attention maps of the prompt at once, a few at a time.

use super::core::Core;
use super::error::Result;
use crate::probe::map_similarity::{LayerSimilarity, MapSimilarity};

/// Rows that follow each other: products with the keys are cheaper together.
const CLUMP: usize = 12;
/// Most memory for the rows of all maps, bytes.
const ROOM: usize = 64 << 20;

impl Core {
    /// Shows lane 0's maps at up to `rows` queries of the prompt, in clumps spread evenly over it: one row of every
    /// map `[layer · H + head]`, the columns that the query sees. Right after the prompt. Queries forgotten for the
    /// budget are left out.
    pub fn each_map_row(&mut self, rows: usize, look: &mut dyn FnMut(&[&[f32]])) -> Result<()> {
        let (layers, heads) = (self.config().layers.len(), self.config().heads);
        let n = self.prompt.len();
        let kept = self.backend.kept_queries();
        // A query that sees one entry is like every other.
        let (first, end) = ((kept.start as usize).max(1), (kept.end as usize).min(n));
        let most = (ROOM / (layers * heads * n.max(1) * 4)).clamp(1, CLUMP);
        for (from, count) in clumps(first, end, rows, most) {
            let mut maps = Vec::with_capacity(layers * heads);
            for map in 0..layers * heads {
                let rows = from as u32..(from + count) as u32;
                maps.push(self.attention_rows(map / heads, map % heads, rows)?);
            }
            for row in 0..count {
                let cells = |map: &'_ Vec<f32>| row * map.len() / count..row * map.len() / count + from + row + 1;
                let row: Vec<&[f32]> = maps.iter().map(|map| &map[cells(map)]).collect();
                look(&row);
            }
        }
        Ok(())
    }

    /// How alike the layers' maps are over up to `rows` rows of the prompt.
    pub fn map_similarity(&mut self, rows: usize) -> Result<LayerSimilarity> {
        let mut similarity = MapSimilarity::new(self.config().layers.len(), self.config().heads);
        self.each_map_row(rows, &mut |maps| similarity.add(maps))?;
        Ok(similarity.finish())
    }
}

/// (first, count) of clumps of at most `most` in `first..end`, `rows` in all; evenly spread, the last one at the end.
fn clumps(first: usize, end: usize, rows: usize, most: usize) -> Vec<(usize, usize)> {
    let (room, rows) = (end.saturating_sub(first), rows.min(end.saturating_sub(first)));
    let count = rows.div_ceil(most.max(1));
    let clump = |i: usize| {
        let before = i * (rows / count) + i.min(rows % count);
        (first + before + (i + 1) * (room - rows) / count, rows / count + (i < rows % count) as usize)
    };
    (0..count).map(clump).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clumps_are_apart_and_end_with_the_prompt() {
        assert_eq!(clumps(1, 101, 20, 12), [(41, 10), (91, 10)]);
        assert_eq!(clumps(1, 6, 100, 2), [(1, 2), (3, 2), (5, 1)]);
        assert_eq!(clumps(1, 8, 5, 2), [(1, 2), (4, 2), (7, 1)]);
        assert!(clumps(1, 1, 5, 2).is_empty() && clumps(1, 9, 0, 2).is_empty());
        for (end, rows, most) in [(50, 17, 12), (9, 8, 3), (1000, 120, 12), (14, 13, 12)] {
            let all: Vec<usize> = clumps(1, end, rows, most).iter().flat_map(|&(at, n)| at..at + n).collect();
            assert_eq!((all.len(), *all.last().unwrap()), (rows.min(end - 1), end - 1));
            assert!(all.windows(2).all(|w| w[0] < w[1]) && all[0] >= 1, "{all:?}");
        }
    }
}
