//! CurDKV: approximate leverage of keys and values (Sengupta et al. 2025, arXiv 2509.15038).
//!
//! Score of entry t, per kv head: κ_t·ν_t with κ_t = ‖k_t‖²/Σ‖k‖², the sum over the `window` neighbouring entries
//! that t lies among (windows start at 0, 16, …; 0 = over all), ν_t the same of values; divided by the sum over t.
//! `of` takes one of the two or their mean instead. The first `sinks` positions stay. Once, after the prompt.
//! This is kvpress' default path; its random projection, which is closer to the authors' code, is not here.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key};
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::registry::REGISTERED;

static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 4);
static WINDOW: Key<Count> =
    Key::new("window", "neighbours that an entry is compared with; 0 = all", Count(0, 1_000_000), 16);
static OF: Key<Choice<Of>> = Key::new(
    "of",
    "whose leverage counts",
    Choice(&[("product", Of::Product), ("mean", Of::Mean), ("key", Of::Key), ("value", Of::Value)]),
    Of::Product,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "cur",
    family: Family::Scorer,
    idea: "keep entries whose key and value are large among their neighbours",
    paper: Some(Paper {
        title: "Value-Guided KV Compression for LLMs via Approximated CUR Decomposition",
        arxiv: "2509.15038",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&SINKS, &WINDOW, &OF],
    build: |spec| {
        Part::scorer(Cur { sinks: spec.get(&SINKS) as usize, window: spec.get(&WINDOW) as usize, of: spec.get(&OF) })
    },
};

struct Cur {
    sinks: usize,
    window: usize,
    of: Of,
}

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Product,
    Mean,
    Key,
    Value,
}

impl Scorer for Cur {
    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let head = |kv_head| {
            let keys = self.share(&view.keys(kv_head), view.head_dim());
            let values = self.share(&view.values(kv_head), view.head_dim());
            let combine = |(k, v)| match self.of {
                Of::Product => k * v,
                Of::Mean => (k + v) / 2.0,
                Of::Key => k,
                Of::Value => v,
            };
            let scores: Vec<f64> = keys.into_iter().zip(values).map(combine).collect();
            let sum: f64 = scores.iter().sum();
            scores.iter().map(|score| share(*score, sum) as f32).collect()
        };
        Some(Scores::free((0..view.kv_heads()).map(head).collect()).keep_first(self.sinks, view))
    }
}

impl Cur {
    /// ‖x_t‖² as a share of its window's sum, rows x [n, dim] → [n].
    fn share(&self, rows: &[f32], dim: usize) -> Vec<f64> {
        let square = |row: &[f32]| row.iter().map(|&x| x as f64 * x as f64).sum();
        let squares: Vec<f64> = rows.chunks_exact(dim).map(square).collect();
        let window = if self.window == 0 { squares.len().max(1) } else { self.window };
        let shares = |window: &[f64]| {
            let sum = window.iter().sum();
            window.iter().map(|x| share(*x, sum)).collect::<Vec<_>>()
        };
        squares.chunks(window).flat_map(shares).collect()
    }
}

/// Nothing has no share of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, score, toy};

    #[test]
    fn shares_of_the_toy() {
        // ‖k‖² 1 .5 1 4 1 .3, ‖v‖² 5 1 9 4 4 .25
        let keys = [1.0 / 2.5, 0.5 / 2.5, 1.0 / 2.5, 4.0 / 5.3, 1.0 / 5.3, 0.3 / 5.3];
        close(&score("cur@3:of=key,window=3", &toy()).values[0], &keys.map(|k: f32| k / 2.0));
        let values = [5.0, 1.0, 9.0, 4.0, 4.0, 0.25f32].map(|v| v / 23.25);
        close(&score("cur@3:of=value,window=0", &toy()).values[0], &values);
        let product = [5.0, 0.5, 9.0, 16.0, 4.0, 0.075f32].map(|x| x / 34.575);
        close(&score("cur@3", &toy()).values[0], &product);
    }

    #[test]
    fn sinks_stay() {
        assert_eq!(after_prompt("cur@3", &toy()), [[1, 2, 3]]);
        assert_eq!(after_prompt("cur@3:sinks=0", &toy()), [[0, 2, 3]]);
        assert_eq!(after_prompt("cur@3:sinks=2", &toy()), [[0, 1, 3]]);
    }

    #[test]
    fn windows_of_zeros_score_nothing() {
        let mut layer = toy();
        layer.values[0].fill(0.0);
        assert_eq!(score("cur@3", &layer).values[0], [0.0; 6]);
    }
}
