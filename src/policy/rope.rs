//! Queries and keys as they were before rope, and the mean rotation of positions to come.

use std::ops::Range;

use super::part::LayerView;

/// Cosine and sine by which a layer turns the channel pairs of each position up to some length.
pub(crate) struct Angles {
    /// [positions][D/2]
    pairs: Vec<(f32, f32)>,
    half: usize,
}

impl Angles {
    /// Of positions below `end`.
    pub fn below(end: u32, turns: &[f32]) -> Self {
        let of = |position: u32| {
            turns.iter().map(move |turn| {
                // the angle that the model used: a product in f32
                let (sin, cos) = (position as f32 * turn).sin_cos();
                (cos, sin)
            })
        };
        Self { pairs: (0..end).flat_map(of).collect(), half: turns.len() }
    }

    /// Of all that `view` may ask about.
    pub fn of(view: &dyn LayerView) -> Self {
        Self::below(view.newest() + 1, view.turns())
    }

    /// Undoes the rotation of each row of `x` [n, dim] at its position.
    pub fn turn_back(&self, x: &mut [f32], dim: usize, positions: impl Iterator<Item = u32>) {
        for (row, position) in x.chunks_exact_mut(dim).zip(positions) {
            let (a, b) = row.split_at_mut(self.half);
            let angles = &self.pairs[position as usize * self.half..][..self.half];
            for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(angles) {
                (*a, *b) = (*a * cos + *b * sin, *b * cos - *a * sin);
            }
        }
    }
}

/// Keys of slots `slots` of a kv head before rope [slots, D].
pub(super) fn plain_keys(view: &dyn LayerView, angles: &Angles, kv_head: usize, slots: Range<usize>) -> Vec<f32> {
    let dim = view.head_dim();
    let mut keys = view.keys(kv_head)[slots.start * dim..slots.end * dim].to_vec();
    angles.turn_back(&mut keys, dim, view.positions(kv_head)[slots].iter().copied());
    keys
}

/// Queries of head `head` at positions `rows` before rope [rows, D].
pub(super) fn plain_queries(view: &dyn LayerView, angles: &Angles, head: usize, rows: Range<u32>) -> Vec<f32> {
    let mut queries = view.queries(head, rows.clone());
    angles.turn_back(&mut queries, view.head_dim(), rows);
    queries
}

/// Mean cosine and sine of each channel pair's angle over `count` positions from `from` on [D/2]: the mean of
/// the rotations, which is shorter than a rotation.
pub(super) fn mean_rotation(turns: &[f32], from: u32, count: u32) -> Vec<(f64, f64)> {
    let mean = |&turn: &f32| {
        let angles = (from..from.saturating_add(count)).map(|p| ((p as f32 * turn) as f64).sin_cos());
        let (sin, cos) = angles.fold((0.0, 0.0), |(s, c), (sin, cos)| (s + sin, c + cos));
        (cos / count as f64, sin / count as f64)
    };
    turns.iter().map(mean).collect()
}

/// Entry i of R·x, R given by the (cosine, sine) of each channel pair. A channel without a partner stays.
pub(super) fn rotated(rotation: &[(f64, f64)], i: usize, x: impl Fn(usize) -> f64) -> f64 {
    let half = rotation.len();
    match i {
        i if i < half => rotation[i].0 * x(i) - rotation[i].1 * x(i + half),
        i if i < 2 * half => rotation[i - half].0 * x(i) + rotation[i - half].1 * x(i - half),
        i => x(i),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::toy;

    #[test]
    fn turning_back_gives_the_pair_before_rope() {
        // the pair (1, 0) at angle 1 per position, position 7
        let mut row = [0.753902, 0.656987];
        Angles::below(8, &[1.0]).turn_back(&mut row, 2, [7].into_iter());
        assert!((row[0] - 1.0).abs() < 1e-6 && row[1].abs() < 1e-6, "{row:?}");
    }

    #[test]
    fn slots_and_rows_are_turned_back_by_their_own_positions() {
        let mut layer = toy();
        layer.turns = vec![0.5, 0.0];
        layer.held[0] = vec![1, 3, 5];
        let angles = Angles::of(&layer);
        let key = plain_keys(&layer, &angles, 0, 1..3);
        // k_3 = (0, 0, 2, 0): pair (0, 2) = (0, 2) turned back by 1.5
        let expected = [2.0 * 1.5f32.sin(), 0.0, 2.0 * 1.5f32.cos(), 0.0];
        assert!(key[..4].iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-6), "{key:?}");
        assert_eq!(plain_queries(&layer, &angles, 0, 0..1), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_mean_rotation_averages_rotations() {
        let mean = mean_rotation(&[0.3, 0.0], 5, 4);
        let x = [1.0, -2.0, 0.5, 4.0];
        for i in 0..4 {
            let (a, b) = (x[i % 2], x[i % 2 + 2]);
            let turn = |p: u32| {
                let angle: f64 = if i % 2 == 0 { (p as f32 * 0.3) as f64 } else { 0.0 };
                if i < 2 { a * angle.cos() - b * angle.sin() } else { b * angle.cos() + a * angle.sin() }
            };
            let expected = (5..9).map(turn).sum::<f64>() / 4.0;
            assert!((rotated(&mean, i, |j| x[j]) - expected).abs() < 1e-9);
        }
    }
}
