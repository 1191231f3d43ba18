//! Two attention rows of the same query side by side: how alike, with and without the sink.

/// The columns that one query sees, position 0 first, and squared lengths.
#[derive(Clone, Copy)]
pub struct MapRow<'a> {
    cells: &'a [f32],
    first: f64,
    /// Σ p² without position 0.
    rest: f64,
}

/// Cosines of two rows: over all columns, and over all but position 0. `None` where a row has nothing there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowCosine {
    pub all: Option<f64>,
    pub rest: Option<f64>,
}

impl<'a> MapRow<'a> {
    pub fn new(cells: &'a [f32]) -> Self {
        let (first, rest) = cells.split_at(cells.len().min(1));
        Self { cells, first: first.first().map_or(0.0, |&p| p as f64), rest: dot(rest, rest) }
    }

    /// With a row over the same columns.
    pub fn cosine(&self, other: &MapRow<'_>) -> RowCosine {
        let from = self.cells.len().min(1);
        // The sink is added afterwards: what it leaves may be a millionth of it.
        let rest = dot(&self.cells[from..], &other.cells[from..]);
        let ratio = |dot: f64, squares: f64| (squares > 0.0).then(|| dot / squares.sqrt());
        let whole = |row: &MapRow<'_>| row.first * row.first + row.rest;
        RowCosine {
            all: ratio(self.first * other.first + rest, whole(self) * whole(other)),
            rest: ratio(rest, self.rest * other.rest),
        }
    }
}

const LANES: usize = 16;

/// Σ a·b, summed in sixteen strands of f32 and these in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut strands = [0.0f32; LANES];
    let (mut x, mut y) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (x, y) in (&mut x).zip(&mut y) {
        for i in 0..LANES {
            strands[i] += x[i] * y[i];
        }
    }
    let tail: f64 = x.remainder().iter().zip(y.remainder()).map(|(&x, &y)| x as f64 * y as f64).sum();
    strands.iter().map(|&s| s as f64).sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_makes_rows_alike_that_are_not() {
        let (a, b) = ([0.8, 0.2, 0.0], [0.8, 0.0, 0.2]);
        let cosine = MapRow::new(&a).cosine(&MapRow::new(&b));
        assert!((cosine.all.unwrap() - 0.64 / 0.68).abs() < 1e-6);
        assert_eq!(cosine.rest, Some(0.0));
        let alone = MapRow::new(&[1.0]).cosine(&MapRow::new(&[1.0]));
        assert_eq!(alone, RowCosine { all: Some(1.0), rest: None });
    }

    #[test]
    fn strands_add_up() {
        let x: Vec<f32> = (0..100).map(|i| (i as f32 * 0.37).sin()).collect();
        let y: Vec<f32> = (0..100).map(|i| (i as f32 * 0.11).cos()).collect();
        let plain: f64 = x.iter().zip(&y).map(|(&x, &y)| x as f64 * y as f64).sum();
        assert!((dot(&x, &y) - plain).abs() < 1e-5);
    }
}
