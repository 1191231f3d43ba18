//! Spans of neighbouring layers with alike attention maps: candidates for one map used by all of them.

use super::square::Square;

/// Layers `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Span {
    pub first: usize,
    pub last: usize,
    /// The least similarity of a layer of the span to its first one, whose map they would use.
    pub least: f32,
}

/// For each length from 2 to `longest`, the span whose least alike layer is most alike; earlier ones where equal.
/// `may(l, m)`: layer m could use layer l's map.
pub fn best_spans(similarity: &Square, longest: usize, may: impl Fn(usize, usize) -> bool) -> Vec<Span> {
    let span = |first: usize, length: usize| {
        let others = first + 1..first + length;
        let least = others.clone().map(|l| similarity.at(first, l)).fold(f32::INFINITY, f32::min);
        others.clone().all(|l| may(first, l) && !similarity.at(first, l).is_nan()).then_some(Span {
            first,
            last: first + length - 1,
            least,
        })
    };
    let best = |length: usize| {
        let all = (0..(similarity.len() + 1).saturating_sub(length)).filter_map(|first| span(first, length));
        all.reduce(|best, next| if next.least > best.least { next } else { best })
    };
    (2..=longest).filter_map(best).collect()
}

/// Makes up to `count` layers among `inner` use the map of an earlier one: always the layer next that is most alike
/// the first of the span that ends before it. The layer whose map each layer uses [layers].
pub fn grow_spans(
    similarity: &Square,
    inner: std::ops::Range<usize>,
    count: usize,
    may: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    let mut first: Vec<usize> = (0..similarity.len()).collect();
    for _ in 0..count {
        let free = |l: usize| first[l] == l && !first.iter().enumerate().any(|(m, &f)| f == l && m != l);
        let could = (inner.start + 1..inner.end).filter(|&l| free(l)).map(|l| (l, first[l - 1]));
        let alike = could.filter(|&(l, f)| may(f, l) && !similarity.at(f, l).is_nan());
        let best = alike.reduce(|a, b| if similarity.at(b.1, b.0) > similarity.at(a.1, a.0) { b } else { a });
        let Some((l, f)) = best else { break };
        first[l] = f;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers 1, 2, 3 are alike, 2 and 3 most; 4 is like 3 only.
    fn five() -> Square {
        Square::of(5, |a, b| match (a, b) {
            (1, 2) | (1, 3) => 0.8,
            (2, 3) => 0.9,
            (3, 4) => 0.7,
            _ => 0.1,
        })
    }

    #[test]
    fn the_best_span_of_each_length() {
        let spans = best_spans(&five(), 4, |_, _| true);
        let plain: Vec<_> = spans.iter().map(|s| (s.first, s.last, s.least)).collect();
        assert_eq!(plain, [(2, 3, 0.9), (1, 3, 0.8), (0, 3, 0.1)]);
        let without: Vec<_> =
            best_spans(&five(), 4, |l, m| m != 3 && l != 3).iter().map(|s| (s.first, s.last)).collect();
        assert_eq!(without, [(1, 2), (0, 2)]);
    }

    #[test]
    fn spans_grow_by_what_is_most_alike() {
        let grown = |count| grow_spans(&five(), 1..5, count, |_, _| true);
        assert_eq!(grown(1), [0, 1, 2, 2, 4]);
        // 3 reads 2 already, so 2 cannot become a reader; 4 is unlike 2 but nothing else is left.
        assert_eq!(grown(3), [0, 1, 2, 2, 2]);
        assert_eq!(grow_spans(&five(), 0..5, 0, |_, _| true), [0, 1, 2, 3, 4]);
    }
}
