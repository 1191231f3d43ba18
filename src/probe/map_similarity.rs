//! How alike the attention maps of different layers are: what sharing maps across layers lives on.
//!
//! For layers l, m and query head h: mean over rows i of cos(A_l[h,i,:], A_m[h,i,:]) over the columns that query i sees,
//! then over heads, with and without position 0. Head 3 of one layer has nothing to do with head 3 of another except
//! that a shared map is used head by head; so the same is taken of maps averaged over heads.

use rayon::prelude::*;

use super::map_row::{MapRow, RowCosine};
use super::square::Square;

/// Sums over the rows seen so far.
pub struct MapSimilarity {
    layers: usize,
    /// One for each query head, one for the mean over heads.
    heads: Vec<Sums>,
    rows: usize,
}

/// Cosines of all pairs of layers a < b: Σ and count, with position 0 and without.
#[derive(Clone)]
struct Sums {
    all: Vec<(f64, u32)>,
    rest: Vec<(f64, u32)>,
}

/// Layers against layers, all [layers, layers].
#[derive(Debug, Clone, serde::Serialize)]
pub struct LayerSimilarity {
    /// Head against the head of the same number.
    pub heads: Square,
    pub heads_without_sink: Square,
    /// Maps averaged over heads.
    pub mean: Square,
    pub mean_without_sink: Square,
    /// Rows that were looked at.
    pub rows: usize,
}

impl MapSimilarity {
    pub fn new(layers: usize, heads: usize) -> Self {
        let none = vec![(0.0, 0); layers * layers];
        Self { layers, heads: vec![Sums { all: none.clone(), rest: none }; heads + 1], rows: 0 }
    }

    /// One row of every map `[layer · H + head]`, all over the same columns, position 0 first.
    pub fn add(&mut self, maps: &[&[f32]]) {
        let (layers, heads) = (self.layers, self.heads.len() - 1);
        self.rows += 1;
        let means: Vec<Vec<f32>> = maps.chunks(heads.max(1)).map(mean).collect();
        self.heads.par_iter_mut().enumerate().for_each(|(head, sums)| {
            let map = |layer: usize| if head < heads { maps[layer * heads + head] } else { &means[layer] };
            let rows: Vec<MapRow<'_>> = (0..layers).map(|layer| MapRow::new(map(layer))).collect();
            for a in 0..layers {
                for b in a + 1..layers {
                    sums.note(a * layers + b, rows[a].cosine(&rows[b]));
                }
            }
        });
    }

    pub fn finish(&self) -> LayerSimilarity {
        let (heads, mean) = self.heads.split_at(self.heads.len() - 1);
        let square = |of: &[Sums], pick: fn(&Sums) -> &[(f64, u32)]| {
            Square::of(self.layers, |a, b| {
                let cell = of.iter().map(|sums| pick(sums)[a * self.layers + b]);
                let (sum, count) = cell.fold((0.0, 0), |(s, n), (sum, count)| (s + sum, n + count));
                if a == b { 1.0 } else { (sum / count as f64) as f32 }
            })
        };
        LayerSimilarity {
            heads: square(heads, |s| &s.all),
            heads_without_sink: square(heads, |s| &s.rest),
            mean: square(mean, |s| &s.all),
            mean_without_sink: square(mean, |s| &s.rest),
            rows: self.rows,
        }
    }
}

impl Sums {
    fn note(&mut self, at: usize, cosine: RowCosine) {
        for (sums, cosine) in [(&mut self.all, cosine.all), (&mut self.rest, cosine.rest)] {
            if let Some(cosine) = cosine {
                sums[at].0 += cosine;
                sums[at].1 += 1;
            }
        }
    }
}

fn mean(rows: &[&[f32]]) -> Vec<f32> {
    let mut mean = vec![0.0f32; rows.first().map_or(0, |row| row.len())];
    rows.iter().for_each(|row| mean.iter_mut().zip(*row).for_each(|(m, p)| *m += p));
    mean.iter_mut().for_each(|m| *m /= rows.len() as f32);
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_that_changed_places_are_alike_on_average_only() {
        // Layer 1 has layer 0's two heads in the other order.
        let (x, y) = ([0.5f32, 0.5, 0.0], [0.5f32, 0.0, 0.5]);
        let mut similarity = MapSimilarity::new(2, 2);
        similarity.add(&[&x, &y, &y, &x]);
        let found = similarity.finish();
        assert!((found.heads.at(0, 1) - 0.5).abs() < 1e-6);
        assert_eq!(found.heads_without_sink.at(1, 0), 0.0);
        assert!((found.mean.at(0, 1) - 1.0).abs() < 1e-6 && (found.mean_without_sink.at(0, 1) - 1.0).abs() < 1e-6);
        assert_eq!((found.rows, found.heads.at(1, 1)), (1, 1.0));
    }

    /// Definition by definition, in f64.
    fn slow(rows: &[Vec<Vec<f32>>], heads: usize, a: usize, b: usize, from: usize) -> f64 {
        let (mut sum, mut count) = (0.0, 0);
        for row in rows {
            for head in 0..heads {
                let cut = |l: usize| row[l * heads + head][from..].iter().map(|&p| p as f64).collect::<Vec<_>>();
                let (x, y) = (cut(a), cut(b));
                let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
                let norms = (dot(&x, &x) * dot(&y, &y)).sqrt();
                if norms > 0.0 {
                    sum += dot(&x, &y) / norms;
                    count += 1;
                }
            }
        }
        sum / count as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn equals_the_slow_reference(
            (layers, heads, lengths) in (2usize..5, 1usize..4, prop::collection::vec(2usize..40, 1..5)), seed in 0u32..1000,
        ) {
            let cell = |i: usize| ((i as f32 * 12.9898 + seed as f32).sin() * 43758.547).fract().abs();
            let mut at = 0;
            let mut draw = |n: usize| { at += n; (at - n..at).map(cell).collect::<Vec<f32>>() };
            let rows: Vec<Vec<Vec<f32>>> =
                lengths.iter().map(|&n| (0..layers * heads).map(|_| draw(n)).collect()).collect();
            let mut similarity = MapSimilarity::new(layers, heads);
            for row in &rows {
                similarity.add(&row.iter().map(Vec::as_slice).collect::<Vec<_>>());
            }
            let found = similarity.finish();
            for (a, b, x) in found.heads.pairs() {
                prop_assert!((x as f64 - slow(&rows, heads, a, b, 0)).abs() < 1e-5);
                prop_assert!((found.heads_without_sink.at(a, b) as f64 - slow(&rows, heads, a, b, 1)).abs() < 1e-5);
            }
        }
    }
}
