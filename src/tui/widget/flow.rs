//! Items of different widths broken into lines, like words of a text.

use std::ops::Range;

/// Where each item stands.
#[derive(Debug, Clone)]
pub struct Flow {
    /// First item of each line.
    starts: Vec<usize>,
    /// Column where each item starts, and its width [items].
    places: Vec<(u16, u16)>,
}

impl Default for Flow {
    fn default() -> Self {
        Self { starts: vec![0], places: Vec::new() }
    }
}

impl Flow {
    /// Breaks at `columns` and after items that end a line: `items` are (width, ends its line).
    pub fn new(columns: u16, items: impl Iterator<Item = (u16, bool)>) -> Self {
        let mut flow = Self::default();
        let mut used: u16 = 0;
        let mut ended = false;
        for (i, (width, ends)) in items.enumerate() {
            if ended || used > 0 && used.saturating_add(width) > columns {
                flow.starts.push(i);
                used = 0;
            }
            flow.places.push((used, width));
            used = used.saturating_add(width);
            ended = ends;
        }
        flow
    }

    pub fn lines(&self) -> usize {
        self.starts.len()
    }

    pub fn line_of(&self, item: usize) -> usize {
        self.starts.partition_point(|&first| first <= item).saturating_sub(1)
    }

    /// Items of a line; none behind the last one.
    pub fn items_of(&self, line: usize) -> Range<usize> {
        let all = self.places.len();
        let start = self.starts.get(line).copied().unwrap_or(all);
        start..self.starts.get(line + 1).copied().unwrap_or(all)
    }

    /// Column where an item starts in its line.
    pub fn column(&self, item: usize) -> u16 {
        self.places.get(item).map_or(0, |&(column, _)| column)
    }

    /// The item under a column of a line; its last one behind the end.
    pub fn item_at(&self, line: usize, column: u16) -> Option<usize> {
        let mut items = self.items_of(line);
        let under = items.clone().find(|&i| column < self.places[i].0.saturating_add(self.places[i].1));
        under.or(items.next_back())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(words: &[&str], columns: u16) -> Flow {
        Flow::new(columns, words.iter().map(|w| (w.chars().count() as u16, w.contains('␊'))))
    }

    #[test]
    fn lines_break_at_the_edge_and_after_line_ends() {
        let flow = flow(&["The", "·cat", "·sat", "␊", "·on", "·it"], 8);
        assert_eq!(flow.starts, [0, 2, 4]);
        assert_eq!(flow.items_of(1), 2..4);
        assert_eq!(flow.items_of(9), 6..6);
        assert_eq!(flow.line_of(5), 2);
    }

    #[test]
    fn an_item_is_found_where_it_starts_and_where_it_ends() {
        let flow = flow(&["The", "·cat", "·sat"], 80);
        for item in 0..3 {
            assert_eq!(flow.item_at(0, flow.column(item)), Some(item));
            assert_eq!(flow.item_at(0, flow.column(item) + flow.places[item].1 - 1), Some(item));
        }
        assert_eq!(flow.item_at(0, 70), Some(2));
        assert_eq!(flow.item_at(3, 0), None);
    }

    #[test]
    fn an_item_wider_than_the_line_takes_one_of_its_own() {
        assert_eq!(flow(&["a", "bbbbbbbbbbbb", "c"], 4).starts, [0, 1, 2]);
        assert_eq!(flow(&[], 4).lines(), 1);
    }
}
