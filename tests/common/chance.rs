//! Whether counts are those of a distribution.

/// How many of its deviations χ² of these counts is above or below what it should be, cells merged, the most probable
/// first, until 5 are expected in each; and how many cells. By its cube root (Wilson and Hilferty), normal to within a
/// percent: 3.72 deviations are p = 1e-4.
pub fn chi_square(counts: &[f64], p: &[f64]) -> (f64, f64) {
    let total: f64 = counts.iter().sum();
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let (mut statistic, mut cells, mut cell) = (0.0, 0.0, [0.0; 2]);
    for id in order {
        cell = [cell[0] + counts[id], cell[1] + total * p[id]];
        if cell[1] >= 5.0 {
            statistic += (cell[0] - cell[1]).powi(2) / cell[1];
            cells += 1.0;
            cell = [0.0; 2];
        }
    }
    let (freedom, spread) = (cells - 1.0, 2.0 / (9.0 * (cells - 1.0)));
    (((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt(), cells)
}

pub fn softmax(x: impl Iterator<Item = f64>) -> Vec<f64> {
    let parts: Vec<f64> = x.map(f64::exp).collect();
    let sum: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / sum).collect()
}
