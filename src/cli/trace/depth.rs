//! `depth.share` [targets, sources, P]: see [`crate::probe::depth`].

use rayon::prelude::*;

use super::output::Output;
use crate::probe::depth::shares;

/// `points`: each [rows, d]; the rows are the positions from `first` on.
pub fn write(points: &[&[f32]], dim: usize, positions: usize, first: usize, out: &mut Output) {
    let count = points.len();
    let rows = points.first().map_or(0, |point| point.len() / dim);
    // [rows][targets · sources]
    let mut all = vec![0.0f32; rows * count * count];
    all.par_chunks_mut(count * count).enumerate().for_each(|(row, shares_of_row)| {
        let stream: Vec<f32> = points.iter().flat_map(|point| &point[row * dim..(row + 1) * dim]).copied().collect();
        shares(&stream, dim, shares_of_row);
    });
    let mut column = vec![0.0f32; rows];
    for cell in 0..count * count {
        column.iter_mut().enumerate().for_each(|(row, c)| *c = all[row * count * count + cell]);
        out.floats("depth.share", cell * positions + first, &column);
    }
}
