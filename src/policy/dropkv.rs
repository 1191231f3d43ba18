//! DropKV: the exact change of the output if one entry goes (proposed for NVIDIA kvpress, issues 284 and 285).
//!
//! Score of entry t, per query head: Σ over the last w queries i of (p/(1 − p))² · ‖v_t − o_i‖₂², p = A[i, t],
//! o_i = Σ_t A[i, t]·v_t: removing t alone moves o_i by p/(1 − p)·(o_i − v_t). 1 − p is at least 1e-6. Mean over
//! the query heads of a kv head. Nothing is protected. Scores are comparable across heads; they do not add up when
//! several entries go. Once, after the prompt. Window as for SnapKV, our choice.

use linkme::distributed_slice;
use rayon::prelude::*;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family};
use super::key::{Auto, Count, Key};
use super::part::{LayerView, Moment, Part, Scorer, Scores, group_mean};
use super::product::Matrix;
use super::quadratic::{dot, wide};
use super::registry::REGISTERED;
use super::snapkv::{AUTO, voters};

static WINDOW: Key<Auto<Count>> =
    Key::new("window", "last prompt queries whose output is compared", Auto(Count(1, 1_000_000), AUTO), None);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "dropkv",
    family: Family::Scorer,
    idea: "keep entries without which the last queries' output would change most",
    paper: None,
    budget: Some(Amount::percent(50)),
    keys: &[&WINDOW],
    build: |spec| Part::scorer(DropKv { window: spec.get(&WINDOW).map(|w| w as usize) }),
};

struct DropKv {
    window: Option<usize>,
}

impl Scorer for DropKv {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        voters(self.window, prompt)
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let (dim, end, group) = (view.head_dim(), view.newest() + 1, view.group());
        let from = end.saturating_sub(self.window(at.prompt) as u32);
        let values: Vec<Vec<f64>> = (0..view.kv_heads()).map(|kv_head| wide(&view.values(kv_head))).collect();
        let rows: Vec<Vec<f32>> = (0..view.kv_heads() * view.group()).map(|head| view.rows(head, from..end)).collect();
        let one = |(head, rows): (usize, &Vec<f32>)| changes(rows, &values[head / group], dim);
        let changes: Vec<Vec<f32>> = rows.par_iter().enumerate().map(one).collect();
        let change = group_mean(view, |head| changes[head].clone());
        Some(Scores::free(change))
    }
}

/// Σ over rows of (p/(1 − p))²·‖v − o‖² of each entry: probabilities `rows` [w, n] over `values` [n, dim] → [n].
fn changes(rows: &[f32], values: &[f64], dim: usize) -> Vec<f32> {
    let n = values.len() / dim;
    let rows = wide(rows);
    let outputs = Matrix::of(&rows, n).times(Matrix::of(values, dim));
    // ‖v − o‖² = ‖v‖² − 2v·o + ‖o‖², in f64: where v is near o, most of it cancels
    let products = Matrix::of(&outputs, dim).times(Matrix::of(values, dim).turned());
    let squares = |x: &[f64]| x.chunks_exact(dim).map(|x| dot(x, x)).collect::<Vec<_>>();
    let (of_outputs, of_values) = (squares(&outputs), squares(values));
    let mut sums = vec![0.0f64; n];
    for ((row, products), output) in rows.chunks_exact(n.max(1)).zip(products.chunks_exact(n.max(1))).zip(of_outputs) {
        for (((sum, p), product), value) in sums.iter_mut().zip(row).zip(products).zip(&of_values) {
            let odds = p / (1.0 - p).max(1e-6);
            *sum += odds * odds * (value - 2.0 * product + output).max(0.0);
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, score, toy};

    #[test]
    fn the_last_row_of_the_toy() {
        // head 0 alone
        let mut layer = toy();
        layer.group = 1;
        let expected = [0.051689, 0.026846, 0.288592, 0.045796, 0.529704, 0.037928];
        close(&score("dropkv@3:window=1", &layer).values[0], &expected);
        assert_eq!(after_prompt("dropkv@2:window=1", &layer), [[2, 4]]);
    }

    #[test]
    fn a_score_is_the_squared_change_of_the_output() {
        let layer = toy();
        let output = |row: &[f32]| -> Vec<f32> {
            let mass: f32 = row.iter().sum();
            (0..4)
                .map(|c| row.iter().enumerate().map(|(t, a)| a * layer.values[0][t * 4 + c]).sum::<f32>() / mass)
                .collect()
        };
        let change = |head: usize, t: usize| -> f32 {
            let rows = layer.attention[head].chunks(6).skip(3);
            let without = |row: &[f32]| {
                let mut left = row.to_vec();
                left[t] = 0.0;
                output(row).iter().zip(output(&left)).map(|(a, b)| (a - b).powi(2)).sum::<f32>()
            };
            rows.map(without).sum()
        };
        let expected: Vec<f32> = (0..6).map(|t| (change(0, t) + change(1, t)) / 2.0).collect();
        close(&score("dropkv@3:window=3", &layer).values[0], &expected);
    }
}
