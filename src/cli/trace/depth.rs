//! `depth.share` and, of models that mix depth, `depth.weight` [targets, sources, P]: see [`crate::probe::depth`].

use rayon::prelude::*;

use super::output::Output;
use crate::engine::Core;
use crate::engine::depth::Points;

/// Of the `rows` of the last pass, whose first is at position `first`.
pub fn write(core: &Core, rows: usize, positions: usize, first: usize, out: &mut Output) {
    let sources = core.depth_sources();
    let (targets, across) = (sources.origins.len(), sources.across());
    let points = Points::new(core, rows);
    let mixed = core.mixes_depth();
    let columns = |name: &str, target: usize, of_row: &(dyn Fn(usize) -> Vec<f32> + Sync), out: &mut Output| {
        let all: Vec<Vec<f32>> = (0..rows).into_par_iter().map(of_row).collect();
        for source in 0..all.first().map_or(0, Vec::len) {
            let column: Vec<f32> = all.iter().map(|row| row[source]).collect();
            out.floats(name, (target * across + source) * positions + first, &column);
        }
    };
    for target in 0..targets {
        columns("depth.share", target, &|row| points.shares(target, row), out);
        if mixed {
            columns("depth.weight", target, &|row| points.weights(target, row), out);
        }
    }
}
