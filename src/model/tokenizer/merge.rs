//! Greedy merging of neighbours, the best pair first: BPE by rank, SentencePiece by score.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A run of bytes in the text. `id` means what the caller wants it to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    pub start: usize,
    pub len: usize,
    pub id: u32,
}

/// A pair that could merge. Of equals, the leftmost goes first.
struct Pair<P> {
    priority: P,
    left: usize,
    right: usize,
    /// Bytes of both when the pair was found; another number now means that one of them has merged since.
    len: usize,
    id: u32,
}

impl<P: Ord> Ord for Pair<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority.cmp(&other.priority).then_with(|| other.left.cmp(&self.left))
    }
}

impl<P: Ord> PartialOrd for Pair<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Ord> PartialEq for Pair<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<P: Ord> Eq for Pair<P> {}

/// Merge neighbours for as long as `join` finds a pair: it gives the priority (greatest first) and the id of the whole.
/// n symbols take O(n log n).
pub(super) fn merge<P: Ord>(symbols: &mut Vec<Symbol>, join: impl Fn(&Symbol, &Symbol) -> Option<(P, u32)>) {
    let count = symbols.len();
    // Neighbours by index; `count` is the end on either side. A merged symbol has length 0.
    let mut next: Vec<usize> = (1..=count).collect();
    let mut previous: Vec<usize> = (0..count).map(|i| i.checked_sub(1).unwrap_or(count)).collect();
    let pair = |symbols: &[Symbol], left: usize, right: usize| {
        let (l, r) = (symbols.get(left)?, symbols.get(right)?);
        join(l, r).map(|(priority, id)| Pair { priority, left, right, len: l.len + r.len, id })
    };
    let mut queue: BinaryHeap<Pair<P>> = (1..count).filter_map(|right| pair(symbols, right - 1, right)).collect();
    while let Some(Pair { left, right, len, id, .. }) = queue.pop() {
        let (l, r) = (symbols[left].len, symbols[right].len);
        if l == 0 || r == 0 || l + r != len {
            continue;
        }
        symbols[left] = Symbol { start: symbols[left].start, len, id };
        symbols[right].len = 0;
        next[left] = next[right];
        if let Some(back) = previous.get_mut(next[left]) {
            *back = left;
        }
        queue.extend(pair(symbols, previous[left], left));
        queue.extend(pair(symbols, left, next[left]));
    }
    symbols.retain(|symbol| symbol.len > 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Equal letters merge in pairs from the left; the id counts letters.
    #[test]
    fn the_leftmost_of_equal_pairs_goes_first() {
        let mut symbols: Vec<Symbol> = (0..5).map(|start| Symbol { start, len: 1, id: 1 }).collect();
        merge(&mut symbols, |l, r| (l.len == r.len && l.len < 4).then_some((std::cmp::Reverse(l.len), l.id + r.id)));
        let ids: Vec<u32> = symbols.iter().map(|s| s.id).collect();
        assert_eq!(ids, [4, 1]);
    }
}
