//! A symmetric table: every pair of n things.

use serde::{Serialize, Serializer};

/// [n, n] row-major; NaN where there is no number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Square {
    n: usize,
    values: Vec<f32>,
}

impl Square {
    /// `of(a, b)` is asked for a ≤ b.
    pub fn of(n: usize, of: impl Fn(usize, usize) -> f32) -> Self {
        let values = (0..n * n).map(|i| of((i / n).min(i % n), (i / n).max(i % n))).collect();
        Self { n, values }
    }

    pub fn len(&self) -> usize {
        self.n
    }

    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    pub fn at(&self, a: usize, b: usize) -> f32 {
        self.values[a * self.n + b]
    }

    /// All pairs a < b that have a number.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize, f32)> + '_ {
        let pairs = (0..self.n).flat_map(|a| (a + 1..self.n).map(move |b| (a, b)));
        pairs.map(|(a, b)| (a, b, self.at(a, b))).filter(|(.., x)| !x.is_nan())
    }

    /// Mean over the pairs; `None` where there are none.
    pub fn mean(&self) -> Option<f32> {
        let (sum, count) = self.pairs().fold((0.0f64, 0), |(sum, n), (.., x)| (sum + x as f64, n + 1));
        (count > 0).then(|| (sum / count as f64) as f32)
    }
}

/// As a list of rows; what is no number is `null`.
impl Serialize for Square {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.values.chunks(self.n.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_triangles_are_the_same_and_gaps_do_not_count() {
        let square = Square::of(3, |a, b| if (a, b) == (0, 2) { f32::NAN } else { (10 * a + b) as f32 });
        assert_eq!((square.at(1, 0), square.at(0, 1), square.at(2, 2)), (1.0, 1.0, 22.0));
        assert_eq!(square.pairs().collect::<Vec<_>>(), [(0, 1, 1.0), (1, 2, 12.0)]);
        assert_eq!((square.mean(), Square::of(1, |_, _| 1.0).mean()), (Some(6.5), None));
        let json = serde_json::to_string(&square).unwrap();
        assert_eq!(json, "[[0.0,1.0,null],[1.0,11.0,12.0],[null,12.0,22.0]]");
    }
}
